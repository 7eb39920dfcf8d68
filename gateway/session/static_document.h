// A document that stays the same while the process runs. Immutable; thread-safe.
#pragma once

#include <string>

#include "gateway/http/message.h"

namespace behemoth::gateway {

class StaticDocument {
 public:
  // `headers` go with every reply; the entity tag is the body's hash.
  StaticDocument(std::string body, std::string content_type, Headers headers = {});

  // 200, or 304 without a body to who already has it (If-None-Match, RFC 9110 13.1.2).
  Response Reply(const RequestHead& head) const;

 private:
  Response whole_;
  std::string etag_;
};

}  // namespace behemoth::gateway
