#include "gateway/session/generation_plan.h"

#include <absl/random/random.h>
#include <absl/strings/str_format.h>

#include <algorithm>

#include "gateway/api/api_error.h"

namespace behemoth::gateway {
namespace {

// What the request says, else what the model's own generation_config.json says, else nothing: the
// worker's default.
std::optional<float> AsFloat(const std::optional<double>& value,
                             const std::optional<float>& otherwise = std::nullopt) {
  return value ? std::optional<float>(static_cast<float>(*value)) : otherwise;
}

// The worker checks again; here the client's own name of the field is still known.
absl::Status CheckIds(const GenerationOptions& options, const TokenTable& table) {
  absl::Status status;
  const auto check = [&](const char* field, uint32_t id) {
    if (!status.ok() || table.contains(id)) return;
    status = InvalidField(
        field, absl::StrFormat("the id %u is not in the vocabulary of %u", id, table.size()));
  };
  for (const uint32_t id : options.stop.token_ids) check("stop_token_ids", id);
  for (const uint32_t id : options.sampling.allowed_ids) check("allowed_token_ids", id);
  for (const uint32_t id : options.sampling.banned_ids) check("custom_token_bans", id);
  for (const auto& [id, bias] : options.sampling.logit_bias) check("logit_bias", id);
  return status;
}

void FillSampling(const SamplingOptions& in, const GenerationDefaults& defaults,
                  GenerateSpec& spec) {
  spec.temperature = AsFloat(in.temperature, defaults.temperature);
  spec.top_p = AsFloat(in.top_p, defaults.top_p);
  spec.top_k = in.top_k ? in.top_k : defaults.top_k;
  spec.min_p = AsFloat(in.min_p, defaults.min_p);
  spec.repetition_penalty = AsFloat(in.repetition_penalty, defaults.repetition_penalty);
  spec.presence_penalty = AsFloat(in.presence_penalty);
  spec.frequency_penalty = AsFloat(in.frequency_penalty);
  spec.seed = in.seed;
  for (const auto& [id, bias] : in.logit_bias) {
    spec.logit_bias.emplace_back(id, static_cast<float>(bias));
  }
  spec.allowed_ids = in.allowed_ids;
  spec.banned_ids = in.banned_ids;
}

void FillSamplers(const SamplingOptions& in, GenerateSpec& spec) {
  spec.typical_p = AsFloat(in.typical_p);
  spec.top_n_sigma = AsFloat(in.top_n_sigma);
  spec.xtc_probability = AsFloat(in.xtc_probability);
  spec.xtc_threshold = AsFloat(in.xtc_threshold);
  spec.smoothing_factor = AsFloat(in.smoothing_factor);
  spec.smoothing_curve = AsFloat(in.smoothing_curve);
  if (const auto& dynamic = in.dynamic_temperature) {
    spec.dynamic_temperature = {.low = static_cast<float>(dynamic->low),
                                .high = static_cast<float>(dynamic->high),
                                .exponent = AsFloat(dynamic->exponent)};
  }
  spec.order = in.order;
}

void FillPhrases(const PlanInput& input, GenerationPlan& plan) {
  const SamplingOptions& sampling = input.options->sampling;
  GenerateSpec& spec = plan.spec;
  for (const std::vector<uint32_t>& ids : input.phrases->bad_words) {
    if (ids.size() == 1) {
      spec.banned_ids.push_back(ids.front());
    } else {
      spec.banned_sequences.push_back(ids);
    }
  }
  if (sampling.ban_eos) {
    const auto& eos = input.model->eos_ids;
    spec.banned_ids.insert(spec.banned_ids.end(), eos.begin(), eos.end());
  }
  if (sampling.dry) spec.dry = DryOf(*sampling.dry, *input.phrases, *input.vocabulary->table);
  if (!sampling.banned_strings.empty()) {
    plan.banned = std::make_shared<BannedSet>(sampling.banned_strings);
  }
  plan.thinking_budget = input.thinking_budget;
  spec.rewindable = plan.banned || plan.thinking_budget;
  plan.end_thinking_ids = input.phrases->end_thinking;
}

void FillStops(const PlanInput& input, GenerationPlan& plan) {
  const StopOptions& stop = input.options->stop;
  plan.user_stop_ids = stop.token_ids;
  plan.spec.stop_ids = stop.token_ids;
  for (const std::string& text : stop.strings) {
    for (const auto& [token, id] : input.vocabulary->control_tokens) {
      if (token != text) continue;
      plan.control_stops.emplace_back(text, id);
      plan.spec.stop_ids.push_back(id);
    }
  }
  if (!stop.strings.empty()) plan.text.stops = std::make_shared<StopSet>(stop.strings);
  plan.text.stops_in_answer_only = stop.scope == StopScope::kAnswer;
  plan.text.include_stop_in_output = stop.include_in_output;
  plan.spec.ignore_eos = stop.ignore_eos;
  // Hidden special tokens stay hidden: their ids need not travel.
  plan.spec.include_stop_id = stop.include_in_output && !input.options->output.skip_special_tokens;
}

// Behind the thoughts, where the prompt has begun some; of calls that may come, behind their token.
void FillStructure(const GenerationOptions& options, GenerationPlan& plan) {
  if (!options.structure) return;
  const bool thinks = TextStream(plan.table, plan.text).thinking();
  using Kind = StructureOptions::Kind;
  const Kind kind = options.structure->kind;
  const bool calls =
      options.tool_calls == ToolCalls::kForced || options.tool_calls == ToolCalls::kAllowed;
  plan.spec.structure =
      StructureSpec{.kind = kind == Kind::kJsonSchema ? StructureSpec::Kind::kJsonSchema
                            : kind == Kind::kRegex    ? StructureSpec::Kind::kRegex
                                                      : StructureSpec::Kind::kGrammar,
                    .text = options.structure->text,
                    .dumps_spaces = calls,
                    .vocabulary = plan.table};
  if (options.tool_calls == ToolCalls::kAllowed) {
    plan.spec.structure->begins_after_id = plan.text.tool_calls_id;
  } else if (thinks) {
    plan.spec.structure->begins_after = "</think>";
  }
  plan.structure_field = options.structure->field;
}

void FillToolCalls(const PlanInput& input, GenerationPlan& plan) {
  const ToolCalls calls = input.options->tool_calls;
  const auto id = ToolCallsId(*input.vocabulary);
  if (calls == ToolCalls::kNoTools || !id) return;
  if (calls == ToolCalls::kBanned) {
    plan.spec.banned_ids.push_back(*id);
    return;
  }
  plan.text.tool_calls_id = id;
  plan.text.begins_with_calls = input.prompt->begins_with_calls;
  plan.calls_after_thinking = calls == ToolCalls::kForced && !input.prompt->begins_with_calls;
  plan.spec.rewindable |= plan.calls_after_thinking;
}

}  // namespace

absl::StatusOr<GenerationPlan> PlanGeneration(const PlanInput& input) {
  const GenerationOptions& options = *input.options;
  if (absl::Status bad = CheckIds(options, *input.vocabulary->table); !bad.ok()) return bad;
  GenerationPlan plan;
  GenerateSpec& spec = plan.spec;
  spec.prompt_ids = input.prompt->ids;
  if (options.truncate_prompt_tokens && spec.prompt_ids.size() > *options.truncate_prompt_tokens) {
    spec.prompt_ids.erase(spec.prompt_ids.begin(),
                          spec.prompt_ids.end() - *options.truncate_prompt_tokens);
  }
  if (spec.prompt_ids.empty()) return InvalidField("prompt", "The prompt is empty.");
  const uint64_t prompt_tokens = spec.prompt_ids.size();
  const uint64_t context = input.model->context_tokens;
  if (prompt_tokens + options.max_tokens.value_or(1) > context) {
    return ContextExceeded(context, prompt_tokens, options.max_tokens.value_or(1));
  }
  plan.room_tokens = options.max_tokens.value_or(static_cast<uint32_t>(context - prompt_tokens));
  plan.model = input.model->name;
  plan.table = input.vocabulary->table;
  spec.request_id = input.request_id;
  spec.deadline = input.deadline;
  spec.content_hash = input.content_hash;
  spec.max_tokens = options.max_tokens;
  spec.min_tokens = options.min_tokens;
  spec.num_sequences = options.n;
  spec.cache_salt = options.cache_salt;
  spec.fairness_key = input.fairness_key;
  spec.priority = options.priority;
  spec.top_logprobs = options.output.top_logprobs;
  spec.prompt_logprobs = options.output.prompt_logprobs.has_value();
  if (options.output.prompt_logprobs) {
    spec.top_logprobs = std::max(spec.top_logprobs.value_or(0), *options.output.prompt_logprobs);
  }
  plan.wants_logprobs = options.output.top_logprobs.has_value();
  FillSampling(options.sampling, input.model->defaults, spec);
  FillSamplers(options.sampling, spec);
  FillPhrases(input, plan);
  FillStops(input, plan);
  plan.text.detokenizer = {.skip_special_tokens = options.output.skip_special_tokens,
                           .strip_leading_space = input.prompt->fresh_turn};
  plan.text.separate_reasoning = input.reasoning == ReasoningFormat::kSeparate;
  plan.text.prefill = input.prompt->prefill;
  FillToolCalls(input, plan);
  FillStructure(options, plan);
  return plan;
}

absl::StatusOr<ServedModel> FindModel(const PoolView& view, const std::string& name) {
  if (view.models.empty()) {
    return WithRetryAfter(absl::UnavailableError("No worker is ready."), 2);
  }
  if (name.empty()) return view.models.front();
  for (const ServedModel& model : view.models) {
    if (model.name == name) return model;
  }
  return UnknownModel(name);
}

namespace {

absl::BitGen& Random() {
  thread_local absl::BitGen random;
  return random;
}

}  // namespace

std::string NewToolCallId() {
  constexpr std::string_view kDigits =
      "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
  std::string id(9, '0');
  for (char& c : id) c = kDigits[absl::Uniform<size_t>(Random(), 0, kDigits.size())];
  return id;
}

std::string NewRequestId() {
  absl::BitGen& random = Random();
  return absl::StrFormat("%016x%016x", absl::Uniform<uint64_t>(random),
                         absl::Uniform<uint64_t>(random));
}

}  // namespace behemoth::gateway
