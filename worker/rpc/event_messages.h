// TokenEvent -> GenerateResponse: the one converter on the way out.
#pragma once

#include <cstddef>

#include "behemoth/worker/v1/worker.pb.h"
#include "worker/schedule/generation.h"

namespace behemoth::worker {

// Overwrites `message`.
void ToMessage(const TokenEvent& event, v1::GenerateResponse* message);

// Appends `next` to `last` where one message can carry both: tokens of one sequence, or a newer
// progress. False = it needs a message of its own, nothing changed.
bool Coalesce(TokenEvent& next, TokenEvent* last);

// About what the event takes in memory while it waits: the unit of a stream's bound.
size_t BytesOf(const TokenEvent& event);

}  // namespace behemoth::worker
