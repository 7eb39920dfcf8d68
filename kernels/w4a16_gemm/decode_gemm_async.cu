// The decode GEMM's instances for every device.
#include "kernels/w4a16_gemm/async_family.h"
#include "kernels/w4a16_gemm/decode_gemm_kernel.cuh"

namespace behemoth::kernels {
namespace {

template <WeightKind kKind, int kRows>
KernelError LaunchAsync(const DecodeGemmConfig& config, const DecodeGemmArgs& args,
                        const LaunchContext& context) {
  return LaunchVariant<Variant<kKind, kRows, GemmFamily::kAsync, 8>>(config, args, context);
}

template <WeightKind kKind>
KernelError LaunchAsyncKind(const DecodeGemmConfig& config, const DecodeGemmArgs& args,
                            const LaunchContext& context) {
  switch (config.padded_rows) {
    case 8:
      return LaunchAsync<kKind, 8>(config, args, context);
    case 16:
      return LaunchAsync<kKind, 16>(config, args, context);
    case 32:
      return LaunchAsync<kKind, 32>(config, args, context);
    case 64:
      return LaunchAsync<kKind, 64>(config, args, context);
    case 128:
      return LaunchAsync<kKind, 128>(config, args, context);
    default:
      return {kInvalidArgument,
              "LaunchDecodeGemm: padded_rows of kAsync is not 8, 16, 32, 64 or 128"};
  }
}

}  // namespace

KernelError LaunchDecodeGemmAsync(const DecodeGemmConfig& config, WeightKind weight,
                                  const DecodeGemmArgs& args, const LaunchContext& context) {
  return LaunchForKind(weight, [&](auto kind) {
    return LaunchAsyncKind<decltype(kind)::value>(config, args, context);
  });
}

}  // namespace behemoth::kernels
