// Request + prompt + model -> what one Generation is to do. Pure functions, thread-safe.
#pragma once

#include <absl/status/statusor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "gateway/session/generation.h"
#include "gateway/session/phrases.h"
#include "gateway/session/prompt.h"

namespace behemoth::gateway {

struct PlanInput {
  const GenerationOptions* options;
  ReasoningFormat reasoning;
  const PreparedPrompt* prompt;
  const ServedModel* model;
  const Vocabulary* vocabulary;
  const PhraseIds* phrases;
  std::optional<uint32_t> thinking_budget;  // tokens
  std::string request_id;                   // ours
  std::string fairness_key;                 // the caller's identity
  absl::Time deadline;
  uint64_t content_hash;  // of the request's body and the prompt's place in it
};

// Holds prompt + max_tokens against the context. INVALID_ARGUMENT: too long, empty.
absl::StatusOr<GenerationPlan> PlanGeneration(const PlanInput& input);

// The served model of that name; "" = the only one or the first.
// NOT_FOUND; UNAVAILABLE while no worker was ever reached.
absl::StatusOr<ServedModel> FindModel(const PoolView& view, const std::string& name);

// 128 random bits as hex.
std::string NewRequestId();
// 9 random ones of [a-zA-Z0-9], the form of mistral's models.
std::string NewToolCallId();

}  // namespace behemoth::gateway
