#include "worker/schedule/sequence.h"

#include <gtest/gtest.h>

#include <csignal>
#include <set>
#include <utility>

namespace behemoth::worker {
namespace {

using enum SequenceState;
constexpr SequenceState kAll[] = {kWaiting,  kPrefilling, kDecoding, kPreempted,
                                  kFinished, kCancelled,  kFailed};

TEST(SequenceTest, TheTableIsTheDrawnOne) {
  const std::set<std::pair<SequenceState, SequenceState>> drawn = {
      {kWaiting, kPrefilling},
      {kPrefilling, kDecoding},
      {kDecoding, kFinished},
      {kPrefilling, kPreempted},
      {kDecoding, kPreempted},
      {kPreempted, kWaiting},
      // By a token of a step that was in flight when it was preempted, or by forced tokens.
      {kWaiting, kFinished},
      {kPrefilling, kFinished},
      {kFinished, kWaiting},  // by a rewind
  };
  for (SequenceState from : kAll) {
    for (SequenceState to : kAll) {
      const bool ends = from < kFinished && (to == kCancelled || to == kFailed);
      EXPECT_EQ(MayFollow(from, to), ends || drawn.contains({from, to}))
          << Name(from) << " -> " << Name(to);
    }
  }
}

TEST(SequenceDeathTest, AStepThatTheTableLacksStopsTheProcess) {
  Sequence sequence;
  Transition(sequence, kPrefilling);
  EXPECT_EQ(sequence.state, kPrefilling);
  EXPECT_EXIT(Transition(sequence, kWaiting), ::testing::KilledBySignal(SIGABRT), "");
}

}  // namespace
}  // namespace behemoth::worker
