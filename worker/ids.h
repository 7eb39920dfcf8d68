// The worker's vocabulary of small integers, each its own type.
#pragma once

#include <cstdint>

namespace behemoth::worker {

// An id of the model's vocabulary. Negative values are never tokens.
using TokenId = int32_t;

// A KV block: kTokensPerBlock tokens of every layer on this rank. Index into the pool.
enum class BlockId : int32_t {};

// A resident sequence's place in the runner: 0..max_sequences-1. Its sampling state lives there
// (token counts, last token), on the device for a device backend. Held from the step that first
// computes the sequence to the step after it leaves (finish, cancel, preemption).
enum class SlotId : int32_t {};

// Counts steps from 1.
using StepNumber = uint64_t;

}  // namespace behemoth::worker
