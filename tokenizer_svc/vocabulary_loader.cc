#include "tokenizer_svc/vocabulary_loader.h"

#include <absl/status/status.h>
#include <absl/strings/str_cat.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <system_error>

#include "proto/support/fingerprint.h"
#include "tokenizer_svc/sentencepiece_model.h"
#include "tokenizer_svc/tokenizer_json.h"
#include "tokenizer_svc/utf8.h"

namespace behemoth::tokenizer {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

// Ten times the largest tokenizer.json known.
constexpr uintmax_t kMaxFileBytes = 256u << 20;

// nullopt: there is no such file.
absl::StatusOr<std::optional<std::string>> ReadIfThere(const fs::path& path) {
  std::error_code error;
  if (!fs::exists(path, error)) return std::nullopt;
  if (!fs::is_regular_file(path, error) || fs::file_size(path, error) > kMaxFileBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(path.filename().string(), ": not a file of at most 256 MiB"));
  }
  std::ifstream file(path, std::ios::binary);
  std::string bytes{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  if (!file) {
    return absl::InvalidArgumentError(absl::StrCat(path.filename().string(), ": cannot be read"));
  }
  return bytes;
}

absl::StatusOr<Json> ReadJsonObject(const fs::path& path) {
  auto text = ReadIfThere(path);
  if (!text.ok()) return text.status();
  if (!text->has_value()) return Json::object();
  Json json = Json::parse(**text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path.filename().string(), ": not a JSON object"));
  }
  return json;
}

absl::StatusOr<TokenizerSpec> LoadSpec(const fs::path& folder) {
  for (const auto& [name, parse] : {std::pair("tokenizer.json", &ParseTokenizerJson),
                                    std::pair("tokenizer.model", &ParseSentencePieceModel)}) {
    auto bytes = ReadIfThere(folder / name);
    if (!bytes.ok()) return bytes.status();
    if (!bytes->has_value()) continue;
    auto spec = parse(**bytes);
    if (spec.ok()) spec->fingerprint = support::Fingerprint(**bytes);
    return spec;
  }
  return absl::NotFoundError(
      absl::StrCat("--model ", folder.string(), ": neither tokenizer.json nor tokenizer.model"));
}

absl::StatusOr<PromptTexts> LoadTexts(const fs::path& folder, const Json& config) {
  PromptTexts texts;
  const auto own = config.find("chat_template");
  if (own != config.end() && own->is_string()) texts.chat_template = own->get<std::string>();
  if (own != config.end() && own->is_array()) {
    for (const Json& entry : *own) {
      const auto text = [&](const char* key) {
        return entry.is_object() && entry.contains(key) && entry[key].is_string()
                   ? entry[key].get<std::string>()
                   : std::string();
      };
      if (text("name").empty()) {
        return absl::InvalidArgumentError(
            "tokenizer_config.json chat_template: an entry without a name");
      }
      texts.named_templates[text("name")] = text("template");
    }
  }
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder / "additional_chat_templates", error)) {
    if (entry.path().extension() != ".jinja") continue;
    auto text = ReadIfThere(entry.path());
    if (!text.ok()) return text.status();
    texts.named_templates[entry.path().stem().string()] = text->value_or("");
  }
  auto file = ReadIfThere(folder / "chat_template.jinja");
  if (!file.ok()) return file.status();
  if (file->has_value()) {
    texts.chat_template = **file;
  } else if (const auto found = texts.named_templates.find("default");
             texts.chat_template.empty() && found != texts.named_templates.end()) {
    texts.chat_template = found->second;
  }
  // They travel in protobuf strings, which are UTF-8.
  bool good = IsUtf8(texts.chat_template);
  for (const auto& [name, text] : texts.named_templates) {
    good = good && IsUtf8(name) && IsUtf8(text);
  }
  if (!good) return absl::InvalidArgumentError("chat_template: not UTF-8");
  return texts;
}

// "<s>" or {"content": "<s>"}.
std::string TokenNamed(const Json& file, const char* key) {
  const auto found = file.find(key);
  if (found == file.end()) return "";
  if (found->is_string()) return found->get<std::string>();
  if (found->is_object() && found->contains("content") && (*found)["content"].is_string()) {
    return (*found)["content"].get<std::string>();
  }
  return "";
}

absl::Status NameSpecialTokens(const Json& config, const Json& map, TokenizerSpec& spec) {
  const std::pair<const char*, std::optional<uint32_t>*> tokens[] = {
      {"bos_token", &spec.special.bos},
      {"eos_token", &spec.special.eos},
      {"unk_token", &spec.special.unk},
      {"pad_token", &spec.special.pad}};
  for (const auto& [key, id] : tokens) {
    std::string name = TokenNamed(config, key);
    if (name.empty()) name = TokenNamed(map, key);
    if (name.empty()) continue;
    const auto found = std::find(spec.tokens.begin(), spec.tokens.end(), name);
    if (found == spec.tokens.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat("tokenizer_config.json ", key, ": not in the vocabulary"));
    }
    *id = static_cast<uint32_t>(found - spec.tokens.begin());
  }
  if (!spec.special.unk) spec.special.unk = spec.unk_id;
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Vocabulary>> LoadVocabulary(const std::string& folder) {
  auto spec = LoadSpec(folder);
  if (!spec.ok()) return spec.status();
  auto config = ReadJsonObject(fs::path(folder) / "tokenizer_config.json");
  if (!config.ok()) return config.status();
  auto map = ReadJsonObject(fs::path(folder) / "special_tokens_map.json");
  if (!map.ok()) return map.status();
  if (auto status = NameSpecialTokens(*config, *map, *spec); !status.ok()) return status;
  auto texts = LoadTexts(folder, *config);
  if (!texts.ok()) return texts.status();
  return std::make_unique<Vocabulary>(*spec, *std::move(texts));
}

}  // namespace behemoth::tokenizer
