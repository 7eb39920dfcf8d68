#include "worker/parallel/in_process_group.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <thread>

namespace behemoth::worker {
namespace {

// Runs `body` on a thread for each rank; the statuses by rank.
std::vector<absl::Status> OnEachRank(const std::vector<std::unique_ptr<RankGroup>>& ranks,
                                     const std::function<absl::Status(RankGroup&)>& body) {
  std::vector<absl::Status> statuses(ranks.size());
  std::vector<std::thread> threads;
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    threads.emplace_back([&, rank] { statuses[rank] = body(*ranks[rank]); });
  }
  for (std::thread& thread : threads) thread.join();
  return statuses;
}

void ExpectAllOk(const std::vector<absl::Status>& statuses) {
  for (const absl::Status& status : statuses) EXPECT_TRUE(status.ok()) << status;
}

// In floats (2^24 + 1) - 2^24 is 0 and (2^24 - 2^24) + 1 is 1: the order shows.
TEST(InProcessGroupTest, SumsAreTakenInTheOrderOfTheRanks) {
  const std::vector<float> first = {0x1p24f, 0x1p24f, 1}, second = {1, -0x1p24f, 2},
                           third = {-0x1p24f, 1, 4};
  const auto ranks = MakeInProcessGroup(3);
  ExpectAllOk(OnEachRank(ranks, [&](RankGroup& group) {
    EXPECT_EQ(group.size(), 3);
    for (int round = 0; round < 300; ++round) {
      std::vector<float> values = group.rank() == 0 ? first : group.rank() == 1 ? second : third;
      values.push_back(static_cast<float>(round));
      absl::Status summed = group.AllReduce(values.data(), 4, SumElement::kFloat, nullptr);
      if (!summed.ok()) return summed;
      EXPECT_EQ(values, (std::vector<float>{0, 1, 7, 3.0f * static_cast<float>(round)}));
    }
    return absl::OkStatus();
  }));
}

TEST(InProcessGroupTest, PartsComeInTheOrderOfTheRanks) {
  const auto ranks = MakeInProcessGroup(4);
  ExpectAllOk(OnEachRank(ranks, [](RankGroup& group) {
    const std::vector<int32_t> part = {10 * group.rank(), 10 * group.rank() + 1};
    std::vector<int32_t> all(8);
    absl::Status gathered = group.AllGather(part.data(), 8, all.data(), nullptr);
    EXPECT_EQ(all, (std::vector<int32_t>{0, 1, 10, 11, 20, 21, 30, 31}));
    return gathered;
  }));
}

TEST(InProcessGroupTest, AnAbortFreesWhoWaitsAndEndsTheGroup) {
  const auto ranks = MakeInProcessGroup(2);
  const auto statuses = OnEachRank(ranks, [](RankGroup& group) {
    float value = 1;
    if (group.rank() == 1) group.Abort(absl::InternalError("rank 1 is gone"));
    return group.AllReduce(&value, 1, SumElement::kFloat, nullptr);
  });
  for (const absl::Status& status : statuses) EXPECT_EQ(status.message(), "rank 1 is gone");
}

TEST(InProcessGroupTest, RanksThatDisagreeAreAnError) {
  const auto ranks = MakeInProcessGroup(2);
  const auto statuses = OnEachRank(ranks, [](RankGroup& group) {
    std::vector<float> values(4);
    const size_t count = group.rank() == 0 ? 4 : 3;
    return group.AllReduce(values.data(), count, SumElement::kFloat, nullptr);
  });
  for (const absl::Status& status : statuses) EXPECT_TRUE(absl::IsInternal(status)) << status;
}

}  // namespace
}  // namespace behemoth::worker
