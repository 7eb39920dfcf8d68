// The decode GEMM's instances that bulk copies feed.
#include "kernels/w4a16_gemm/decode_gemm_kernel.cuh"
#include "kernels/w4a16_gemm/families.h"

namespace behemoth::kernels {

KernelError LaunchDecodeGemmBulk(const DecodeGemmConfig& config, WeightKind weight,
                                 const DecodeGemmArgs& args, const LaunchContext& context) {
  return LaunchRows<GemmFamily::kBulk, 8, 16, 32, 64>(config, weight, args, context);
}

}  // namespace behemoth::kernels
