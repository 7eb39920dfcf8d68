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
  for (BadField& field : SamplingFields()) fields.push_back(std::move(field));
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
