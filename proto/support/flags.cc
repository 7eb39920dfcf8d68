#include "proto/support/flags.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <string_view>
#include <vector>

#include "proto/support/health_check.h"
#include "proto/support/version.h"

namespace behemoth::support {
namespace {

constexpr std::string_view kPrefix = "BEHEMOTH_";

void DashesFor(std::string& text, size_t end) {
  std::replace(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(end), '_', '-');
}

// "max-num-seqs" -> "BEHEMOTH_MAX_NUM_SEQS".
std::string EnvironmentName(std::string_view flag) {
  std::string name(kPrefix);
  for (const char c : flag) {
    name += c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  }
  return name;
}

// Configuration files may spell keys with underscores, as command lines may.
class UnderscoreConfig : public CLI::ConfigTOML {
 public:
  std::vector<CLI::ConfigItem> from_config(std::istream& input) const override {
    auto items = CLI::ConfigTOML::from_config(input);
    for (auto& item : items) DashesFor(item.name, item.name.size());
    return items;
  }
};

std::map<std::string, std::string> Environment() {
  std::map<std::string, std::string> values;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text(*entry);
    const size_t equals = text.find('=');
    if (!text.starts_with(kPrefix) || equals == text.npos || equals + 1 == text.size()) continue;
    values.emplace(text.substr(0, equals), text.substr(equals + 1));
  }
  return values;
}

// What a process is asked to do instead of serving: no setting.
bool IsCommand(std::string_view flag) {
  return flag == "help" || flag == "version" || flag == "print-config" || flag == "check-health";
}

// The target of --check-health, which needs no other flag: found before they are judged.
std::optional<std::string> HealthTarget(const std::vector<std::string>& arguments) {
  constexpr std::string_view kFlag = "--check-health";
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (arguments[i] == kFlag && i + 1 < arguments.size()) return arguments[i + 1];
    if (arguments[i].starts_with(std::string(kFlag) + "=")) {
      return arguments[i].substr(kFlag.size() + 1);
    }
  }
  return std::nullopt;
}

bool Given(const std::vector<std::string>& arguments, const std::string& flag) {
  return std::any_of(arguments.begin(), arguments.end(), [&](const std::string& argument) {
    return argument == "--" + flag || argument.starts_with("--" + flag + "=");
  });
}

// CLI11 would let the file win over the environment; as arguments, variables win over the file.
void AddEnvironment(CLI::App& app, std::vector<std::string>& arguments) {
  const auto environment = Environment();
  for (CLI::Option* option : app.get_options()) {
    if (option->get_lnames().empty()) continue;
    const std::string flag = option->get_lnames().front();
    if (IsCommand(flag)) continue;
    const std::string name = EnvironmentName(flag);
    option->description(option->get_description() + " [" + name + "]");
    const auto found = environment.find(name);
    if (found != environment.end() && !Given(arguments, flag)) {
      arguments.push_back("--" + flag + "=" + found->second);
    }
  }
}

}  // namespace

Flags::Flags(std::string process, std::string description)
    : process_(std::move(process)),
      app_(std::make_unique<CLI::App>(std::move(description), process_)) {
  app_->set_version_flag("--version", process_ + " " + Version() + " (" + Commit() + ")");
  app_->config_formatter(std::make_shared<UnderscoreConfig>());
  app_->allow_config_extras(CLI::config_extras_mode::error);
  app_->set_config("--config", "", "TOML or INI file; its keys are the flags' names");
  app_->add_option("--log-level", log_level_, "trace, debug, info, warn or error")
      ->check(CLI::IsMember({"trace", "debug", "info", "warn", "error"}))
      ->capture_default_str();
  app_->add_flag("--print-config", print_config_, "Print every setting and its value, and end");
  app_->add_option(
      "--check-health", check_health_,
      "Ask HOST:PORT[/SERVICE] (gRPC health) or http://HOST:PORT/PATH, and end: 0 = well");
}

Flags::~Flags() = default;

std::optional<int> Flags::Parse(int argc, char** argv) {
  std::vector<std::string> arguments(argv + std::min(argc, 1), argv + argc);
  for (std::string& argument : arguments) {
    if (argument.starts_with("--"))
      DashesFor(argument, std::min(argument.find('='), argument.size()));
  }
  if (const auto target = HealthTarget(arguments)) {
    const absl::Status health = CheckHealth(*target);
    if (health.ok()) return 0;
    std::fprintf(stderr, "%s: %s\n", process_.c_str(), std::string(health.message()).c_str());
    return absl::IsInvalidArgument(health) ? 2 : 1;
  }
  AddEnvironment(*app_, arguments);
  std::reverse(arguments.begin(), arguments.end());  // CLI11 takes them as a stack
  try {
    app_->parse(std::move(arguments));
  } catch (const CLI::CallForHelp&) {
    std::printf("%s", app_->help().c_str());
    return 0;
  } catch (const CLI::CallForVersion& version) {
    std::printf("%s\n", version.what());
    return 0;
  } catch (const CLI::Error& error) {
    std::fprintf(stderr, "%s: %s\n", process_.c_str(), error.what());
    return 2;
  }
  if (!print_config_) return std::nullopt;
  for (const auto& [name, value] : Settings()) {
    std::printf("%s = \"%s\"\n", name.c_str(), value.c_str());
  }
  return 0;
}

std::vector<std::pair<std::string, std::string>> Flags::Settings() const {
  std::vector<std::pair<std::string, std::string>> settings;
  for (const CLI::Option* option : app_->get_options()) {
    if (option->get_lnames().empty()) continue;
    const std::string flag = option->get_lnames().front();
    if (IsCommand(flag)) continue;
    std::string value = option->get_default_str();
    if (option->count() > 0) {
      value.clear();
      for (const std::string& result : option->results())
        value += (value.empty() ? "" : ",") + result;
    }
    if (flag.find("key") != flag.npos && !value.empty()) value = "***";
    settings.emplace_back(flag, value);
  }
  return settings;
}

std::string Flags::Summary() const {
  std::string summary;
  for (const auto& [name, value] : Settings()) {
    summary += (summary.empty() ? "" : " ") + name + "=" + value;
  }
  return summary;
}

}  // namespace behemoth::support
