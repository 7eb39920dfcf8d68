#include "gateway/session/static_document.h"

#include <absl/strings/escaping.h>
#include <absl/strings/str_cat.h>
#include <openssl/sha.h>

#include <array>
#include <utility>

namespace behemoth::gateway {
namespace {

std::string TagOf(const std::string& body) {
  std::array<unsigned char, SHA256_DIGEST_LENGTH> digest{};
  SHA256(reinterpret_cast<const unsigned char*>(body.data()), body.size(), digest.data());
  const absl::string_view half(reinterpret_cast<const char*>(digest.data()), digest.size() / 2);
  return absl::StrCat("\"", absl::BytesToHexString(half), "\"");
}

}  // namespace

StaticDocument::StaticDocument(std::string body, std::string content_type, Headers headers)
    : etag_(TagOf(body)) {
  headers.emplace_back("ETag", etag_);
  headers.emplace_back("Cache-Control", "no-cache");  // ask each time: an upgrade shows at once
  headers.emplace_back("X-Content-Type-Options", "nosniff");
  whole_ = {.content_type = std::move(content_type),
            .body = std::move(body),
            .headers = std::move(headers)};
}

Response StaticDocument::Reply(const RequestHead& head) const {
  const auto known = head.Find("if-none-match");
  if (!known || (*known != "*" && known->find(etag_) == std::string_view::npos)) return whole_;
  return {.status = 304, .content_type = "", .headers = whole_.headers};
}

}  // namespace behemoth::gateway
