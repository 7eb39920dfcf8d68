// A projection on its way from the checkpoint's values to the kernels' packing: what is staged on
// the device, and how.
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/common/bf16.h"
#include "kernels/w4a16_gemm/packed_layout.h"
#include "worker/checkpoint/linear_weights.h"
#include "worker/device/cuda/host_upload.h"
#include "worker/device/cuda/memory.h"

struct CUstream_st;

namespace behemoth::worker::cuda {

// The group that the int4 kernels use for a checkpoint's groups of `group_size` inputs: 32, 64 or
// 128 (larger groups repeat their scale); 0 = they have none for it.
int32_t KernelGroup(int32_t group_size, int32_t in);
kernels::WeightKind Int4Kind(int32_t kernel_group, bool zero_points);

class LinearSource {
 public:
  // Before all else: random weights that the device cannot make in place are made on the host.
  static absl::Status Prepare(std::vector<LinearWeights>& parts);
  // Places of all parts' values in staging memory.
  static LinearSource Take(Arena& arena, const std::vector<LinearWeights>& parts);

  kernels::WeightKind kind() const { return kind_; }
  int32_t n() const { return n_; }
  int32_t k() const { return k_; }
  // [k], or empty: input c of the packed matrix is input permutation[c] of the model. It lies in
  // the parts.
  std::span<const int32_t> permutation() const { return permutation_; }

  // Starts the upload of the values into the staging memory; all are on `stream`, which is
  // `upload`'s, when the returned ticket is joined. `parts` may go when this returns.
  absl::StatusOr<UploadTicket> Upload(std::vector<LinearWeights>& parts, HostUpload& upload,
                                      CUstream_st* stream) const;
  // Enqueues the packing into `packed`, which reads the staging memory.
  absl::Status Pack(bool interleave, void* packed, CUstream_st* stream) const;

 private:
  absl::StatusOr<UploadTicket> UploadInt4(const std::vector<LinearWeights>& parts,
                                          HostUpload& upload, CUstream_st* stream) const;
  // The part's values from its seed, straight on the device.
  absl::Status MakeRandom(const LinearWeights& part, int64_t first_row, CUstream_st* stream) const;
  absl::StatusOr<UploadTicket> UploadDense(std::vector<LinearWeights>& parts,
                                           HostUpload& upload) const;

  kernels::WeightKind kind_ = kernels::WeightKind::kBf16;
  int32_t n_ = 0, k_ = 0;
  int32_t group_ = 0;  // of the kernels; 0 = dense
  std::span<const int32_t> permutation_;
  uint32_t* nibbles_ = nullptr;      // [n, k / 8]
  kernels::bf16* scales_ = nullptr;  // [n, k / group]
  uint8_t* zeros_ = nullptr;         // [n, k / group] or null
  kernels::bf16* dense_ = nullptr;   // [n, k]
};

}  // namespace behemoth::worker::cuda
