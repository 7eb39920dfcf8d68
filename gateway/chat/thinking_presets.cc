#include "gateway/chat/thinking_presets.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "gateway/api/api_error.h"
#include "gateway/api/json_document.h"

namespace behemoth::gateway {
namespace {

using json = Json;

constexpr size_t kMaxPresets = 256;
constexpr size_t kMaxNameBytes = 64;
constexpr size_t kMaxTextBytes = 65536;  // as thinking.prefill in a request

// The model card's, word for word (spec api.md 1).
constexpr std::pair<const char*, const char*> kShipped[] = {
    {"analytical",
     "Ok i need to think about how to respond \u2014 what does the character feel right now, what "
     "from their experience is relevant, what do they value, and what are they trying to achieve, "
     "so"},
    {"creative",
     "Ok i need to think as a creative writer \u2014 what twist would surprise here? Let me find "
     "an engaging new direction nobody saw coming, so"},
    {"unhinged",
     "Ok i need to think as an unhinged author \u2014 raw, explicit, intense, fully in character "
     "with no holding back, so"},
};

absl::StatusOr<ThinkingPreset> Read(const std::string& at, const json& name, const json& text) {
  if (!name.is_string()) return InvalidField(at + ".name", "must be a string");
  if (!text.is_string()) return InvalidField(at + ".text", "must be a string");
  ThinkingPreset preset{.name = name.get<std::string>(), .text = text.get<std::string>()};
  if (preset.name.empty() || preset.name.size() > kMaxNameBytes) {
    return InvalidField(at + ".name", absl::StrCat("must have 1 to ", kMaxNameBytes, " bytes"));
  }
  if (preset.text.empty() || preset.text.size() > kMaxTextBytes) {
    return InvalidField(at + ".text", absl::StrCat("must have 1 to ", kMaxTextBytes, " bytes"));
  }
  return preset;
}

absl::StatusOr<std::vector<ThinkingPreset>> ReadAll(const json& root) {
  std::vector<ThinkingPreset> presets;
  const auto add = [&presets](absl::StatusOr<ThinkingPreset> preset) {
    if (preset.ok()) presets.push_back(*std::move(preset));
    return preset.status();
  };
  const auto list = root.find("presets");
  if (list == root.end() || !list->is_array()) {
    for (const auto& [name, text] : root.items()) {
      const std::string at = name.substr(0, kMaxNameBytes);
      if (const auto status = add(Read(at, name, text)); !status.ok()) return status;
    }
    return presets;
  }
  for (size_t i = 0; i < list->size(); ++i) {
    const json& entry = (*list)[i];
    const std::string at = absl::StrCat("presets[", i, "]");
    if (!entry.is_object()) return InvalidField(at, "must be an object of name and text");
    const json missing;
    const auto field = [&](const char* key) -> const json& {
      const auto found = entry.find(key);
      return found == entry.end() ? missing : *found;
    };
    if (const auto status = add(Read(at, field("name"), field("text"))); !status.ok()) {
      return status;
    }
  }
  return presets;
}

}  // namespace

ThinkingPresets::ThinkingPresets() {
  for (const auto& [name, text] : kShipped) presets_.push_back({.name = name, .text = text});
}

absl::StatusOr<ThinkingPresets> ThinkingPresets::FromJson(std::string_view text) {
  const auto root = ReadJsonObject(text);
  if (!root.ok()) return root.status();
  auto read = ReadAll(*root);
  if (!read.ok()) return read.status();
  ThinkingPresets presets;
  for (ThinkingPreset& preset : *read) {
    const auto same =
        std::find_if(presets.presets_.begin(), presets.presets_.end(),
                     [&](const ThinkingPreset& known) { return known.name == preset.name; });
    if (same != presets.presets_.end()) {
      *same = std::move(preset);
    } else if (presets.presets_.size() >= kMaxPresets) {
      return InvalidField("presets", absl::StrCat("at most ", kMaxPresets, " presets"));
    } else {
      presets.presets_.push_back(std::move(preset));
    }
  }
  return presets;
}

absl::Status ThinkingPresets::Apply(ChatRequest& request) const {
  if (!request.thinking) return absl::OkStatus();
  std::string phrase;
  if (request.thinking->prefill) {
    phrase = *request.thinking->prefill;
  } else if (request.thinking->preset) {
    const auto found = std::find_if(presets_.begin(), presets_.end(), [&](const auto& preset) {
      return preset.name == *request.thinking->preset;
    });
    if (found == presets_.end()) {
      const auto name = [](std::string* out, const ThinkingPreset& preset) {
        out->append(preset.name);
      };
      return InvalidField("thinking.preset", absl::StrCat("is unknown; this server has: ",
                                                          absl::StrJoin(presets_, ", ", name)));
    }
    phrase = found->text;
  } else {
    return absl::OkStatus();
  }
  ChatPrompt& prompt = request.prompt;
  if (!prompt.messages.empty() && prompt.messages.back().role == "assistant") {
    return InvalidField("thinking",
                        "appends the assistant's prefill, but the last message already is the "
                        "assistant's");
  }
  prompt.messages.push_back(
      {.role = "assistant", .content = absl::StrCat("<think>\n", phrase, "\n")});
  prompt.continue_final_message = true;
  prompt.add_generation_prompt = false;
  return absl::OkStatus();
}

std::string ThinkingPresets::ToJson() const {
  json list = json::array();
  for (const ThinkingPreset& preset : presets_) {
    list.push_back({{"name", preset.name}, {"text", preset.text}});
  }
  return json{{"object", "list"}, {"data", std::move(list)}}.dump();
}

}  // namespace behemoth::gateway
