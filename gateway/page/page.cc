#include "gateway/page/page.h"

#include <absl/strings/escaping.h>
#include <absl/strings/str_cat.h>
#include <openssl/sha.h>

#include <array>

#include "gateway/page/page_html.h"

namespace behemoth::gateway {
namespace {

// " 'sha256-...'" of what stands in each element of that name.
std::string HashesOf(std::string_view html, std::string_view name) {
  const std::string open = absl::StrCat("<", std::string(name), ">");
  const std::string close = absl::StrCat("</", std::string(name), ">");
  std::string hashes;
  for (size_t at = html.find(open); at != std::string_view::npos; at = html.find(open, at)) {
    at += open.size();
    const std::string_view text = html.substr(at, html.find(close, at) - at);
    std::array<unsigned char, SHA256_DIGEST_LENGTH> digest{};
    SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest.data());
    absl::StrAppend(&hashes, " 'sha256-",
                    absl::Base64Escape(absl::string_view(
                        reinterpret_cast<const char*>(digest.data()), digest.size())),
                    "'");
  }
  return hashes;
}

}  // namespace

std::string_view PageHtml() { return {kPageHtml, sizeof(kPageHtml) - 1}; }

std::string PagePolicy(std::string_view html) {
  return absl::StrCat("default-src 'none'; script-src", HashesOf(html, "script"), "; style-src",
                      HashesOf(html, "style"),
                      "; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
                      "frame-ancestors 'none'");
}

}  // namespace behemoth::gateway
