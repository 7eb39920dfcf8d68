// The prefill GEMM's tiles for every device.
#include "kernels/w4a16_gemm/families.h"
#include "kernels/w4a16_gemm/prefill_gemm_kernel.cuh"

namespace behemoth::kernels {

KernelError LaunchPrefillGemmAsync(const PrefillGemmConfig& config, WeightKind weight,
                                   const DecodeGemmArgs& args, const LaunchContext& context) {
  if (config.tile_rows != kUnitRows) {
    return {kInvalidArgument, "LaunchPrefillGemm: tile_rows of kAsync is not 256"};
  }
  return LaunchForKind(weight, [&](auto kind) {
    using V = Variant<decltype(kind)::value, kPrefillTileTokens, GemmFamily::kAsync, kPrefillWarps>;
    return LaunchTiles<V>(config, args, context);
  });
}

}  // namespace behemoth::kernels
