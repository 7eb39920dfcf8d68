// One generation on its way through the engine, and the request that it belongs to. Plain state:
// the scheduler decides, Transition() is the only way from one state to the next.
//
//   waiting -> prefilling -> decoding -> finished
//   prefilling | decoding -> preempted -> waiting
//   waiting | prefilling -> finished: by a token of a step in flight, or by forced tokens
//   prefilling | decoding -> preempted -> waiting, and finished -> waiting: a rewind too
//   any but the ended ones -> cancelled | failed
//
// Engine thread only. Owned by the scheduler; a request lives until the last step that has a row
// of it is committed, so plans in flight never point at nothing.
#pragma once

#include <absl/status/status.h>
#include <absl/time/time.h>

#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "worker/cache/prefix_cache.h"
#include "worker/ids.h"
#include "worker/schedule/fair_queue.h"
#include "worker/schedule/generation.h"

namespace behemoth::worker {

enum class SequenceState {
  kWaiting,
  kPrefilling,
  kDecoding,
  kPreempted,
  kFinished,
  kCancelled,
  kFailed,
};

bool MayFollow(SequenceState from, SequenceState to);
const char* Name(SequenceState state);

struct Request;

// A token that is not to be sampled at that position of the output.
struct PositionBan {
  int32_t position = 0;
  TokenId id = 0;
};

struct Sequence {
  Request* request = nullptr;
  int32_t index = 0;  // within the request
  SequenceState state = SequenceState::kWaiting;

  std::vector<TokenId> tokens;  // known ones: the prompt, then the output
  int32_t planned = 0;          // tokens whose keys and values are in the blocks, or will be by the
                                // steps in flight
  int32_t pending = 0;          // sampled by steps in flight: not known yet
  int32_t voided = 0;           // sampled by steps in flight that a rewind has overtaken
  std::vector<TokenId> forced;  // to be appended as soon as nothing is pending
  std::vector<PositionBan> bans;  // by position, ascending; none behind the output's end
  std::shared_ptr<Form> form;     // null = any text
  bool form_ready = true;         // its mask is of the known tokens; as of the last PlanStep
  absl::Time form_asked_at;       // not ready: when the mask was asked for

  std::vector<BlockId> blocks;  // the table covering [0, planned)
  bool shares_prompt = false;   // its first blocks are those that its leader's rows filled
  int32_t chained_blocks = 0;   // of them, in the prefix cache
  bool chainable = true;
  PrefixKey chain;  // of the last one
  // The block that blocks.back() has to be copied from before the next row runs.
  std::optional<BlockId> copy_from;
  std::optional<SlotId> slot;
  bool needs_binding = false;  // the slot's sampling state is to be built anew
  bool bound_to_bans = false;  // the slot's state holds bans of one position: good for one token
  uint32_t residence = 0;      // counts preemptions: which stay in the blocks a row belongs to
  int32_t retry_blocks = 0;    // waiting: admission was refused with fewer blocks available
  int32_t queued_tokens = 0;   // waiting: tokens to compute, as the queue counts them

  absl::Time last_token_at;
  int32_t preemptions = 0;

  int32_t known() const { return static_cast<int32_t>(tokens.size()); }
  int32_t length() const { return known() + pending; }
  // A token can be sampled by the next step: without a form always; with one, if the mask is there,
  // or comes late because the token before is still on the device.
  bool may_sample() const { return form == nullptr || form_ready || pending > 0; }
  int32_t output() const;  // tokens after the prompt, pending ones included
  bool ended() const { return state >= SequenceState::kFinished; }
  bool running() const {
    return state == SequenceState::kPrefilling || state == SequenceState::kDecoding;
  }
};

// Checks the table above; a step that it lacks is a bug of ours.
void Transition(Sequence& sequence, SequenceState to);

struct Request {
  GenerationRequest spec;
  std::shared_ptr<const SamplingParams> sampling;
  std::vector<Sequence> sequences;  // never resized: others point into it
  // Sequences after the first wait for its prefill, whose last row samples for all of them.
  bool forked = false;
  bool counted_as_queued = true;  // never admitted yet

  FairShare* share = nullptr;
  uint64_t arrival = 0;  // order of arrival
  absl::Time arrived_at, first_scheduled_at, first_token_at, progress_at;
  int32_t cached_tokens = 0;
  std::vector<TokenLogprobs> prompt_logprobs;  // [0] empty; grows with the prefill
  bool prompt_logprobs_sent = false;
  int32_t rows_in_flight = 0;
  int32_t live_sequences = 0;
  absl::Time parked_until = absl::InfiniteFuture();  // rewindable and all finished: then it closes
  bool closed = false;

  int32_t prompt_tokens() const { return static_cast<int32_t>(spec.prompt.size()); }
};

}  // namespace behemoth::worker
