// Each field out of its range, through the worker's own door: the error begins with the field's
// name, and the engine never hears of the request.
#include <cmath>
#include <limits>

#include "tests/integration/worker/worker_fixture.h"

namespace behemoth::worker {
namespace {

struct BadField {
  const char* name;
  std::function<void(v1::GenerateRequest&)> spoil;
};

class BadFieldsTest : public WorkerFixture {
 protected:
  BadFieldsTest() { EnterReady(); }
};

std::vector<BadField> SamplingFields() {
  const float nan = std::nanf("");
  const float infinity = std::numeric_limits<float>::infinity();
  std::vector<BadField> fields;
  const auto add = [&](const char* name, void (v1::SamplingParams::*set)(float),
                       std::vector<float> values) {
    for (const float value : values) {
      fields.push_back({name, [=](auto& r) { (r.mutable_sampling()->*set)(value); }});
    }
  };
  using P = v1::SamplingParams;
  add("sampling.temperature", &P::set_temperature, {-.1f, nan, infinity});
  add("sampling.top_p", &P::set_top_p, {0, 1.1f, -1, nan});
  add("sampling.min_p", &P::set_min_p, {-.1f, 1.1f, nan});
  add("sampling.repetition_penalty", &P::set_repetition_penalty,
      {0, -1, 1e-45f, 9e-7f, 1.1e6f, nan, infinity});
  add("sampling.presence_penalty", &P::set_presence_penalty, {-2.1f, 2.1f, nan});
  add("sampling.frequency_penalty", &P::set_frequency_penalty, {-2.1f, 2.1f, nan});
  add("sampling.typical_p", &P::set_typical_p, {0, 1.1f, -1, nan});
  add("sampling.top_n_sigma", &P::set_top_n_sigma, {-1, nan, infinity});
  add("sampling.xtc_probability", &P::set_xtc_probability, {-.1f, 1.1f, nan});
  add("sampling.xtc_threshold", &P::set_xtc_threshold, {-.1f, 1.1f, nan});
  add("sampling.smoothing_factor", &P::set_smoothing_factor, {-.1f, nan, infinity});
  add("sampling.smoothing_curve", &P::set_smoothing_curve, {0, -1, nan, infinity});
  fields.push_back({"sampling.top_k", [](auto& r) { r.mutable_sampling()->set_top_k(-2); }});
  fields.push_back({"sampling.logit_bias", [](auto& r) {
                      auto* bias = r.mutable_sampling()->add_logit_bias();
                      bias->set_id(2000);
                    }});
  for (const float value : {100.5f, -101.f, nan}) {
    fields.push_back({"sampling.logit_bias",
                      [=](auto& r) { r.mutable_sampling()->add_logit_bias()->set_bias(value); }});
  }
  fields.push_back({"sampling.logit_bias", [](auto& r) {
                      for (int i = 0; i < 1025; ++i) r.mutable_sampling()->add_logit_bias();
                    }});
  fields.push_back(
      {"sampling.allowed_ids", [](auto& r) { r.mutable_sampling()->add_allowed_ids(2000); }});
  fields.push_back({"sampling.banned_ids", [](auto& r) {
                      for (int i = 0; i < 2001; ++i) r.mutable_sampling()->add_banned_ids(0);
                    }});
  fields.push_back({"sampling.banned_ids", [](auto& r) {
                      r.mutable_sampling()->add_allowed_ids(5);
                      r.mutable_sampling()->add_banned_ids(5);
                    }});
  return fields;
}

std::vector<BadField> DynamicTemperatureFields() {
  using Dynamic = v1::DynamicTemperature;
  const auto spoil = [](void (*set)(Dynamic&)) {
    return [=](auto& r) { set(*r.mutable_sampling()->mutable_dynamic_temperature()); };
  };
  return {
      {"sampling.dynamic_temperature.low", spoil([](Dynamic& d) { d.set_low(-1); })},
      {"sampling.dynamic_temperature.low", spoil([](Dynamic& d) { d.set_low(std::nanf("")); })},
      {"sampling.dynamic_temperature.high", spoil([](Dynamic& d) { d.set_low(1); })},
      {"sampling.dynamic_temperature.high", spoil([](Dynamic& d) { d.set_high(std::nanf("")); })},
      {"sampling.dynamic_temperature.high", spoil([](Dynamic& d) { d.set_high(INFINITY); })},
      {"sampling.dynamic_temperature.exponent", spoil([](Dynamic& d) { d.set_exponent(0); })},
  };
}

std::vector<BadField> OrderAndSequenceFields() {
  using P = v1::SamplingParams;
  const auto spoil = [](void (*set)(P&)) { return [=](auto& r) { set(*r.mutable_sampling()); }; };
  return {
      {"sampling.order", spoil([](P& p) { p.add_order(v1::SAMPLER_STAGE_UNSPECIFIED); })},
      {"sampling.order", spoil([](P& p) { p.add_order(static_cast<v1::SamplerStage>(8)); })},
      {"sampling.order", spoil([](P& p) {
         p.add_order(v1::SAMPLER_STAGE_XTC);
         p.add_order(v1::SAMPLER_STAGE_XTC);
       })},
      {"sampling.banned_sequences", spoil([](P& p) { p.add_banned_sequences()->add_ids(1); })},
      {"sampling.banned_sequences",
       spoil([](P& p) { p.add_banned_sequences()->mutable_ids()->Resize(65, 1); })},
      {"sampling.banned_sequences",
       spoil([](P& p) { p.add_banned_sequences()->mutable_ids()->Resize(2, 2000); })},
      {"sampling.banned_sequences", spoil([](P& p) {
         for (int i = 0; i < 1025; ++i) p.add_banned_sequences()->mutable_ids()->Resize(2, 1);
       })},
      {"sampling.banned_sequences", spoil([](P& p) {
         for (int i = 0; i < 257; ++i) p.add_banned_sequences()->mutable_ids()->Resize(64, 1);
       })},
  };
}

std::vector<BadField> DryFields() {
  using Dry = v1::DryParams;
  const auto spoil = [](void (*set)(Dry&)) {
    return [=](auto& r) { set(*r.mutable_sampling()->mutable_dry()); };
  };
  static constexpr char kSpanning[] = "sampling.dry.spanning_breakers";
  return {
      {"sampling.dry.multiplier", spoil([](Dry& d) { d.set_multiplier(-1); })},
      {"sampling.dry.multiplier", spoil([](Dry& d) { d.set_multiplier(std::nanf("")); })},
      {"sampling.dry.base", spoil([](Dry& d) { d.set_base(.9f); })},
      {"sampling.dry.base", spoil([](Dry& d) { d.set_base(INFINITY); })},
      {"sampling.dry.allowed_length", spoil([](Dry& d) { d.set_allowed_length(0); })},
      {"sampling.dry.allowed_length", spoil([](Dry& d) { d.set_allowed_length(1025); })},
      {"sampling.dry.breaker_ids", spoil([](Dry& d) { d.add_breaker_ids(2000); })},
      {kSpanning, spoil([](Dry& d) { d.add_spanning_breakers()->add_heads(1); })},
      {kSpanning, spoil([](Dry& d) { d.add_spanning_breakers()->add_tail(1); })},
      {kSpanning, spoil([](Dry& d) {
         auto* breaker = d.add_spanning_breakers();
         breaker->add_heads(2000);
         breaker->add_tail(1);
       })},
      {kSpanning, spoil([](Dry& d) {
         auto* breaker = d.add_spanning_breakers();
         breaker->add_heads(1);
         breaker->mutable_tail()->Resize(17, 1);
       })},
      {kSpanning, spoil([](Dry& d) {
         auto* breaker = d.add_spanning_breakers();
         breaker->mutable_heads()->Resize(16384, 1);
         breaker->add_tail(1);
       })},
      {kSpanning, spoil([](Dry& d) {
         for (int i = 0; i < 1025; ++i) d.add_spanning_breakers();
       })},
  };
}

std::vector<BadField> RequestFields() {
  return {
      {"request_id", [](auto& r) { r.set_request_id(""); }},
      {"request_id", [](auto& r) { r.set_request_id("a b"); }},
      {"request_id", [](auto& r) { r.set_request_id(std::string(129, 'a')); }},
      {"prompt_ids", [](auto& r) { r.clear_prompt_ids(); }},
      {"prompt_ids", [](auto& r) { r.set_prompt_ids(0, 2000); }},
      {"prompt_ids", [](auto& r) { r.set_prompt_ids(0, 0xffffffffu); }},
      {"prompt_ids", [](auto& r) { r.mutable_prompt_ids()->Resize(1024, 0); }},
      {"prompt_ids", [](auto& r) { r.mutable_prompt_ids()->Resize(1025, 0); }},
      {"stop_token_ids", [](auto& r) { r.add_stop_token_ids(2000); }},
      {"stop_token_ids", [](auto& r) { r.mutable_stop_token_ids()->Resize(257, 0); }},
      {"max_tokens", [](auto& r) { r.set_max_tokens(0); }},
      {"max_tokens", [](auto& r) { r.set_max_tokens(1005); }},
      {"max_tokens", [](auto& r) { r.set_max_tokens(0xffffffffu); }},
      {"min_tokens", [](auto& r) { r.set_min_tokens(9); }},
      {"min_tokens",
       [](auto& r) {
         r.set_min_tokens(1);
         r.add_stop_token_ids(7);
         r.mutable_sampling()->add_allowed_ids(7);
       }},
      {"num_sequences", [](auto& r) { r.set_num_sequences(0); }},
      {"num_sequences", [](auto& r) { r.set_num_sequences(17); }},
      {"cache_salt", [](auto& r) { r.set_cache_salt(std::string(129, 's')); }},
      {"fairness_key", [](auto& r) { r.set_fairness_key(std::string(257, 'k')); }},
      {"priority", [](auto& r) { r.set_priority(101); }},
      {"priority", [](auto& r) { r.set_priority(-101); }},
      {"logprobs.top", [](auto& r) { r.mutable_logprobs()->set_top(21); }},
  };
}

TEST_F(BadFieldsTest, EachIsRefusedByNameAndTheEngineIsUntouched) {
  std::vector<BadField> fields = RequestFields();
  for (const auto more :
       {SamplingFields, DynamicTemperatureFields, OrderAndSequenceFields, DryFields}) {
    for (BadField& field : more()) fields.push_back(std::move(field));
  }
  for (const BadField& field : fields) {
    auto request = Request("bad");
    field.spoil(request);
    const Outcome outcome = Generate(request);
    EXPECT_EQ(outcome.status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << field.name;
    EXPECT_THAT(outcome.status.error_message(), testing::StartsWith(std::string(field.name) + ":"));
  }
  EXPECT_EQ(engine_->load().steps, 0u);
  const auto healthy = Request("bad");
  EXPECT_EQ(Generate(healthy).tokens[0], Alone(healthy));
}

TEST_F(BadFieldsTest, TheEdgesOfEveryRangeAreServed) {
  auto request = Request("edge", 1004);  // with the prompt's 20 tokens the whole context
  auto* sampling = request.mutable_sampling();
  sampling->set_top_p(1);
  sampling->set_top_k(-1);
  sampling->set_min_p(1);
  sampling->set_presence_penalty(-2);
  sampling->set_frequency_penalty(2);
  sampling->add_logit_bias()->set_bias(-100);
  sampling->set_typical_p(1);
  sampling->set_top_n_sigma(0);
  sampling->set_xtc_probability(1);
  sampling->set_xtc_threshold(1);
  sampling->mutable_dynamic_temperature()->set_high(2);
  for (int stage = v1::SAMPLER_STAGE_XTC; stage >= v1::SAMPLER_STAGE_TEMPERATURE; --stage) {
    sampling->add_order(static_cast<v1::SamplerStage>(stage));
  }
  sampling->mutable_dry()->set_multiplier(1);
  sampling->mutable_dry()->set_last_n(0xffffffffu);
  sampling->add_banned_sequences()->mutable_ids()->Resize(64, 1);
  request.set_min_tokens(1004);
  request.set_priority(-100);
  request.set_cache_salt(std::string(128, 's'));
  EXPECT_EQ(Generate(request).finishes.at(0).usage().completion_tokens(), 1004u);
}

TEST_F(BadFieldsTest, ControlNamesItsFieldsToo) {
  const auto message = [this](const std::function<void(v1::ControlRequest&)>& fill) {
    v1::ControlRequest request;
    request.set_request_id("nobody");
    fill(request);
    const grpc::Status status = Control(request);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
    return status.error_message();
  };
  using testing::StartsWith;
  EXPECT_THAT(message([](auto& r) { r.set_request_id(""); }), StartsWith("request_id:"));
  EXPECT_THAT(message([](auto&) {}), StartsWith("action:"));
  EXPECT_THAT(message([](auto& r) { r.mutable_force_ids(); }), StartsWith("force_ids.ids:"));
  EXPECT_THAT(message([](auto& r) { r.mutable_force_ids()->add_ids(2000); }),
              StartsWith("force_ids.ids:"));
  EXPECT_THAT(message([](auto& r) { r.mutable_extend_max_tokens(); }),
              StartsWith("extend_max_tokens.additional_tokens:"));
  EXPECT_THAT(message([](auto& r) { r.mutable_rewind()->add_banned_ids(2000); }),
              StartsWith("rewind.banned_ids:"));
  EXPECT_THAT(message([](auto& r) { r.mutable_rewind()->add_force_ids(2000); }),
              StartsWith("rewind.force_ids:"));
  EXPECT_THAT(message([](auto& r) {
                for (int i = 0; i < 65; ++i) r.mutable_rewind()->add_force_ids(1);
              }),
              StartsWith("rewind.force_ids:"));
  v1::ControlRequest cancel;
  cancel.set_request_id("nobody");
  cancel.mutable_cancel();
  EXPECT_EQ(Control(cancel).error_code(), grpc::StatusCode::NOT_FOUND);
}

}  // namespace
}  // namespace behemoth::worker
