#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/fused/fused.h"
#include "kernels/paged_attention/e4m3.h"

namespace behemoth::kernels::reference {
namespace {

void Store(const RowOutput& out, int row, int column, int width, bf16 value) {
  if (out.plain != nullptr)
    out.plain[static_cast<size_t>(row) * static_cast<size_t>(width) + static_cast<size_t>(column)] =
        value;
  if (out.packed != nullptr) {
    const size_t piece = static_cast<size_t>(column / 8) * static_cast<size_t>(out.packed_rows) +
                         static_cast<size_t>(row);
    out.packed[piece * 8 + static_cast<size_t>(column % 8)] = value;
  }
}

void StoreKv(const RopeKvWriteArgs& args, int block, int token, int part, int head, int dim,
             float value) {
  auto* at =
      static_cast<uint8_t*>(args.kv) + KvByteOffset(args.shape, block, part, head, token, dim);
  if (args.shape.type == KvType::kE4m3) {
    const float* scale = part == 0 ? args.k_scale : args.v_scale;
    *at = FloatToE4m3(value * (scale == nullptr ? 1.0f : 1.0f / scale[head]));
  } else {
    const bf16 rounded = ToBf16(value);
    std::memcpy(at, &rounded, sizeof(rounded));
  }
}

}  // namespace

void Embedding(const EmbeddingArgs& args) {
  for (int row = 0; row < args.rows; ++row) {
    int id = args.token_ids[row];
    if (id < 0 && args.slot != nullptr) id = args.slot_token[args.slot[row]];
    const size_t width = static_cast<size_t>(args.hidden);
    bf16* to = args.out + static_cast<size_t>(row) * width;
    if (id >= 0 && id < args.vocabulary) {
      const int rows = args.spread_rows > 0 ? args.spread_rows : args.vocabulary;
      const bf16* table = args.spread_rows > 0 ? args.spread[id / rows] : args.table;
      std::copy_n(table + static_cast<size_t>(id % rows) * width, width, to);
    } else {
      std::fill_n(to, width, bf16{0});
    }
  }
}

void AddRows(const AddRowsArgs& args) {
  const size_t count = static_cast<size_t>(args.rows) * static_cast<size_t>(args.hidden);
  for (size_t i = 0; i < count; ++i) {
    args.residual[i] = ToBf16(ToFloat(args.residual[i]) + ToFloat(args.delta[i]));
  }
}

void RmsNorm(const RmsNormArgs& args) {
  for (int row = 0; row < args.rows; ++row) {
    const size_t first = static_cast<size_t>(row) * static_cast<size_t>(args.hidden);
    double sum = 0;
    for (int i = 0; i < args.hidden; ++i) {
      const size_t at = first + static_cast<size_t>(i);
      if (args.delta != nullptr) {
        args.residual[at] = ToBf16(ToFloat(args.residual[at]) + ToFloat(args.delta[at]));
      }
      const double x = ToFloat(args.residual[at]);
      sum += x * x;
    }
    const double factor = 1.0 / std::sqrt(sum / args.hidden + static_cast<double>(args.epsilon));
    for (int i = 0; i < args.hidden; ++i) {
      const double x = ToFloat(args.residual[first + static_cast<size_t>(i)]);
      const float normal = ToFloat(ToBf16(static_cast<float>(x * factor)));
      Store(args.out, row, i, args.hidden, ToBf16(ToFloat(args.gamma[i]) * normal));
    }
  }
}

void RopeKvWrite(const RopeKvWriteArgs& args) {
  const int dims = args.shape.head_dim, half = dims / 2, kv_heads = args.shape.kv_heads;
  const int heads = args.q_heads + 2 * kv_heads;
  for (int row = 0; row < args.rows; ++row) {
    const int position = args.position[row];
    if (position < 0) continue;
    const int line = args.table_row == nullptr ? row : args.table_row[row];
    const int entry = position / kTokensPerBlock, token = position % kTokensPerBlock;
    const bool has_block = entry < args.block_table_stride;
    const int block = has_block ? args.block_table[line * args.block_table_stride + entry] : 0;
    for (int head = 0; head < heads; ++head) {
      const bf16* in = args.qkv + (static_cast<size_t>(row) * static_cast<size_t>(heads) +
                                   static_cast<size_t>(head)) *
                                      static_cast<size_t>(dims);
      for (int i = 0; i < dims; ++i) {
        float value = ToFloat(in[i]);
        if (head < args.q_heads + kv_heads) {
          const float angle = static_cast<float>(position) * args.inverse_frequency[i % half];
          const float other = ToFloat(in[(i + half) % dims]) * (i < half ? -1.0f : 1.0f);
          value = value * std::cos(angle) + other * std::sin(angle);
        }
        if (head < args.q_heads) {
          const size_t at = static_cast<size_t>(row) * static_cast<size_t>(args.q_heads) +
                            static_cast<size_t>(head);
          args.q[at * static_cast<size_t>(dims) + static_cast<size_t>(i)] = ToBf16(value);
        } else if (has_block) {
          const int part = head < args.q_heads + kv_heads ? 0 : 1;
          StoreKv(args, block, token, part, head - args.q_heads - part * kv_heads, i, value);
        }
      }
    }
  }
}

void SiluMul(const SiluMulArgs& args) {
  for (int row = 0; row < args.rows; ++row) {
    const bf16* in = args.gate_up + static_cast<size_t>(row) * 2 * static_cast<size_t>(args.width);
    for (int i = 0; i < args.width; ++i) {
      const int at = i / args.run * 2 * args.run + i % args.run;
      const float gate = ToFloat(in[at]), up = ToFloat(in[at + args.run]);
      const float silu = ToFloat(ToBf16(gate / (1.0f + std::exp(-gate))));
      Store(args.out, row, i, args.width, ToBf16(silu * up));
    }
  }
}

void PermuteColumns(const PermuteColumnsArgs& args) {
  const size_t rows = static_cast<size_t>(args.packed_rows);
  const auto at = [&](int column, size_t row) {
    return (static_cast<size_t>(column / 8) * rows + row) * 8 + static_cast<size_t>(column % 8);
  };
  for (int column = 0; column < args.columns; ++column) {
    for (size_t row = 0; row < rows; ++row) {
      args.out[at(column, row)] = args.in[at(args.permutation[column], row)];
    }
  }
}

void KvBlockCopy(const KvBlockCopyArgs& args) {
  const size_t bytes = KvBlockBytes(args.shape);
  for (int layer = 0; layer < args.layers; ++layer) {
    char* pool = args.first_pool + layer * args.layer_stride_bytes;
    for (int pair = 0; pair < args.pairs; ++pair) {
      std::memcpy(pool + static_cast<size_t>(args.from_to[2 * pair + 1]) * bytes,
                  pool + static_cast<size_t>(args.from_to[2 * pair]) * bytes, bytes);
    }
  }
}

}  // namespace behemoth::kernels::reference
