// The KV blocks of all layers on the CPU, and attention over them.
//
// One block of one layer is k [kv_heads, kTokensPerBlock, head_dim], then v of the same shape, in
// float or bf16. A sequence's position p lies in block table[p / kTokensPerBlock].
#pragma once

#include <cstdint>
#include <vector>

#include "worker/device/backend.h"
#include "worker/device/cpu/thread_team.h"

namespace behemoth::worker::cpu {

constexpr int32_t kTokensPerBlock = 64;

// Where one token of a step is.
struct TokenPlace {
  int32_t position;
  const BlockId* blocks;  // its row's table
};

class PagedCache {
 public:
  explicit PagedCache(const BackendSpec& spec);

  static uint64_t BlockBytes(const BackendSpec& spec);

  void Copy(BlockId from, BlockId to);
  // k and v of one token: [kv_heads, head_dim] each.
  void Store(int32_t layer, const TokenPlace& place, const float* k, const float* v);
  // qkv [tokens, (heads + 2 kv_heads) head_dim] -> out [tokens, heads head_dim]. Every token
  // attends to positions 0..its own, in order of position: a token's bits do not depend on its
  // chunk.
  void Attend(ThreadTeam& team, int32_t layer, const std::vector<TokenPlace>& places,
              const float* qkv, float* out);

 private:
  // Of one key or value head's row, as floats.
  const float* Row(int32_t layer, bool value, int32_t kv_head, const TokenPlace& place,
                   int32_t position, float* scratch) const;
  size_t Offset(int32_t layer, bool value, int32_t kv_head, BlockId block, int32_t slot) const;
  void AttendGroup(int32_t layer, int32_t kv_head, const TokenPlace& place, const float* q,
                   float* out, float* scratch) const;

  const int32_t layers_, heads_, kv_heads_, head_dim_, context_;
  const bool narrow_;            // bf16
  const size_t layer_elements_;  // one block of one layer
  std::vector<float> wide_elements_;
  std::vector<uint16_t> narrow_elements_;
  size_t scratch_floats_;  // per thread: scores [heads / kv_heads, context], one row
  std::vector<float> scratch_;
};

}  // namespace behemoth::worker::cpu
