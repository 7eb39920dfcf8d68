#include "proto/support/grpc_server.h"

#include <absl/strings/str_cat.h>
#include <gmock/gmock.h>
#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>

#include "grpc/health/v1/health.grpc.pb.h"
#include "proto/support/health_check.h"

namespace behemoth::support {
namespace {

using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;

class GrpcServerTest : public testing::Test {
 protected:
  void SetUp() override {
    auto server = GrpcServer::Start({.listen = "127.0.0.1:0"}, {}, &health_);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    channel_ = grpc::CreateChannel(absl::StrCat("127.0.0.1:", server_->port()),
                                   grpc::InsecureChannelCredentials());
    stub_ = grpc::health::v1::Health::NewStub(channel_);
  }

  HealthCheckRequest Service(const std::string& name) {
    HealthCheckRequest request;
    request.set_service(name);
    return request;
  }

  Health health_;
  std::unique_ptr<GrpcServer> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<grpc::health::v1::Health::Stub> stub_;
};

TEST_F(GrpcServerTest, CheckKnowsOnlyWhatWasSet) {
  health_.Set("a", true);
  HealthCheckResponse response;
  grpc::ClientContext known, unknown;
  EXPECT_TRUE(stub_->Check(&known, Service("a"), &response).ok());
  EXPECT_EQ(response.status(), HealthCheckResponse::SERVING);
  EXPECT_EQ(stub_->Check(&unknown, Service("b"), &response).error_code(),
            grpc::StatusCode::NOT_FOUND);
}

TEST_F(GrpcServerTest, WatchPushesEveryChangeFromUnknownToShutdown) {
  grpc::ClientContext context;
  const auto reader = stub_->Watch(&context, Service("a"));
  HealthCheckResponse response;
  ASSERT_TRUE(reader->Read(&response));
  EXPECT_EQ(response.status(), HealthCheckResponse::SERVICE_UNKNOWN);
  for (const bool serving : {true, false, true}) {
    health_.Set("a", serving);
    ASSERT_TRUE(reader->Read(&response));
    EXPECT_EQ(response.status(),
              serving ? HealthCheckResponse::SERVING : HealthCheckResponse::NOT_SERVING);
  }
  health_.Shutdown();
  ASSERT_TRUE(reader->Read(&response));
  EXPECT_EQ(response.status(), HealthCheckResponse::NOT_SERVING);
  EXPECT_FALSE(reader->Read(&response));
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(GrpcServerTest, TheHealthPortSaysTheSameAndServesNothingElse) {
  auto port = GrpcServer::StartHealthPort("127.0.0.1:0", &health_);
  ASSERT_TRUE(port.ok()) << port.status();
  const std::string address = absl::StrCat("127.0.0.1:", (*port)->port());
  EXPECT_EQ(CheckHealth(address + "/a").code(), absl::StatusCode::kUnavailable);
  health_.Set("a", true);
  EXPECT_TRUE(CheckHealth(address + "/a").ok());
  EXPECT_TRUE(CheckHealth(absl::StrCat("127.0.0.1:", server_->port(), "/a")).ok());
  health_.Set("a", false);
  EXPECT_EQ(CheckHealth(address + "/a").code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(CheckHealth("nonsense").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(CheckHealth("http://127.0.0.1").code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(GrpcServerTest, SetAfterShutdownHasNoEffect) {
  health_.Set("a", true);
  health_.Shutdown();
  health_.Set("a", true);
  HealthCheckResponse response;
  grpc::ClientContext context;
  EXPECT_TRUE(stub_->Check(&context, Service("a"), &response).ok());
  EXPECT_EQ(response.status(), HealthCheckResponse::NOT_SERVING);
}

TEST_F(GrpcServerTest, ListShowsAllServices) {
  health_.Set("a", true);
  health_.Set("b", false);
  grpc::health::v1::HealthListResponse response;
  grpc::ClientContext context;
  EXPECT_TRUE(stub_->List(&context, {}, &response).ok());
  EXPECT_EQ(response.statuses().size(), 2u);
}

TEST_F(GrpcServerTest, DrainEndsOpenWatchesAndIsIdempotent) {
  grpc::ClientContext context;
  const auto reader = stub_->Watch(&context, Service(""));
  HealthCheckResponse response;
  ASSERT_TRUE(reader->Read(&response));
  server_->Drain(absl::Minutes(1));  // would last the minute if the watch were left open
  server_->Drain(absl::ZeroDuration());
  while (reader->Read(&response)) {
  }
  EXPECT_FALSE(reader->Finish().ok());
}

TEST_F(GrpcServerTest, ATakenPortIsNamed) {
  Health health;
  const std::string listen = absl::StrCat("127.0.0.1:", server_->port());
  const auto second = GrpcServer::Start({.listen = listen}, {}, &health);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(second.status().message()), testing::HasSubstr(listen));
}

TEST(GrpcServerTlsTest, HalfAPairNamesTheMissingFlag) {
  Health health;
  const auto server = GrpcServer::Start(
      {.listen = "127.0.0.1:0", .tls = {.cert_file = "/nowhere/cert.pem"}}, {}, &health);
  EXPECT_EQ(server.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(server.status().message()), testing::StartsWith("--tls-key-file"));
}

}  // namespace
}  // namespace behemoth::support
