// One .safetensors file: a header that nobody vouches for, and the bytes of its tensors.
//
// The header is checked whole before any byte of data is touched: size cap, JSON grammar, known
// dtypes, shapes whose product does not overflow and equals the byte range, ranges that cover the
// data exactly (no overlap, no hole), no duplicate name, data as long as the file. Data is copied,
// never cast: the format does not promise alignment.
// Format: u64 little endian header length, JSON header, data
// (https://github.com/huggingface/safetensors#format).
//
// Thread-safe after opening. Errors: INVALID_ARGUMENT "<file>: <tensor>: <what>".
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "worker/checkpoint/stored.h"

namespace behemoth::worker {

constexpr uint64_t kMaxHeaderBytes = 100u << 20;  // the format's own cap
constexpr size_t kMaxTensorDims = 8;

// `dtype` as written: "BF16", "I32", ...
struct TensorEntry {
  std::string dtype;
  std::vector<int64_t> shape;
  uint64_t begin = 0;  // bytes, relative to the data
  uint64_t end = 0;
  uint64_t bytes() const { return end - begin; }
};

using TensorTable = std::map<std::string, TensorEntry, std::less<>>;

// 0 if the dtype is unknown.
int32_t BytesPerDtype(std::string_view dtype);

// "[512, 64]", for messages.
std::string ShapeText(const std::vector<int64_t>& shape);

// `header` is the JSON alone; `data_bytes` what follows it in the file. `file` is for messages.
absl::StatusOr<TensorTable> ParseSafetensorsHeader(const std::string& file, std::string_view header,
                                                   uint64_t data_bytes);

class SafetensorsFile {
 public:
  // `path` must be a regular file whose real path lies in `root`'s: a link out of the model folder
  // is refused.
  static absl::StatusOr<SafetensorsFile> Open(const std::string& root, const std::string& name);

  const std::string& name() const { return file_->name(); }
  const TensorTable& tensors() const { return tensors_; }
  // Fills `out` from the tensor's bytes [offset, offset + out.size()), which must lie in it.
  absl::Status Read(const TensorEntry& entry, uint64_t offset, std::span<uint8_t> out) const;
  // The tensor's bytes, left in the file; they outlive this.
  StoredBytes BytesOf(const TensorEntry& entry) const {
    return StoredBytes(file_, data_start_ + entry.begin, entry.bytes());
  }

 private:
  SafetensorsFile() = default;
  std::shared_ptr<const OpenFile> file_;
  uint64_t data_start_ = 0;
  TensorTable tensors_;
};

}  // namespace behemoth::worker
