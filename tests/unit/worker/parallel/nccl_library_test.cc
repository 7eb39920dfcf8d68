// What is missing, or too old, is said by name: a library, a function, a version.
#include "worker/parallel/nccl_library.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace behemoth::worker {
namespace {

using testing::AllOf;
using testing::HasSubstr;

std::string Said(const char* library) {
  const absl::Status status = LoadNccl(library).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
  return std::string(status.message());
}

TEST(NcclLibraryTest, AMissingLibraryIsNamedWithTheVersionThatIsNeeded) {
  EXPECT_THAT(Said("libnccl-that-is-not-there.so"),
              AllOf(HasSubstr("libnccl-that-is-not-there.so: "), HasSubstr("2.18.0 or newer"),
                    HasSubstr("--nccl-library")));
}

TEST(NcclLibraryTest, AnOldOneIsNamedWithItsVersion) {
  EXPECT_THAT(Said(FAKE_NCCL_OLD), AllOf(HasSubstr(FAKE_NCCL_OLD), HasSubstr("is version 2.17.1"),
                                         HasSubstr("2.18.0 or newer")));
}

TEST(NcclLibraryTest, AFunctionThatItLacksIsNamed) {
  EXPECT_THAT(Said(FAKE_NCCL_PARTIAL), HasSubstr("has no function ncclAllGather"));
}

TEST(NcclLibraryTest, ItsErrorsAreStatuses) {
  const auto nccl = LoadNccl(FAKE_NCCL_NEW);
  ASSERT_TRUE(nccl.ok()) << nccl.status();
  EXPECT_TRUE(nccl->Check(nccl->group_start(), "ncclGroupStart").ok());
  const absl::Status failed = nccl->Check(nccl->init_all(nullptr, 2, nullptr), "ncclCommInitAll");
  EXPECT_TRUE(absl::IsInternal(failed));
  EXPECT_EQ(failed.message(), "ncclCommInitAll: a fake's error");
}

}  // namespace
}  // namespace behemoth::worker
