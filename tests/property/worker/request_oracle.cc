#include "tests/property/worker/request_oracle.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <functional>

namespace behemoth::worker {
namespace {

bool IsIn(TokenId id, const std::vector<TokenId>& ids) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

uint64_t Salted(const FakePrefix& prefix, const std::string& salt) {
  return HashOf(prefix.state(), std::hash<std::string>()(salt));
}

}  // namespace

Expected RequestOracle::Expect(const GenerationRequest& request) {
  Expected expected{.request = request, .number = ++count_};
  expected.forced.resize(static_cast<size_t>(request.num_sequences));
  return expected;
}

void RequestOracle::Own(uint64_t prefix, int32_t number) {
  Owners& owners = owners_[prefix];
  if (owners.first == 0) owners.first = number;
  if (owners.first != number) owners.second = number;
}

void RequestOracle::MayBeCached(const Expected& expected, const Heard& heard) {
  for (const std::vector<TokenId>& output : heard.tokens) {
    FakePrefix prefix;
    int32_t count = 0;
    const auto add = [&](TokenId token) {
      prefix.Add(token);
      if (++count % tokens_per_block_ != 0) return;
      Own(Salted(prefix, expected.request.cache_salt), expected.number);
    };
    for (TokenId token : expected.request.prompt) add(token);
    for (TokenId token : output) add(token);
  }
}

bool RequestOracle::CachedByAnother(const Expected& expected, int32_t tokens) const {
  FakePrefix prefix;
  for (int32_t i = 0; i < tokens; ++i) {
    prefix.Add(expected.request.prompt[static_cast<size_t>(i)]);
  }
  const auto found = owners_.find(Salted(prefix, expected.request.cache_salt));
  if (found == owners_.end()) return false;
  return found->second.first != expected.number || found->second.second != 0;
}

std::string RequestOracle::Judge(const Expected& expected, const Heard& heard, absl::Time now) {
  std::string wrong = JudgeClose(expected, heard, now);
  for (size_t i = 0; wrong.empty() && i < heard.tokens.size(); ++i) {
    wrong = JudgeSequence(expected, heard, i);
    if (!wrong.empty()) wrong = absl::StrCat("sequence ", i, ": ", wrong);
  }
  if (wrong.empty()) wrong = JudgePromptLogprobs(expected, heard);
  return wrong;
}

std::string RequestOracle::JudgeClose(const Expected& expected, const Heard& heard,
                                      absl::Time now) {
  const absl::Status& status = *heard.closed;
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return "";
    case absl::StatusCode::kDeadlineExceeded:
      return expected.request.deadline <= now ? "" : "too early for its deadline";
    case absl::StatusCode::kAborted:
      return expected.aborted ? "" : "nobody aborted it";
    case absl::StatusCode::kInternal:
      return IsIn(kPoisonId, expected.request.prompt) ? "" : "its logits were finite";
    default:
      return "closed " + status.ToString();
  }
}

// One token after the other, as RunAlone does, but that forced ids are taken as they come.
std::string RequestOracle::JudgeSequence(const Expected& expected, const Heard& heard,
                                         size_t index) {
  const GenerationRequest& request = expected.request;
  const std::vector<TokenId>& tokens = heard.tokens[index];
  const std::vector<TokenLogprobs>& logprobs = heard.logprobs[index];
  const std::vector<TokenId>& stops = request.sampling.stop_ids;
  const bool with_logprobs = request.sampling.top_logprobs >= 0;
  FakePrefix prefix;
  for (TokenId token : request.prompt) prefix.Add(token);
  FakeSampler sampler{.sampling = &request.sampling, .sequence = static_cast<int32_t>(index)};
  sampler.poisoned = IsIn(kPoisonId, request.prompt);

  std::vector<std::pair<TokenId, size_t>> forced;  // with the latest place it may come at
  for (const ForcedCall& call : expected.forced[index]) {
    // After what was in flight or waited before it, and the first token of a shared prompt.
    const size_t latest = std::max(call.heard_before, forced.empty() ? 0 : forced.back().second) +
                          static_cast<size_t>(pipeline_depth_) + 1;
    for (TokenId id : call.ids) forced.emplace_back(id, latest + forced.size());
  }
  size_t next_forced = 0;
  std::optional<TokenId> stopped;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (stopped) return "a token after its stop";
    const SampleResult sample =
        sampler.Sample(prefix, static_cast<int32_t>(request.prompt.size() + i));
    const bool is_forced = tokens[i] >= kFirstForcedId;
    if (is_forced) {
      if (next_forced == forced.size() || forced[next_forced].first != tokens[i]) {
        return absl::StrCat("token ", i, " was not forced next");
      }
      if (i > forced[next_forced++].second) return absl::StrCat("token ", i, " was forced late");
    } else {
      if (!sample.finite) return "went on after logits that were not finite";
      if (tokens[i] != sample.token) return absl::StrCat("token ", i, " is another one alone");
      ++accepted_;
      if (sampler.output_count >= request.sampling.min_tokens && IsIn(tokens[i], stops)) {
        stopped = tokens[i];
      }
    }
    if (with_logprobs) {
      if (logprobs.size() != tokens.size()) return "a logprob is missing";
      const float alone = is_forced ? 0 : FakeLogprobs(prefix, tokens[i]).logprob;
      if (logprobs[i].logprob != alone) return absl::StrCat("logprob ", i, " is another one alone");
    }
    prefix.Add(tokens[i]);
    sampler.Saw(tokens[i]);
  }
  if (stopped && !request.include_stop_id) return "a stop id was handed out";
  ++sequences_;
  const std::optional<FinishEvent>& finish = heard.finishes[index];
  if (!finish) return heard.closed->ok() ? "has no finish" : "";
  if (finish->reason == FinishReason::kStop && !request.include_stop_id) {
    stopped =
        sampler.Sample(prefix, static_cast<int32_t>(request.prompt.size() + tokens.size())).token;
    const bool counts = sampler.output_count >= request.sampling.min_tokens;
    if (!counts || !IsIn(*stopped, stops)) return "stopped without a stop";
    ++accepted_;
  }
  if (finish->reason != FinishReason::kStop && stopped) return "did not stop at its stop";
  if (finish->matched_stop_id != stopped) return "another stop id is said to have matched";
  return JudgeFinish(expected, *finish, tokens.size());
}

std::string RequestOracle::JudgeFinish(const Expected& expected, const FinishEvent& finish,
                                       size_t tokens) {
  const GenerationRequest& request = expected.request;
  const int32_t heard = static_cast<int32_t>(tokens);
  const bool hidden_stop = finish.reason == FinishReason::kStop && !request.include_stop_id;
  if (finish.completion_tokens != heard + hidden_stop) return "completion tokens miscounted";
  if (finish.prompt_tokens != static_cast<int32_t>(request.prompt.size())) return "prompt tokens";
  // A sequence may have ended before its request was extended.
  const std::vector<int32_t>& earlier = expected.earlier_lengths;
  const bool full = heard == request.max_tokens ||
                    std::find(earlier.begin(), earlier.end(), heard) != earlier.end();
  if (finish.reason == FinishReason::kLength && !full) return "wrong length";
  if (finish.reason == FinishReason::kCancelled && !expected.cancelled)
    return "nobody cancelled it";
  if (heard > request.max_tokens) return "too long";
  const int32_t cached = finish.cached_tokens;
  // A token is always computed; if not the prompt's last one, then one that was forced after it.
  const bool forced = !expected.forced[static_cast<size_t>(finish.sequence)].empty();
  if (cached % tokens_per_block_ != 0 || cached >= finish.prompt_tokens + forced) return "cached";
  if (cached > 0 && !CachedByAnother(expected, cached)) return "found what nobody computed";
  return "";
}

std::string RequestOracle::JudgePromptLogprobs(const Expected& expected, const Heard& heard) {
  const std::vector<TokenId>& prompt = expected.request.prompt;
  if (!expected.request.prompt_logprobs) {
    return heard.prompt_logprobs.empty() ? "" : "prompt logprobs unasked";
  }
  const std::optional<FinishEvent>& finish = heard.finishes[0];
  const bool has_token =
      !heard.tokens[0].empty() || (finish && finish->reason == FinishReason::kStop);
  if (heard.prompt_logprobs.size() != (has_token ? prompt.size() : 0)) {
    return absl::StrCat(heard.prompt_logprobs.size(), " prompt logprobs");
  }
  FakePrefix prefix;
  for (size_t i = 0; i < heard.prompt_logprobs.size(); ++i) {
    const float alone = i == 0 ? 0 : FakeLogprobs(prefix, prompt[i]).logprob;
    if (heard.prompt_logprobs[i].logprob != alone) return absl::StrCat("prompt logprob ", i);
    prefix.Add(prompt[i]);
  }
  return "";
}

}  // namespace behemoth::worker
