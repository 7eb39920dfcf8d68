#include "gateway/api/generation_fields.h"

#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_split.h>

#include <algorithm>
#include <cctype>
#include <map>
#include <utility>

#include "gateway/api/api_error.h"
#include "gateway/api/sampler_fields.h"
#include "gateway/api/structure_fields.h"

namespace behemoth::gateway {
namespace {

using json = Json;

absl::Status ReadSeed(const RequestFields& fields, SamplingOptions& sampling) {
  const json* seed = fields.Find("seed");
  if (seed == nullptr || *seed == -1) return absl::OkStatus();
  if (seed->is_number_unsigned() && seed->get<uint64_t>() > INT64_MAX) {
    return InvalidField(fields.NameOf("seed"), "must be at most 9223372036854775807");
  }
  sampling.seed = static_cast<uint64_t>(seed->get<int64_t>());
  return absl::OkStatus();
}

absl::StatusOr<uint32_t> BiasId(const std::string& name, const std::string& key) {
  uint32_t id = 0;
  const bool digits = !key.empty() && std::all_of(key.begin(), key.end(), [](char c) {
    return std::isdigit(static_cast<unsigned char>(c));
  });
  if (digits && absl::SimpleAtoi(key, &id)) return id;
  return InvalidField(name, "the key must be a token id in digits");
}

absl::Status AddBias(const std::string& name, uint32_t id, const json& bias,
                     std::map<uint32_t, double>& by_id) {
  if (!bias.is_number()) return InvalidField(name, "must be a number");
  const auto value = bias.get<double>();
  if (value < -100 || value > 100) {
    return InvalidField(name, "must be at least -100 and at most 100");
  }
  if (!by_id.emplace(id, value).second) return InvalidField(name, "the id appears twice");
  return absl::OkStatus();
}

// OpenAI's object of ids in digits, or llama.cpp's list of [id, bias], where false bans.
absl::Status ReadLogitBias(const RequestFields& fields, SamplingOptions& sampling) {
  constexpr size_t kMaxBiases = 1024;
  const json* biases = fields.Find("logit_bias");
  if (biases == nullptr) return absl::OkStatus();
  if (!biases->is_structured()) return InvalidField("logit_bias", "must be an object");
  if (biases->size() > kMaxBiases) {
    return InvalidField("logit_bias", absl::StrCat("at most ", kMaxBiases, " ids"));
  }
  std::map<uint32_t, double> by_id;
  for (const auto& [key, bias] : biases->items()) {
    const std::string name = absl::StrCat("logit_bias.", key.substr(0, 32));
    if (biases->is_object()) {
      const auto id = BiasId(name, key);
      if (!id.ok()) return id.status();
      if (absl::Status bad = AddBias(name, *id, bias, by_id); !bad.ok()) return bad;
      continue;
    }
    const bool pair = bias.is_array() && bias.size() == 2 && bias[0].is_number_unsigned() &&
                      bias[0].get<uint64_t>() <= UINT32_MAX;
    if (!pair) return InvalidField(name, "must be a token id and its bias");
    const json value = bias[1] == false ? json(-100) : bias[1];
    const absl::Status bad = AddBias(name, bias[0].get<uint32_t>(), value, by_id);
    if (!bad.ok()) return bad;
  }
  sampling.logit_bias.assign(by_id.begin(), by_id.end());
  return absl::OkStatus();
}

// A list of ids, or text-generation-webui's string of them: "13, 29".
absl::Status ReadTokenBans(const RequestFields& fields, SamplingOptions& sampling) {
  constexpr size_t kMaxBans = size_t{1} << 18;
  const json* bans = fields.Find("custom_token_bans");
  if (bans == nullptr) return absl::OkStatus();
  if (!bans->is_string()) {
    auto ids = ReadIds("custom_token_bans", *bans, kMaxBans);
    if (!ids.ok()) return ids.status();
    sampling.banned_ids = *std::move(ids);
    return absl::OkStatus();
  }
  for (const auto part : absl::StrSplit(bans->get_ref<const std::string&>(), ',')) {
    uint32_t id = 0;
    const auto trimmed = absl::StripAsciiWhitespace(part);
    if (trimmed.empty()) continue;
    if (sampling.banned_ids.size() >= kMaxBans) {
      return InvalidField("custom_token_bans", absl::StrCat("at most ", kMaxBans, " ids"));
    }
    if (!absl::SimpleAtoi(trimmed, &id)) {
      return InvalidField("custom_token_bans", "must be token ids with commas between them");
    }
    sampling.banned_ids.push_back(id);
  }
  return absl::OkStatus();
}

absl::StatusOr<SamplingOptions> ReadSampling(RequestFields& fields) {
  SamplingOptions sampling;
  sampling.temperature = fields.Number("temperature");
  sampling.top_p = fields.Number("top_p");
  if (const auto top_k = fields.Integer("top_k")) sampling.top_k = static_cast<int32_t>(*top_k);
  sampling.min_p = fields.Number("min_p");
  sampling.repetition_penalty = fields.Number("repetition_penalty");
  sampling.presence_penalty = fields.Number("presence_penalty");
  sampling.frequency_penalty = fields.Number("frequency_penalty");
  sampling.allowed_ids = fields.Ids("allowed_token_ids");
  if (fields.Find("allowed_token_ids") != nullptr && sampling.allowed_ids.empty()) {
    return InvalidField("allowed_token_ids", "an empty list allows nothing");
  }
  if (absl::Status bad = ReadSeed(fields, sampling); !bad.ok()) return bad;
  if (absl::Status bad = ReadLogitBias(fields, sampling); !bad.ok()) return bad;
  if (absl::Status bad = ReadTokenBans(fields, sampling); !bad.ok()) return bad;
  if (absl::Status bad = ReadSamplers(fields, sampling); !bad.ok()) return bad;
  return sampling;
}

absl::StatusOr<StopOptions> ReadStop(const RequestFields& fields) {
  StopOptions stop;
  for (std::string& text : fields.Strings("stop")) {
    if (std::find(stop.strings.begin(), stop.strings.end(), text) == stop.strings.end()) {
      stop.strings.push_back(std::move(text));
    }
  }
  stop.token_ids = fields.Ids("stop_token_ids");
  stop.ignore_eos = fields.Bool("ignore_eos").value_or(false);
  stop.include_in_output = fields.Bool("include_stop_str_in_output").value_or(false);
  const std::string scope = fields.String("stop_scope").value_or("all");
  if (scope != "all" && scope != "answer") {
    return InvalidField("stop_scope", "must be \"all\" or \"answer\"");
  }
  stop.scope = scope == "answer" ? StopScope::kAnswer : StopScope::kAll;
  return stop;
}

absl::StatusOr<OutputOptions> ReadOutput(RequestFields& fields) {
  OutputOptions output;
  output.stream = fields.Bool("stream").value_or(false);
  output.return_token_ids = fields.Bool("return_token_ids").value_or(false);
  output.return_timings = fields.Bool("return_timings").value_or(false);
  output.skip_special_tokens = fields.Bool("skip_special_tokens").value_or(true);
  output.echo = fields.Bool("echo").value_or(false);
  output.prompt_logprobs = fields.Count("prompt_logprobs");
  if (output.prompt_logprobs && output.stream) {
    return InvalidField("prompt_logprobs", "are not available with stream: true");
  }
  const json* options = fields.Find("stream_options");
  if (options == nullptr) return output;
  if (!output.stream) return InvalidField("stream_options", "needs stream: true");
  for (const auto& [key, value] : options->items()) {
    bool* flag = key == "include_usage"            ? &output.include_usage
                 : key == "continuous_usage_stats" ? &output.continuous_usage_stats
                                                   : nullptr;
    const std::string name = "stream_options." + key.substr(0, 64);
    if (value.is_null()) continue;
    if (flag == nullptr && key != "include_obfuscation") {
      return InvalidField(name, "unknown stream option");
    }
    if (!value.is_boolean()) return InvalidField(name, "must be true or false");
    if (flag != nullptr) {
      *flag = value.get<bool>();
    } else if (value.get<bool>()) {
      fields.Warn(name, "is not supported, ignored");
    }
  }
  return output;
}

absl::Status CheckTogether(const RequestFields& fields, const GenerationOptions& options) {
  if (options.max_tokens && options.min_tokens > *options.max_tokens) {
    return InvalidField("min_tokens", "must not be over max_tokens");
  }
  const auto best_of = fields.Count("best_of");
  if (best_of && *best_of != options.n) {
    return InvalidField("best_of", "must equal n: choosing the best of more is not supported yet");
  }
  if (!options.request_id) return absl::OkStatus();
  const bool plain =
      !options.request_id->empty() &&
      std::all_of(options.request_id->begin(), options.request_id->end(), [](char c) {
        return std::isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '_' || c == ':' ||
               c == '-';
      });
  return plain ? absl::OkStatus()
               : InvalidField("request_id", "must be 1 to 128 of [A-Za-z0-9._:-]");
}

}  // namespace

absl::StatusOr<GenerationOptions> ReadGenerationOptions(RequestFields& fields) {
  GenerationOptions options;
  options.model = fields.String("model").value_or("");
  auto sampling = ReadSampling(fields);
  if (!sampling.ok()) return sampling.status();
  options.sampling = *std::move(sampling);
  auto stop = ReadStop(fields);
  if (!stop.ok()) return stop.status();
  options.stop = *std::move(stop);
  auto output = ReadOutput(fields);
  if (!output.ok()) return output.status();
  options.output = *std::move(output);
  auto structure = ReadStructure(fields);
  if (!structure.ok()) return structure.status();
  options.structure = *std::move(structure);
  if (const auto max_tokens = fields.Integer("max_tokens"); max_tokens && *max_tokens != -1) {
    if (*max_tokens == 0) {  // n_predict's range begins at -1, which is all that there is room for
      return InvalidField(fields.NameOf("max_tokens"), "must be at least 1");
    }
    options.max_tokens = static_cast<uint32_t>(*max_tokens);
  }
  options.min_tokens = fields.Count("min_tokens").value_or(0);
  options.n = fields.Count("n").value_or(1);
  options.truncate_prompt_tokens = fields.Count("truncate_prompt_tokens");
  options.cache_salt = fields.String("cache_salt").value_or("");
  options.user = fields.String("user").value_or("");
  options.priority = static_cast<int32_t>(fields.Integer("priority").value_or(0));
  options.request_id = fields.String("request_id");
  if (absl::Status bad = CheckTogether(fields, options); !bad.ok()) return bad;
  options.warnings = fields.warnings;
  return options;
}

absl::StatusOr<ReasoningFormat> ReadReasoningFormat(RequestFields& fields,
                                                    ReasoningFormat otherwise) {
  // The first that is given counts; one that contradicts it is named.
  std::optional<ReasoningFormat> settled;
  if (const auto format = fields.String("reasoning_format")) {
    if (*format != "none" && *format != "separate") {
      return InvalidField("reasoning_format", "must be \"none\" or \"separate\"");
    }
    settled = *format == "none" ? ReasoningFormat::kNone : ReasoningFormat::kSeparate;
  }
  for (const char* name : {"separate_reasoning", "include_reasoning"}) {
    const auto flag = fields.Bool(name);
    if (!flag) continue;
    const auto wanted = *flag ? ReasoningFormat::kSeparate : ReasoningFormat::kNone;
    if (settled.value_or(wanted) != wanted) {
      fields.Warn(name, "contradicts another field about reasoning, which counts");
    }
    settled = settled.value_or(wanted);
  }
  return settled.value_or(otherwise);
}

}  // namespace behemoth::gateway
