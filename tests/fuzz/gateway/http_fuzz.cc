// Any bytes as an HTTP/1.1 request: a head and a body within the limits, or one of the refusals;
// the same whether they come at once or in pieces. The first byte is the size of the pieces.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>

#include "gateway/http/request_parser.h"

namespace {

using namespace behemoth::gateway;
using Step = RequestParser::Step;

constexpr ParserLimits kLimits = {.header_bytes = 1024, .header_count = 8, .body_bytes = 2048};

void Require(bool held) {
  if (!held) __builtin_trap();
}

struct Outcome {
  Step last = Step::kNeedMore;
  std::string method, path, body;
  int status = 0;
  bool head = false;
};

void CheckHead(const RequestParser& parser, Outcome& outcome) {
  Require(!outcome.head);  // once
  outcome.head = true;
  outcome.method = parser.head().method;
  outcome.path = parser.head().path;
  Require(!outcome.method.empty());
  Require(parser.head().headers.size() <= kLimits.header_count);
}

Outcome Parse(std::string_view input, size_t piece_bytes) {
  RequestParser parser(kLimits);
  Outcome outcome;
  std::string pending;
  while (outcome.last != Step::kDone && outcome.last != Step::kFailed) {
    size_t consumed = 0;
    outcome.last = parser.Feed(pending, consumed);
    Require(consumed <= pending.size());
    pending.erase(0, consumed);
    if (outcome.last == Step::kHead) {
      CheckHead(parser, outcome);
    } else if (outcome.last == Step::kNeedMore) {
      if (input.empty()) break;
      pending += input.substr(0, piece_bytes);
      input.remove_prefix(std::min(piece_bytes, input.size()));
    }
  }
  if (outcome.last == Step::kFailed) outcome.status = parser.failure().status;
  if (outcome.last == Step::kDone) outcome.body = parser.TakeBody();
  Require(outcome.body.size() <= kLimits.body_bytes);
  return outcome;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view input(reinterpret_cast<const char*>(data) + 1, size - 1);
  const Outcome whole = Parse(input, input.size() + 1);
  const Outcome pieces = Parse(input, 1 + data[0] % 16);
  if (whole.last == Step::kFailed) {
    constexpr int kRefusals[] = {400, 413, 417, 431, 501, 505};
    Require(std::find(std::begin(kRefusals), std::end(kRefusals), whole.status) !=
            std::end(kRefusals));
  }
  // Which limit is met first may differ by how the bytes came; what is taken may not.
  Require((whole.last == Step::kDone) == (pieces.last == Step::kDone));
  Require((whole.last == Step::kFailed) == (pieces.last == Step::kFailed));
  if (whole.last != Step::kDone) return 0;
  Require(whole.method == pieces.method && whole.path == pieces.path && whole.body == pieces.body);
  return 0;
}
