// Named thinking prefills: three shipped (the model card's), more from the operator's file.
// Immutable after Load; thread-safe.
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "gateway/api/chat_request.h"

namespace behemoth::gateway {

struct ThinkingPreset {
  std::string name;
  std::string text;  // the phrase, without "<think>"
};

class ThinkingPresets {
 public:
  ThinkingPresets();  // analytical, creative, unhinged

  // {"presets": [{"name", "text"}]} or {"name": "text"}: adds to the shipped ones, replaces a
  // shipped one of the same name. INVALID_ARGUMENT names file position and field.
  static absl::StatusOr<ThinkingPresets> FromJson(std::string_view json);

  std::span<const ThinkingPreset> all() const { return presets_; }

  // Appends the assistant prefill "<think>\n" + phrase + "\n" where `request.thinking` asks for one
  // and sets continue_final_message. INVALID_ARGUMENT: an unknown name, with the list of known
  // ones; the last message already is the assistant's.
  absl::Status Apply(ChatRequest& request) const;

  // The body of GET /v1/thinking/presets: {"object": "list", "data": [{"name", "text"}]}.
  std::string ToJson() const;

 private:
  std::vector<ThinkingPreset> presets_;
};

}  // namespace behemoth::gateway
