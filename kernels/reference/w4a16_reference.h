// The slow, obvious version of the decode GEMM, on the checkpoint's own layout: the tests' oracle.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/w4a16_gemm/repack.h"

namespace behemoth::kernels {

// The weights as a reference implementation dequantises them: (q - zero) * scale rounded once to
// bf16. [n, k] row-major, source row order.
std::vector<float> DequantiseReference(const Int4Source& source);

// sum[r, j] = act[r, :] . weight[j, :] in double, and magnitude[r, j] = the sum of |act * weight|,
// which scales the bound on what fp32 accumulation in any order may lose. act [m, k], weight [n,
// k].
struct ReferenceProduct {
  std::vector<double> sum;
  std::vector<double> magnitude;
};
ReferenceProduct MultiplyReference(const std::vector<float>& act, const std::vector<float>& weight,
                                   int m, int n, int k);

}  // namespace behemoth::kernels
