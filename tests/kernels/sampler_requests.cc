#include "tests/kernels/sampler_requests.h"

#include <algorithm>
#include <random>
#include <span>

namespace behemoth::worker {
namespace {

constexpr int32_t kVocabulary = 4096;  // tests/models/tiny
constexpr TokenId kFirstText = 300;    // control tokens and bytes come before

TokenId SomeId(std::mt19937& random) {
  return kFirstText + static_cast<TokenId>(random() % (kVocabulary - kFirstText));
}

bool IsInPrompt(const SamplerRequest& asked, TokenId id) {
  return std::count(asked.prompt.begin(), asked.prompt.end(), id) > 0;
}

// What bans takes none of FewIds, so that no mixture bans all.
TokenId SomeOtherId(std::mt19937& random, const SamplerRequest& asked) {
  TokenId id = SomeId(random);
  while (IsInPrompt(asked, id)) id = SomeId(random);
  return id;
}

// Nothing else than six of the prompt's ids may be said: repeats are sure.
std::vector<TokenId> FewIds(SamplerRequest& asked) {
  if (asked.params.allowed_ids.empty()) {
    asked.params.allowed_ids.assign(asked.prompt.begin() + 1, asked.prompt.begin() + 7);
    asked.plain.allowed_ids = asked.params.allowed_ids;
  }
  return asked.params.allowed_ids;
}

void Dry(std::mt19937& random, SamplerRequest& asked) {
  FewIds(asked);
  asked.params.dry = {.multiplier = 2.0f,
                      .base = 1.5f,
                      .allowed_length = 1 + static_cast<int32_t>(random() % 3),
                      .last_n = random() % 2 == 0 ? 0 : 25};
}

void DryWithBreakers(std::mt19937& random, SamplerRequest& asked) {
  Dry(random, asked);
  const std::vector<TokenId> ids = FewIds(asked);
  asked.params.dry.breaker_ids = {ids[0]};
  asked.params.dry.spanning_breakers = {{.heads = {ids[1], ids[2]}, .tail = {ids[3]}}};
}

void BannedSequences(std::mt19937&, SamplerRequest& asked) {
  const std::vector<TokenId> ids = FewIds(asked);
  asked.params.banned_sequences = {{ids[0], ids[1]}, {ids[2], ids[2]}, {ids[3], ids[4], ids[5]}};
}

void MinTokens(std::mt19937& random, SamplerRequest& asked) {
  asked.params.min_tokens = 30;
  for (int i = 0; i < 400; ++i) asked.params.stop_ids.push_back(SomeOtherId(random, asked));
}

void LogitBias(std::mt19937& random, SamplerRequest& asked) {
  for (int i = 0; i < 300; ++i) {
    const TokenId id = kFirstText + 12 * i + static_cast<TokenId>(random() % 12);
    const bool bans = i % 3 == 0 && !IsInPrompt(asked, id);
    asked.params.logit_bias.push_back({id, bans ? -100.0f : static_cast<float>(i % 7)});
  }
}

void BannedIds(std::mt19937& random, SamplerRequest& asked) {
  for (int i = 0; i < 1500; ++i) asked.params.banned_ids.push_back(SomeOtherId(random, asked));
}

void AllowedIds(std::mt19937& random, SamplerRequest& asked) {
  if (!asked.params.allowed_ids.empty()) return;
  for (int i = 0; i < 900; ++i) asked.params.allowed_ids.push_back(SomeId(random));
}

void TemperatureLast(std::mt19937&, SamplerRequest& asked) {
  SamplerOrder& order = asked.params.order;
  std::rotate(order.begin(), order.begin() + 1, order.end());
  asked.params.temperature = 1.6f;
  asked.params.min_p = 0.05f;
}

void AnyOrder(std::mt19937& random, SamplerRequest& asked) {
  std::shuffle(asked.params.order.begin(), asked.params.order.end(), random);
  asked.params.top_k = 40;
  asked.params.typical_p = 0.8f;
}

using Random = std::mt19937;
using Asked = SamplerRequest;
struct Kind {
  const char* name;
  void (*ask)(std::mt19937&, SamplerRequest&);
};
constexpr Kind kKinds[] = {
    {"greedy", [](Random&, Asked& a) { a.params.temperature = 0; }},
    {"temperature", [](Random&, Asked& a) { a.params.temperature = 1.4f; }},
    {"top_p", [](Random&, Asked& a) { a.params.top_p = 0.6f; }},
    {"top_k", [](Random&, Asked& a) { a.params.top_k = 5; }},
    {"min_p", [](Random&, Asked& a) { a.params.min_p = 0.2f; }},
    {"typical_p", [](Random&, Asked& a) { a.params.typical_p = 0.5f; }},
    {"top_n_sigma", [](Random&, Asked& a) { a.params.top_n_sigma = 0.8f; }},
    {"xtc",
     [](Random&, Asked& a) {
       a.params.xtc_probability = 0.7f;
       a.params.xtc_threshold = 0.02f;
     }},
    {"dynamic_temperature",
     [](Random&, Asked& a) {
       a.params.dynamic_temperature = DynamicTemperature{0.3f, 1.8f, 1.3f};
     }},
    {"smoothing",
     [](Random&, Asked& a) {
       a.params.smoothing_factor = 0.3f;
       a.params.smoothing_curve = 2.5f;
     }},
    {"repetition_penalty", [](Random&, Asked& a) { a.params.repetition_penalty = 1.5f; }},
    {"presence_penalty", [](Random&, Asked& a) { FewIds(a), a.params.presence_penalty = 1.5f; }},
    {"frequency_penalty", [](Random&, Asked& a) { FewIds(a), a.params.frequency_penalty = 0.7f; }},
    {"dry", Dry},
    {"dry with breakers", DryWithBreakers},
    {"banned sequences", BannedSequences},
    {"logit_bias", LogitBias},
    {"banned ids", BannedIds},
    {"allowed ids", AllowedIds},
    {"min_tokens", MinTokens},
    {"temperature last", TemperatureLast},
    {"any order", AnyOrder},
    {"masks", [](Random&, Asked& a) { a.is_masked = a.params.allowed_ids.empty(); }},
};

// Ids that come again, so that penalties and DRY have something to hold on to.
SamplerRequest Ask(std::mt19937& random, std::string kind) {
  SamplerRequest asked{.kind = std::move(kind), .prompt = {1}, .vocabulary = kVocabulary};
  std::vector<TokenId> ids;
  for (int i = 0; i < 8; ++i) ids.push_back(SomeId(random));
  asked.prompt.insert(asked.prompt.end(), ids.begin(), ids.end());
  for (uint32_t i = 4 + random() % 60; i > 0; --i) asked.prompt.push_back(ids[random() % 8]);
  asked.params.temperature = 0.8f;
  asked.params.seed = (uint64_t{random()} << 32) | random();
  asked.plain = asked.params;
  return asked;
}

}  // namespace

std::vector<SamplerRequest> SamplerRequests(int32_t seeds, int32_t mixtures) {
  std::mt19937 random(7);
  std::vector<SamplerRequest> requests;
  for (const Kind& kind : kKinds) {
    for (int32_t i = 0; i < seeds; ++i) {
      kind.ask(random, requests.emplace_back(Ask(random, kind.name)));
    }
  }
  for (int32_t i = 0; i < mixtures; ++i) {
    SamplerRequest& asked = requests.emplace_back(Ask(random, "mixture"));
    for (const Kind& kind : kKinds) {
      if (random() % 4 == 0) kind.ask(random, asked);
    }
    if (random() % 4 == 0) asked.params.top_logprobs = static_cast<int32_t>(random() % 6);
  }
  std::shuffle(requests.begin(), requests.end(), random);
  return requests;
}

TokenMask HashForm::MaskOf(uint64_t seed, int32_t vocabulary, const std::vector<TokenId>& tokens) {
  uint64_t state = seed + tokens.size();
  if (!tokens.empty()) state += static_cast<uint64_t>(tokens.back()) << 20;
  std::mt19937_64 random(state);
  TokenMask mask((static_cast<size_t>(vocabulary) + 31) / 32);
  for (uint32_t& word : mask) word = static_cast<uint32_t>(random() & random());
  return mask;
}

}  // namespace behemoth::worker
