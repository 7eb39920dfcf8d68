#include "tokenizer_svc/sentencepiece_model.h"

#include <absl/container/flat_hash_map.h>
#include <absl/status/status.h>
#include <absl/strings/str_cat.h>

#include <algorithm>
#include <cmath>
#include <tuple>

#include "tokenizer_svc/sentencepiece_model.pb.h"
#include "tokenizer_svc/utf8.h"

namespace behemoth::tokenizer {
namespace {

using Piece = file::Model::Piece;

absl::Status Refused(const std::string& path, const char* why) {
  return absl::InvalidArgumentError(absl::StrCat("tokenizer.model ", path, ": ", why));
}

absl::Status CheckOptions(const file::Model& model) {
  if (model.trainer().algorithm() != file::Model::Trainer::BPE) {
    return Refused("trainer_spec.model_type", "only BPE is supported");
  }
  if (model.trainer().treat_whitespace_as_suffix()) {
    return Refused("trainer_spec.treat_whitespace_as_suffix", "true is not supported");
  }
  if (!model.normalizer().compiled_rules().empty()) {
    return Refused("normalizer_spec.precompiled_charsmap", "only identity is supported");
  }
  if (model.normalizer().remove_extra_whitespaces()) {
    return Refused("normalizer_spec.remove_extra_whitespaces", "true is not supported");
  }
  if (!model.normalizer().escape_whitespaces()) {
    return Refused("normalizer_spec.escape_whitespaces", "false is not supported");
  }
  if (model.pieces().empty() || model.pieces_size() > static_cast<int>(kMaxVocabulary)) {
    return Refused("pieces", "none, or too many");
  }
  return absl::OkStatus();
}

// Every split of every piece into two pieces. A better score joins first; among equals the longer
// left half, then the longer right one, then the lower ids: the order of Hugging Face's conversion.
std::vector<Merge> MergesOf(const file::Model& model,
                            const absl::flat_hash_map<std::string, uint32_t>& ids) {
  struct Ranked {
    Merge merge;
    float score;
    uint32_t left_chars, right_chars;
  };
  std::vector<Ranked> all;
  for (int id = 0; id < model.pieces_size(); ++id) {
    const std::string& text = model.pieces(id).text();
    std::vector<size_t> borders;
    for (size_t at = 0; at < text.size(); at += DecodeAt(text, at).bytes) borders.push_back(at);
    for (size_t i = 1; i < borders.size(); ++i) {
      const auto left = ids.find(text.substr(0, borders[i]));
      const auto right = ids.find(text.substr(borders[i]));
      if (left == ids.end() || right == ids.end()) continue;
      all.push_back({{left->second, right->second, static_cast<uint32_t>(id)},
                     model.pieces(id).score(),
                     static_cast<uint32_t>(i),
                     static_cast<uint32_t>(borders.size() - i)});
    }
  }
  std::sort(all.begin(), all.end(), [](const Ranked& a, const Ranked& b) {
    return std::tuple(-a.score, b.left_chars, b.right_chars, a.merge.joined, a.merge.left,
                      a.merge.right) < std::tuple(-b.score, a.left_chars, a.right_chars,
                                                  b.merge.joined, b.merge.left, b.merge.right);
  });
  std::vector<Merge> merges;
  merges.reserve(all.size());
  for (const Ranked& ranked : all) merges.push_back(ranked.merge);
  return merges;
}

}  // namespace

absl::StatusOr<TokenizerSpec> ParseSentencePieceModel(std::string_view bytes) {
  file::Model model;
  if (bytes.size() > (1u << 30) ||
      !model.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return Refused("", "not a sentencepiece model");
  }
  if (auto status = CheckOptions(model); !status.ok()) return status;

  TokenizerSpec spec;
  absl::flat_hash_map<std::string, uint32_t> ids;
  int byte_pieces = 0;
  for (int i = 0; i < model.pieces_size(); ++i) {
    const Piece& piece = model.pieces(i);
    const std::string path = absl::StrCat("pieces[", i, "]");
    const auto id = static_cast<uint32_t>(i);
    if (piece.text().empty() || piece.text().size() > 1024 || !IsUtf8(piece.text())) {
      return Refused(path, "empty, longer than 1,024 bytes, or not UTF-8");
    }
    if (piece.kind() == Piece::UNUSED) return Refused(path + ".type", "UNUSED is not supported");
    if (!std::isfinite(piece.score())) return Refused(path + ".score", "not a finite number");
    if (!ids.emplace(piece.text(), id).second) return Refused(path, "the same text twice");
    spec.tokens.push_back(piece.text());
    if (piece.kind() == Piece::BYTE) {
      if (!ByteOfToken(piece.text())) return Refused(path, "a byte piece not named <0xHH>");
      ++byte_pieces;
    } else if (piece.kind() != Piece::NORMAL) {
      spec.added.push_back(
          {.id = id, .content = piece.text(), .special = piece.kind() != Piece::USER_DEFINED});
      if (piece.kind() == Piece::UNKNOWN) spec.unk_id = id;
    }
  }
  spec.byte_fallback = model.trainer().byte_fallback();
  if (spec.byte_fallback && byte_pieces != 256) {
    return Refused("pieces", "byte_fallback without all of <0x00>..<0xFF>");
  }
  spec.merges = MergesOf(model, ids);
  spec.fuse_unk = true;
  spec.spaces_to_marks = true;
  spec.prefix = model.normalizer().add_dummy_prefix() ? Prefix::kFirst : Prefix::kNever;
  const auto known = [&](int id) {
    return id >= 0 && id < model.pieces_size() ? std::optional(static_cast<uint32_t>(id))
                                               : std::nullopt;
  };
  spec.special = {.bos = known(model.trainer().bos_id()),
                  .eos = known(model.trainer().eos_id()),
                  .unk = known(model.trainer().unk_id()),
                  .pad = known(model.trainer().pad_id())};
  if (spec.special.bos) spec.prefix_ids = {*spec.special.bos};
  return spec;
}

}  // namespace behemoth::tokenizer
