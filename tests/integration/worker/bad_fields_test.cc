// The edges of every range through the worker's own door, and what Control refuses. What Generate
// refuses: tests/conformance/gateway_openai/wrong_requests.py.
#include <functional>
#include <string>

#include "tests/integration/worker/worker_fixture.h"

namespace behemoth::worker {
namespace {

class BadFieldsTest : public WorkerFixture {
 protected:
  BadFieldsTest() { EnterReady(); }
};

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
  sampling->set_smoothing_curve(1e6f);
  sampling->mutable_dynamic_temperature()->set_high(1e6f);
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
