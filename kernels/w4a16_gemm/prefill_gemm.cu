// The prefill GEMM's door, stripes, and the tiles of wgmma.
#include "kernels/w4a16_gemm/families.h"
#include "kernels/w4a16_gemm/prefill_gemm_kernel.cuh"

namespace behemoth::kernels {
namespace {

template <WeightKind kKind, int kParts>
using TileVariant = Variant<kKind, kPrefillTileTokens, GemmFamily::kWgmma, kPrefillWarps, kParts>;

// One launch of the decode GEMM for each window: the next one's weights are on their way while this
// one ends.
KernelError LaunchStripes(const PrefillGemmConfig& config, WeightKind weight, DecodeGemmArgs args,
                          LaunchContext context) {
  args.act_rows = config.padded_rows;
  const int window_rows = config.full_window.padded_rows;
  for (args.first_row = 0; args.first_row < args.m; args.first_row += window_rows) {
    const bool is_last = args.m - args.first_row <= window_rows;
    const KernelError error =
        LaunchDecodeGemm(is_last ? config.last_window : config.full_window, weight, args, context);
    if (!error.ok()) return error;
    context.overlap_predecessor = true;
  }
  return {};
}

}  // namespace

KernelError LaunchPrefillGemm(const PrefillGemmConfig& config, WeightKind weight,
                              const DecodeGemmArgs& args, const LaunchContext& context) {
  if (config.walk == PrefillWalk::kStripes) return LaunchStripes(config, weight, args, context);
  if (args.m < 1 || args.m > config.padded_rows) {
    return {kInvalidArgument, "LaunchPrefillGemm: m is not in 1..padded_rows"};
  }
  if (args.epilogue == GemmEpilogue::kAddResidual && args.residual == nullptr) {
    return {kInvalidArgument, "LaunchPrefillGemm: no residual to add"};
  }
  if (args.partials == nullptr) {
    return {kInvalidArgument, "LaunchPrefillGemm: no memory for partial sums"};
  }
  if (config.family == GemmFamily::kAsync) {
    return LaunchPrefillGemmAsync(config, weight, args, context);
  }
  return LaunchForKind(weight, [&](auto kind) {
    constexpr WeightKind kKind = decltype(kind)::value;
    return config.tile_rows == kUnitRows
               ? LaunchTiles<TileVariant<kKind, 1>>(config, args, context)
               : LaunchTiles<TileVariant<kKind, 2>>(config, args, context);
  });
}

}  // namespace behemoth::kernels
