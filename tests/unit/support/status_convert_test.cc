#include "proto/support/status_convert.h"

#include <gtest/gtest.h>

namespace behemoth::support {
namespace {

TEST(StatusConvertTest, EveryCodeSurvivesTheRoundTrip) {
  for (int code = 0; code <= 16; ++code) {
    const absl::Status status(static_cast<absl::StatusCode>(code), "field: bad");
    EXPECT_EQ(ToGrpc(status).error_code(), code);
    EXPECT_EQ(FromGrpc(ToGrpc(status)), status);
  }
}

TEST(StatusConvertTest, ACancelThatWasNotOursIsAServerGoingDown) {
  EXPECT_EQ(FromServer(grpc::Status::CANCELLED).code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(FromServer(grpc::Status::OK).ok());
  EXPECT_EQ(FromServer({grpc::StatusCode::INTERNAL, "x"}), absl::InternalError("x"));
}

TEST(StatusConvertTest, LongMessagesAreCutBetweenCharacters) {
  std::string message = "x";
  while (message.size() < 8000) message += "é";
  const std::string cut = ToGrpc(absl::InternalError(message)).error_message();
  EXPECT_EQ(cut.size(), 4095u);
  EXPECT_EQ(cut, message.substr(0, 4095));
}

}  // namespace
}  // namespace behemoth::support
