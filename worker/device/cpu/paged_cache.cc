#include "worker/device/cpu/paged_cache.h"

#include <algorithm>
#include <cmath>

#include "worker/checkpoint/element.h"
#include "worker/device/cpu/vector_loops.h"

namespace behemoth::worker::cpu {
namespace {

size_t LayerElements(const BackendSpec& spec) {
  return size_t{2} * spec.kv_heads * kTokensPerBlock * spec.head_dim;
}

size_t ElementBytes(const BackendSpec& spec) { return spec.kv_type == KvType::kBfloat16 ? 2 : 4; }

}  // namespace

uint64_t PagedCache::BlockBytes(const BackendSpec& spec) {
  return LayerElements(spec) * spec.layers * ElementBytes(spec);
}

PagedCache::PagedCache(const BackendSpec& spec)
    : layers_(spec.layers),
      heads_(spec.attention_heads),
      kv_heads_(spec.kv_heads),
      head_dim_(spec.head_dim),
      context_(spec.limits.context_tokens),
      narrow_(spec.kv_type == KvType::kBfloat16),
      layer_elements_(LayerElements(spec)),
      scratch_floats_(static_cast<size_t>(heads_ / kv_heads_) * context_ + head_dim_) {
  const size_t elements = layer_elements_ * layers_ * static_cast<size_t>(spec.limits.blocks);
  if (narrow_) {
    narrow_elements_.resize(elements);
  } else {
    wide_elements_.resize(elements);
  }
  scratch_.resize(scratch_floats_ * static_cast<size_t>(std::max(1, spec.threads)));
}

// Blocks of one id lie together, layer after layer, so that a copy is one range.
size_t PagedCache::Offset(int32_t layer, bool value, int32_t kv_head, BlockId block,
                          int32_t slot) const {
  const size_t start = (static_cast<size_t>(block) * layers_ + layer) * layer_elements_;
  const size_t head = (value ? kv_heads_ : 0) + kv_head;
  return start + (head * kTokensPerBlock + slot) * head_dim_;
}

void PagedCache::Copy(BlockId from, BlockId to) {
  const size_t count = layer_elements_ * layers_;
  const auto copy = [&](auto& elements) {
    std::copy_n(elements.begin() + static_cast<ptrdiff_t>(static_cast<size_t>(from) * count), count,
                elements.begin() + static_cast<ptrdiff_t>(static_cast<size_t>(to) * count));
  };
  narrow_ ? copy(narrow_elements_) : copy(wide_elements_);
}

void PagedCache::Store(int32_t layer, const TokenPlace& place, const float* k, const float* v) {
  const BlockId block = place.blocks[place.position / kTokensPerBlock];
  const int32_t slot = place.position % kTokensPerBlock;
  for (const bool value : {false, true}) {
    for (int32_t head = 0; head < kv_heads_; ++head) {
      const float* from = (value ? v : k) + static_cast<size_t>(head) * head_dim_;
      const size_t to = Offset(layer, value, head, block, slot);
      if (narrow_) {
        for (int32_t d = 0; d < head_dim_; ++d) {
          narrow_elements_[to + d] = Bfloat16FromFloat(from[d]);
        }
      } else {
        std::copy_n(from, head_dim_, wide_elements_.begin() + static_cast<ptrdiff_t>(to));
      }
    }
  }
}

const float* PagedCache::Row(int32_t layer, bool value, int32_t kv_head, const TokenPlace& place,
                             int32_t position, float* scratch) const {
  const size_t at = Offset(layer, value, kv_head, place.blocks[position / kTokensPerBlock],
                           position % kTokensPerBlock);
  if (!narrow_) return wide_elements_.data() + at;
  WidenBfloat16(narrow_elements_.data() + at, head_dim_, scratch);
  return scratch;
}

// The query heads that share one kv head: each key and value row is read once for all of them.
void PagedCache::AttendGroup(int32_t layer, int32_t kv_head, const TokenPlace& place,
                             const float* q, float* out, float* scratch) const {
  const int32_t group = heads_ / kv_heads_;
  const int32_t length = place.position + 1;
  const float scale = 1.0f / std::sqrt(static_cast<float>(head_dim_));
  float* row_scratch = scratch + static_cast<size_t>(group) * context_;
  for (int32_t p = 0; p < length; ++p) {
    const float* k = Row(layer, false, kv_head, place, p, row_scratch);
    for (int32_t h = 0; h < group; ++h) {
      scratch[static_cast<size_t>(h) * context_ + p] =
          Dot(q + static_cast<size_t>(h) * head_dim_, k, head_dim_) * scale;
    }
  }
  for (int32_t h = 0; h < group; ++h) {
    float* scores = scratch + static_cast<size_t>(h) * context_;
    const float largest = *std::max_element(scores, scores + length);
    double sum = 0;
    for (int32_t p = 0; p < length; ++p) {
      scores[p] = std::exp(scores[p] - largest);
      sum += scores[p];
    }
    const float inverse = static_cast<float>(1.0 / sum);
    for (int32_t p = 0; p < length; ++p) scores[p] *= inverse;
  }
  std::fill_n(out, static_cast<size_t>(group) * head_dim_, 0.0f);
  for (int32_t p = 0; p < length; ++p) {
    const float* v = Row(layer, true, kv_head, place, p, row_scratch);
    for (int32_t h = 0; h < group; ++h) {
      AddScaled(scratch[static_cast<size_t>(h) * context_ + p], v, head_dim_,
                out + static_cast<size_t>(h) * head_dim_);
    }
  }
}

void PagedCache::Attend(ThreadTeam& team, int32_t layer, const std::vector<TokenPlace>& places,
                        const float* qkv, float* out) {
  const int64_t qkv_width = int64_t{heads_ + 2 * kv_heads_} * head_dim_;
  const int64_t out_width = int64_t{heads_} * head_dim_;
  const int64_t group_width = out_width / kv_heads_;
  team.Run(static_cast<int32_t>(places.size()) * kv_heads_, [&](int32_t thread, int32_t begin,
                                                                int32_t end) {
    float* scratch = scratch_.data() + static_cast<size_t>(thread) * scratch_floats_;
    for (int32_t item = begin; item < end; ++item) {
      const int64_t token = item / kv_heads_;
      const int32_t kv_head = item % kv_heads_;
      AttendGroup(layer, kv_head, places[token], qkv + token * qkv_width + kv_head * group_width,
                  out + token * out_width + kv_head * group_width, scratch);
    }
  });
}

}  // namespace behemoth::worker::cpu
