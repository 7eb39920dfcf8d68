#include "worker/schedule/sequence.h"

#include <array>

#include "proto/support/check.h"

namespace behemoth::worker {
namespace {

using enum SequenceState;
constexpr size_t kStates = 7;

// kNext[from][to], in the order of the enum.
constexpr std::array<std::array<bool, kStates>, kStates> kNext = {{
    // waiting prefilling decoding preempted finished cancelled failed
    {false, true, false, false, true, true, true},      // waiting; finished: by the token of a
                                                        // step in flight when it was preempted
    {false, false, true, true, true, true, true},       // prefilling; finished: forced tokens
    {false, false, false, true, true, true, true},      // decoding
    {true, false, false, false, false, true, true},     // preempted
    {true, false, false, false, false, false, false},   // finished; waiting: by a rewind
    {false, false, false, false, false, false, false},  // cancelled
    {false, false, false, false, false, false, false},  // failed
}};

}  // namespace

bool MayFollow(SequenceState from, SequenceState to) {
  return kNext[static_cast<size_t>(from)][static_cast<size_t>(to)];
}

const char* Name(SequenceState state) {
  constexpr std::array<const char*, kStates> kNames = {
      "waiting", "prefilling", "decoding", "preempted", "finished", "cancelled", "failed"};
  return kNames[static_cast<size_t>(state)];
}

void Transition(Sequence& sequence, SequenceState to) {
  BEHEMOTH_CHECK(MayFollow(sequence.state, to), Name(to));
  sequence.state = to;
}

int32_t Sequence::output() const { return length() - request->prompt_tokens(); }

}  // namespace behemoth::worker
