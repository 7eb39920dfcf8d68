#include "gateway/api/sampler_fields.h"

#include <absl/strings/ascii.h>
#include <absl/strings/str_cat.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "gateway/api/api_error.h"

namespace behemoth::gateway {
namespace {

using json = Json;

// ---- DRY --------------------------------------------------------------------------------------

// Together they make at most 1,023 spanning breakers, one for each proper prefix: the worker takes
// 1,024. 40 bytes is what llama.cpp keeps of one.
constexpr size_t kMaxBreakers = 64;
constexpr size_t kMaxBreakerBytes = 40;
constexpr size_t kMaxBreakerBytesTogether = 1023;
constexpr std::array<std::string_view, 4> kDefaultBreakers = {"\n", ":", "\"", "*"};

// A list of strings, or such a list as JSON in a string (SillyTavern), with its brackets or without
// (text-generation-webui).
absl::StatusOr<std::vector<std::string>> ReadBreakers(const RequestFields& fields) {
  const json* value = fields.Find("dry_sequence_breakers");
  if (value == nullptr) {
    return std::vector<std::string>(kDefaultBreakers.begin(), kDefaultBreakers.end());
  }
  const std::string name = fields.NameOf("dry_sequence_breakers");
  json list = *value;
  if (list.is_string()) {
    std::string text(absl::StripAsciiWhitespace(list.get_ref<const std::string&>()));
    if (!text.starts_with('[')) text = absl::StrCat("[", text, "]");
    list = json::parse(text, nullptr, /*allow_exceptions=*/false);
  }
  const bool strings = list.is_array() && std::all_of(list.begin(), list.end(), [](const json& s) {
                         return s.is_string() && !s.get_ref<const std::string&>().empty();
                       });
  if (!strings) return InvalidField(name, "must be a list of strings, or one as JSON in a string");
  std::vector<std::string> breakers;
  size_t bytes = 0;
  for (const json& entry : list) {
    const auto& text = entry.get_ref<const std::string&>();
    if (text.size() > kMaxBreakerBytes) {
      return InvalidField(name, absl::StrCat("a breaker has at most ", kMaxBreakerBytes, " bytes"));
    }
    if (std::find(breakers.begin(), breakers.end(), text) != breakers.end()) continue;
    bytes += text.size();
    breakers.push_back(text);
  }
  if (breakers.size() > kMaxBreakers || bytes > kMaxBreakerBytesTogether) {
    return InvalidField(name, absl::StrCat("at most ", kMaxBreakers, " breakers of together ",
                                           kMaxBreakerBytesTogether, " bytes"));
  }
  return breakers;
}

absl::Status ReadDry(const RequestFields& fields, SamplingOptions& sampling) {
  // Also without a multiplier: what cannot be read is never silent.
  auto breakers = ReadBreakers(fields);
  if (!breakers.ok()) return breakers.status();
  const double multiplier = fields.Number("dry_multiplier").value_or(0);
  if (multiplier == 0) return absl::OkStatus();
  DryOptions dry{.multiplier = multiplier, .breakers = *std::move(breakers)};
  dry.base = fields.Number("dry_base");
  dry.allowed_length = fields.Count("dry_allowed_length");
  if (dry.base.value_or(1) < 1) {
    return InvalidField(fields.NameOf("dry_base"), "must be at least 1");
  }
  if (dry.allowed_length.value_or(1) < 1) {
    return InvalidField(fields.NameOf("dry_allowed_length"), "must be at least 1");
  }
  // -1 is llama.cpp's word for the whole context, 0 text-generation-webui's.
  const int64_t last_n = fields.Integer("dry_penalty_last_n").value_or(0);
  dry.last_n = static_cast<uint32_t>(std::max<int64_t>(last_n, 0));
  sampling.dry = std::move(dry);
  return absl::OkStatus();
}

// ---- Dynamic temperature
// --------------------------------------------------------------------------

constexpr double kMaxTemperature = 1e6;

// Spelt as low and high (text-generation-webui with its switch, TabbyAPI and aphrodite without), or
// as a range around the temperature (llama.cpp, KoboldCpp). SillyTavern sends all of them together:
// low and high count then, as they are what its sliders show.
absl::Status ReadDynamicTemperature(RequestFields& fields, SamplingOptions& sampling) {
  const auto wanted = fields.Bool("dynamic_temperature");
  if (!wanted.value_or(true)) return absl::OkStatus();
  const auto low = fields.Number("dynatemp_low"), high = fields.Number("dynatemp_high");
  const double range = fields.Number("dynatemp_range").value_or(0);
  DynamicTemperatureOptions dynamic{.exponent = fields.Number("dynatemp_exponent")};
  if (low || high) {
    if (!low || !high) {
      if (low.value_or(0) == 0 && high.value_or(0) == 0) return absl::OkStatus();
      return InvalidField(
          low ? "dynatemp_high" : "dynatemp_low",
          absl::StrCat("is needed beside ", fields.NameOf(low ? "dynatemp_low" : "dynatemp_high")));
    }
    if (*high < *low) {
      return InvalidField(fields.NameOf("dynatemp_high"),
                          absl::StrCat("must not be under ", fields.NameOf("dynatemp_low")));
    }
    // Equal ones are how a client without the switch says off.
    if (*high == *low && !wanted) return absl::OkStatus();
    if (range != 0 && std::abs(2 * range - (*high - *low)) > 1e-3) {
      fields.Warn("dynatemp_range", "dynatemp_low and dynatemp_high say otherwise and count");
    }
    dynamic.low = *low;
    dynamic.high = *high;
  } else if (range > 0) {
    const double middle = sampling.temperature.value_or(1);
    dynamic.low = std::max(0.0, middle - range);
    dynamic.high = middle + range;
    if (dynamic.high > kMaxTemperature) {
      return InvalidField("dynatemp_range", "with the temperature must be at most 1000000");
    }
  } else if (wanted) {
    return InvalidField("dynamic_temperature", "needs dynatemp_low and dynatemp_high");
  } else {
    return absl::OkStatus();
  }
  if (dynamic.exponent && static_cast<float>(*dynamic.exponent) <= 0) {
    return InvalidField(fields.NameOf("dynatemp_exponent"), "must be over 0");
  }
  sampling.dynamic_temperature = dynamic;
  return absl::OkStatus();
}

// ---- The order
// ------------------------------------------------------------------------------------

struct StageName {
  std::string_view name;
  // None: what always comes first (penalties), or what this server does not have and that works
  // nowhere in the order; by itself such a sampler is refused or named in `warnings`.
  std::optional<SamplerStage> stage;
  bool comes_first = false;
};

// Ours, text-generation-webui's, TabbyAPI's, aphrodite's and llama.cpp's names; one that stands
// for two of our stages has two rows.
constexpr StageName kStageNames[] = {
    {"temperature", SamplerStage::kTemperature},
    {"dynamic_temperature", SamplerStage::kTemperature},
    {"quadratic_sampling", SamplerStage::kTemperature},
    {"quadratic", SamplerStage::kTemperature},
    {"smoothing", SamplerStage::kTemperature},
    {"temp", SamplerStage::kTemperature},
    {"temp_ext", SamplerStage::kTemperature},
    {"temperatures", SamplerStage::kTemperature},
    {"top_n_sigma", SamplerStage::kTopNSigma},
    {"top_nsigma", SamplerStage::kTopNSigma},
    {"nsigma", SamplerStage::kTopNSigma},
    {"typical_p", SamplerStage::kTypicalP},
    {"typ_p", SamplerStage::kTypicalP},
    {"typical", SamplerStage::kTypicalP},
    {"min_p", SamplerStage::kMinP},
    {"top_k", SamplerStage::kTopK},
    {"top_p", SamplerStage::kTopP},
    {"top_p_top_k", SamplerStage::kTopK},
    {"top_p_top_k", SamplerStage::kTopP},
    {"xtc", SamplerStage::kXtc},
    {"dry", std::nullopt, true},
    {"penalties", std::nullopt, true},
    {"repetition_penalty", std::nullopt, true},
    {"presence_penalty", std::nullopt, true},
    {"frequency_penalty", std::nullopt, true},
    {"no_repeat_ngram", std::nullopt, true},
    {"encoder_repetition_penalty", std::nullopt, true},
    {"logit_bias", std::nullopt, true},
    {"epsilon_cutoff", std::nullopt},
    {"eta_cutoff", std::nullopt},
    {"tfs", std::nullopt},
    {"tfs_z", std::nullopt},
    {"top_a", std::nullopt},
    {"mirostat", std::nullopt},
};

// KoboldAI's numbers for them.
constexpr std::array<std::string_view, 7> kKoboldNames = {
    "top_k", "top_a", "top_p", "tfs", "typical", "temperature", "repetition_penalty"};

absl::StatusOr<std::vector<std::string>> ReadStageNames(const std::string& name,
                                                        const json& value) {
  constexpr size_t kMaxNames = 64;
  std::vector<std::string> names;
  if (!value.is_array()) return InvalidField(name, "must be a list of samplers' names");
  if (value.size() > kMaxNames) {
    return InvalidField(name, absl::StrCat("at most ", kMaxNames, " names"));
  }
  for (const json& entry : value) {
    if (entry.is_number_unsigned() && entry.get<uint64_t>() < kKoboldNames.size()) {
      names.emplace_back(kKoboldNames[entry.get<size_t>()]);
    } else if (entry.is_string()) {
      names.push_back(entry.get<std::string>());
    } else {
      return InvalidField(absl::StrCat(name, "[", names.size(), "]"),
                          "must be a sampler's name, or its number in KoboldAI's list");
    }
  }
  return names;
}

bool Contains(const std::vector<SamplerStage>& order, SamplerStage stage) {
  return std::find(order.begin(), order.end(), stage) != order.end();
}

std::vector<SamplerStage> TemperatureLast() {
  using enum SamplerStage;
  return {kTopNSigma, kTypicalP, kMinP, kTopK, kTopP, kXtc, kTemperature};
}

absl::Status ReadOrder(RequestFields& fields, SamplingOptions& sampling) {
  const bool last = fields.Bool("temperature_last").value_or(false);
  const json* value = fields.Find("sampler_order");
  if (value == nullptr || *value == "" || (value->is_array() && value->empty())) {
    if (last) sampling.order = TemperatureLast();
    return absl::OkStatus();
  }
  const std::string name = fields.NameOf("sampler_order");
  auto names = ReadStageNames(name, *value);
  if (!names.ok()) return names.status();
  for (size_t i = 0; i < names->size(); ++i) {
    bool known = false;
    for (const StageName& row : kStageNames) {
      if (row.name != (*names)[i]) continue;
      known = true;
      if (row.comes_first && !sampling.order.empty()) {
        fields.Warn(name, absl::StrCat((*names)[i], " always comes first, before the temperature"));
      }
      // Several names may mean one stage of ours: the first place counts.
      if (row.stage && !Contains(sampling.order, *row.stage)) sampling.order.push_back(*row.stage);
    }
    if (!known) {
      return InvalidField(absl::StrCat(name, "[", i, "]"), "there is no sampler of this name");
    }
  }
  if (last && !sampling.order.empty() && sampling.order.back() != SamplerStage::kTemperature) {
    fields.Warn("temperature_last", absl::StrCat(name, " says otherwise and counts"));
  }
  return absl::OkStatus();
}

// ---- Phrases ----------------------------------------------------------------------------------

absl::StatusOr<std::vector<std::string>> ReadPhrases(const RequestFields& fields,
                                                     std::string_view field) {
  constexpr size_t kMaxPhrases = 512;  // with and without a space in front: the worker's 1,024
  constexpr size_t kMaxPhraseBytes = 256;
  const json* value = fields.Find(field);
  std::vector<std::string> phrases;
  if (value == nullptr || *value == "") return phrases;
  const std::string name = fields.NameOf(field);
  const json list = value->is_string() ? json::array({*value}) : *value;
  if (!list.is_array()) return InvalidField(name, "must be a list of strings");
  if (list.size() > kMaxPhrases) {
    return InvalidField(name, absl::StrCat("at most ", kMaxPhrases, " strings"));
  }
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string at = absl::StrCat(name, "[", i, "]");
    if (!list[i].is_string()) return InvalidField(at, "must be a string");
    const auto& text = list[i].get_ref<const std::string&>();
    if (text.empty() || text.size() > kMaxPhraseBytes) {
      return InvalidField(at, absl::StrCat("must have 1 to ", kMaxPhraseBytes, " bytes"));
    }
    if (std::find(phrases.begin(), phrases.end(), text) == phrases.end()) phrases.push_back(text);
  }
  return phrases;
}

absl::Status ReadBadWords(const RequestFields& fields, SamplingOptions& sampling) {
  auto words = ReadPhrases(fields, "bad_words");
  if (!words.ok()) return words.status();
  for (const std::string& word : *words) {
    if (absl::StripLeadingAsciiWhitespace(word).empty()) {
      return InvalidField("bad_words", "a word must be more than white space");
    }
  }
  sampling.bad_words = *std::move(words);
  return absl::OkStatus();
}

}  // namespace

absl::Status ReadSamplers(RequestFields& fields, SamplingOptions& sampling) {
  sampling.typical_p = fields.Number("typical_p");
  // -1 is llama.cpp's word for off.
  if (const auto sigma = fields.Number("top_n_sigma")) sampling.top_n_sigma = std::max(0.0, *sigma);
  sampling.xtc_probability = fields.Number("xtc_probability");
  sampling.xtc_threshold = fields.Number("xtc_threshold");
  sampling.smoothing_factor = fields.Number("smoothing_factor");
  sampling.smoothing_curve = fields.Number("smoothing_curve");
  sampling.ban_eos = fields.Bool("ban_eos_token").value_or(false);
  if (absl::Status bad = ReadDynamicTemperature(fields, sampling); !bad.ok()) return bad;
  if (absl::Status bad = ReadDry(fields, sampling); !bad.ok()) return bad;
  if (absl::Status bad = ReadOrder(fields, sampling); !bad.ok()) return bad;
  auto banned = ReadPhrases(fields, "banned_strings");
  if (!banned.ok()) return banned.status();
  sampling.banned_strings = *std::move(banned);
  return ReadBadWords(fields, sampling);
}

}  // namespace behemoth::gateway
