#include "tokenizer_svc/sentencepiece_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/unit/tokenizer_svc/small_spec.h"
#include "tokenizer_svc/sentencepiece_model.pb.h"

namespace behemoth::tokenizer {
namespace {

using testing::ElementsAre;
using testing::StartsWith;
using Piece = file::Model::Piece;

// The pieces of SmallSpec() as a file; joined ones score by their length, as training does.
file::Model SmallModel() {
  file::Model model;
  model.mutable_trainer()->set_algorithm(file::Model::Trainer::BPE);
  model.mutable_trainer()->set_byte_fallback(true);
  model.mutable_normalizer()->set_remove_extra_whitespaces(false);
  float score = 0;
  for (const std::string& token : SmallSpec().tokens) {
    Piece& piece = *model.add_pieces();
    const int id = model.pieces_size() - 1;
    piece.set_text(token);
    piece.set_score(id > static_cast<int>(kByte0) + 255 ? score-- : 0);
    piece.set_kind(id == 0    ? Piece::UNKNOWN
                   : id < 4   ? Piece::CONTROL
                   : id < 260 ? Piece::BYTE
                              : Piece::NORMAL);
  }
  return model;
}

TEST(SentencePieceModelTest, BecomesWhatItsConversionWouldSay) {
  const auto spec = ParseSentencePieceModel(SmallModel().SerializeAsString());
  ASSERT_TRUE(spec.ok()) << spec.status();
  const TokenizerSpec expected = SmallSpec();
  EXPECT_EQ(spec->tokens, expected.tokens);
  EXPECT_EQ(spec->prefix, Prefix::kFirst);
  EXPECT_TRUE(spec->spaces_to_marks && spec->byte_fallback && spec->fuse_unk);
  EXPECT_EQ(spec->unk_id, kUnk);
  EXPECT_THAT(spec->prefix_ids, ElementsAre(kBos));
  EXPECT_EQ(spec->special.eos, kEos);
  EXPECT_EQ(spec->special.pad, std::nullopt);
  ASSERT_EQ(spec->merges.size(), 3u);  // in the order of the joined pieces' scores
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(spec->merges[i].joined, expected.merges[i].joined);
  ASSERT_EQ(spec->added.size(), 4u);
  for (const AddedToken& token : spec->added) EXPECT_TRUE(token.special) << token.content;
}

TEST(SentencePieceModelTest, UserDefinedPiecesAreCutOutButAreNoControlTokens) {
  file::Model model = SmallModel();
  model.mutable_pieces(kX)->set_kind(Piece::USER_DEFINED);
  const auto spec = ParseSentencePieceModel(model.SerializeAsString());
  ASSERT_TRUE(spec.ok());
  EXPECT_EQ(spec->added[3].content, "[X]");
  EXPECT_FALSE(spec->added[3].special);
}

TEST(SentencePieceModelTest, EqualScoresPreferLongerLeftHalves) {
  file::Model model = SmallModel();
  for (const char* text : {"aa", "aaa"}) {
    Piece& piece = *model.add_pieces();
    piece.set_text(text);
    piece.set_score(-100);
  }
  const auto spec = ParseSentencePieceModel(model.SerializeAsString());
  ASSERT_TRUE(spec.ok());
  const uint32_t aa = 266, aaa = 267;
  const auto& merges = spec->merges;
  ASSERT_EQ(merges.size(), 6u);
  EXPECT_EQ(std::tuple(merges[3].left, merges[3].right, merges[3].joined), std::tuple(aa, kA, aaa));
  EXPECT_EQ(std::tuple(merges[4].left, merges[4].right, merges[4].joined), std::tuple(kA, aa, aaa));
  EXPECT_EQ(std::tuple(merges[5].left, merges[5].right, merges[5].joined), std::tuple(kA, kA, aa));
}

struct Refusal {
  void (*change)(file::Model&);
  const char* message;
};

TEST(SentencePieceModelTest, WhatIsNotSupportedIsRefusedByName) {
  const Refusal refusals[] = {
      {[](file::Model& m) { m.mutable_trainer()->set_algorithm(file::Model::Trainer::UNIGRAM); },
       "tokenizer.model trainer_spec.model_type"},
      {[](file::Model& m) { m.mutable_trainer()->clear_algorithm(); },
       "tokenizer.model trainer_spec.model_type"},
      {[](file::Model& m) { m.mutable_trainer()->set_treat_whitespace_as_suffix(true); },
       "tokenizer.model trainer_spec.treat_whitespace_as_suffix"},
      {[](file::Model& m) { m.mutable_normalizer()->set_compiled_rules("x"); },
       "tokenizer.model normalizer_spec.precompiled_charsmap"},
      {[](file::Model& m) { m.mutable_normalizer()->clear_remove_extra_whitespaces(); },
       "tokenizer.model normalizer_spec.remove_extra_whitespaces"},
      {[](file::Model& m) { m.mutable_normalizer()->set_escape_whitespaces(false); },
       "tokenizer.model normalizer_spec.escape_whitespaces"},
      {[](file::Model& m) { m.clear_pieces(); }, "tokenizer.model pieces"},
      {[](file::Model& m) { m.mutable_pieces(7)->set_text(""); }, "tokenizer.model pieces[7]"},
      {[](file::Model& m) { m.mutable_pieces(261)->set_text("\xFF"); },
       "tokenizer.model pieces[261]"},
      {[](file::Model& m) { m.mutable_pieces(261)->set_text(std::string(1025, 'x')); },
       "tokenizer.model pieces[261]"},
      {[](file::Model& m) { m.mutable_pieces(262)->set_text("a"); }, "tokenizer.model pieces[262]"},
      {[](file::Model& m) { m.mutable_pieces(262)->set_score(std::nanf("")); },
       "tokenizer.model pieces[262].score"},
      {[](file::Model& m) { m.mutable_pieces(262)->set_kind(Piece::UNUSED); },
       "tokenizer.model pieces[262].type"},
      {[](file::Model& m) { m.mutable_pieces(262)->set_kind(Piece::BYTE); },
       "tokenizer.model pieces[262]"},
      {[](file::Model& m) { m.mutable_pieces(9)->set_kind(Piece::NORMAL); },
       "tokenizer.model pieces"},
  };
  for (const Refusal& refusal : refusals) {
    file::Model model = SmallModel();
    refusal.change(model);
    const auto spec = ParseSentencePieceModel(model.SerializeAsString());
    EXPECT_EQ(spec.status().code(), absl::StatusCode::kInvalidArgument) << refusal.message;
    EXPECT_THAT(std::string(spec.status().message()), StartsWith(refusal.message));
  }
}

TEST(SentencePieceModelTest, ATruncatedFileIsRefusedOrAnotherModelButNeverACrash) {
  const std::string bytes = SmallModel().SerializeAsString();
  for (size_t size = 0; size < bytes.size(); size += 7) {
    const auto spec = ParseSentencePieceModel(std::string_view(bytes).substr(0, size));
    EXPECT_EQ(spec.status().code(), absl::StatusCode::kInvalidArgument) << size;
  }
}

}  // namespace
}  // namespace behemoth::tokenizer
