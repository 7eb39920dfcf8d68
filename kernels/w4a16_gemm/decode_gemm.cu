// The decode GEMM's door, and the families fed by bulk copies.
#include "kernels/w4a16_gemm/async_family.h"
#include "kernels/w4a16_gemm/decode_gemm_kernel.cuh"

namespace behemoth::kernels {
namespace {

template <WeightKind kKind, int kRows>
KernelError LaunchBulk(const DecodeGemmConfig& config, const DecodeGemmArgs& args,
                       const LaunchContext& context) {
  return LaunchVariant<Variant<kKind, kRows, GemmFamily::kBulk, 8>>(config, args, context);
}

template <WeightKind kKind>
KernelError LaunchBulkKind(const DecodeGemmConfig& config, const DecodeGemmArgs& args,
                           const LaunchContext& context) {
  switch (config.padded_rows) {
    case 8:
      return LaunchBulk<kKind, 8>(config, args, context);
    case 16:
      return LaunchBulk<kKind, 16>(config, args, context);
    case 32:
      return LaunchBulk<kKind, 32>(config, args, context);
    case 64:
      return LaunchBulk<kKind, 64>(config, args, context);
    default:
      return {kInvalidArgument, "LaunchDecodeGemm: padded_rows of kBulk is not 8, 16, 32 or 64"};
  }
}

template <WeightKind kKind, int kRows>
KernelError LaunchWgmma(const DecodeGemmConfig& config, const DecodeGemmArgs& args,
                        const LaunchContext& context) {
  // Two m-tiles a warp share the tokens they read; at 64 rows wgmma has less to gain from that than
  // 16 warps have from hiding each other's dequantisation (36.2 against 36.7 ms a step on an H200).
  constexpr int kWarps = kRows == 64 ? 16 : 8;
  return LaunchVariant<Variant<kKind, kRows, GemmFamily::kWgmma, kWarps>>(config, args, context);
}

template <WeightKind kKind>
KernelError LaunchWgmmaKind(const DecodeGemmConfig& config, const DecodeGemmArgs& args,
                            const LaunchContext& context) {
  switch (config.padded_rows) {
    case 16:
      return LaunchWgmma<kKind, 16>(config, args, context);
    case 32:
      return LaunchWgmma<kKind, 32>(config, args, context);
    case 64:
      return LaunchWgmma<kKind, 64>(config, args, context);
    case 80:
      return LaunchWgmma<kKind, 80>(config, args, context);
    case 96:
      return LaunchWgmma<kKind, 96>(config, args, context);
    case 128:
      return LaunchWgmma<kKind, 128>(config, args, context);
    default:
      return {kInvalidArgument,
              "LaunchDecodeGemm: padded_rows of kWgmma is not 16, 32, 64, 80, 96 or 128"};
  }
}

}  // namespace

KernelError LaunchDecodeGemm(const DecodeGemmConfig& config, WeightKind weight,
                             const DecodeGemmArgs& given, const LaunchContext& context) {
  DecodeGemmArgs args = given;
  if (args.act_rows == 0) args.act_rows = config.padded_rows;
  if (args.m < 1 || args.m > args.act_rows) {
    return {kInvalidArgument, "LaunchDecodeGemm: m is not in 1..padded_rows"};
  }
  if (args.first_row < 0 || args.first_row + config.padded_rows > args.act_rows) {
    return {kInvalidArgument, "LaunchDecodeGemm: the window leaves the batch"};
  }
  if (args.epilogue == GemmEpilogue::kAddResidual && args.residual == nullptr) {
    return {kInvalidArgument, "LaunchDecodeGemm: no residual to add"};
  }
  if (config.family == GemmFamily::kAsync) {
    return LaunchDecodeGemmAsync(config, weight, args, context);
  }
  return LaunchForKind(weight, [&](auto kind) {
    return config.family == GemmFamily::kWgmma
               ? LaunchWgmmaKind<decltype(kind)::value>(config, args, context)
               : LaunchBulkKind<decltype(kind)::value>(config, args, context);
  });
}

}  // namespace behemoth::kernels
