// The decode GEMM's instances that multiply with wgmma.
#include "kernels/w4a16_gemm/decode_gemm_kernel.cuh"
#include "kernels/w4a16_gemm/families.h"

namespace behemoth::kernels {

KernelError LaunchDecodeGemmWgmma(const DecodeGemmConfig& config, WeightKind weight,
                                  const DecodeGemmArgs& args, const LaunchContext& context) {
  return LaunchRows<GemmFamily::kWgmma, 16, 32, 64, 80, 96, 128>(config, weight, args, context);
}

}  // namespace behemoth::kernels
