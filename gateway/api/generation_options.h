// What a request may say about how its answer is made: shared by chat and completions.
//
// Plain values, checked by the parser (ranges in field_table.h); later code reads them without
// looking again. An absent optional means that the client said nothing: the worker's
// generation_config, then the default in spec brackets, fills it in.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace behemoth::gateway {

// Something that was ignored, clamped or approximated; a reply lists them in `warnings`.
struct Warning {
  std::string field;
  std::string message;
};

// From the temperature on, what a request may order; the numbers are the default order.
enum class SamplerStage : uint8_t {
  kTemperature = 1,  // with dynamic temperature and smoothing
  kTopNSigma,
  kTypicalP,
  kMinP,
  kTopK,
  kTopP,
  kXtc,
};

struct DryOptions {
  double multiplier = 0;                   // > 0
  std::optional<double> base;              // [1.75] >= 1
  std::optional<uint32_t> allowed_length;  // [2] >= 1
  uint32_t last_n = 0;                     // tokens looked back; 0 = the whole context
  std::vector<std::string> breakers;       // at most 64, together 1,023 bytes; no string twice
};

struct DynamicTemperatureOptions {
  double low = 0, high = 0;        // 0 <= low <= high
  std::optional<double> exponent;  // [1] > 0
};

struct SamplingOptions {
  std::optional<double> temperature;         // [1] 0 = greedy
  std::optional<double> top_p;               // [1] (0, 1]
  std::optional<int32_t> top_k;              // [0] 0 and -1 = off
  std::optional<double> min_p;               // [0] [0, 1]
  std::optional<double> repetition_penalty;  // [1] > 0
  std::optional<double> presence_penalty;    // [0] -2..2
  std::optional<double> frequency_penalty;   // [0] -2..2
  std::optional<uint64_t> seed;              // absent (or -1 in the request) = drawn by the worker
  std::vector<std::pair<uint32_t, double>> logit_bias;  // by id, ascending, no id twice
  std::vector<uint32_t> allowed_ids;                    // empty = all
  std::vector<uint32_t> banned_ids;
  std::optional<double> typical_p;         // [1] (0, 1]
  std::optional<double> top_n_sigma;       // [0 = off] >= 0
  std::optional<double> xtc_probability;   // [0] [0, 1]
  std::optional<double> xtc_threshold;     // [0.1] [0, 1]
  std::optional<double> smoothing_factor;  // [0 = off] >= 0
  std::optional<double> smoothing_curve;   // [1] > 0
  std::optional<DynamicTemperatureOptions> dynamic_temperature;
  std::optional<DryOptions> dry;
  std::vector<SamplerStage> order;          // no stage twice; empty = the default
  std::vector<std::string> bad_words;       // at most 512 of 1..256 bytes, no string twice
  std::vector<std::string> banned_strings;  // the same; their case is ignored
  bool ban_eos = false;                     // the model's own end is never sampled
};

// Where text stops are looked for.
enum class StopScope { kAll, kAnswer };

struct StopOptions {
  std::vector<std::string> strings;  // at most 64 of 1..256 bytes, no string twice
  std::vector<uint32_t> token_ids;   // at most 256
  bool ignore_eos = false;
  bool include_in_output = false;
  StopScope scope = StopScope::kAll;
};

enum class ReasoningFormat { kNone, kSeparate };

struct OutputOptions {
  bool stream = false;
  bool include_usage = false;           // stream_options: a last chunk with usage
  bool continuous_usage_stats = false;  // usage in every chunk
  // Absent = no logprobs; otherwise how many alternatives beside the chosen token, 0..20.
  std::optional<uint32_t> top_logprobs;
  std::optional<uint32_t> prompt_logprobs;
  bool return_token_ids = false;
  bool return_timings = false;
  bool skip_special_tokens = true;
  bool echo = false;  // the prefill (chat) or the prompt (completions) in front of the text
};

// What the text must look like.
struct StructureOptions {
  enum class Kind { kJsonSchema, kRegex, kGrammar };
  Kind kind = Kind::kJsonSchema;
  std::string text;   // the schema, the regular expression, the GBNF grammar
  std::string field;  // as the client wrote it, for errors
};

// Whether the model may call tools.
enum class ToolCalls {
  kNoTools,  // the token for calls is one like any other
  kBanned,   // tools are shown; that token is never sampled
  kAllowed,  // the model decides; `structure`, if any, is of what follows that token
  kForced,   // the prompt ends with that token, and `structure` is of what follows
};

struct GenerationOptions {
  std::string model;  // as the client wrote it; empty = the only model served
  SamplingOptions sampling;
  StopOptions stop;
  OutputOptions output;
  std::optional<StructureOptions> structure;  // absent = any text
  ToolCalls tool_calls = ToolCalls::kNoTools;
  std::optional<uint32_t> max_tokens;  // absent = the rest of the context
  uint32_t min_tokens = 0;             // <= max_tokens
  uint32_t n = 1;                      // 1..16
  // Keep at most so many of the prompt's last tokens; absent = refuse what is too long.
  std::optional<uint32_t> truncate_prompt_tokens;
  std::string cache_salt;  // at most 128 bytes
  std::string user;        // fairness hint beside the key; at most 256 bytes, never a metric label
  int32_t priority = 0;    // -100..100
  std::optional<std::string> request_id;  // from the body; 1..128 bytes of [A-Za-z0-9._:-]
  std::vector<Warning> warnings;
};

// How a body is read; the operator's choices and the request's headers.
struct ParseOptions {
  bool strict = false;  // Prefer: handling=strict: a warning becomes a 400
  std::optional<uint32_t> completion_max_tokens = 16;  // absent = the rest of the context
  bool trust_request_template = false;                 // accept `chat_template` of a request
  std::vector<std::string> allowed_template_kwargs = {"enable_thinking", "thinking"};
};

}  // namespace behemoth::gateway
