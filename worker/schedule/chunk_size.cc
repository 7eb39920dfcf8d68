#include "worker/schedule/chunk_size.h"

#include <algorithm>
#include <limits>

namespace behemoth::worker {
namespace {

// Of Attended(). It weighs what is surprising about a step between the table and attention: behind
// 2,048 tokens of context both get half. Four times as much, and the table learns from long
// contexts what is attention's (seen in a simulation of an H100's times: every prompt slower than
// the last).
constexpr double kAttendedUnit = 1 << 18;
constexpr int32_t kShortChunk = 128;  // tokens
// An accident's share: a measurement moves the averages by at most this part of what was expected.
constexpr double kLargestSurprise = 0.25;
// The way up into what was never seen is thought to be so many times as steep as what was.
constexpr double kCaution = 2;

}  // namespace

ChunkSize::ChunkSize(int32_t max_tokens, int32_t multiple, absl::Duration target)
    : max_tokens_(max_tokens),
      multiple_(multiple),
      grain_(std::max(multiple, kSmallestGrain)),
      target_s_(absl::ToDoubleSeconds(target)),
      table_s_(static_cast<size_t>(Grains(max_tokens)) + 2) {}

int64_t ChunkSize::Attended(int32_t tokens, int32_t context) {
  return int64_t{std::max(tokens, kShortChunk)} * (context + tokens / 2);
}

int32_t ChunkSize::Tokens(int32_t decodes, int32_t context) const {
  const int32_t smallest = std::min(kSmallest, max_tokens_);
  if (target_s_ <= 0) {
    const int32_t whole = (decodes + max_tokens_) / multiple_ * multiple_ - decodes;
    return whole >= smallest ? std::min(whole, max_tokens_) : max_tokens_;
  }
  int32_t best = 0;
  for (int32_t grains = Grains(decodes + smallest); best < max_tokens_; ++grains) {
    const int32_t tokens = std::min(grains * grain_ - decodes, max_tokens_);
    const double base_s = Guess(Grains(decodes + tokens));
    if (base_s == 0) return std::max(best, std::min(kFirst, max_tokens_));
    const double attended = static_cast<double>(Attended(tokens, context)) / kAttendedUnit;
    const bool fits = base_s + attention_s_ * attended <= target_s_;
    if (fits || best == 0) best = tokens;
    if (!fits) break;
  }
  return best;
}

double ChunkSize::Guess(int32_t grains) const {
  const auto at = [this](int32_t i) { return table_s_[static_cast<size_t>(i)]; };
  if (at(grains) > 0) return at(grains);
  const int32_t end = static_cast<int32_t>(table_s_.size());
  int32_t below = grains - 1, above = grains + 1;
  while (below >= 0 && at(below) == 0) --below;
  while (above < end && at(above) == 0) ++above;
  if (below < 0) return above < end ? at(above) : 0;
  if (above < end) {
    const double slope = std::max(at(above) - at(below), 0.0) / (above - below);
    return at(below) + slope * (grains - below);
  }
  // Above all that was seen: with caution, and not far.
  int32_t lowest = 0, second = below - 1;
  while (at(lowest) == 0) ++lowest;
  if (lowest == below) return 0;
  while (at(second) == 0) --second;
  if (grains > below + std::max(1, below / 4)) return std::numeric_limits<double>::infinity();
  const double top = *std::max_element(table_s_.begin(), table_s_.end());
  const double slope =
      std::max((at(below) - at(second)) / (below - second), (top - at(lowest)) / (below - lowest));
  return top + kCaution * slope * (grains - below);
}

void ChunkSize::Observe(const Step& step, absl::Duration duration) {
  const double measured_s = absl::ToDoubleSeconds(duration);
  // A step of prompts alone has chunks of another size and so another price of attention.
  if (measured_s <= 0 || step.decodes == 0) return;
  const int32_t grains = step.prompt_tokens == 0 ? 0 : Grains(step.decodes + step.prompt_tokens);
  if (grains >= static_cast<int32_t>(table_s_.size())) return;
  double& entry_s = table_s_[static_cast<size_t>(grains)];
  const double attended = static_cast<double>(step.attended) / kAttendedUnit;
  if (entry_s == 0) {
    entry_s = std::max(measured_s - attention_s_ * attended, 0.1 * measured_s);
  } else {
    const double expected_s = entry_s + attention_s_ * attended;
    const double surprise_s = std::clamp(measured_s - expected_s, -kLargestSurprise * expected_s,
                                         kLargestSurprise * expected_s);
    // The least change of both that explains the surprise (normalised least mean squares).
    const double share_s = kGain * surprise_s / (1 + attended * attended);
    entry_s += share_s;
    attention_s_ = std::max(0.0, attention_s_ + share_s * attended);
  }
  if (grains > 0) Forget(grains);
}

void ChunkSize::Forget(int32_t seen) {
  if (++steps_ < kForgetAfter) return;
  steps_ = 0;
  for (size_t grains = static_cast<size_t>(seen) + 1; grains < table_s_.size(); ++grains) {
    table_s_[grains] *= 0.99;
  }
}

}  // namespace behemoth::worker
