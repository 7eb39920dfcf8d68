// The projections of a model on the GPU: packed once, then multiplied with a step's activations.
//
// A projection is kept as int4 where all its parts are int4 with one group size and one order of
// inputs; else its weights are formed on the host, rounded once to bf16, and kept dense: right for
// any mix of formats, at four times the memory, which PlanLinear foresees. A row's bits are the
// same whatever the number of rows.
//
// Thread: as the backend.
#pragma once

#include <absl/status/statusor.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "kernels/common/device_limits.h"
#include "kernels/common/launch_context.h"
#include "kernels/w4a16_gemm/decode_gemm.h"
#include "kernels/w4a16_gemm/prefill_gemm.h"
#include "kernels/w4a16_gemm/repack.h"
#include "worker/device/cuda/host_upload.h"
#include "worker/device/cuda/linear_source.h"
#include "worker/device/cuda/memory.h"
#include "worker/device/cuda/stream_timer.h"
#include "worker/device/device.h"

namespace behemoth::worker::cuda {

// Rows that the activations of `rows` rows are padded to: what the GEMMs' tiles hold.
int32_t PaddedRows(int32_t rows);

// How a projection will be kept.
struct LinearPlan {
  kernels::WeightKind kind = kernels::WeightKind::kInt4;
  int32_t n = 0, k = 0;
  bool interleaved = false;  // gate and up
  bool gathers = false;      // act-order: inputs are taken in an order of the checkpoint's
  uint64_t bytes() const;
};

// INVALID_ARGUMENT naming the module and the dimension that no kernel has.
absl::StatusOr<LinearPlan> PlanLinear(const LinearShape& shape);

// Scratch that the products of one stream share.
struct GemmScratch {
  float* partials = nullptr;
  uint32_t* counters = nullptr;  // zero between launches
  size_t counters_bytes = 0;
  kernels::bf16* gathered = nullptr;  // null if no projection gathers

  // For products of up to `max_rows` rows. UNIMPLEMENTED naming the shape that this GPU's kernels
  // cannot compute.
  static absl::StatusOr<GemmScratch> Take(Arena& arena, const std::vector<LinearPlan>& plans,
                                          const kernels::DeviceLimits& limits, int32_t max_rows);
};

class LinearStore {
 public:
  // `weights` is cut up by Add; `scratch` serves every product. Both outlive this.
  LinearStore(const kernels::DeviceLimits& limits, Arena* weights, const GemmScratch& scratch)
      : limits_(limits), weights_(weights), scratch_(scratch) {}

  // Starts the upload of `parts` into `staging`, device memory of at least StagingBytes(parts), and
  // packs what was added before: so files are read while the device packs. `upload` is of `stream`.
  absl::StatusOr<LinearHandle> Add(std::vector<LinearWeights> parts, LinearUse use, void* staging,
                                   HostUpload& upload, CUstream_st* stream);
  // Enqueues the packing of what Add left: its staging memory may be uploaded to again.
  absl::Status PackPending(HostUpload& upload, CUstream_st* stream);
  // The device's, since the last call; waits for it.
  absl::Duration PackingTime() { return packing_time_.Total(); }
  // `table` [rows, cols] bf16 on the device, packed as a projection.
  absl::StatusOr<LinearHandle> AddTable(const kernels::bf16* table, int32_t rows, int32_t cols,
                                        CUstream_st* stream);
  static size_t StagingBytes(const std::vector<LinearWeights>& parts);

  struct Product {
    const void* act;  // packed for PaddedRows(rows)
    int32_t rows;
    void* out;
    kernels::GemmEpilogue epilogue;
    kernels::GemmOutput output;
  };
  // Enqueues one kernel, or two with act-order.
  kernels::KernelError Multiply(LinearHandle handle, const Product& product,
                                const kernels::LaunchContext& context) const;

 private:
  struct Packed {
    kernels::WeightKind kind;
    int32_t n, k;
    void* weight;
    const int32_t* permutation;  // [k] or null
  };
  // Uploaded, or on its way, and not packed yet.
  struct Pending {
    LinearSource source;
    bool interleave;
    void* packed;
    UploadTicket uploaded;
  };
  absl::StatusOr<LinearHandle> Keep(const Packed& packed);
  absl::StatusOr<void*> TakeWeight(kernels::WeightKind kind, int32_t n, int32_t k);
  kernels::KernelError LaunchGemm(const Packed& weight, const kernels::DecodeGemmArgs& args,
                                  const kernels::LaunchContext& context) const;

  const kernels::DeviceLimits limits_;
  Arena* const weights_;
  const GemmScratch scratch_;
  std::vector<Packed> linears_;
  std::optional<Pending> pending_;
  StreamTimer packing_time_;
};

}  // namespace behemoth::worker::cuda
