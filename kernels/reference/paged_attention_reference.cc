#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/paged_attention/e4m3.h"
#include "kernels/paged_attention/paged_attention.h"

namespace behemoth::kernels::reference {
namespace {

float KvValue(const PagedAttentionArgs& args, int row, int part, int head, int token, int dim) {
  const KvShape& shape = args.shape.kv;
  const int block = args.block_table[row * args.block_table_stride + token / kTokensPerBlock];
  const auto* at = static_cast<const uint8_t*>(args.kv) +
                   KvByteOffset(shape, block, part, head, token % kTokensPerBlock, dim);
  if (shape.type == KvType::kE4m3) return E4m3ToFloat(*at);
  bf16 value;
  std::memcpy(&value, at, sizeof(value));
  return ToFloat(value);
}

void Query(const PagedAttentionArgs& args, int row, int token, int visible, int head) {
  const int dims = args.shape.kv.head_dim, kv_head = head / args.shape.group();
  const double k_scale = args.k_scale == nullptr ? 1.0 : args.k_scale[kv_head];
  const double v_scale = args.v_scale == nullptr ? 1.0 : args.v_scale[kv_head];
  const size_t width = static_cast<size_t>(args.shape.q_heads) * static_cast<size_t>(dims);
  const size_t column = static_cast<size_t>(head) * static_cast<size_t>(dims);
  const bf16* q = args.q + static_cast<size_t>(token) * width + column;
  std::vector<double> score(static_cast<size_t>(visible));
  double top = -INFINITY, sum = 0;
  for (int j = 0; j < visible; ++j) {
    double dot = 0;
    for (int d = 0; d < dims; ++d) {
      dot += static_cast<double>(ToFloat(q[d])) * KvValue(args, row, 0, kv_head, j, d);
    }
    score[static_cast<size_t>(j)] = dot * args.softmax_scale * k_scale;
    top = std::max(top, score[static_cast<size_t>(j)]);
  }
  for (double& s : score) sum += s = std::exp(s - top);
  for (int d = 0; d < dims; ++d) {
    double out = 0;
    for (int j = 0; j < visible; ++j) {
      out += score[static_cast<size_t>(j)] * KvValue(args, row, 1, kv_head, j, d);
    }
    const bf16 rounded = ToBf16(visible == 0 ? 0.0f : static_cast<float>(out / sum * v_scale));
    const size_t at = column + static_cast<size_t>(d);
    if (args.out != nullptr) args.out[static_cast<size_t>(token) * width + at] = rounded;
    if (args.out_packed != nullptr) {
      const size_t piece =
          at / 8 * static_cast<size_t>(args.packed_rows) + static_cast<size_t>(token);
      args.out_packed[piece * 8 + at % 8] = rounded;
    }
  }
}

}  // namespace

void PagedAttention(const PagedAttentionArgs& args) {
  for (int row = 0; row < args.rows; ++row) {
    const int kv_len = std::min(args.kv_len[row], args.block_table_stride * kTokensPerBlock);
    if (kv_len <= 0) continue;
    const int begin = args.q_start == nullptr ? row : args.q_start[row];
    const int end = args.q_start == nullptr ? row + 1 : args.q_start[row + 1];
    for (int token = begin; token < end; ++token) {
      const int visible = std::max(0, kv_len - (end - 1 - token));
      for (int head = 0; head < args.shape.q_heads; ++head) Query(args, row, token, visible, head);
    }
  }
}

}  // namespace behemoth::kernels::reference
