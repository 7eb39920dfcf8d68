// Sums over ranks against the reference, to the bit. Each rank has a stream, on a GPU of its own
// where there is one, else on GPU 0 beside the others: few enough rows that all blocks run at once,
// as blocks wait for each other.
#include "kernels/all_reduce/all_reduce.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <memory>

#include "tests/kernels/fused_device_array.h"

namespace behemoth::kernels {
namespace {

constexpr int kHidden = 4104;
constexpr bf16 kPoison{0x7fff};

// One thread launches for all ranks: a kernel that is loaded at its first launch would wait for a
// device that waits for a rank whose turn has not come. Before CUDA begins.
const bool kLoadsEarly = setenv("CUDA_MODULE_LOADING", "EAGER", 1) == 0;

int Gpus() {
  int gpus = 0;
  return cudaGetDeviceCount(&gpus) == cudaSuccess ? gpus : 0;
}

// What one rank holds on its device.
struct Rank {
  explicit Rank(int on) : device(on) {}
  const int device;
  cudaStream_t stream = nullptr;
  std::unique_ptr<DeviceArray<bf16>> parts[2], residual, gamma, packed;
  std::unique_ptr<DeviceArray<uint32_t>> flags;
  ~Rank() {
    cudaSetDevice(device);
    cudaStreamDestroy(stream);
  }
};

class RankSumTest : public testing::TestWithParam<int> {
 protected:
  void SetUp() override {
    if (Gpus() == 0) GTEST_SKIP() << "no CUDA device on this machine; run on a GPU machine";
    const int used = std::min(Gpus(), GetParam());
    for (int from = 0; from < used; ++from) {
      cudaSetDevice(from);
      for (int to = 0; to < used; ++to) {
        if (to != from) cudaDeviceEnablePeerAccess(to, 0);
      }
    }
    cudaGetLastError();
    ASSERT_EQ(cudaHostAlloc(reinterpret_cast<void**>(&aborted_), sizeof(int), 0), cudaSuccess);
    *aborted_ = 0;
  }
  void TearDown() override {
    ranks_.clear();
    if (aborted_ != nullptr) cudaFreeHost(aborted_);
    if (Gpus() > 0) cudaSetDevice(0);
  }

  void MakeRanks(int rows) {
    const auto count = static_cast<size_t>(rows * kHidden);
    for (int r = 0; r < GetParam(); ++r) {
      Values values(static_cast<uint32_t>(100 + r));
      auto& rank = *ranks_.emplace_back(std::make_unique<Rank>(r % Gpus()));
      ASSERT_EQ(cudaSetDevice(rank.device), cudaSuccess);
      ASSERT_EQ(cudaStreamCreateWithFlags(&rank.stream, cudaStreamNonBlocking), cudaSuccess);
      for (int i = 0; i < 2; ++i) {
        parts_[i].push_back(values.Bf16(count, 3.0f));
        rank.parts[i] = std::make_unique<DeviceArray<bf16>>(parts_[i].back());
      }
      rank.residual = std::make_unique<DeviceArray<bf16>>(Residual(rows));
      rank.gamma = std::make_unique<DeviceArray<bf16>>(Gamma());
      rank.packed = std::make_unique<DeviceArray<bf16>>(std::vector<bf16>(count, kPoison));
      rank.flags = std::make_unique<DeviceArray<uint32_t>>(std::vector<uint32_t>(kRankFlags, 0));
    }
  }
  static std::vector<bf16> Residual(int rows) {
    return Values(1).Bf16(static_cast<size_t>(rows * kHidden), 8.0f);
  }
  static std::vector<bf16> Gamma() { return Values(2).Bf16(kHidden); }

  RankMeeting MeetingOf(int r) const {
    RankMeeting meeting{.rank = r, .ranks = GetParam(), .aborted = aborted_};
    for (int p = 0; p < GetParam(); ++p) {
      meeting.flags[p] = ranks_[static_cast<size_t>(p)]->flags->get();
    }
    return meeting;
  }

  RankSumArgs ArgsOf(int r, int buffer, int rows, bool norm) const {
    RankSumArgs args{.meeting = MeetingOf(r)};
    for (int p = 0; p < GetParam(); ++p) {
      args.parts[p] = ranks_[static_cast<size_t>(p)]->parts[buffer]->get();
    }
    const Rank& rank = *ranks_[static_cast<size_t>(r)];
    args.row.residual = rank.residual->get();
    args.row.rows = rows;
    args.row.hidden = kHidden;
    if (norm) {
      args.row.gamma = rank.gamma->get();
      args.row.out = {.packed = rank.packed->get(), .packed_rows = rows};
    }
    return args;
  }

  // The reference of the same calls; gives the residual, and the norm's output where there is one.
  void Reference(int buffer, int rows, bool norm, std::vector<bf16>* residual,
                 std::vector<bf16>* packed) const {
    RankSumArgs args{.meeting = {.ranks = GetParam()}};
    for (int p = 0; p < GetParam(); ++p) {
      args.parts[p] = parts_[buffer][static_cast<size_t>(p)].data();
    }
    const std::vector<bf16> gamma = Gamma();
    args.row.residual = residual->data();
    args.row.rows = rows;
    args.row.hidden = kHidden;
    if (norm) {
      args.row.gamma = gamma.data();
      args.row.out = {.packed = packed->data(), .packed_rows = rows};
    }
    reference::RankSum(args);
  }

  int* aborted_ = nullptr;
  std::vector<std::unique_ptr<Rank>> ranks_;
  std::vector<std::vector<bf16>> parts_[2];  // [buffer][rank]
};

// Buffers in turn, with and without a norm, again and again: nobody reads a part too early.
TEST_P(RankSumTest, EqualsTheReferenceOnEveryRank) {
  constexpr int kRounds = 20;
  for (const int rows : {1, 3, 12}) {
    ranks_.clear();
    parts_[0].clear();
    parts_[1].clear();
    MakeRanks(rows);
    std::vector<bf16> residual = Residual(rows);
    std::vector<bf16> packed(residual.size(), kPoison);
    for (int round = 0; round < kRounds; ++round) {
      for (int r = 0; r < GetParam(); ++r) {
        cudaSetDevice(ranks_[static_cast<size_t>(r)]->device);
        const auto error = LaunchRankSum(ArgsOf(r, round % 2, rows, round % 3 != 1),
                                         {ranks_[static_cast<size_t>(r)]->stream});
        ASSERT_TRUE(error.ok()) << error.operation;
      }
      Reference(round % 2, rows, round % 3 != 1, &residual, &packed);
    }
    for (const auto& rank : ranks_) {
      cudaSetDevice(rank->device);
      EXPECT_TRUE(SameBits(rank->residual->Download(), residual)) << rows << " rows";
      const std::vector<bf16> normed = rank->packed->Download();
      for (size_t i = 0; i < normed.size(); ++i) {
        // Two roundings of two right sums may fall either way.
        ASSERT_NEAR(ToFloat(normed[i]), ToFloat(packed[i]),
                    std::abs(ToFloat(packed[i])) * 2 / 128 + 1e-30f);
      }
    }
  }
}

// Behind sums, as logits come: the two kinds of kernel meet by the same numbers.
TEST_P(RankSumTest, PartsAreGatheredSideBySide) {
  constexpr int kRows = 2, kCols = 2052;
  const int stride = GetParam() * kCols + 8;
  MakeRanks(kRows);
  std::vector<std::vector<float>> host;
  std::vector<std::unique_ptr<DeviceArray<float>>> parts, outs;
  for (int r = 0; r < GetParam(); ++r) {
    Values values(static_cast<uint32_t>(50 + r));
    auto& part = host.emplace_back();
    for (int i = 0; i < kRows * kCols; ++i) part.push_back(values.Normal());
    cudaSetDevice(ranks_[static_cast<size_t>(r)]->device);
    parts.push_back(std::make_unique<DeviceArray<float>>(part));
    outs.push_back(std::make_unique<DeviceArray<float>>(
        std::vector<float>(static_cast<size_t>(kRows * stride), -1.0f)));
  }
  std::vector<float> expected(static_cast<size_t>(kRows * stride), -1.0f);
  RankGatherArgs args{.meeting = {.ranks = GetParam()},
                      .out = expected.data(),
                      .rows = kRows,
                      .cols = kCols,
                      .stride = stride};
  for (size_t p = 0; p < host.size(); ++p) args.parts[p] = host[p].data();
  reference::RankGather(args);
  for (size_t p = 0; p < host.size(); ++p) args.parts[p] = parts[p]->get();
  for (int r = 0; r < GetParam(); ++r) {
    const Rank& rank = *ranks_[static_cast<size_t>(r)];
    cudaSetDevice(rank.device);
    ASSERT_TRUE(LaunchRankSum(ArgsOf(r, 0, kRows, true), {rank.stream}).ok());
    args.meeting = MeetingOf(r);
    args.out = outs[static_cast<size_t>(r)]->get();
    const auto error = LaunchRankGather(args, {rank.stream, /*overlap_predecessor=*/true});
    ASSERT_TRUE(error.ok()) << error.operation;
  }
  for (int r = 0; r < GetParam(); ++r) {
    cudaSetDevice(ranks_[static_cast<size_t>(r)]->device);
    EXPECT_TRUE(SameBits(outs[static_cast<size_t>(r)]->Download(), expected)) << "rank " << r;
  }
}

// A rank that never comes is not waited for once the group has ended.
TEST_P(RankSumTest, AnAbortEndsTheWait) {
  MakeRanks(2);
  cudaSetDevice(ranks_[0]->device);
  ASSERT_TRUE(LaunchRankSum(ArgsOf(0, 0, 2, false), {ranks_[0]->stream}).ok());
  EXPECT_EQ(cudaStreamQuery(ranks_[0]->stream), cudaErrorNotReady);
  *static_cast<volatile int*>(aborted_) = 1;
  EXPECT_EQ(cudaStreamSynchronize(ranks_[0]->stream), cudaSuccess);
}

INSTANTIATE_TEST_SUITE_P(Ranks, RankSumTest, testing::Values(2, 4, 8));

TEST(RankSumArgsTest, WhatCannotBeSummedIsRefusedByName) {
  EXPECT_STREQ(
      LaunchRankSum({.meeting = {.rank = 2, .ranks = 2}, .row = {.hidden = 8}}, {}).operation,
      "rank meeting: rank");
  EXPECT_STREQ(LaunchRankSum({.meeting = {.ranks = 3}, .row = {.hidden = 8}}, {}).operation,
               "rank meeting: ranks");
  EXPECT_STREQ(LaunchRankGather({.meeting = {.ranks = 2}, .cols = 6}, {}).operation,
               "rank gather: cols");
  EXPECT_STREQ(LaunchRankSum({.meeting = {.ranks = 2}, .row = {.hidden = 12}}, {}).operation,
               "rank sum: hidden");
}

}  // namespace
}  // namespace behemoth::kernels
