#include "gateway/admission/api_keys.h"

#include <absl/strings/ascii.h>
#include <absl/strings/escaping.h>
#include <absl/strings/match.h>
#include <openssl/crypto.h>
#include <openssl/sha.h>

#include <fstream>
#include <iterator>

#include "proto/support/log.h"

namespace behemoth::gateway {
ApiKeys::Digest ApiKeys::Hash(std::string_view key) {
  Digest digest;
  SHA256(reinterpret_cast<const unsigned char*>(key.data()), key.size(), digest.data());
  return digest;
}

ApiKeys::ApiKeys(const std::vector<std::string>& keys, std::string file)
    : file_(std::move(file)), open_(keys.empty() && file_.empty()), fixed_([&keys] {
        std::vector<Digest> digests;
        for (const std::string& key : keys) digests.push_back(Hash(key));
        return digests;
      }()) {}

absl::Status ApiKeys::Reload() {
  if (file_.empty()) return absl::OkStatus();
  const auto stamp = support::StampOf(file_);
  std::ifstream in(file_);
  if (!in) return absl::InvalidArgumentError("api-key-file: cannot be read");
  std::vector<Digest> fresh;
  for (std::string line; std::getline(in, line);) {
    const absl::string_view key = absl::StripAsciiWhitespace(line);
    if (!key.empty() && key.front() != '#') fresh.push_back(Hash({key.data(), key.size()}));
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

std::optional<std::string> ApiKeys::Identify(std::optional<std::string_view> authorization,
                                             std::optional<std::string_view> x_api_key) const {
  if (open_) return "";
  std::string_view key = x_api_key.value_or("");
  if (authorization) {
    const absl::string_view value(authorization->data(), authorization->size());
    if (!absl::StartsWithIgnoreCase(value, "bearer ")) return std::nullopt;
    key = authorization->substr(7);
  }
  const Digest digest = Hash(key);
  // Every key is compared whatever the first ones said: time tells nothing.
  int found = 0;
  const auto compare = [&](const Digest& known) {
    found |= CRYPTO_memcmp(digest.data(), known.data(), digest.size()) == 0 ? 1 : 0;
  };
  for (const Digest& known : fixed_) compare(known);
  {
    absl::MutexLock lock(&mutex_);
    for (const Digest& known : from_file_) compare(known);
  }
  if (!found || key.empty()) return std::nullopt;
  return absl::BytesToHexString(absl::string_view(reinterpret_cast<const char*>(digest.data()), 8));
}

}  // namespace behemoth::gateway
