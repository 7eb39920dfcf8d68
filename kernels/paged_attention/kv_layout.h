// The bytes of a KV pool: written by fused/rope_kv_write, read by paged_attention, opaque to the
// rest.
//
// One pool per layer: [block][2 (0 = keys, 1 = values)][kv_head][64 tokens][head_dim]. The 64 rows
// of one (block, part, head) are a *tile*: contiguous, 16 KB at head_dim 128 in bf16, one bulk
// copy. A tile lies in panels of 128 bytes a row (head_dim 128 in bf16: two panels of 8 KB, else
// one), and in a panel the 16-byte pieces of a row are permuted by the row's number ("swizzled at
// rest"). So a plain linear copy into shared memory already is what the tensor cores want: eight
// consecutive rows put equal columns into eight different bank groups (ldmatrix without conflicts),
// and a panel is exactly wgmma's 128-byte swizzle (PTX ISA, "Strides": B128), keys K-major, values
// MN-major. Whole blocks may be copied or moved as bytes; a single token is addressed through
// KvByteOffset.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/common/bf16.h"

namespace behemoth::kernels {

inline constexpr int kTokensPerBlock = 64;

enum class KvType : uint8_t {
  kBf16,
  kE4m3,  // OCP 8-bit float: 4 exponent bits, 3 mantissa bits, largest value 448, no infinity
};

struct KvShape {
  int kv_heads = 0;
  int head_dim = 0;  // 64 or 128
  KvType type = KvType::kBf16;
};

BEHEMOTH_HOST_DEVICE constexpr int KvElementBytes(KvType type) {
  return type == KvType::kBf16 ? 2 : 1;
}
BEHEMOTH_HOST_DEVICE constexpr int KvRowBytes(const KvShape& shape) {
  return shape.head_dim * KvElementBytes(shape.type);
}
BEHEMOTH_HOST_DEVICE constexpr int KvTileBytes(const KvShape& shape) {
  return kTokensPerBlock * KvRowBytes(shape);
}
BEHEMOTH_HOST_DEVICE constexpr size_t KvBlockBytes(const KvShape& shape) {
  return size_t{2} * static_cast<size_t>(shape.kv_heads) * static_cast<size_t>(KvTileBytes(shape));
}

inline constexpr int kPanelRowBytes = 128;
inline constexpr int kPanelBytes = kTokensPerBlock * kPanelRowBytes;

// Where byte `byte` of row `token` lies in its tile. A row of 64 bytes shares its 128-byte bank
// line with its neighbour, so there the pair of rows chooses the permutation.
BEHEMOTH_HOST_DEVICE constexpr int SwizzledTileOffset(int row_bytes, int token, int byte) {
  const int pitch = row_bytes < kPanelRowBytes ? row_bytes : kPanelRowBytes;
  const int permutation = row_bytes < kPanelRowBytes ? (token >> 1) & 3 : token & 7;
  const int piece = (byte % kPanelRowBytes) >> 4;
  return byte / kPanelRowBytes * kPanelBytes + token * pitch + ((piece ^ permutation) << 4) +
         (byte & 15);
}

// Byte offset in a layer's pool. part: 0 = key, 1 = value; token: 0..63 within the block.
BEHEMOTH_HOST_DEVICE constexpr size_t KvByteOffset(const KvShape& shape, int block, int part,
                                                   int head, int token, int dim) {
  const size_t tile = static_cast<size_t>(part * shape.kv_heads + head);
  return static_cast<size_t>(block) * KvBlockBytes(shape) +
         tile * static_cast<size_t>(KvTileBytes(shape)) +
         static_cast<size_t>(
             SwizzledTileOffset(KvRowBytes(shape), token, dim * KvElementBytes(shape.type)));
}

}  // namespace behemoth::kernels
