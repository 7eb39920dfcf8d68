#include "tokenizer_svc/tokenizer_json.h"

#include <absl/container/flat_hash_map.h>
#include <absl/status/status.h>
#include <absl/strings/str_cat.h>

#include <nlohmann/json.hpp>

namespace behemoth::tokenizer {
namespace {

using Json = nlohmann::json;

absl::Status Refused(std::string_view path, std::string_view why) {
  return absl::InvalidArgumentError(
      absl::StrCat("tokenizer.json ", std::string(path), ": ", std::string(why)));
}

const Json& Member(const Json& object, const char* key) {
  static const Json kNull;
  if (!object.is_object()) return kNull;
  const auto found = object.find(key);
  return found == object.end() ? kNull : *found;
}

std::string Text(const Json& value) {
  return value.is_string() ? value.get<std::string>() : std::string();
}

bool Flag(const Json& object, const char* key) {
  const Json& value = Member(object, key);
  return value.is_boolean() && value.get<bool>();
}

// nullopt: not a whole number that fits a vocabulary.
std::optional<uint32_t> Id(const Json& value) {
  if (!value.is_number_unsigned() || value.get<uint64_t>() >= kMaxVocabulary) return std::nullopt;
  return value.get<uint32_t>();
}

class Reader {
 public:
  absl::StatusOr<TokenizerSpec> Read(const Json& file) {
    if (!file.is_object()) return Refused("", "not a JSON object");
    for (const auto& step :
         {&Reader::ReadVocabulary, &Reader::ReadModelOptions, &Reader::ReadMerges}) {
      if (auto status = (this->*step)(Member(file, "model")); !status.ok()) return status;
    }
    if (auto status = ReadAddedTokens(Member(file, "added_tokens")); !status.ok()) return status;
    if (auto status = ReadNormalizer(Member(file, "normalizer")); !status.ok()) return status;
    if (auto status = ReadPreTokenizer(Member(file, "pre_tokenizer")); !status.ok()) return status;
    if (auto status = ReadPostProcessor(Member(file, "post_processor")); !status.ok()) {
      return status;
    }
    if (auto status = CheckDecoder(Member(file, "decoder")); !status.ok()) return status;
    for (const AddedToken& token : spec_.added) {
      if (token.normalized && has_normalizer_) {
        return Refused("added_tokens", "normalized: true together with a normalizer");
      }
    }
    return std::move(spec_);
  }

 private:
  absl::Status Place(uint32_t id, const std::string& token, const std::string& path) {
    if (id >= spec_.tokens.size()) spec_.tokens.resize(id + 1);
    if (!spec_.tokens[id].empty()) return Refused(path, "an id is used twice");
    spec_.tokens[id] = token;
    ids_.emplace(token, id);
    return absl::OkStatus();
  }

  absl::Status ReadVocabulary(const Json& model) {
    if (Text(Member(model, "type")) != "BPE") return Refused("model.type", "only BPE is supported");
    const Json& vocabulary = Member(model, "vocab");
    if (!vocabulary.is_object() || vocabulary.empty()) {
      return Refused("model.vocab", "not an object with tokens");
    }
    for (const auto& [token, value] : vocabulary.items()) {
      const auto id = Id(value);
      if (!id || token.empty()) return Refused("model.vocab", "a token without text or a good id");
      if (auto status = Place(*id, token, "model.vocab"); !status.ok()) return status;
    }
    return absl::OkStatus();
  }

  absl::Status ReadModelOptions(const Json& model) {
    const Json& dropout = Member(model, "dropout");
    if (!dropout.is_null() && dropout != 0.0) return Refused("model.dropout", "not supported");
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      if (!Member(model, key).is_null() && Member(model, key) != "") {
        return Refused(absl::StrCat("model.", key), "not supported");
      }
    }
    spec_.byte_fallback = Flag(model, "byte_fallback");
    spec_.fuse_unk = Flag(model, "fuse_unk");
    spec_.ignore_merges = Flag(model, "ignore_merges");
    if (const std::string unk = Text(Member(model, "unk_token")); !unk.empty()) {
      const auto found = ids_.find(unk);
      if (found == ids_.end()) return Refused("model.unk_token", "not in model.vocab");
      spec_.unk_id = found->second;
    }
    int bytes = 0;
    for (const std::string& token : spec_.tokens) bytes += ByteOfToken(token).has_value();
    if (spec_.byte_fallback && bytes != 256) {
      return Refused("model.byte_fallback", "not all of <0x00>..<0xFF> are in model.vocab");
    }
    return absl::OkStatus();
  }

  // "l r" or ["l", "r"]: both are in use.
  absl::Status ReadMerges(const Json& model) {
    const Json& merges = Member(model, "merges");
    if (!merges.is_array()) return Refused("model.merges", "not a list");
    for (size_t i = 0; i < merges.size(); ++i) {
      const Json& merge = merges[i];
      std::string left, right;
      if (merge.is_string()) {
        const std::string text = merge.get<std::string>();
        const size_t space = text.find(' ');
        if (space != text.npos && text.find(' ', space + 1) == text.npos) {
          left = text.substr(0, space);
          right = text.substr(space + 1);
        }
      } else if (merge.is_array() && merge.size() == 2) {
        left = Text(merge[0]);
        right = Text(merge[1]);
      }
      const auto l = ids_.find(left), r = ids_.find(right), both = ids_.find(left + right);
      if (l == ids_.end() || r == ids_.end() || both == ids_.end()) {
        return Refused(absl::StrCat("model.merges[", i, "]"),
                       "not two tokens whose join is a token");
      }
      spec_.merges.push_back({l->second, r->second, both->second});
    }
    return absl::OkStatus();
  }

  absl::Status ReadAddedTokens(const Json& added) {
    if (added.is_null()) return absl::OkStatus();
    if (!added.is_array()) return Refused("added_tokens", "not a list");
    for (size_t i = 0; i < added.size(); ++i) {
      const std::string path = absl::StrCat("added_tokens[", i, "]");
      AddedToken token;
      const auto id = Id(Member(added[i], "id"));
      token.content = Text(Member(added[i], "content"));
      if (!id || token.content.empty()) return Refused(path, "no good id or no content");
      if (Flag(added[i], "single_word")) {
        return Refused(path + ".single_word", "true is not supported");
      }
      token.id = *id;
      token.special = Flag(added[i], "special");
      token.normalized = Flag(added[i], "normalized");
      token.strip_left = Flag(added[i], "lstrip");
      token.strip_right = Flag(added[i], "rstrip");
      const auto known = ids_.find(token.content);
      if (known == ids_.end()) {
        if (auto status = Place(*id, token.content, path); !status.ok()) return status;
      } else if (known->second != *id) {
        return Refused(path, "the vocabulary gives this token another id");
      }
      spec_.added.push_back(std::move(token));
    }
    return absl::OkStatus();
  }

  absl::Status ReadNormalizer(const Json& normalizer) {
    if (normalizer.is_null()) return absl::OkStatus();
    const std::string type = Text(Member(normalizer, "type"));
    has_normalizer_ = true;
    if (type == "Sequence") {
      const Json& steps = Member(normalizer, "normalizers");
      if (!steps.is_array()) return Refused("normalizer.normalizers", "not a list");
      for (const Json& step : steps) {
        if (Text(Member(step, "type")) == "Sequence") return Refused("normalizer", "nested");
        if (auto status = ReadNormalizer(step); !status.ok()) return status;
      }
      return absl::OkStatus();
    }
    if (type == "Prepend" && Text(Member(normalizer, "prepend")) == kSpaceMark) {
      if (spec_.prefix == Prefix::kForced) return Refused("normalizer", "prepends twice");
      spec_.prefix = Prefix::kForced;
      return absl::OkStatus();
    }
    if (type == "Replace" && Text(Member(Member(normalizer, "pattern"), "String")) == " " &&
        Text(Member(normalizer, "content")) == kSpaceMark) {
      spec_.spaces_to_marks = true;
      return absl::OkStatus();
    }
    return Refused("normalizer",
                   absl::StrCat("type \"", type, "\" or its content is not supported"));
  }

  absl::Status ReadPreTokenizer(const Json& metaspace) {
    if (metaspace.is_null()) return absl::OkStatus();
    if (Text(Member(metaspace, "type")) != "Metaspace") {
      return Refused("pre_tokenizer.type", "only Metaspace is supported");
    }
    if (Text(Member(metaspace, "replacement")) != kSpaceMark) {
      return Refused("pre_tokenizer.replacement", "only U+2581 is supported");
    }
    const Json& scheme = Member(metaspace, "prepend_scheme");
    const Json& old_flag = Member(metaspace, "add_prefix_space");
    std::string name = scheme.is_null() ? "always" : Text(scheme);
    if (old_flag.is_boolean() && !old_flag.get<bool>()) {
      if (!scheme.is_null() && name != "never") {
        return Refused("pre_tokenizer.add_prefix_space", "contradicts prepend_scheme");
      }
      name = "never";
    }
    if (name != "first" && name != "always" && name != "never") {
      return Refused("pre_tokenizer.prepend_scheme", "not first, always or never");
    }
    spec_.spaces_to_marks = true;
    const Json& split = Member(metaspace, "split");
    spec_.split_at_marks = split.is_null() || (split.is_boolean() && split.get<bool>());
    // After a forced mark every piece has one, so no scheme adds another.
    if (spec_.prefix != Prefix::kForced && name != "never") {
      spec_.prefix = name == "first" ? Prefix::kFirst : Prefix::kAlways;
    }
    return absl::OkStatus();
  }

  absl::Status ReadPostProcessor(const Json& processor) {
    if (processor.is_null()) return absl::OkStatus();
    const Json& single = Member(processor, "single");
    if (Text(Member(processor, "type")) != "TemplateProcessing" || !single.is_array()) {
      return Refused("post_processor", "only TemplateProcessing with a list is supported");
    }
    bool after_text = false;
    for (const Json& element : single) {
      if (element.contains("Sequence")) {
        if (after_text) return Refused("post_processor.single", "holds the text twice");
        after_text = true;
        continue;
      }
      const std::string name = Text(Member(Member(element, "SpecialToken"), "id"));
      const Json& token = Member(Member(processor, "special_tokens"), name.c_str());
      const Json& ids = Member(token, "ids");
      if (!ids.is_array()) return Refused("post_processor.special_tokens", "a token has no ids");
      for (const Json& value : ids) {
        const auto id = Id(value);
        if (!id || *id >= spec_.tokens.size()) {
          return Refused("post_processor.special_tokens", "an id outside the vocabulary");
        }
        (after_text ? spec_.suffix_ids : spec_.prefix_ids).push_back(*id);
      }
    }
    if (!after_text) return Refused("post_processor.single", "does not hold the text");
    return absl::OkStatus();
  }

  // Says what the tokens' bytes are; anything but the known steps would mean other bytes.
  absl::Status CheckDecoder(const Json& decoder) {
    if (decoder.is_null()) return absl::OkStatus();
    const std::string type = Text(Member(decoder, "type"));
    if (type == "Sequence" && Member(decoder, "decoders").is_array()) {
      for (const Json& step : Member(decoder, "decoders")) {
        if (Text(Member(step, "type")) == "Sequence") return Refused("decoder", "nested");
        if (auto status = CheckDecoder(step); !status.ok()) return status;
      }
      return absl::OkStatus();
    }
    if (type == "Metaspace" || type == "ByteFallback" || type == "Fuse" || type == "Strip") {
      return absl::OkStatus();
    }
    if (type == "Replace" && Text(Member(Member(decoder, "pattern"), "String")) == kSpaceMark &&
        Text(Member(decoder, "content")) == " ") {
      return absl::OkStatus();
    }
    return Refused("decoder", absl::StrCat("type \"", type, "\" is not supported"));
  }

  TokenizerSpec spec_;
  absl::flat_hash_map<std::string, uint32_t> ids_;
  bool has_normalizer_ = false;
};

}  // namespace

absl::StatusOr<TokenizerSpec> ParseTokenizerJson(std::string_view text) {
  const Json file = Json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  if (file.is_discarded()) return Refused("", "not JSON");
  return Reader().Read(file);
}

}  // namespace behemoth::tokenizer
