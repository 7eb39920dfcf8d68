// The text side of a model folder as far as the worker looks at it: which tokenizer it was made
// for.
#pragma once

#include <absl/status/statusor.h>

#include <string>

namespace behemoth::worker {

// The fingerprint of the tokenizer file that the tokenizer service would read of this folder:
// tokenizer.json, else tokenizer.model. Empty if there is neither. INVALID_ARGUMENT naming the file
// if it cannot be read.
absl::StatusOr<std::string> TokenizerFingerprint(const std::string& folder);

}  // namespace behemoth::worker
