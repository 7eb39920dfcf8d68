#include "kernels/w4a16_gemm/decode_gemm.h"

#include "kernels/w4a16_gemm/families.h"

namespace behemoth::kernels {

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
  switch (config.family) {
    case GemmFamily::kAsync:
      return LaunchDecodeGemmAsync(config, weight, args, context);
    case GemmFamily::kBulk:
      return LaunchDecodeGemmBulk(config, weight, args, context);
    case GemmFamily::kWgmma:
      return LaunchDecodeGemmWgmma(config, weight, args, context);
  }
  return {kInvalidArgument, "LaunchDecodeGemm: unknown family"};
}

}  // namespace behemoth::kernels
