// config.json: what is read, from every place that a key has had, and what is refused by its name.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "tests/unit/worker/checkpoint/model_files.h"
#include "worker/checkpoint/json_fields.h"
#include "worker/checkpoint/quantization_config.h"
#include "worker/model/model_config.h"
#include "worker/runner/model_folder.h"

namespace behemoth::worker {
namespace {

using Json = nlohmann::json;
using testing::HasSubstr;

// The 123B's own config.json.
Json Behemoth() {
  return Json::parse(R"({"architectures": ["MistralForCausalLM"], "attention_dropout": 0.0,
    "bos_token_id": 1, "dtype": "bfloat16", "eos_token_id": 2, "head_dim": 128,
    "hidden_act": "silu", "hidden_size": 12288, "initializer_range": 0.02,
    "intermediate_size": 28672, "max_position_embeddings": 131072, "model_type": "mistral",
    "num_attention_heads": 96, "num_hidden_layers": 88, "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05, "rope_theta": 1000000.0, "sliding_window": null,
    "tie_word_embeddings": false, "transformers_version": "4.57.6", "use_cache": true,
    "vocab_size": 32768})");
}

Json With(Json json, const std::string& key, const Json& value) {
  json[key] = value;
  return json;
}
Json Without(Json json, const std::string& key) {
  json.erase(key);
  return json;
}

TEST(ModelConfigTest, ReadsTheModelThatThisIsFor) {
  const auto config = ParseModelConfig(Behemoth());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->hidden_size, 12288);
  EXPECT_EQ(config->query_size(), 12288);
  EXPECT_EQ(config->kv_size(), 1024);
  EXPECT_EQ(config->parameters(), 122'610'069'504u);  // spec/model.md 1.2
  EXPECT_EQ(config->eos_ids, std::vector<int32_t>{2});
  EXPECT_EQ(config->rope_inverse_frequencies.size(), 64u);
  EXPECT_EQ(config->rope_inverse_frequencies[0], 1.0f);
  EXPECT_NEAR(config->rope_inverse_frequencies[32], 1e-3f, 1e-9f);
}

TEST(ModelConfigTest, AKeyMayBeAbsentWhereItHasADefault) {
  Json json = Behemoth();
  for (const char* key : {"head_dim", "sliding_window", "tie_word_embeddings", "hidden_act"}) {
    json.erase(key);
  }
  const auto config = ParseModelConfig(json);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->head_dim, 128);
  json.erase("num_key_value_heads");
  EXPECT_EQ(ParseModelConfig(json)->kv_heads, 96);
}

TEST(ModelConfigTest, RopeThetaIsFoundWhereverItLies) {
  const float here = ParseModelConfig(Behemoth())->rope_inverse_frequencies[1];
  const Json bare = Without(Behemoth(), "rope_theta");
  const Json rope = {{"rope_theta", 1000000.0}, {"rope_type", "default"}};
  for (const char* place : {"rope_parameters", "rope_scaling"}) {
    const auto config = ParseModelConfig(With(bare, place, rope));
    ASSERT_TRUE(config.ok()) << config.status();
    EXPECT_EQ(config->rope_inverse_frequencies[1], here) << place;
  }
  EXPECT_NE(ParseModelConfig(bare)->rope_inverse_frequencies[1], here);
}

// The formula of Llama 3.1's model card: wavelengths beyond the old context are stretched whole,
// those under a quarter of it kept.
TEST(ModelConfigTest, RopeScalingsAreTheirPublishedFormulas) {
  const auto plain = ParseModelConfig(Behemoth())->rope_inverse_frequencies;
  const auto linear =
      ParseModelConfig(With(Behemoth(), "rope_scaling", {{"type", "linear"}, {"factor", 4.0}}));
  ASSERT_TRUE(linear.ok()) << linear.status();
  const auto llama3 = ParseModelConfig(With(Behemoth(), "rope_scaling",
                                            {{"rope_type", "llama3"},
                                             {"factor", 8.0},
                                             {"low_freq_factor", 1.0},
                                             {"high_freq_factor", 4.0},
                                             {"original_max_position_embeddings", 8192}}));
  ASSERT_TRUE(llama3.ok()) << llama3.status();
  for (size_t i = 0; i < plain.size(); ++i) {
    EXPECT_FLOAT_EQ(linear->rope_inverse_frequencies[i], plain[i] / 4);
    const double wavelength = 2 * std::numbers::pi / plain[i];
    const float scaled = llama3->rope_inverse_frequencies[i];
    if (wavelength < 8192 / 4.0) {
      EXPECT_FLOAT_EQ(scaled, plain[i]);
    } else if (wavelength > 8192) {
      EXPECT_FLOAT_EQ(scaled, plain[i] / 8);
    }
    EXPECT_LE(scaled, plain[i]);
    EXPECT_GE(scaled, plain[i] / 8.001f);
  }
}

struct BadConfig {
  const char* name;
  Json json;
  const char* says;
};

class BadConfigTest : public testing::TestWithParam<BadConfig> {};

TEST_P(BadConfigTest, IsRefusedByTheNameOfItsKey) {
  const auto config = ParseModelConfig(GetParam().json);
  ASSERT_FALSE(config.ok());
  EXPECT_THAT(std::string(config.status().message()), HasSubstr("config.json: "));
  EXPECT_THAT(std::string(config.status().message()), HasSubstr(GetParam().says));
}

INSTANTIATE_TEST_SUITE_P(
    All, BadConfigTest,
    testing::Values(
        BadConfig{"NoSize", Without(Behemoth(), "hidden_size"), "hidden_size: is missing"},
        BadConfig{"TextSize", With(Behemoth(), "hidden_size", "big"), "hidden_size"},
        BadConfig{"NegativeLayers", With(Behemoth(), "num_hidden_layers", -1), "num_hidden_layers"},
        BadConfig{"HugeSize", With(Behemoth(), "hidden_size", 18446744073709551615u),
                  "hidden_size"},
        BadConfig{"FractionalHeads", With(Behemoth(), "num_attention_heads", 9.5),
                  "num_attention_heads"},
        BadConfig{"HeadsNotDivided", With(Behemoth(), "num_key_value_heads", 7),
                  "num_key_value_heads"},
        BadConfig{"OddHeadDim", With(Behemoth(), "head_dim", 127), "head_dim"},
        BadConfig{"OddHidden", With(Behemoth(), "hidden_size", 12289), "hidden_size"},
        BadConfig{"OtherModel", With(Behemoth(), "architectures", {"Qwen2ForCausalLM"}),
                  "'Qwen2ForCausalLM' is not served"},
        BadConfig{"TwoModels", With(Behemoth(), "architectures", {"a", "b"}), "architectures"},
        BadConfig{"Bias", With(Behemoth(), "attention_bias", true), "attention_bias"},
        BadConfig{"Window", With(Behemoth(), "sliding_window", 4096), "sliding_window"},
        BadConfig{"Activation", With(Behemoth(), "hidden_act", "gelu"), "hidden_act"},
        BadConfig{"RopeType", With(Behemoth(), "rope_scaling", {{"rope_type", "yarn"}}), "'yarn'"},
        BadConfig{"RopeFactor",
                  With(Behemoth(), "rope_scaling", {{"rope_type", "linear"}, {"factor", 0}}),
                  "factor"},
        BadConfig{"Theta", With(Behemoth(), "rope_theta", -1), "rope_theta"},
        BadConfig{"Epsilon", With(Behemoth(), "rms_norm_eps", "small"), "rms_norm_eps"},
        BadConfig{"Eos", With(Behemoth(), "eos_token_id", 32768), "eos_token_id"},
        BadConfig{"EosList", With(Behemoth(), "eos_token_id", {2, -1}), "eos_token_id"}),
    [](const auto& info) { return info.param.name; });

// ---- quantization_config
// -------------------------------------------------------------------------
Json Weights() {
  return {{"num_bits", 4}, {"type", "int"}, {"strategy", "group"}, {"group_size", 128}};
}

Json Section(const Json& weights, const Json& more = Json::object()) {
  Json section = {{"quant_method", "compressed-tensors"},
                  {"format", "pack-quantized"},
                  {"config_groups", {{"group_0", {{"targets", {"Linear"}}, {"weights", weights}}}}},
                  {"ignore", {"lm_head"}}};
  section.update(more);
  return section;
}

absl::StatusOr<QuantizationConfig> Parsed(const Json& section) {
  return QuantizationConfig::Parse({{"quantization_config", section}, {"dtype", "bfloat16"}});
}

TEST(QuantizationConfigTest, IgnoreWinsOverTargets) {
  const auto config = Parsed(
      Section(Weights(),
              {{"ignore", {"lm_head", "model.layers.0.mlp.up_proj", "re:.*layers.1\\..*k_proj"}}}));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_FALSE(config->SchemeOf("lm_head"));
  EXPECT_FALSE(config->SchemeOf("model.layers.0.mlp.up_proj"));
  EXPECT_FALSE(config->SchemeOf("model.layers.1.self_attn.k_proj"));
  ASSERT_TRUE(config->SchemeOf("model.layers.11.self_attn.k_proj"));
  EXPECT_EQ(config->SchemeOf("model.layers.0.mlp.down_proj")->group_size, 128);
  EXPECT_EQ(config->Describe(), "pack-quantized int4 g128 symmetric");
}

TEST(QuantizationConfigTest, TheFirstGroupThatMatchesDecides) {
  Json section = Section(Weights());
  Json narrow = Weights();
  narrow["group_size"] = 32;
  section["config_groups"] = {
      {"group_0", {{"targets", {"re:.*down_proj$"}}, {"weights", narrow}}},
      {"group_1", {{"targets", {"model.layers.0.mlp.up_proj"}}, {"weights", Weights()}}}};
  const auto config = Parsed(section);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->SchemeOf("model.layers.3.mlp.down_proj")->group_size, 32);
  EXPECT_EQ(config->SchemeOf("model.layers.0.mlp.up_proj")->group_size, 128);
  EXPECT_FALSE(config->SchemeOf("model.layers.1.mlp.up_proj"));
}

TEST(QuantizationConfigTest, ActorderHasHadManyNames) {
  const auto uses_g_idx = [](const Json& actorder) {
    Json weights = Weights();
    weights["actorder"] = actorder;
    const auto config = Parsed(Section(weights));
    EXPECT_TRUE(config.ok()) << config.status();
    return config->SchemeOf("m")->uses_g_idx;
  };
  for (const Json& name : {Json(nullptr), Json("weight"), Json("static"), Json(false)}) {
    EXPECT_FALSE(uses_g_idx(name)) << name;
  }
  for (const Json& name : {Json("group"), Json("dynamic"), Json(true)}) {
    EXPECT_TRUE(uses_g_idx(name)) << name;
  }
}

TEST(QuantizationConfigTest, GptqVersionsAndTheirDefaults) {
  const Json section = {{"bits", 4}, {"group_size", -1}, {"desc_act", true}};
  const auto old = Parsed(section);  // a quantize_config.json without quant_method
  ASSERT_TRUE(old.ok()) << old.status();
  EXPECT_EQ(old->SchemeOf("m")->format, PackFormat::kGptqV1);
  EXPECT_EQ(old->SchemeOf("m")->scale_type, ElementType::kBfloat16);
  EXPECT_FALSE(old->SchemeOf("lm_head"));
  EXPECT_EQ(old->Describe(), "gptq int4 channel symmetric desc_act");
  const auto second = Parsed(With(section, "checkpoint_format", "gptq_v2"));
  EXPECT_EQ(second->SchemeOf("m")->format, PackFormat::kGptqV2);
  EXPECT_TRUE(Parsed(With(section, "lm_head", true))->SchemeOf("lm_head"));
}

TEST(QuantizationConfigTest, AnUnquantizedModelHasNone) {
  const auto config = QuantizationConfig::Parse(Behemoth());
  ASSERT_TRUE(config.ok());
  EXPECT_FALSE(config->quantized());
  EXPECT_EQ(config->Describe(), "none");
}

Json Changed(const std::string& key, const Json& value) {
  return Section(With(Weights(), key, value));
}

class BadQuantizationTest : public testing::TestWithParam<BadConfig> {};

TEST_P(BadQuantizationTest, IsRefusedByTheNameOfItsKey) {
  const auto config = Parsed(GetParam().json);
  ASSERT_FALSE(config.ok());
  EXPECT_THAT(std::string(config.status().message()), HasSubstr(GetParam().says));
}

INSTANTIATE_TEST_SUITE_P(
    All, BadQuantizationTest,
    testing::Values(
        BadConfig{"Awq", {{"quant_method", "awq"}, {"bits", 4}}, "'awq' is not served"},
        BadConfig{"NoMethod", {{"x", 1}}, "quant_method"},
        BadConfig{"EightBits", Changed("num_bits", 8), "only static int4"},
        BadConfig{"Float", Changed("type", "float"), "only static int4"},
        BadConfig{"Dynamic", Changed("dynamic", true), "only static int4"},
        BadConfig{"Block", Changed("strategy", "block"), "'block'"},
        BadConfig{"NoGroup", Changed("group_size", nullptr), "group_size"},
        BadConfig{"ZeroGroup", Changed("group_size", 0), "group_size"},
        BadConfig{"Actorder", Changed("actorder", "sideways"), "actorder"},
        BadConfig{"Fp8", Section(Weights(), {{"format", "float-quantized"}}), "'float-quantized'"},
        BadConfig{"Activations",
                  Section(Weights(), {{"config_groups",
                                       {{"g",
                                         {{"targets", {"Linear"}},
                                          {"weights", Weights()},
                                          {"input_activations", {{"num_bits", 8}}}}}}}}),
                  "input_activations"},
        BadConfig{"NoTargets",
                  Section(Weights(), {{"config_groups", {{"g", {{"weights", Weights()}}}}}}),
                  "targets"},
        BadConfig{"BadRegex", Section(Weights(), {{"ignore", {"re:("}}}), "ignore: 're:('"},
        BadConfig{"IgnoreNumbers", Section(Weights(), {{"ignore", {1}}}), "ignore"},
        BadConfig{"KvScheme", Section(Weights(), {{"kv_cache_scheme", {{"num_bits", 4}}}}),
                  "kv_cache_scheme"},
        BadConfig{"DynamicKvScheme",
                  Section(Weights(), {{"kv_cache_scheme", {{"num_bits", 8}, {"dynamic", true}}}}),
                  "kv_cache_scheme"},
        BadConfig{"Sparsity", Section(Weights(), {{"sparsity_config", {{"format", "sparse-24"}}}}),
                  "sparsity_config"},
        BadConfig{"Transform",
                  Section(Weights(), {{"transform_config", {{"config_groups", {{"u", 1}}}}}}),
                  "transform_config"},
        BadConfig{"GptqBits", {{"bits", 3}, {"group_size", 128}}, "bits: 3"},
        BadConfig{"GptqMarlin",
                  {{"bits", 4}, {"group_size", 128}, {"checkpoint_format", "marlin"}},
                  "'marlin'"},
        BadConfig{"GptqIsMarlin",
                  {{"bits", 4}, {"group_size", 128}, {"is_marlin_format", true}},
                  "is_marlin_format"},
        BadConfig{"GptqDynamic",
                  {{"bits", 4}, {"group_size", 128}, {"dynamic", {{"-:.*", Json::object()}}}},
                  "dynamic"},
        BadConfig{
            "GptqPack", {{"bits", 4}, {"group_size", 128}, {"pack_dtype", "int16"}}, "pack_dtype"},
        BadConfig{"GptqGroup", {{"bits", 4}, {"group_size", 0}}, "group_size"}),
    [](const auto& info) { return info.param.name; });

// ---- The folder
// ----------------------------------------------------------------------------------
TEST(JsonFieldsTest, RefusesTextThatIsNoObjectOrNestsTooDeep) {
  for (const std::string& text :
       {std::string("[]"), std::string("{"), std::string("{} x"), std::string(""),
        "{\"a\":" + std::string(100000, '[') + std::string(100000, ']') + "}"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ParseJsonObject("config.json", text).status()));
  }
}

TEST(ModelFolderTest, GenerationConfigWinsAndIsChecked) {
  const ModelFiles files;
  files.Write("config.json", Behemoth().dump());
  EXPECT_EQ(ReadModelFolder(files.folder())->description.eos_ids, std::vector<int32_t>{2});
  files.Write("generation_config.json",
              R"({"eos_token_id": [2, 7], "temperature": 0.7, "top_k": 40, "do_sample": true})");
  const auto folder = ReadModelFolder(files.folder());
  ASSERT_TRUE(folder.ok()) << folder.status();
  EXPECT_EQ(folder->description.eos_ids, (std::vector<int32_t>{2, 7}));
  EXPECT_EQ(folder->description.generation_defaults.temperature, 0.7f);
  EXPECT_EQ(folder->description.generation_defaults.top_k, 40);
  EXPECT_FALSE(folder->description.generation_defaults.top_p);
  files.Write("generation_config.json", R"({"top_p": 1.5})");
  EXPECT_THAT(std::string(ReadModelFolder(files.folder()).status().message()),
              HasSubstr("generation_config.json: top_p"));
}

TEST(ModelFolderTest, AQuantizeConfigBesideCounts) {
  const ModelFiles files;
  files.Write("config.json", Behemoth().dump());
  files.Write("quantize_config.json", R"({"bits": 4, "group_size": 128, "desc_act": false})");
  const auto folder = ReadModelFolder(files.folder());
  ASSERT_TRUE(folder.ok()) << folder.status();
  EXPECT_EQ(folder->description.quantization, "gptq int4 g128 symmetric");
  EXPECT_EQ(folder->quantization.SchemeOf("m")->scale_type, ElementType::kBfloat16);
}

TEST(ModelFolderTest, AMissingConfigIsNotFound) {
  const ModelFiles files;
  EXPECT_TRUE(absl::IsNotFound(ReadModelFolder(files.folder()).status()));
}

}  // namespace
}  // namespace behemoth::worker
