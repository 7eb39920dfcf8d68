// HTTP messages as values. Source: RFC 9110, RFC 9112.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace behemoth::gateway {

// Names compare without case. A message has at most 100 headers, so a scan is the fastest map.
using Headers = std::vector<std::pair<std::string, std::string>>;

// The first value of that name.
std::optional<std::string_view> FindHeader(const Headers& headers, std::string_view name);
int CountHeader(const Headers& headers, std::string_view name);

struct RequestHead {
  std::string method;
  std::string path;   // raw: what stands before '?', never decoded or normalised
  std::string query;  // raw, without '?'
  int minor_version = 1;
  Headers headers;
  std::string peer;  // "127.0.0.1:40112"

  std::optional<std::string_view> Find(std::string_view name) const {
    return FindHeader(headers, name);
  }
};

struct Response {
  int status = 200;
  std::string content_type = "application/json";  // empty = no header
  std::string body;
  Headers headers;
};

// "Not Found"; the standard's own phrases.
std::string_view ReasonPhrase(int status);

// The bytes of a reply with Content-Length. `keep_alive` decides the Connection header.
std::string Serialize(const Response& response, bool keep_alive);
// The head of a reply whose length is not known: chunked, or (HTTP/1.0) ended by the close.
std::string SerializeStreamHead(const Response& head, bool chunked, bool keep_alive);

// %XX decoded; nullopt if malformed.
std::optional<std::string> PercentDecode(std::string_view text);

}  // namespace behemoth::gateway
