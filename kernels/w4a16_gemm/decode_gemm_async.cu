// The decode GEMM's instances for every device.
#include "kernels/w4a16_gemm/decode_gemm_kernel.cuh"
#include "kernels/w4a16_gemm/families.h"

namespace behemoth::kernels {

KernelError LaunchDecodeGemmAsync(const DecodeGemmConfig& config, WeightKind weight,
                                  const DecodeGemmArgs& args, const LaunchContext& context) {
  return LaunchRows<GemmFamily::kAsync, 8, 16, 32, 64, 128>(config, weight, args, context);
}

}  // namespace behemoth::kernels
