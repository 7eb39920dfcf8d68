// Decode and prefill attention against the exact reference.
//
// Bound. The kernels round twice to bf16 (unit roundoff u = 2^-9): the probabilities, which are
// weights of a mean of V rows, and the output. Everything between is fp32: score errors of
// head_dim * 2^-24 relative and ex2's 2^-22 add less than 2^-12. So
//   |out - exact| <= (2 u + 2^-12) * max_j |v_j|, plus u * max |v| for the reference's own
//   rounding.
#include "kernels/paged_attention/paged_attention.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/paged_attention/e4m3.h"
#include "tests/kernels/fused_device_array.h"

namespace behemoth::kernels {
namespace {

constexpr double kRelativeBound = 3.0 / 512 + 1.0 / 4096;
constexpr float kLargestValue = 4.0f;

struct Row {
  int q_len = 1;
  int kv_len = 0;
};

// A pool whose every byte outside the rows' tokens is NaN, block tables with wild ids past their
// end.
class AttentionProblem {
 public:
  AttentionProblem(AttentionShape shape, std::vector<Row> rows, uint32_t seed = 7)
      : shape_(shape), rows_(std::move(rows)), values_(seed) {
    int blocks = 3;
    for (const Row& row : rows_) {
      const int of_row = (std::max(row.kv_len, 0) + kTokensPerBlock - 1) / kTokensPerBlock;
      stride_ = std::max(stride_, of_row + 2);
      blocks += of_row;
      kv_len.push_back(row.kv_len);
      q_start.push_back(q_start.back() + row.q_len);
    }
    std::vector<int32_t> order(static_cast<size_t>(blocks));
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), std::mt19937(seed));
    pool.assign(static_cast<size_t>(blocks) * KvBlockBytes(shape_.kv), 0xff);
    table.assign(rows_.size() * static_cast<size_t>(stride_), 0x7fffffff);
    size_t next = 0;
    for (size_t r = 0; r < rows_.size(); ++r) {
      for (int token = 0; token < rows_[r].kv_len; ++token) {
        int32_t& block = table[r * static_cast<size_t>(stride_) + static_cast<size_t>(token / 64)];
        if (token % kTokensPerBlock == 0) block = order[next++];
        FillToken(block, token % kTokensPerBlock);
      }
    }
    q = values_.Bf16(static_cast<size_t>(tokens()) * width());
    for (int head = 0; head < shape_.kv.kv_heads; ++head) {
      k_scale.push_back(0.5f + 0.25f * static_cast<float>(head));
      v_scale.push_back(1.0f - 0.25f * static_cast<float>(head % 2));
    }
  }

  int tokens() const { return q_start.back(); }
  size_t width() const { return static_cast<size_t>(shape_.q_heads * shape_.kv.head_dim); }
  const AttentionShape& shape() const { return shape_; }

  PagedAttentionArgs HostArgs(bool is_prefill) {
    PagedAttentionArgs args = Lengths(is_prefill);
    args.q = q.data();
    args.kv = pool.data();
    args.block_table = table.data();
    args.kv_len = kv_len.data();
    args.q_start = is_prefill ? q_start.data() : nullptr;
    args.k_scale = k_scale.data();
    args.v_scale = v_scale.data();
    return args;
  }

  std::vector<bf16> Expected(bool is_prefill) {
    std::vector<bf16> out(q.size(), bf16{0x4242});
    PagedAttentionArgs args = HostArgs(is_prefill);
    args.out = out.data();
    reference::PagedAttention(args);
    return out;
  }

  // `packed`: the result comes through the GEMM's activation layout, in which it begins at row
  // `first_row`, and is unpacked here.
  std::vector<bf16> Run(bool is_prefill, bool overlap = false, bool packed = false,
                        int first_row = 0) {
    const DeviceArray<bf16> d_q(q);
    const DeviceArray<uint8_t> d_pool(pool);
    const DeviceArray<int32_t> d_table(table), d_len(kv_len), d_start(q_start);
    const DeviceArray<float> d_k(k_scale), d_v(v_scale);
    const size_t rows = static_cast<size_t>(tokens() + first_row);
    const DeviceArray<bf16> d_out(std::vector<bf16>(rows * width(), bf16{0x4242}));
    PagedAttentionArgs args = Lengths(is_prefill);
    args.q = d_q.get();
    args.kv = d_pool.get();
    args.block_table = d_table.get();
    args.kv_len = d_len.get();
    args.q_start = is_prefill ? d_start.get() : nullptr;
    args.k_scale = d_k.get();
    args.v_scale = d_v.get();
    (packed ? args.out_packed : args.out) = d_out.get() + 8 * first_row;
    args.packed_rows = static_cast<int>(rows);
    args.history_is_settled = overlap;
    const LaunchContext context = {.overlap_predecessor = overlap};
    DeviceLimits limits = LimitsOfDevice();
    if (without_wgmma) limits.compute_capability = 80;
    if (is_prefill) {
      const KernelError error =
          LaunchPrefillAttention(SelectPrefillAttention(shape_, limits), args, context);
      EXPECT_TRUE(error.ok()) << error.operation << " " << error.code;
      return Unpack(d_out.Download(), packed, first_row);
    }
    const DecodeAttentionConfig config = SelectDecodeAttention(shape_, limits);
    const size_t bytes = DecodeWorkspaceBytes(shape_, config, args.rows);
    const DeviceArray<uint8_t> workspace(std::vector<uint8_t>(bytes, 0));
    args.workspace = workspace.get();
    // The workspace serves launches of different sizes, each of which leaves it as it was.
    const int all = args.rows;
    for (int rows_of_launch : {all, (all + 1) / 2, all}) {
      args.rows = rows_of_launch;
      const KernelError error = LaunchDecodeAttention(config, args, context);
      EXPECT_TRUE(error.ok()) << error.operation << " " << error.code;
    }
    return Unpack(d_out.Download(), packed, first_row);
  }

  void ExpectWithinBound(const std::vector<bf16>& actual, const std::vector<bf16>& expected) const {
    double worst = 0;
    for (size_t i = 0; i < expected.size(); ++i) {
      const size_t token = i / width();
      const auto row = std::upper_bound(q_start.begin(), q_start.end(), static_cast<int>(token));
      if (kv_len[static_cast<size_t>(row - q_start.begin() - 1)] <= 0) {
        ASSERT_EQ(actual[i].bits, 0x4242) << "an inactive row was written";
        continue;
      }
      const double error =
          std::fabs(static_cast<double>(ToFloat(actual[i])) - ToFloat(expected[i]));
      ASSERT_TRUE(error <= kRelativeBound * kLargestValue)
          << "token " << token << " column " << i % width() << ": " << ToFloat(actual[i]) << " for "
          << ToFloat(expected[i]);
      worst = std::max(worst, error);
    }
    testing::Test::RecordProperty("worst_error", std::to_string(worst));
  }

  std::vector<bf16> q;
  std::vector<uint8_t> pool;
  std::vector<int32_t> table, kv_len, q_start = {0};
  std::vector<float> k_scale, v_scale;
  bool without_wgmma = false;  // prefill by the kernel for devices that have none

 private:
  PagedAttentionArgs Lengths(bool is_prefill) const {
    PagedAttentionArgs args;
    args.shape = shape_;
    args.block_table_stride = stride_;
    args.rows = static_cast<int>(rows_.size());
    args.tokens = is_prefill ? tokens() : 0;
    args.softmax_scale = 1.0f / std::sqrt(static_cast<float>(shape_.kv.head_dim));
    return args;
  }

  void FillToken(int block, int token) {
    for (int part = 0; part < 2; ++part) {
      for (int head = 0; head < shape_.kv.kv_heads; ++head) {
        for (int dim = 0; dim < shape_.kv.head_dim; ++dim) {
          const float value = std::clamp(values_.Normal(), -kLargestValue, kLargestValue);
          uint8_t* at = &pool[KvByteOffset(shape_.kv, block, part, head, token, dim)];
          if (shape_.kv.type == KvType::kE4m3) {
            *at = FloatToE4m3(value);
          } else {
            const bf16 rounded = ToBf16(value);
            std::memcpy(at, &rounded, sizeof(rounded));
          }
        }
      }
    }
  }

  std::vector<bf16> Unpack(std::vector<bf16> out, bool packed, int first_row) const {
    if (!packed) return out;
    const size_t rows = out.size() / width(), skipped = static_cast<size_t>(first_row);
    std::vector<bf16> plain;
    for (size_t row = 0; row < rows; ++row) {
      for (size_t column = 0; column < width(); ++column) {
        const bf16 value = out[(column / 8 * rows + row) * 8 + column % 8];
        if (row >= skipped) {
          plain.push_back(value);
        } else {
          EXPECT_EQ(value.bits, 0x4242) << "another row's output was written";
        }
      }
    }
    return plain;
  }

  AttentionShape shape_;
  std::vector<Row> rows_;
  int stride_ = 1;
  Values values_;
};

AttentionShape Shape(int kv_heads, int group, int head_dim, KvType type) {
  return {.q_heads = kv_heads * group, .kv = {kv_heads, head_dim, type}};
}

struct Variant {
  int group, head_dim;
  KvType type;
};

class AttentionVariants : public testing::TestWithParam<Variant> {
 protected:
  AttentionShape shape() const {
    return Shape(2, GetParam().group, GetParam().head_dim, GetParam().type);
  }
};

TEST_P(AttentionVariants, DecodeEqualsTheReferenceForRaggedLengths) {
  SKIP_WITHOUT_GPU();
  AttentionProblem problem(shape(), {{1, 1},
                                     {1, 0},
                                     {1, 63},
                                     {1, 64},
                                     {1, 65},
                                     {1, -5},
                                     {1, 255},
                                     {1, 256},
                                     {1, 257},
                                     {1, 512},
                                     {1, 513},
                                     {1, 700},
                                     {1, 1337}});
  const std::vector<bf16> out = problem.Run(false);
  problem.ExpectWithinBound(out, problem.Expected(false));
  EXPECT_TRUE(SameBits(out, problem.Run(false))) << "same input, other bits";
  EXPECT_TRUE(SameBits(out, problem.Run(false, /*overlap=*/true)));
}

TEST_P(AttentionVariants, PrefillEqualsTheReferenceForRaggedChunks) {
  SKIP_WITHOUT_GPU();
  AttentionProblem problem(
      shape(), {{1, 1}, {5, 5}, {64, 64}, {3, 0}, {100, 300}, {37, 640}, {1, 129}, {11, 448}});
  const std::vector<bf16> expected = problem.Expected(true);
  for (const bool without_wgmma : {false, true}) {
    problem.without_wgmma = without_wgmma;
    const std::vector<bf16> out = problem.Run(true);
    problem.ExpectWithinBound(out, expected);
    EXPECT_TRUE(SameBits(out, problem.Run(true))) << "same input, other bits";
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, AttentionVariants,
    testing::Values(Variant{12, 128, KvType::kBf16}, Variant{12, 128, KvType::kE4m3},
                    Variant{4, 64, KvType::kBf16}, Variant{4, 64, KvType::kE4m3},
                    Variant{1, 128, KvType::kBf16}, Variant{20, 64, KvType::kBf16},
                    Variant{20, 128, KvType::kE4m3}, Variant{7, 64, KvType::kE4m3}));

// 33 chunks of 512 tokens: the chunk size has doubled, the fold is long.
TEST(DecodeAttentionTest, LongRowsGrowTheirChunks) {
  SKIP_WITHOUT_GPU();
  AttentionProblem problem(Shape(1, 2, 64, KvType::kBf16), {{1, 16385}, {1, 40}});
  problem.ExpectWithinBound(problem.Run(false), problem.Expected(false));
}

TEST(DecodeAttentionTest, MoreRowsThanAWarpHasLanes) {
  SKIP_WITHOUT_GPU();
  std::vector<Row> rows;
  for (int i = 0; i < 75; ++i) rows.push_back({1, i % 7 == 3 ? 0 : 9 * i + 1});
  AttentionProblem problem(Shape(1, 4, 64, KvType::kBf16), rows);
  problem.ExpectWithinBound(problem.Run(false), problem.Expected(false));
}

TEST(DecodeAttentionTest, ARowHasTheSameBitsAloneAndInABatch) {
  SKIP_WITHOUT_GPU();
  const AttentionShape shape = Shape(8, 12, 128, KvType::kBf16);
  AttentionProblem batch(shape, {{1, 900}, {1, 5000}, {1, 0}, {1, 64}});
  const std::vector<bf16> all = batch.Run(false);
  const size_t width = batch.q.size() / 4;
  for (size_t row : {size_t{0}, size_t{1}, size_t{3}}) {
    AttentionProblem alone = batch;
    for (size_t other = 0; other < 4; ++other) {
      if (other != row) alone.kv_len[other] = 0;
    }
    const std::vector<bf16> out = alone.Run(false);
    EXPECT_EQ(std::memcmp(&out[row * width], &all[row * width], width * sizeof(bf16)), 0) << row;
  }
}

TEST(DecodeAttentionTest, ThePackedLayoutHoldsTheSameNumbers) {
  SKIP_WITHOUT_GPU();
  AttentionProblem problem(Shape(2, 12, 128, KvType::kBf16), {{1, 300}, {1, 80}, {1, 600}});
  const std::vector<bf16> plain = problem.Run(false);
  EXPECT_TRUE(SameBits(plain, problem.Run(false, false, /*packed=*/true)));
  EXPECT_TRUE(SameBits(plain, problem.Run(false, true, true, /*first_row=*/3)));
}

TEST(PrefillAttentionTest, ThePackedLayoutHoldsTheSameNumbers) {
  SKIP_WITHOUT_GPU();
  AttentionProblem problem(Shape(2, 12, 128, KvType::kBf16), {{30, 300}, {9, 9}});
  const std::vector<bf16> plain = problem.Run(true);
  EXPECT_TRUE(SameBits(plain, problem.Run(true, false, /*packed=*/true)));
  EXPECT_TRUE(SameBits(plain, problem.Run(true, true, true, /*first_row=*/5)));
}

// More rows than a warp has lanes, most of them empty.
TEST(PrefillAttentionTest, ManyShortChunks) {
  SKIP_WITHOUT_GPU();
  std::vector<Row> rows;
  for (int i = 0; i < 75; ++i) rows.push_back({1 + i % 5, i % 3 == 1 ? 0 : 5 + 9 * i});
  AttentionProblem problem(Shape(1, 4, 64, KvType::kBf16), rows);
  problem.ExpectWithinBound(problem.Run(true), problem.Expected(true));
}

class PrefillTypes : public testing::TestWithParam<std::tuple<KvType, bool>> {};

// The prompt computed in one chunk, and in four: the same bits, token for token. Whole, it is more
// pieces of 128 packed rows (66 for each of 4 KV heads) than a GPU has SMs.
TEST_P(PrefillTypes, ChunkBordersAreInvisible) {
  SKIP_WITHOUT_GPU();
  AttentionProblem whole(Shape(4, 12, 128, std::get<0>(GetParam())), {{700, 700}});
  whole.without_wgmma = std::get<1>(GetParam());
  const std::vector<bf16> expected = whole.Run(true);
  const size_t width = whole.width();
  int begin = 0;
  for (int length : {100, 57, 143, 400}) {
    AttentionProblem chunk = whole;
    chunk.q_start = {0, length};
    chunk.kv_len = {begin + length};
    chunk.q.assign(whole.q.begin() + static_cast<ptrdiff_t>(width) * begin,
                   whole.q.begin() + static_cast<ptrdiff_t>(width) * (begin + length));
    const std::vector<bf16> out = chunk.Run(true);
    EXPECT_EQ(std::memcmp(out.data(), &expected[width * static_cast<size_t>(begin)],
                          out.size() * sizeof(bf16)),
              0)
        << "chunk at " << begin;
    begin += length;
  }
}
INSTANTIATE_TEST_SUITE_P(All, PrefillTypes,
                         testing::Combine(testing::Values(KvType::kBf16, KvType::kE4m3),
                                          testing::Bool()));

}  // namespace
}  // namespace behemoth::kernels
