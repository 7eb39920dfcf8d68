#include "gateway/upstream/worker_messages.h"

namespace behemoth::gateway {
namespace {

namespace pb = worker::v1;

WorkerState FromProto(pb::WorkerState state) {
  switch (state) {
    case pb::WORKER_STATE_LOADING:
      return WorkerState::kLoading;
    case pb::WORKER_STATE_WARMING:
      return WorkerState::kWarming;
    case pb::WORKER_STATE_READY:
      return WorkerState::kReady;
    case pb::WORKER_STATE_DRAINING:
      return WorkerState::kDraining;
    case pb::WORKER_STATE_FAILED:
      return WorkerState::kFailed;
    default:
      return WorkerState::kUnknown;
  }
}

using RepeatedIds = google::protobuf::RepeatedField<uint32_t>;

void FillIds(const std::vector<uint32_t>& ids, RepeatedIds* out) {
  out->Add(ids.begin(), ids.end());
}

void FillDry(const DrySpec& dry, pb::DryParams& out) {
  out.set_multiplier(dry.multiplier);
  if (dry.base) out.set_base(*dry.base);
  if (dry.allowed_length) out.set_allowed_length(*dry.allowed_length);
  out.set_last_n(dry.last_n);
  FillIds(dry.breaker_ids, out.mutable_breaker_ids());
  for (const SpanningBreaker& breaker : dry.spanning_breakers) {
    auto* entry = out.add_spanning_breakers();
    FillIds(breaker.heads, entry->mutable_heads());
    FillIds(breaker.tail, entry->mutable_tail());
  }
}

void FillSamplers(const GenerateSpec& spec, pb::SamplingParams& out) {
  if (spec.typical_p) out.set_typical_p(*spec.typical_p);
  if (spec.top_n_sigma) out.set_top_n_sigma(*spec.top_n_sigma);
  if (spec.xtc_probability) out.set_xtc_probability(*spec.xtc_probability);
  if (spec.xtc_threshold) out.set_xtc_threshold(*spec.xtc_threshold);
  if (spec.smoothing_factor) out.set_smoothing_factor(*spec.smoothing_factor);
  if (spec.smoothing_curve) out.set_smoothing_curve(*spec.smoothing_curve);
  if (const auto& dynamic = spec.dynamic_temperature) {
    out.mutable_dynamic_temperature()->set_low(dynamic->low);
    out.mutable_dynamic_temperature()->set_high(dynamic->high);
    if (dynamic->exponent) out.mutable_dynamic_temperature()->set_exponent(*dynamic->exponent);
  }
  if (spec.dry) FillDry(*spec.dry, *out.mutable_dry());
  // The contract's numbers are ours, in the default order.
  for (const SamplerStage stage : spec.order) out.add_order(static_cast<pb::SamplerStage>(stage));
  for (const auto& ids : spec.banned_sequences) {
    FillIds(ids, out.add_banned_sequences()->mutable_ids());
  }
}

void FillSampling(const GenerateSpec& spec, pb::SamplingParams& out) {
  if (spec.temperature) out.set_temperature(*spec.temperature);
  if (spec.top_p) out.set_top_p(*spec.top_p);
  if (spec.top_k) out.set_top_k(*spec.top_k);
  if (spec.min_p) out.set_min_p(*spec.min_p);
  if (spec.repetition_penalty) out.set_repetition_penalty(*spec.repetition_penalty);
  if (spec.presence_penalty) out.set_presence_penalty(*spec.presence_penalty);
  if (spec.frequency_penalty) out.set_frequency_penalty(*spec.frequency_penalty);
  if (spec.seed) out.set_seed(*spec.seed);
  for (const auto& [id, bias] : spec.logit_bias) {
    auto* entry = out.add_logit_bias();
    entry->set_id(id);
    entry->set_bias(bias);
  }
  FillIds(spec.allowed_ids, out.mutable_allowed_ids());
  FillIds(spec.banned_ids, out.mutable_banned_ids());
  FillSamplers(spec, out);
}

std::vector<IdLogprobs> FromProto(const google::protobuf::RepeatedPtrField<pb::TokenLogprobs>& in) {
  std::vector<IdLogprobs> out;
  out.reserve(in.size());
  for (const pb::TokenLogprobs& token : in) {
    IdLogprobs& entry = out.emplace_back();
    entry.logprob = token.logprob();
    entry.rank = token.rank();
    const int count = std::min(token.top_ids_size(), token.top_logprobs_size());
    for (int i = 0; i < count; ++i) entry.top.emplace_back(token.top_ids(i), token.top_logprobs(i));
  }
  return out;
}

ProgressEvent FromProto(const pb::Progress& in) {
  ProgressEvent out;
  out.state = in.state() == pb::Progress::STATE_DECODING     ? ProgressEvent::State::kDecoding
              : in.state() == pb::Progress::STATE_PREFILLING ? ProgressEvent::State::kPrefilling
                                                             : ProgressEvent::State::kWaiting;
  out.queue_position = in.queue_position();
  out.prefilled_tokens = in.prefilled_tokens();
  out.prompt_tokens = in.prompt_tokens();
  out.cached_tokens = in.cached_tokens();
  return out;
}

FinishEvent FromProto(const pb::Finish& in) {
  FinishEvent out;
  out.sequence = in.sequence();
  out.reason = in.reason() == pb::Finish::REASON_LENGTH      ? FinishEvent::Reason::kLength
               : in.reason() == pb::Finish::REASON_CANCELLED ? FinishEvent::Reason::kCancelled
                                                             : FinishEvent::Reason::kStop;
  if (in.has_matched_stop_id()) out.matched_stop_id = in.matched_stop_id();
  out.prompt_tokens = in.usage().prompt_tokens();
  out.cached_tokens = in.usage().cached_tokens();
  out.completion_tokens = in.usage().completion_tokens();
  out.queue_ms = in.timings().queue_ms();
  out.prefill_ms = in.timings().prefill_ms();
  out.decode_ms = in.timings().decode_ms();
  out.first_token_ms = in.timings().first_token_ms();
  out.preemptions = in.timings().preemptions();
  return out;
}

}  // namespace

pb::SetVocabularyRequest ToProto(const TokenTable& table) {
  pb::SetVocabularyRequest out;
  for (uint32_t id = 0; id < table.size(); ++id) {
    out.add_tokens(table.is_control(id) ? std::string() : std::string(table.bytes(id)));
    if (table.is_control(id)) out.add_control_ids(id);
  }
  return out;
}

pb::GenerateRequest ToProto(const GenerateSpec& spec) {
  pb::GenerateRequest out;
  out.set_request_id(spec.request_id);
  out.mutable_prompt_ids()->Add(spec.prompt_ids.begin(), spec.prompt_ids.end());
  FillSampling(spec, *out.mutable_sampling());
  out.mutable_stop_token_ids()->Add(spec.stop_ids.begin(), spec.stop_ids.end());
  if (spec.max_tokens) out.set_max_tokens(*spec.max_tokens);
  if (spec.min_tokens > 0) out.set_min_tokens(spec.min_tokens);
  out.set_num_sequences(spec.num_sequences);
  out.set_ignore_eos(spec.ignore_eos);
  out.set_include_stop_id(spec.include_stop_id);
  out.set_rewindable(spec.rewindable);
  out.set_cache_salt(spec.cache_salt);
  out.set_fairness_key(spec.fairness_key);
  if (spec.priority != 0) out.set_priority(spec.priority);
  if (spec.top_logprobs || spec.prompt_logprobs) {
    out.mutable_logprobs()->set_top(spec.top_logprobs.value_or(0));
    out.mutable_logprobs()->set_prompt(spec.prompt_logprobs);
  }
  if (spec.structure) {
    pb::Structure& structure = *out.mutable_structure();
    structure.set_begins_after(spec.structure->begins_after);
    structure.set_dumps_spaces(spec.structure->dumps_spaces);
    if (spec.structure->begins_after_id) {
      structure.set_begins_after_id(*spec.structure->begins_after_id);
    }
    std::string* const text =
        spec.structure->kind == StructureSpec::Kind::kJsonSchema ? structure.mutable_json_schema()
        : spec.structure->kind == StructureSpec::Kind::kRegex    ? structure.mutable_regex()
                                                                 : structure.mutable_grammar();
    *text = spec.structure->text;
  }
  return out;
}

std::optional<WorkerEvent> FromProto(const pb::GenerateResponse& response) {
  switch (response.event_case()) {
    case pb::GenerateResponse::kProgress:
      return FromProto(response.progress());
    case pb::GenerateResponse::kFinish:
      return FromProto(response.finish());
    case pb::GenerateResponse::kRewound:
      return RewoundEvent{.sequence = response.rewound().sequence(),
                          .keep_tokens = response.rewound().keep_tokens()};
    case pb::GenerateResponse::kTokens: {
      const pb::Tokens& in = response.tokens();
      TokensEvent out;
      out.sequence = in.sequence();
      out.ids.assign(in.ids().begin(), in.ids().end());
      out.logprobs = FromProto(in.logprobs());
      out.prompt_logprobs = FromProto(in.prompt_logprobs());
      return out;
    }
    default:
      return std::nullopt;
  }
}

GenerationDefaults FromProto(const pb::GenerationDefaults& in) {
  GenerationDefaults out;
  if (in.has_temperature()) out.temperature = in.temperature();
  if (in.has_top_p()) out.top_p = in.top_p();
  if (in.has_top_k()) out.top_k = in.top_k();
  if (in.has_min_p()) out.min_p = in.min_p();
  if (in.has_repetition_penalty()) out.repetition_penalty = in.repetition_penalty();
  return out;
}

WorkerReport FromProto(const pb::GetStatusResponse& in) {
  WorkerReport out;
  out.state = FromProto(in.state());
  out.load_percent = in.load().percent();
  if (in.load().has_eta()) {
    out.eta = absl::Seconds(in.load().eta().seconds()) + absl::Nanoseconds(in.load().eta().nanos());
  }
  out.served_names.assign(in.model().served_names().begin(), in.model().served_names().end());
  out.weights_fingerprint = in.model().weights_fingerprint();
  out.tokenizer_fingerprint = in.model().tokenizer_fingerprint();
  out.build = in.build();
  out.context_tokens = in.limits().context_tokens();
  out.vocabulary_size = in.model().vocabulary_size();
  out.eos_ids.assign(in.model().eos_ids().begin(), in.model().eos_ids().end());
  out.defaults = FromProto(in.model().generation_defaults());
  return out;
}

WorkerLoad FromProto(const pb::WatchLoadResponse& in) {
  return {.state = FromProto(in.state()),
          .running_sequences = in.running_sequences(),
          .waiting_requests = in.waiting_requests(),
          .kv_use = in.kv_use()};
}

}  // namespace behemoth::gateway
