#include "tokenizer_svc/vocabulary_loader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

namespace behemoth::tokenizer {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

// A model folder of links to the tiny model's files and of files of its own.
class VocabularyLoaderTest : public testing::Test {
 protected:
  VocabularyLoaderTest()
      : folder_(fs::path(testing::TempDir()) /
                testing::UnitTest::GetInstance()->current_test_info()->name()) {
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  ~VocabularyLoaderTest() override { fs::remove_all(folder_); }

  void Link(const std::string& name) {
    fs::create_symlink(fs::path(BEHEMOTH_SOURCE_DIR "/tests/models/tiny") / name, folder_ / name);
  }
  void Write(const std::string& name, const std::string& text) {
    fs::create_directories((folder_ / name).parent_path());
    std::ofstream(folder_ / name, std::ios::binary) << text;
  }
  std::unique_ptr<Vocabulary> Load() {
    auto vocabulary = LoadVocabulary(folder_.string());
    EXPECT_TRUE(vocabulary.ok()) << vocabulary.status();
    return vocabulary.ok() ? *std::move(vocabulary) : nullptr;
  }
  std::string Refusal() {
    const auto vocabulary = LoadVocabulary(folder_.string());
    EXPECT_FALSE(vocabulary.ok());
    return std::string(vocabulary.status().message());
  }

  fs::path folder_;
};

TEST_F(VocabularyLoaderTest, AFolderWithoutATokenizerIsNotFound) {
  EXPECT_EQ(LoadVocabulary(folder_.string()).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(LoadVocabulary("/nowhere").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(VocabularyLoaderTest, TokenizerJsonDecidesWhereBothLie) {
  Link("tokenizer.json");
  Write("tokenizer.model", "no model");
  EXPECT_EQ(Load()->size(), 4096u);
}

TEST_F(VocabularyLoaderTest, BothFilesOfOneModelGiveTheSameIds) {
  Link("tokenizer.model");
  const auto by_model = Load();
  Link("tokenizer.json");
  Link("tokenizer_config.json");
  const auto by_json = Load();
  const Segment segment{.kind = Segment::Kind::kMarked,
                        .text = "<s>[INST] Who art thou?[/INST] I am 1,234  é 🌴\n</s>"};
  EXPECT_EQ(by_model->encoder().Encode({&segment, 1}, true),
            by_json->encoder().Encode({&segment, 1}, true));
  EXPECT_EQ(by_model->token_bytes(), by_json->token_bytes());
}

TEST_F(VocabularyLoaderTest, TheFingerprintIsThatOfTheFileThatWasRead) {
  Link("tokenizer.model");
  const std::string by_model = Load()->fingerprint();
  EXPECT_EQ(by_model.size(), 64u);
  Link("tokenizer.json");
  const std::string by_json = Load()->fingerprint();
  EXPECT_NE(by_json, by_model);
  Write("chat_template.jinja", "another");  // decides no id
  EXPECT_EQ(Load()->fingerprint(), by_json);
}

TEST_F(VocabularyLoaderTest, TheTemplateFileWinsOverTheConfiguration) {
  Link("tokenizer.json");
  Write("tokenizer_config.json", R"({"chat_template": "config"})");
  EXPECT_EQ(Load()->texts().chat_template, "config");
  Write("chat_template.jinja", "file");
  EXPECT_EQ(Load()->texts().chat_template, "file");
}

TEST_F(VocabularyLoaderTest, NamedTemplatesKeepTheirNames) {
  Link("tokenizer.json");
  Write("tokenizer_config.json", R"({"chat_template": [{"name": "default", "template": "d"},
                                     {"name": "tool_use", "template": "t"}]})");
  Write("additional_chat_templates/rag.jinja", "r");
  const auto vocabulary = Load();
  EXPECT_EQ(vocabulary->texts().chat_template, "d");
  EXPECT_EQ(vocabulary->texts().named_templates.at("tool_use"), "t");
  EXPECT_EQ(vocabulary->texts().named_templates.at("rag"), "r");
}

TEST_F(VocabularyLoaderTest, SpecialTokensComeFromEitherFileAndMustExist) {
  Link("tokenizer.json");
  Write("special_tokens_map.json", R"({"bos_token": {"content": "<s>"}, "eos_token": "</s>"})");
  EXPECT_EQ(Load()->special().bos, 1u);
  EXPECT_EQ(Load()->special().eos, 2u);
  Write("tokenizer_config.json", R"({"pad_token": "no such token"})");
  EXPECT_THAT(Refusal(), HasSubstr("pad_token"));
}

TEST_F(VocabularyLoaderTest, ABrokenFileIsNamed) {
  Link("tokenizer.json");
  Write("chat_template.jinja", "\xFF");
  EXPECT_THAT(Refusal(), HasSubstr("chat_template"));
  Write("chat_template.jinja", "");
  Write("tokenizer_config.json", "[]");
  EXPECT_THAT(Refusal(), HasSubstr("tokenizer_config.json"));
  fs::remove(folder_ / "tokenizer_config.json");
  Write("special_tokens_map.json", "{");
  EXPECT_THAT(Refusal(), HasSubstr("special_tokens_map.json"));
  fs::remove(folder_ / "special_tokens_map.json");
  fs::remove(folder_ / "tokenizer.json");
  fs::create_directory(folder_ / "tokenizer.json");
  EXPECT_THAT(Refusal(), HasSubstr("tokenizer.json"));
}

}  // namespace
}  // namespace behemoth::tokenizer
