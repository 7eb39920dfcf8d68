// Command lines the same way in every process: flags, then BEHEMOTH_<FLAG> from the environment,
// then --config FILE (TOML or INI, keys = flag names), then the default.
//
//   support::Flags flags("behemoth-worker", "Serves one model.");
//   flags.app().add_option("--max-num-seqs", config.max_num_seqs, "...")->check(CLI::Range(1,
//   1024)); if (auto exit_code = flags.Parse(argc, argv)) return *exit_code;
//
// Parse gives every option its environment name ("--max-num-seqs" -> BEHEMOTH_MAX_NUM_SEQS), adds
// --config, --help, --version, --log-level, --print-config (every setting and its value, secrets
// hidden) and --check-health (asks a running process instead of being one). Underscore spellings of
// long flags are accepted
// (--max_num_seqs), as `vllm serve` does.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

// CLI11's headers cost as much to compile as all of ours: only files that declare flags see them.
namespace CLI {
class App;
}

namespace behemoth::support {

class Flags {
 public:
  Flags(std::string process, std::string description);
  ~Flags();

  CLI::App& app() { return *app_; }
  const std::string& log_level() const { return log_level_; }

  // nullopt = go on. 0 after --help, --version, --print-config or a --check-health that is well, 1
  // if it is not; 2 after an unknown flag or a bad value, with one line on stderr that names it.
  std::optional<int> Parse(int argc, char** argv);

  // Every option and its value, one "name=value" per element, secrets (names holding "key") as
  // "***": what a process prints once at start.
  std::string Summary() const;

 private:
  std::vector<std::pair<std::string, std::string>> Settings() const;

  std::string process_;
  std::string log_level_ = "info";
  std::string check_health_;
  bool print_config_ = false;
  std::unique_ptr<CLI::App> app_;
};

}  // namespace behemoth::support
