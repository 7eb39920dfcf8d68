#include "gateway/admission/api_keys.h"

#include <absl/strings/ascii.h>
#include <absl/strings/escaping.h>
#include <absl/strings/match.h>
#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_split.h>
#include <openssl/crypto.h>
#include <openssl/sha.h>

#include <algorithm>
#include <fstream>
#include <utility>

#include "proto/support/log.h"

namespace behemoth::gateway {
namespace {

constexpr char kHashed[] = "sha256:";

}  // namespace

ApiKeys::Digest ApiKeys::Hash(std::string_view key) {
  Digest digest;
  SHA256(reinterpret_cast<const unsigned char*>(key.data()), key.size(), digest.data());
  return digest;
}

ApiKeys::ApiKeys(const std::vector<std::string>& keys, std::string file)
    : file_(std::move(file)), open_(keys.empty() && file_.empty()), fixed_([&keys] {
        std::vector<Key> hashed;
        for (const std::string& key : keys) hashed.push_back({.digest = Hash(key)});
        return hashed;
      }()) {}

absl::StatusOr<ApiKeys::Key> ApiKeys::ParseLine(std::string_view line) {
  const std::vector<std::string> words = absl::StrSplit(absl::string_view(line.data(), line.size()),
                                                        absl::ByAnyChar(" \t"), absl::SkipEmpty());
  Key key;
  if (absl::StartsWith(words[0], kHashed)) {
    const std::string hex = words[0].substr(sizeof(kHashed) - 1);
    if (hex.size() != 2 * key.digest.size() ||
        !std::all_of(hex.begin(), hex.end(), [](char c) { return absl::ascii_isxdigit(c); })) {
      return absl::InvalidArgumentError("sha256: is followed by 64 hex digits");
    }
    const std::string bytes = absl::HexStringToBytes(hex);
    std::copy(bytes.begin(), bytes.end(), key.digest.begin());
  } else {
    key.digest = Hash(words[0]);
  }
  for (size_t i = 1; i < words.size(); ++i) {
    const std::pair<std::string, std::string> option =
        absl::StrSplit(words[i], absl::MaxSplits('=', 1));
    int limit = -1;
    const bool is_limit = absl::SimpleAtoi(option.second, &limit) && limit >= 0;
    if (option.first == "scope" && (option.second == "user" || option.second == "admin")) {
      key.admin = option.second == "admin";
    } else if (option.first == "in-flight" && is_limit) {
      key.limits.in_flight = limit;
    } else if (option.first == "per-minute" && is_limit) {
      key.limits.requests_per_minute = limit;
    } else {
      return absl::InvalidArgumentError(
          "after the key come scope=user|admin, in-flight=N, per-minute=N");
    }
  }
  return key;
}

absl::Status ApiKeys::Reload() {
  if (file_.empty()) return absl::OkStatus();
  const auto stamp = support::StampOf(file_);
  std::ifstream in(file_);
  if (!in) return absl::InvalidArgumentError("api-key-file: cannot be read");
  std::vector<Key> fresh;
  int number = 0;
  for (std::string line; std::getline(in, line);) {
    ++number;
    const absl::string_view text = absl::StripAsciiWhitespace(line);
    if (text.empty() || text.front() == '#') continue;
    auto key = ParseLine({text.data(), text.size()});
    if (!key.ok()) {  // the line itself is a secret
      return absl::InvalidArgumentError(
          absl::StrCat("api-key-file: line ", number, ": ", key.status().message()));
    }
    fresh.push_back(*std::move(key));
  }
  if (fresh.empty()) return absl::InvalidArgumentError("api-key-file: holds no key");
  absl::MutexLock lock(&mutex_);
  from_file_ = std::move(fresh);
  seen_ = stamp;
  return absl::OkStatus();
}

void ApiKeys::ReloadIfChanged() {
  if (file_.empty()) return;
  const auto stamp = support::StampOf(file_);
  {
    absl::MutexLock lock(&mutex_);
    if (stamp == seen_) return;
    seen_ = stamp;  // a bad file is reported once
  }
  const absl::Status status = Reload();
  support::Log().info("api keys reloaded ok={}", status.ok());
}

std::optional<Caller> ApiKeys::Identify(std::optional<std::string_view> authorization,
                                        std::optional<std::string_view> x_api_key) const {
  if (open_) return Caller{};
  std::string_view key = x_api_key.value_or("");
  if (authorization) {
    const absl::string_view value(authorization->data(), authorization->size());
    if (!absl::StartsWithIgnoreCase(value, "bearer ")) return std::nullopt;
    key = authorization->substr(7);
  }
  const Digest digest = Hash(key);
  // Every key is compared whatever the first ones said: time tells nothing.
  std::optional<Caller> found;
  const auto compare = [&](const Key& known) {
    if (CRYPTO_memcmp(digest.data(), known.digest.data(), digest.size()) != 0) return;
    found = Caller{.admin = known.admin, .limits = known.limits};
  };
  for (const Key& known : fixed_) compare(known);
  {
    absl::MutexLock lock(&mutex_);
    for (const Key& known : from_file_) compare(known);
  }
  if (!found || key.empty()) return std::nullopt;
  found->id =
      absl::BytesToHexString(absl::string_view(reinterpret_cast<const char*>(digest.data()), 8));
  return found;
}

}  // namespace behemoth::gateway
