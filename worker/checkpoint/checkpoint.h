// A Hugging Face model folder: its safetensors files and what they hold.
//
// Reads model.safetensors.index.json, else model.safetensors, else *.safetensors. An index names
// plain files of the folder; every tensor it lists must be in the file it says, and no name may
// occur in two files.
// Thread-compatible. Life: opened (all headers checked), then read tensor by tensor.
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "worker/checkpoint/quantization_config.h"
#include "worker/checkpoint/safetensors.h"
#include "worker/checkpoint/weight_source.h"

namespace behemoth::worker {

class Checkpoint : public WeightSource {
 public:
  static absl::StatusOr<Checkpoint> Open(const std::string& folder, QuantizationConfig scheme);

  absl::StatusOr<DenseMatrix> ReadDense(const std::string& name, int32_t rows,
                                        int32_t cols) override;
  absl::StatusOr<LinearWeights> ReadLinear(const std::string& module, int32_t out,
                                           int32_t in) override;
  absl::StatusOr<bool> ShareInputOrder(const std::vector<std::string>& modules,
                                       int32_t in) override;
  absl::StatusOr<std::vector<float>> ReadKvScale(const std::string& name,
                                                 int32_t kv_heads) override;

  // ---- What the format readers ask ----
  bool Has(const std::string& name) const { return places_.contains(name); }
  // The bytes, left in their file. INVALID_ARGUMENT if missing or not of one of `dtypes` (a list
  // like "BF16|F16") and `shape`.
  absl::StatusOr<StoredBytes> Find(const std::string& name, const char* dtypes,
                                   const std::vector<int64_t>& shape) const;
  // The same as elements, in memory.
  template <typename T>
  absl::StatusOr<Stored<T>> Read(const std::string& name, const char* dtypes,
                                 const std::vector<int64_t>& shape) const {
    absl::StatusOr<StoredBytes> bytes = Find(name, dtypes, shape);
    if (!bytes.ok()) return bytes.status();
    if (absl::Status loaded = bytes->Load(); !loaded.ok()) return loaded;
    return Stored<T>(*std::move(bytes));
  }
  // A matrix of bf16, f16 or f32, left in its file.
  absl::StatusOr<DenseMatrix> FindMatrix(const std::string& name,
                                         const std::vector<int64_t>& shape) const;
  absl::StatusOr<std::string> DtypeOf(const std::string& name) const;
  // Refuses any tensor "module.x" whose x is not in `known`: a part of a format that is not served
  // must not be skipped in silence.
  absl::Status OnlyHas(const std::string& module, const std::vector<std::string>& known) const;

  uint64_t tensor_bytes() const { return tensor_bytes_; }
  // 128 bits as hex: names, dtypes, shapes, and the first and last KiB of every tensor.
  absl::StatusOr<std::string> Fingerprint(const std::string& config_text) const;

 private:
  struct Place {
    size_t file;
    const TensorEntry* entry;
  };
  Checkpoint() = default;
  absl::Status AddFile(const std::string& folder, const std::string& name);
  absl::Status CheckIndex(const std::map<std::string, std::string>& file_of) const;
  absl::Status Bad(const std::string& tensor, const std::string& what) const;

  std::vector<SafetensorsFile> files_;
  std::map<std::string, Place, std::less<>> places_;
  uint64_t tensor_bytes_ = 0;
  QuantizationConfig scheme_;
};

}  // namespace behemoth::worker
