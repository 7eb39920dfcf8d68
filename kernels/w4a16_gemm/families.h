// The GEMM's families behind LaunchDecodeGemm and LaunchPrefillGemm (kTiles), which have checked
// the arguments and set act_rows: a file each, so that a build compiles them beside each other.
#pragma once

#include "kernels/w4a16_gemm/decode_gemm.h"
#include "kernels/w4a16_gemm/prefill_gemm.h"

namespace behemoth::kernels {

KernelError LaunchDecodeGemmAsync(const DecodeGemmConfig& config, WeightKind weight,
                                  const DecodeGemmArgs& args, const LaunchContext& context);
KernelError LaunchDecodeGemmBulk(const DecodeGemmConfig& config, WeightKind weight,
                                 const DecodeGemmArgs& args, const LaunchContext& context);
KernelError LaunchDecodeGemmWgmma(const DecodeGemmConfig& config, WeightKind weight,
                                  const DecodeGemmArgs& args, const LaunchContext& context);
KernelError LaunchPrefillGemmAsync(const PrefillGemmConfig& config, WeightKind weight,
                                   const DecodeGemmArgs& args, const LaunchContext& context);

}  // namespace behemoth::kernels
