#include "gateway/upstream/quarantine.h"

namespace behemoth::gateway {

bool Quarantine::Holds(uint64_t content, absl::Time now) const {
  const auto found = suspects_.find(content);
  return found != suspects_.end() && found->second.losses >= kLosses &&
         now - found->second.last_at < kMemory;
}

void Quarantine::OnLoss(uint64_t content, uint64_t life, absl::Time now) {
  if (content == 0) return;
  if (suspects_.size() >= kMaxSuspects) {
    absl::erase_if(suspects_, [now](const auto& s) { return now - s.second.last_at >= kMemory; });
    if (suspects_.size() >= kMaxSuspects && !suspects_.contains(content)) return;
  }
  Suspect& suspect = suspects_[content];
  if (now - suspect.last_at >= kMemory) suspect = {};
  if (suspect.losses == 0 || suspect.last_life != life) ++suspect.losses;
  suspect.last_life = life;
  suspect.last_at = now;
}

}  // namespace behemoth::gateway
