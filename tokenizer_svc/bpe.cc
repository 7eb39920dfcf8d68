#include "tokenizer_svc/bpe.h"

#include <algorithm>
#include <utility>

namespace behemoth::tokenizer {
namespace {

uint64_t Pair(uint32_t left, uint32_t right) { return uint64_t{left} << 32 | right; }

}  // namespace

// A token begins and ends with the symbols that its merges begin and end with: a leaf with itself,
// a joined one with whatever its halves do. Following the merges instead of the text keeps this
// true for any file; the loop ends when nothing is new (merges may be listed in any order).
Bpe::Bpe(const TokenizerSpec& spec) {
  joins_.reserve(spec.merges.size());
  for (uint32_t rank = 0; rank < spec.merges.size(); ++rank) {
    const Merge& merge = spec.merges[rank];
    joins_.insert_or_assign(Pair(merge.left, merge.right), Join{rank, merge.joined});
  }
  using Edges = std::vector<std::vector<uint32_t>>;
  Edges firsts(spec.tokens.size()), lasts(spec.tokens.size());
  for (uint32_t id = 0; id < spec.tokens.size(); ++id) firsts[id] = lasts[id] = {id};
  const auto absorb = [](std::vector<uint32_t>& into, const std::vector<uint32_t>& from) {
    const size_t before = into.size();
    for (const uint32_t id : from) {
      if (std::find(into.begin(), into.end(), id) == into.end()) into.push_back(id);
    }
    return into.size() != before;
  };
  // Only symbols that text can begin with matter: single characters and byte tokens.
  const auto is_leaf = [&](uint32_t id) {
    const std::string& token = spec.tokens[id];
    const auto continuation = [](char c) { return (static_cast<uint8_t>(c) & 0xC0) == 0x80; };
    return (!token.empty() && std::all_of(token.begin() + 1, token.end(), continuation)) ||
           ByteOfToken(token).has_value() || spec.unk_id == id;
  };
  for (uint32_t id = 0; id < spec.tokens.size(); ++id) {
    if (!is_leaf(id)) firsts[id] = lasts[id] = {};
  }
  for (bool changed = true; changed;) {
    changed = false;
    for (const Merge& merge : spec.merges) {
      if (merge.joined != merge.left) changed |= absorb(firsts[merge.joined], firsts[merge.left]);
      if (merge.joined != merge.right) changed |= absorb(lasts[merge.joined], lasts[merge.right]);
    }
  }
  for (const Merge& merge : spec.merges) {
    for (const uint32_t left : lasts[merge.left]) {
      for (const uint32_t right : firsts[merge.right]) bridges_.insert(Pair(left, right));
    }
  }
}

bool Bpe::IsBorder(uint32_t left, uint32_t right) const {
  return !bridges_.contains(Pair(left, right));
}

void Bpe::Encode(std::span<const uint32_t> symbols, Scratch& scratch,
                 std::vector<uint32_t>& out) const {
  size_t begin = 0;
  for (size_t i = 1; i <= symbols.size(); ++i) {
    if (i < symbols.size() && !IsBorder(symbols[i - 1], symbols[i])) continue;
    MergeRun(symbols.subspan(begin, i - begin), scratch, out);
    begin = i;
  }
}

void Bpe::Push(Scratch& scratch, int32_t position) const {
  if (position < 0) return;
  const auto& symbol = scratch.symbols_[position];
  if (symbol.next < 0) return;
  const auto found = joins_.find(Pair(symbol.id, scratch.symbols_[symbol.next].id));
  if (found == joins_.end()) return;
  scratch.heap_.push_back({found->second.rank, position, found->second.joined});
}

void Bpe::MergeRun(std::span<const uint32_t> run, Scratch& scratch,
                   std::vector<uint32_t>& out) const {
  if (run.size() == 1) {
    out.push_back(run[0]);
    return;
  }
  auto& symbols = scratch.symbols_;
  auto& heap = scratch.heap_;
  const auto later = [](const Scratch::Candidate& a, const Scratch::Candidate& b) {
    return std::pair(a.rank, a.position) > std::pair(b.rank, b.position);
  };
  symbols.clear();
  heap.clear();
  const auto count = static_cast<int32_t>(run.size());
  for (int32_t i = 0; i < count; ++i) {
    symbols.push_back({run[i], i - 1, i + 1 < count ? i + 1 : -1, true});
  }
  for (int32_t i = 0; i < count; ++i) Push(scratch, i);
  std::make_heap(heap.begin(), heap.end(), later);

  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), later);
    const Scratch::Candidate best = heap.back();
    heap.pop_back();
    auto& left = symbols[best.position];
    if (!left.alive || left.next < 0) continue;
    auto& right = symbols[left.next];
    // A candidate stays good as long as the pair now at its place gives the same token, even if it
    // is another pair: the reference decides so, and ids depend on it.
    const auto found = joins_.find(Pair(left.id, right.id));
    if (found == joins_.end() || found->second.joined != best.joined) continue;
    right.alive = false;
    left.id = best.joined;
    left.next = right.next;
    if (left.next >= 0) symbols[left.next].previous = best.position;
    for (const int32_t position : {left.previous, best.position}) {
      const size_t before = heap.size();
      Push(scratch, position);
      if (heap.size() != before) std::push_heap(heap.begin(), heap.end(), later);
    }
  }
  for (int32_t i = 0; i >= 0; i = symbols[i].next) out.push_back(symbols[i].id);
}

}  // namespace behemoth::tokenizer
