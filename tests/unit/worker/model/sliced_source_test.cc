// What a rank asks for, and what it gets of it.
#include "worker/model/sliced_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "worker/model/model_config.h"
#include "worker/model/weights.h"

namespace behemoth::worker {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// Element [o, i] of any projection is 100 o + i; KV scales are 1, 2, 3, ...
class CountingSource : public WeightSource {
 public:
  absl::StatusOr<DenseMatrix> ReadDense(const std::string&, int32_t rows, int32_t cols) override {
    return Counted(rows, cols);
  }
  absl::StatusOr<LinearWeights> ReadLinear(const std::string&, int32_t out, int32_t in) override {
    return LinearWeights{out, in, Counted(out, in)};
  }
  absl::StatusOr<bool> ShareInputOrder(const std::vector<std::string>&, int32_t in) override {
    return in == 4;
  }
  absl::StatusOr<std::vector<float>> ReadKvScale(const std::string&, int32_t heads) override {
    std::vector<float> scales;
    for (int32_t head = 1; head <= heads; ++head) scales.push_back(static_cast<float>(head));
    return scales;
  }

 private:
  static DenseMatrix Counted(int32_t rows, int32_t cols) {
    std::vector<float> values;
    for (int32_t o = 0; o < rows; ++o) {
      for (int32_t i = 0; i < cols; ++i) values.push_back(static_cast<float>(100 * o + i));
    }
    return MatrixOf(rows, cols, std::move(values));
  }
};

std::vector<float> Part(SlicedSource& source, const std::string& module, int32_t out, int32_t in) {
  auto part = source.ReadLinear(module, out, in);
  EXPECT_TRUE(part.ok()) << part.status();
  EXPECT_EQ(part->out, out);
  EXPECT_EQ(part->in, in);
  return FloatsOf(std::get<DenseMatrix>(part->values));
}

TEST(SlicedSourceTest, EachProjectionIsCutItsOwnWay) {
  SlicedSource second(std::make_unique<CountingSource>(), 1, 2);
  for (const char* by_outputs : {"model.layers.0.self_attn.q_proj", "model.layers.9.mlp.up_proj",
                                 "model.layers.0.mlp.gate_proj", "lm_head"}) {
    EXPECT_THAT(Part(second, by_outputs, 2, 2), ElementsAre(200, 201, 300, 301)) << by_outputs;
  }
  for (const char* by_inputs :
       {"model.layers.0.self_attn.o_proj", "model.layers.9.mlp.down_proj"}) {
    EXPECT_THAT(Part(second, by_inputs, 2, 2), ElementsAre(2, 3, 102, 103)) << by_inputs;
  }
}

TEST(SlicedSourceTest, TablesAreWholeAndScalesThoseOfItsHeads) {
  SlicedSource third(std::make_unique<CountingSource>(), 2, 4);
  EXPECT_EQ(third.ReadDense("model.embed_tokens.weight", 6, 4)->rows, 6);
  EXPECT_THAT(*third.ReadKvScale("model.layers.0.self_attn.k_scale", 2), ElementsAre(5, 6));
  EXPECT_TRUE(*third.ShareInputOrder({"model.layers.0.mlp.gate_proj"}, 4));
  EXPECT_TRUE(*third.ShareInputOrder({"model.layers.0.mlp.down_proj"}, 1));
}

TEST(PartOfTest, HeadsIntermediateAndTheHeadAreDivided) {
  const ModelConfig whole{.hidden_size = 64,
                          .intermediate_size = 96,
                          .attention_heads = 8,
                          .kv_heads = 4,
                          .head_dim = 16,
                          .vocabulary_size = 40};
  const auto part = PartOf(whole, 4);
  ASSERT_TRUE(part.ok()) << part.status();
  EXPECT_EQ(part->hidden_size, 64);
  EXPECT_EQ(part->intermediate_size, 24);
  EXPECT_EQ(part->query_size(), 32);
  EXPECT_EQ(part->kv_size(), 16);
  EXPECT_EQ(part->vocabulary_size, 40);
  EXPECT_EQ(part->head_size(), 10);
  EXPECT_EQ(PartOf(whole, 1)->head_size(), 40);
  const auto says = [](ModelConfig config) {
    return std::string(PartOf(config, 4).status().message());
  };
  ModelConfig odd = whole;
  odd.intermediate_size = 98;
  EXPECT_THAT(says(odd), HasSubstr("intermediate_size: 98 cannot be divided over 4 ranks"));
  odd = whole;
  odd.vocabulary_size = 41;
  EXPECT_THAT(says(odd), HasSubstr("vocab_size: 41"));
}

}  // namespace
}  // namespace behemoth::worker
