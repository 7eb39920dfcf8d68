#include "gateway/text/stop_matcher.h"

#include <algorithm>
#include <utility>

namespace behemoth::gateway {

StopSet::StopSet(std::span<const std::string> stops) : stops_(stops.begin(), stops.end()) {
  nodes_.emplace_back();
  for (size_t stop = 0; stop < stops_.size(); ++stop) {
    uint32_t node = 0;
    for (const char c : stops_[stop]) {
      const auto byte = static_cast<uint8_t>(c);
      auto& next = nodes_[node].next;
      const auto at = std::lower_bound(next.begin(), next.end(), std::pair{byte, uint32_t{0}});
      if (at != next.end() && at->first == byte) {
        node = at->second;
        continue;
      }
      const auto made = static_cast<uint32_t>(nodes_.size());
      next.insert(at, {byte, made});
      const uint32_t depth = nodes_[node].depth + 1;
      nodes_.emplace_back().depth = depth;
      node = made;
    }
    if (nodes_[node].stop < 0 && node != 0) nodes_[node].stop = static_cast<int32_t>(stop);
  }
  // Breadth first, so that a node's fail link is complete before its children ask for it.
  std::vector<uint32_t> order = {0};
  for (size_t i = 0; i < order.size(); ++i) {
    const uint32_t node = order[i];
    for (const auto& [byte, child] : nodes_[node].next) {
      order.push_back(child);
      if (node != 0) nodes_[child].fail = Step(nodes_[node].fail, byte);
      if (nodes_[child].stop < 0) nodes_[child].stop = nodes_[nodes_[child].fail].stop;
    }
  }
}

uint32_t StopSet::Step(uint32_t node, uint8_t byte) const {
  while (true) {
    const auto& next = nodes_[node].next;
    const auto at = std::lower_bound(next.begin(), next.end(), std::pair{byte, uint32_t{0}});
    if (at != next.end() && at->first == byte) return at->second;
    if (node == 0) return 0;
    node = nodes_[node].fail;
  }
}

StopMatcher::StopMatcher(std::shared_ptr<const StopSet> stops) : stops_(std::move(stops)) {}

bool StopMatcher::Push(std::string_view text, std::string& out) {
  if (done_) return true;
  if (stops_ == nullptr || stops_->empty()) {
    out += text;
    return false;
  }
  // Nothing of held_ is given out while the loop runs: offsets stay valid and the cost linear.
  for (const char c : text) {
    held_.push_back(c);
    node_ = stops_->Step(node_, static_cast<uint8_t>(c));
    const StopSet::Node& node = stops_->nodes_[node_];
    if (node.stop >= 0) {
      const size_t begin = held_.size() - stops_->text(node.stop).size();
      if (!match_ || begin < match_begin_) {
        match_ = static_cast<size_t>(node.stop);
        match_begin_ = begin;
      }
    }
    // node_ is the longest end of the text that begins a stop. Once it begins no earlier than the
    // match, no stop can begin before the match any more.
    if (match_ && held_.size() - node.depth >= match_begin_) return Finish(out);
  }
  const size_t undecided = stops_->nodes_[node_].depth;
  const size_t sure =
      match_ ? std::min(match_begin_, held_.size() - undecided) : held_.size() - undecided;
  out.append(held_, 0, sure);
  held_.erase(0, sure);
  match_begin_ -= match_ ? sure : 0;
  return false;
}

bool StopMatcher::Flush(std::string& out) {
  if (done_ || match_) return Finish(out);
  out += held_;
  held_.clear();
  node_ = 0;
  return false;
}

bool StopMatcher::Finish(std::string& out) {
  if (done_) return true;
  out.append(held_, 0, match_begin_);
  held_.clear();
  done_ = true;
  return true;
}

}  // namespace behemoth::gateway
