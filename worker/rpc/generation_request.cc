#include "worker/rpc/generation_request.h"

#include <absl/algorithm/container.h>
#include <absl/container/flat_hash_set.h>
#include <absl/strings/ascii.h>
#include <absl/strings/str_cat.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>

namespace behemoth::worker {
namespace {

constexpr size_t kMaxRequestIdBytes = 128;
constexpr size_t kMaxSaltBytes = 128;
constexpr size_t kMaxFairnessKeyBytes = 256;
constexpr int kMaxStopIds = 256;
constexpr int kMaxLogitBias = 1024;
constexpr float kMaxBias = 100;
constexpr uint32_t kMaxSequencesOfRequest = 16;
constexpr uint32_t kMaxTopLogprobs = 20;
constexpr int32_t kMaxPriority = 100;
constexpr int kMaxForcedIds = 64;
constexpr uint32_t kMaxDryAllowedLength = 1024;
constexpr int kMaxSpanningBreakers = 1024;
constexpr int kMaxBreakerTail = 16;
constexpr int kMaxSpanningIds = 16384;  // what a slot of the device holds
constexpr int kMaxBannedSequences = 1024;
constexpr int kMaxBannedSequenceIds = 64;
constexpr int kMaxBannedIds = 16384;

using Ids = google::protobuf::RepeatedField<uint32_t>;

template <typename... Parts>
absl::Status Bad(const char* field, const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat(field, ": ", parts...));
}

// The first trouble with any field wins; later checks still run, harmlessly.
class Fields {
 public:
  explicit Fields(int32_t vocabulary_size) : vocabulary_size_(vocabulary_size) {}

  const absl::Status& status() const { return status_; }

  template <typename... Parts>
  void Require(bool holds, const char* field, const Parts&... parts) {
    if (!holds) status_.Update(Bad(field, parts...));
  }

  // NaN is in no range.
  float Float(const char* field, float value, float least, float most, const char* range) {
    Require(value >= least && value <= most, field, value, " is not ", range);
    return value;
  }

  std::vector<TokenId> TokenIds(const char* field, const Ids& ids, int most) {
    std::vector<TokenId> out;
    Require(ids.size() <= most, field, ids.size(), " ids, at most ", most);
    if (!status_.ok()) return out;
    out.reserve(static_cast<size_t>(ids.size()));
    for (const uint32_t id : ids) out.push_back(Token(field, id));
    return out;
  }

  TokenId Token(const char* field, uint32_t id) {
    Require(id < static_cast<uint32_t>(vocabulary_size_), field, "id ", id,
            " is not in the vocabulary of ", vocabulary_size_);
    return static_cast<TokenId>(id);
  }

 private:
  const int32_t vocabulary_size_;
  absl::Status status_;
};

// Of what has no bound by its meaning: beyond it a logit would leave a float's range, and the
// request would fail as the device's.
constexpr float kMost = 1e6f;

constexpr float kLeastPositive = std::numeric_limits<float>::denorm_min();

void ReadStages(const v1::SamplingParams& in, Fields& fields, SamplingParams& out) {
  if (in.has_typical_p()) {
    out.typical_p =
        fields.Float("sampling.typical_p", in.typical_p(), kLeastPositive, 1, "in (0, 1]");
  }
  if (in.has_top_n_sigma()) {
    out.top_n_sigma =
        fields.Float("sampling.top_n_sigma", in.top_n_sigma(), 0, kMost, "in [0, 1e6]");
  }
  if (in.has_xtc_probability()) {
    out.xtc_probability =
        fields.Float("sampling.xtc_probability", in.xtc_probability(), 0, 1, "in [0, 1]");
  }
  if (in.has_xtc_threshold()) {
    out.xtc_threshold =
        fields.Float("sampling.xtc_threshold", in.xtc_threshold(), 0, 1, "in [0, 1]");
  }
  if (in.has_smoothing_factor()) {
    out.smoothing_factor =
        fields.Float("sampling.smoothing_factor", in.smoothing_factor(), 0, kMost, "in [0, 1e6]");
  }
  if (in.has_smoothing_curve()) {
    out.smoothing_curve = fields.Float("sampling.smoothing_curve", in.smoothing_curve(),
                                       kLeastPositive, kMost, "in (0, 1e6]");
  }
  if (!in.has_dynamic_temperature()) return;
  const v1::DynamicTemperature& dynamic = in.dynamic_temperature();
  DynamicTemperature range;
  range.low =
      fields.Float("sampling.dynamic_temperature.low", dynamic.low(), 0, kMost, "in [0, 1e6]");
  range.high = fields.Float("sampling.dynamic_temperature.high", dynamic.high(), range.low, kMost,
                            "in [low, 1e6]");
  if (dynamic.has_exponent()) {
    range.exponent = fields.Float("sampling.dynamic_temperature.exponent", dynamic.exponent(),
                                  kLeastPositive, kMost, "in (0, 1e6]");
  }
  out.dynamic_temperature = range;
}

// The stages that the message names, then the others.
void ReadOrder(const v1::SamplingParams& in, Fields& fields, SamplingParams& out) {
  std::vector<SamplerStage> order;
  for (const int stage : in.order()) {
    // The enumeration of the contract begins with UNSPECIFIED; ours has its order.
    const bool is_known = stage >= v1::SAMPLER_STAGE_TEMPERATURE && stage <= v1::SAMPLER_STAGE_XTC;
    fields.Require(is_known, "sampling.order", "stage ", stage, " is unknown");
    if (!fields.status().ok()) return;
    const auto named = static_cast<SamplerStage>(stage - v1::SAMPLER_STAGE_TEMPERATURE);
    fields.Require(!absl::c_linear_search(order, named), "sampling.order", "stage ", stage,
                   " is named twice");
    if (!fields.status().ok()) return;
    order.push_back(named);
  }
  for (const SamplerStage stage : kDefaultOrder) {
    if (!absl::c_linear_search(order, stage)) order.push_back(stage);
  }
  absl::c_copy(order, out.order.begin());
}

void ReadDry(const v1::DryParams& in, int32_t vocabulary_size, Fields& fields, DryParams& out) {
  out.multiplier =
      fields.Float("sampling.dry.multiplier", in.multiplier(), 0, kMost, "in [0, 1e6]");
  if (in.has_base())
    out.base = fields.Float("sampling.dry.base", in.base(), 1, kMost, "in [1, 1e6]");
  if (in.has_allowed_length()) {
    fields.Require(in.allowed_length() >= 1 && in.allowed_length() <= kMaxDryAllowedLength,
                   "sampling.dry.allowed_length", in.allowed_length(), " is not in 1..",
                   kMaxDryAllowedLength);
    out.allowed_length = static_cast<int32_t>(std::min(in.allowed_length(), kMaxDryAllowedLength));
  }
  out.last_n =
      static_cast<int32_t>(std::min<uint32_t>(in.last_n(), std::numeric_limits<int32_t>::max()));
  out.breaker_ids = fields.TokenIds("sampling.dry.breaker_ids", in.breaker_ids(), vocabulary_size);
  constexpr char kSpanning[] = "sampling.dry.spanning_breakers";
  fields.Require(in.spanning_breakers_size() <= kMaxSpanningBreakers, kSpanning,
                 in.spanning_breakers_size(), " entries, at most ", kMaxSpanningBreakers);
  if (!fields.status().ok()) return;
  int64_t ids = 0;
  for (const v1::SpanningBreaker& breaker : in.spanning_breakers()) {
    ids += breaker.heads_size() + breaker.tail_size();
    fields.Require(!breaker.heads().empty() && !breaker.tail().empty(), kSpanning,
                   "no heads or no tail");
    fields.Require(ids <= kMaxSpanningIds, kSpanning, "more than ", kMaxSpanningIds, " ids in all");
    out.spanning_breakers.push_back(
        {.heads = fields.TokenIds(kSpanning, breaker.heads(), kMaxSpanningIds),
         .tail = fields.TokenIds(kSpanning, breaker.tail(), kMaxBreakerTail)});
    if (!fields.status().ok()) return;
  }
}

void ReadBannedSequences(const v1::SamplingParams& in, Fields& fields, SamplingParams& out) {
  constexpr char kField[] = "sampling.banned_sequences";
  fields.Require(in.banned_sequences_size() <= kMaxBannedSequences, kField,
                 in.banned_sequences_size(), " entries, at most ", kMaxBannedSequences);
  if (!fields.status().ok()) return;
  int64_t ids = 0;
  for (const v1::TokenSequence& sequence : in.banned_sequences()) {
    ids += sequence.ids_size();
    fields.Require(sequence.ids_size() >= 2, kField, sequence.ids_size(), " ids, at least 2");
    fields.Require(ids <= kMaxBannedIds, kField, "more than ", kMaxBannedIds, " ids in all");
    out.banned_sequences.push_back(fields.TokenIds(kField, sequence.ids(), kMaxBannedSequenceIds));
    if (!fields.status().ok()) return;
  }
}

void ReadSampling(const v1::SamplingParams& in, int32_t vocabulary_size, Fields& fields,
                  SamplingParams& out) {
  if (in.has_temperature()) {
    out.temperature =
        fields.Float("sampling.temperature", in.temperature(), 0, kMost, "in [0, 1e6]");
  }
  if (in.has_top_p()) {
    out.top_p = fields.Float("sampling.top_p", in.top_p(), kLeastPositive, 1, "in (0, 1]");
  }
  if (in.has_top_k()) {
    fields.Require(in.top_k() >= -1, "sampling.top_k", in.top_k(), " is not >= -1");
    out.top_k = std::max(in.top_k(), 0);
  }
  if (in.has_min_p()) out.min_p = fields.Float("sampling.min_p", in.min_p(), 0, 1, "in [0, 1]");
  if (in.has_repetition_penalty()) {
    out.repetition_penalty = fields.Float("sampling.repetition_penalty", in.repetition_penalty(),
                                          1 / kMost, kMost, "in [1e-6, 1e6]");
  }
  if (in.has_presence_penalty()) {
    out.presence_penalty =
        fields.Float("sampling.presence_penalty", in.presence_penalty(), -2, 2, "in [-2, 2]");
  }
  if (in.has_frequency_penalty()) {
    out.frequency_penalty =
        fields.Float("sampling.frequency_penalty", in.frequency_penalty(), -2, 2, "in [-2, 2]");
  }
  fields.Require(in.logit_bias_size() <= kMaxLogitBias, "sampling.logit_bias", in.logit_bias_size(),
                 " entries, at most ", kMaxLogitBias);
  if (!fields.status().ok()) return;
  absl::flat_hash_set<uint32_t> biased;
  for (const v1::LogitBias& entry : in.logit_bias()) {
    fields.Require(biased.insert(entry.id()).second, "sampling.logit_bias", "id ", entry.id(),
                   " appears twice");
    out.logit_bias.push_back(
        {fields.Token("sampling.logit_bias", entry.id()),
         fields.Float("sampling.logit_bias", entry.bias(), -kMaxBias, kMaxBias, "in [-100, 100]")});
  }
  ReadStages(in, fields, out);
  ReadOrder(in, fields, out);
  ReadDry(in.dry(), vocabulary_size, fields, out.dry);
  ReadBannedSequences(in, fields, out);
  out.allowed_ids = fields.TokenIds("sampling.allowed_ids", in.allowed_ids(), vocabulary_size);
  out.banned_ids = fields.TokenIds("sampling.banned_ids", in.banned_ids(), vocabulary_size);
}

// At least one token can be sampled, also while the stop ids may not be.
absl::Status CheckSomethingIsLeft(const SamplingParams& params, int32_t vocabulary_size) {
  const bool restricted =
      !params.allowed_ids.empty() || !params.banned_ids.empty() || !params.logit_bias.empty();
  const bool stops_matter = params.min_tokens > 0 && !params.stop_ids.empty();
  if (!restricted && !stops_matter) return absl::OkStatus();
  std::vector<char> possible(static_cast<size_t>(vocabulary_size), params.allowed_ids.empty());
  for (const TokenId id : params.allowed_ids) possible[static_cast<size_t>(id)] = 1;
  for (const TokenId id : params.banned_ids) possible[static_cast<size_t>(id)] = 0;
  for (const TokenBias& entry : params.logit_bias) {
    if (entry.bias <= -kMaxBias) possible[static_cast<size_t>(entry.id)] = 0;
  }
  if (!absl::c_linear_search(possible, 1)) {
    return Bad("sampling.banned_ids", "with allowed_ids and logit_bias no token is left");
  }
  if (!stops_matter) return absl::OkStatus();
  for (const TokenId id : params.stop_ids) possible[static_cast<size_t>(id)] = 0;
  if (!absl::c_linear_search(possible, 1)) {
    return Bad("min_tokens", "no token is left but those that stop");
  }
  return absl::OkStatus();
}

void ReadLengths(const v1::GenerateRequest& in, const RequestLimits& limits, Fields& fields,
                 GenerationRequest& out) {
  const int32_t prompt = static_cast<int32_t>(out.prompt.size());
  const int32_t room = limits.context_tokens - prompt;
  fields.Require(room >= 1, "prompt_ids", prompt, " tokens leave no room in the context of ",
                 limits.context_tokens);
  if (!fields.status().ok()) return;
  const uint32_t max_tokens = in.has_max_tokens() ? in.max_tokens() : static_cast<uint32_t>(room);
  fields.Require(max_tokens >= 1, "max_tokens", "0 is not >= 1");
  fields.Require(max_tokens <= static_cast<uint32_t>(room), "max_tokens", "with the prompt's ",
                 prompt, " tokens ", max_tokens, " more exceed the context of ",
                 limits.context_tokens);
  fields.Require(in.min_tokens() <= max_tokens, "min_tokens", in.min_tokens(),
                 " is above max_tokens = ", max_tokens);
  if (!fields.status().ok()) return;
  out.max_tokens = static_cast<int32_t>(max_tokens);
  out.sampling.min_tokens = static_cast<int32_t>(in.min_tokens());

  const uint32_t most =
      std::min(kMaxSequencesOfRequest, static_cast<uint32_t>(limits.max_sequences));
  const uint32_t sequences = in.has_num_sequences() ? in.num_sequences() : 1;
  fields.Require(sequences >= 1 && sequences <= most, "num_sequences", sequences, " is not in 1..",
                 most);
  out.num_sequences = static_cast<int32_t>(std::min(sequences, most));
}

}  // namespace

int MaxRequestBytes(const RequestLimits& limits) {
  // An id takes at most five bytes; the lists of ids are the prompt, allowed and banned ones, DRY's
  // breakers, and sequences. The rest is 1,024 biases of 14 bytes, 256 stop ids, the heads of 1,024
  // sequences and of 2,048 lists of breakers, and short strings: 64 KiB hold it.
  const int64_t ids = int64_t{limits.context_tokens} + 3 * int64_t{limits.vocabulary_size} +
                      kMaxSpanningIds + kMaxBannedIds;
  const int64_t generate = 5 * ids + (64 << 10) + static_cast<int64_t>(kMaxFormBytes);
  // Or a vocabulary: 32 bytes a token are more than any has.
  const int64_t vocabulary = 32 * int64_t{limits.vocabulary_size} + (64 << 10);
  return static_cast<int>(std::min<int64_t>(std::max(generate, vocabulary), 1 << 30));
}

absl::Status CheckRequestId(const std::string& request_id) {
  const bool legal = absl::c_all_of(request_id, [](unsigned char c) {
    return absl::ascii_isalnum(c) || c == '.' || c == '_' || c == ':' || c == '-';
  });
  if (request_id.empty() || request_id.size() > kMaxRequestIdBytes || !legal) {
    return Bad("request_id", "must be 1 to ", kMaxRequestIdBytes, " of [A-Za-z0-9._:-]");
  }
  return absl::OkStatus();
}

absl::StatusOr<GenerationRequest> ToGeneration(const v1::GenerateRequest& message,
                                               const RequestLimits& limits, absl::Time deadline,
                                               uint64_t drawn_seed) {
  if (absl::Status checked = CheckRequestId(message.request_id()); !checked.ok()) return checked;
  Fields fields(limits.vocabulary_size);
  GenerationRequest out;
  out.request_id = message.request_id();
  fields.Require(!message.prompt_ids().empty(), "prompt_ids", "empty");
  out.prompt = fields.TokenIds("prompt_ids", message.prompt_ids(), limits.context_tokens);
  ReadSampling(message.sampling(), limits.vocabulary_size, fields, out.sampling);
  out.sampling.seed = message.sampling().has_seed() ? message.sampling().seed() : drawn_seed;
  out.sampling.stop_ids = fields.TokenIds("stop_token_ids", message.stop_token_ids(), kMaxStopIds);
  ReadLengths(message, limits, fields, out);
  fields.Require(message.cache_salt().size() <= kMaxSaltBytes, "cache_salt", "more than ",
                 kMaxSaltBytes, " bytes");
  fields.Require(message.fairness_key().size() <= kMaxFairnessKeyBytes, "fairness_key",
                 "more than ", kMaxFairnessKeyBytes, " bytes");
  fields.Require(message.priority() >= -kMaxPriority && message.priority() <= kMaxPriority,
                 "priority", message.priority(), " is not in -100..100");
  const v1::LogprobsParams& logprobs = message.logprobs();
  fields.Require(logprobs.top() <= kMaxTopLogprobs, "logprobs.top", logprobs.top(), " is above ",
                 kMaxTopLogprobs);
  if (!fields.status().ok()) return fields.status();

  if (!message.ignore_eos()) {
    out.sampling.stop_ids.insert(out.sampling.stop_ids.end(), limits.eos_ids.begin(),
                                 limits.eos_ids.end());
  }
  absl::Status left = CheckSomethingIsLeft(out.sampling, limits.vocabulary_size);
  if (!left.ok()) return left;
  if (message.has_logprobs()) {
    out.sampling.top_logprobs = static_cast<int32_t>(logprobs.top());
    out.prompt_logprobs = logprobs.prompt();
  }
  out.include_stop_id = message.include_stop_id();
  out.rewindable = message.rewindable();
  out.cache_salt = message.cache_salt();
  out.fairness_key = message.fairness_key();
  out.priority = message.priority();
  out.deadline = deadline;
  return out;
}

absl::StatusOr<FormSpec> ToFormSpec(const v1::Structure& message) {
  FormSpec spec;
  switch (message.form_case()) {
    case v1::Structure::kJsonSchema:
      spec = {.kind = FormSpec::Kind::kJsonSchema, .text = message.json_schema()};
      break;
    case v1::Structure::kRegex:
      spec = {.kind = FormSpec::Kind::kRegex, .text = message.regex()};
      break;
    case v1::Structure::kGrammar:
      spec = {.kind = FormSpec::Kind::kGrammar, .text = message.grammar()};
      break;
    case v1::Structure::FORM_NOT_SET:
      return Bad("structure", "no form is set");
  }
  spec.begins_after = message.begins_after();
  spec.dumps_spaces = message.dumps_spaces();
  if (message.has_begins_after_id()) {
    if (message.begins_after_id() > static_cast<uint32_t>(INT32_MAX)) {
      return Bad("structure.begins_after_id", "not in the vocabulary");
    }
    spec.begins_after_id = static_cast<TokenId>(message.begins_after_id());
  }
  return spec;
}

absl::StatusOr<std::vector<TokenId>> ToForcedIds(const v1::ControlRequest::ForceIds& message,
                                                 const RequestLimits& limits) {
  Fields fields(limits.vocabulary_size);
  fields.Require(!message.ids().empty(), "force_ids.ids", "empty");
  std::vector<TokenId> ids = fields.TokenIds("force_ids.ids", message.ids(), kMaxForcedIds);
  if (!fields.status().ok()) return fields.status();
  return ids;
}

absl::StatusOr<Rewind> ToRewind(const v1::ControlRequest::Rewind& message,
                                const RequestLimits& limits) {
  constexpr int kMaxBannedIds = 1024;
  Fields fields(limits.vocabulary_size);
  // Beyond int32 is beyond every request's sequences and tokens all the same.
  const auto bounded = [](uint32_t value) {
    return static_cast<int32_t>(std::min<uint32_t>(value, std::numeric_limits<int32_t>::max()));
  };
  Rewind out{.sequence = bounded(message.sequence()),
             .keep_tokens = bounded(message.keep_tokens())};
  out.banned = fields.TokenIds("rewind.banned_ids", message.banned_ids(), kMaxBannedIds);
  out.forced = fields.TokenIds("rewind.force_ids", message.force_ids(), kMaxForcedIds);
  if (!fields.status().ok()) return fields.status();
  return out;
}

}  // namespace behemoth::worker
