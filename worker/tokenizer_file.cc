#include "worker/tokenizer_file.h"

#include <absl/strings/str_cat.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "proto/support/fingerprint.h"

namespace behemoth::worker {
namespace {

// The tokenizer service's own limit: what it refuses to read is nobody's tokenizer.
constexpr uintmax_t kMaxFileBytes = 256u << 20;

}  // namespace

absl::StatusOr<std::string> TokenizerFingerprint(const std::string& folder) {
  for (const char* name : {"tokenizer.json", "tokenizer.model"}) {
    const std::filesystem::path path = std::filesystem::path(folder) / name;
    std::error_code error;
    if (!std::filesystem::exists(path, error)) continue;
    const bool readable = std::filesystem::is_regular_file(path, error) &&
                          std::filesystem::file_size(path, error) <= kMaxFileBytes;
    std::ifstream file(path, std::ios::binary);
    if (!readable || !file) {
      return absl::InvalidArgumentError(
          absl::StrCat(name, ": not a readable file of at most 256 MiB"));
    }
    return support::Fingerprint(
        std::string{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()});
  }
  return "";
}

}  // namespace behemoth::worker
