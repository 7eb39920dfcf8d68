#include "tokenizer_svc/tokenizer_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tokenizer_svc/encoder.h"
#include "tokenizer_svc/vocabulary.h"

namespace behemoth::tokenizer {
namespace {

using Json = nlohmann::json;
using testing::ElementsAre;
using testing::StartsWith;

// <unk> <s> [X], all byte tokens, then mark, a, b, ab, mark-a.
Json SmallFile() {
  Json vocabulary = {{"<unk>", 0}, {"<s>", 1}, {"[X]", 2}};
  for (int byte = 0; byte < 256; ++byte) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", byte);
    vocabulary[name] = 3 + byte;
  }
  int id = 259;
  for (const char* token : {"▁", "a", "b", "ab", "▁a"}) vocabulary[token] = id++;
  const auto added = [](int id, const char* content) {
    return Json{{"id", id}, {"content", content}, {"special", true}, {"normalized", false}};
  };
  return {{"added_tokens", {added(0, "<unk>"), added(1, "<s>"), added(2, "[X]")}},
          {"normalizer", nullptr},
          {"pre_tokenizer",
           {{"type", "Metaspace"},
            {"replacement", "▁"},
            {"prepend_scheme", "first"},
            {"split", false}}},
          {"model",
           {{"type", "BPE"},
            {"unk_token", "<unk>"},
            {"byte_fallback", true},
            {"fuse_unk", true},
            {"vocab", vocabulary},
            {"merges", Json::array({Json::array({"a", "b"}), Json::array({"▁", "a"})})}}}};
}

constexpr uint32_t kMark = 259, kB = 261, kAb = 262, kMarkA = 263;

std::vector<uint32_t> Encode(const Json& file, std::string_view text,
                             Segment::Kind kind = Segment::Kind::kMarked) {
  const auto spec = ParseTokenizerJson(file.dump());
  EXPECT_TRUE(spec.ok()) << spec.status();
  const Segment segment{.kind = kind, .text = text};
  return Encoder(*spec).Encode({&segment, 1}, false);
}

TEST(TokenizerJsonTest, ThePrefixSchemeDecidesWhereMarksAreAdded) {
  Json file = SmallFile();
  EXPECT_THAT(Encode(file, "ab[X]ab"), ElementsAre(kMark, kAb, 2, kAb));
  file["pre_tokenizer"]["prepend_scheme"] = "always";
  EXPECT_THAT(Encode(file, "ab[X]ab"), ElementsAre(kMark, kAb, 2, kMark, kAb));
  file["pre_tokenizer"]["prepend_scheme"] = "never";
  EXPECT_THAT(Encode(file, "ab[X]ab"), ElementsAre(kAb, 2, kAb));
}

TEST(TokenizerJsonTest, LegacyFilesForceAMarkEvenBeforeAnother) {
  Json file = SmallFile();
  file["pre_tokenizer"] = nullptr;
  file["normalizer"] = {
      {"type", "Sequence"},
      {"normalizers",
       {{{"type", "Prepend"}, {"prepend", "▁"}},
        {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "▁"}}}}};
  EXPECT_THAT(Encode(file, " b"), ElementsAre(kMark, kMark, kB));
}

TEST(TokenizerJsonTest, BothStylesOfMergesAreTheSame) {
  Json file = SmallFile();
  file["model"]["merges"] = Json::array({"a b", "▁ a"});
  EXPECT_THAT(Encode(file, "ab"), ElementsAre(kMark, kAb));
}

TEST(TokenizerJsonTest, TheLowestRankIsMergedFirst) {
  Json file = SmallFile();
  file["model"]["merges"] = Json::array({"▁ a", "a b"});
  EXPECT_THAT(Encode(file, "ab"), ElementsAre(kMarkA, kB));
}

TEST(TokenizerJsonTest, StrippingTokensTakeTheWhiteSpaceAroundThem) {
  Json file = SmallFile();
  file["added_tokens"][2]["lstrip"] = true;
  file["added_tokens"][2]["rstrip"] = true;
  EXPECT_THAT(Encode(file, "b \xC2\xA0[X]\n b"), ElementsAre(kMark, kB, 2, kB));
}

TEST(TokenizerJsonTest, ControlStringsInUserTextStayText) {
  EXPECT_THAT(Encode(SmallFile(), "[X]", Segment::Kind::kText),
              ElementsAre(kMark, 3 + '[', 3 + 'X', 3 + ']'));
}

TEST(TokenizerJsonTest, AControlStringNeverReachesOutOfItsTrustedSegment) {
  const Encoder encoder(*ParseTokenizerJson(SmallFile().dump()));
  const Segment split[] = {{.kind = Segment::Kind::kMarked, .text = "[X"},
                           {.kind = Segment::Kind::kText, .text = "]"}};
  EXPECT_THAT(encoder.Encode(split, false), ElementsAre(kMark, 3 + '[', 3 + 'X', 3 + ']'));
  const Segment joined[] = {{.kind = Segment::Kind::kMarked, .text = "[X"},
                            {.kind = Segment::Kind::kMarked, .text = "]"}};
  EXPECT_THAT(encoder.Encode(joined, false), ElementsAre(2));
}

TEST(TokenizerJsonTest, WithoutByteFallbackUnknownCharactersFuse) {
  Json file = SmallFile();
  file["model"]["byte_fallback"] = false;
  EXPECT_THAT(Encode(file, "bééb"), ElementsAre(kMark, kB, 0, kB));
  file["model"]["fuse_unk"] = false;
  EXPECT_THAT(Encode(file, "bééb"), ElementsAre(kMark, kB, 0, 0, kB));
}

struct Refusal {
  const char* pointer;
  Json value;
  const char* message;
};

TEST(TokenizerJsonTest, WhatIsNotSupportedIsRefusedByName) {
  const Refusal refusals[] = {
      {"/model/type", "Unigram", "tokenizer.json model.type"},
      {"/model/dropout", 0.1, "tokenizer.json model.dropout"},
      {"/model/unk_token", "nope", "tokenizer.json model.unk_token"},
      {"/model/vocab/a", 261, "tokenizer.json model.vocab"},
      {"/model/vocab/a", -1, "tokenizer.json model.vocab"},
      {"/model/vocab/a", 4294967295u, "tokenizer.json model.vocab"},
      {"/model/merges/0", "a z", "tokenizer.json model.merges[0]"},
      {"/model/merges/1", 7, "tokenizer.json model.merges[1]"},
      {"/added_tokens/2/single_word", true, "tokenizer.json added_tokens[2].single_word"},
      {"/added_tokens/2/id", 7, "tokenizer.json added_tokens[2]"},
      {"/normalizer", {{"type", "NFKC"}}, "tokenizer.json normalizer"},
      {"/pre_tokenizer/type", "ByteLevel", "tokenizer.json pre_tokenizer.type"},
      {"/pre_tokenizer/prepend_scheme", "last", "tokenizer.json pre_tokenizer.prepend_scheme"},
      {"/post_processor", {{"type", "ByteLevel"}}, "tokenizer.json post_processor"},
      {"/decoder", {{"type", "ByteLevel"}}, "tokenizer.json decoder"},
  };
  for (const Refusal& refusal : refusals) {
    Json file = SmallFile();
    file[Json::json_pointer(refusal.pointer)] = refusal.value;
    const auto spec = ParseTokenizerJson(file.dump());
    EXPECT_EQ(spec.status().code(), absl::StatusCode::kInvalidArgument) << refusal.pointer;
    EXPECT_THAT(std::string(spec.status().message()), StartsWith(refusal.message));
  }
}

TEST(TokenizerJsonTest, AMissingByteTokenIsRefused) {
  Json file = SmallFile();
  file["model"]["vocab"].erase("<0x41>");
  EXPECT_FALSE(ParseTokenizerJson(file.dump()).ok());
}

TEST(VocabularyTest, TokensSayTheirBytesAndControlIds) {
  const Vocabulary vocabulary(*ParseTokenizerJson(SmallFile().dump()), {});
  EXPECT_EQ(vocabulary.token_bytes()[3 + 10], "\n");
  EXPECT_EQ(vocabulary.token_bytes()[kMarkA], " a");
  EXPECT_EQ(vocabulary.token_bytes()[2], "[X]");
  EXPECT_THAT(vocabulary.control_ids(), ElementsAre(0, 1, 2));
}

}  // namespace
}  // namespace behemoth::tokenizer
