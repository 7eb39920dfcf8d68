// The family kAsync behind LaunchDecodeGemm, which has checked the arguments and set act_rows.
#pragma once

#include "kernels/w4a16_gemm/decode_gemm.h"

namespace behemoth::kernels {

KernelError LaunchDecodeGemmAsync(const DecodeGemmConfig& config, WeightKind weight,
                                  const DecodeGemmArgs& args, const LaunchContext& context);

}  // namespace behemoth::kernels
