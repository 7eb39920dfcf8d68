#include "gateway/http/request_parser.h"

#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>

#include <boost/asio/buffer.hpp>
#include <boost/beast/http/basic_parser.hpp>
#include <utility>

namespace behemoth::gateway {

namespace beast = boost::beast;
namespace http = boost::beast::http;
using boost::system::error_code;

// Beast's grammar, writing straight into our values.
class RequestParser::Grammar final : public http::basic_parser<true> {
 public:
  explicit Grammar(const ParserLimits& limits) : limits_(limits) {
    header_limit(limits.header_bytes);
    // Ours is the limit: Beast's own error could not be told apart for chunked bodies.
    body_limit(boost::none);
  }

  RequestHead head;
  std::string body;
  bool too_many_headers = false;
  bool body_too_large = false;

 private:
  void on_request_impl(http::verb, beast::string_view method, beast::string_view target,
                       int version, error_code&) override {
    head.method.assign(method.data(), method.size());
    const size_t question = target.find('?');
    const beast::string_view path = target.substr(0, question);
    head.path.assign(path.data(), path.size());
    if (question != beast::string_view::npos) {
      head.query.assign(target.data() + question + 1, target.size() - question - 1);
    }
    head.minor_version = version % 10;
  }

  void on_response_impl(int, beast::string_view, int, error_code&) override {}

  void on_field_impl(http::field, beast::string_view name, beast::string_view value,
                     error_code& error) override {
    if (head.headers.size() == limits_.header_count) {
      too_many_headers = true;
      error = http::error::header_limit;
      return;
    }
    head.headers.emplace_back(std::string(name.data(), name.size()),
                              std::string(value.data(), value.size()));
  }

  void on_header_impl(error_code&) override {}

  void on_body_init_impl(const boost::optional<std::uint64_t>& length, error_code& error) override {
    if (length && *length > limits_.body_bytes) return TooLarge(error);
    if (length) body.reserve(*length);
  }

  std::size_t Append(beast::string_view piece, error_code& error) {
    if (body.size() + piece.size() > limits_.body_bytes) {
      TooLarge(error);
      return 0;
    }
    body.append(piece.data(), piece.size());
    return piece.size();
  }

  std::size_t on_body_impl(beast::string_view piece, error_code& error) override {
    return Append(piece, error);
  }

  void on_chunk_header_impl(std::uint64_t size, beast::string_view, error_code& error) override {
    if (size > limits_.body_bytes - body.size()) TooLarge(error);
  }

  std::size_t on_chunk_body_impl(std::uint64_t, beast::string_view piece,
                                 error_code& error) override {
    return Append(piece, error);
  }

  void on_finish_impl(error_code&) override {}

  void TooLarge(error_code& error) {
    body_too_large = true;
    error = http::error::body_limit;
  }

  ParserLimits limits_;
};

RequestParser::RequestParser(const ParserLimits& limits)
    : limits_(limits), grammar_(std::make_unique<Grammar>(limits)) {}

RequestParser::~RequestParser() = default;

const RequestHead& RequestParser::head() const { return grammar_->head; }
std::string RequestParser::TakeBody() { return std::move(grammar_->body); }
const ParseFailure& RequestParser::failure() const { return *failure_; }
bool RequestParser::keep_alive() const { return grammar_->keep_alive(); }
bool RequestParser::started() const { return started_; }

bool RequestParser::expects_continue() const {
  return head_done_ && !grammar_->is_done() && head().minor_version == 1 &&
         head().Find("expect").has_value();
}

RequestParser::Step RequestParser::Fail(int status, std::string message) {
  failure_ = ParseFailure{status, std::move(message)};
  return Step::kFailed;
}

RequestParser::Step RequestParser::Feed(std::string_view input, size_t& consumed) {
  consumed = 0;
  if (failure_) return Step::kFailed;
  started_ = started_ || !input.empty();
  return head_done_ ? FeedBody(input, consumed) : FeedHead(input, consumed);
}

RequestParser::Step RequestParser::FeedHead(std::string_view input, size_t& consumed) {
  // An empty line in front of a request line is to be ignored (RFC 9112, 2.2).
  while (input.substr(0, 2) == "\r\n") {
    input.remove_prefix(2);
    consumed += 2;
  }
  const size_t end = input.substr(0, limits_.header_bytes).find("\r\n\r\n");
  if (end == std::string_view::npos) {
    if (input.size() < limits_.header_bytes) return Step::kNeedMore;
    return Fail(431, absl::StrCat("The request's headers are larger than ", limits_.header_bytes,
                                  " bytes."));
  }
  const std::string_view block = input.substr(0, end + 4);
  if (block.find('\0') != std::string_view::npos || block.find("\r\n ") != std::string_view::npos ||
      block.find("\r\n\t") != std::string_view::npos) {
    return Fail(400, "The request's headers hold a NUL or a folded line.");
  }
  error_code error;
  consumed += grammar_->put(boost::asio::buffer(block.data(), block.size()), error);
  if (error == http::error::need_more) error = {};
  if (grammar_->body_too_large) {
    return Fail(413,
                absl::StrCat("The request's body is larger than ", limits_.body_bytes, " bytes."));
  }
  if (grammar_->too_many_headers || error == http::error::header_limit) {
    return Fail(431, absl::StrCat("The request has more than ", limits_.header_count, " headers."));
  }
  if (error == http::error::bad_version) return Fail(505, "Only HTTP/1.0 and HTTP/1.1 are spoken.");
  if (error || !grammar_->is_header_done()) {
    return Fail(400, absl::StrCat("The request's head is malformed: ", error.message(), "."));
  }
  return CheckHead();
}

RequestParser::Step RequestParser::CheckHead() {
  const RequestHead& head = grammar_->head;
  if (const int hosts = CountHeader(head.headers, "host");
      hosts > 1 || (hosts == 0 && head.minor_version == 1)) {
    return Fail(400, "The request needs exactly one Host header.");
  }
  if (const auto expect = head.Find("expect");
      expect &&
      !absl::EqualsIgnoreCase(absl::string_view(expect->data(), expect->size()), "100-continue")) {
    return Fail(417, "Only the expectation 100-continue is known.");
  }
  // Beast refuses a length beside it; a coding other than one final "chunked" would otherwise be
  // taken for a body that ends with the connection.
  if (const auto coding = head.Find("transfer-encoding");
      coding &&
      (!absl::EqualsIgnoreCase(absl::string_view(coding->data(), coding->size()), "chunked") ||
       CountHeader(head.headers, "transfer-encoding") > 1)) {
    return Fail(501, "The only transfer coding known is chunked.");
  }
  if (head.minor_version == 0 && head.Find("transfer-encoding")) {
    return Fail(400, "HTTP/1.0 has no Transfer-Encoding.");
  }
  // The same check as Beast's, should its order of fields ever matter.
  if (head.Find("transfer-encoding") && head.Find("content-length")) {
    return Fail(400, "Content-Length and Transfer-Encoding exclude each other.");
  }
  // Beast takes "5, 5" for 5; a proxy in front may not.
  if (const auto length = head.Find("content-length");
      length && (CountHeader(head.headers, "content-length") > 1 ||
                 length->find_first_not_of("0123456789") != std::string_view::npos)) {
    return Fail(400, "The Content-Length is not one number.");
  }
  head_done_ = true;
  return Step::kHead;
}

RequestParser::Step RequestParser::FeedBody(std::string_view input, size_t& consumed) {
  while (!grammar_->is_done()) {
    error_code error;
    const size_t taken =
        grammar_->put(boost::asio::buffer(input.data() + consumed, input.size() - consumed), error);
    consumed += taken;
    if (grammar_->body_too_large) {
      return Fail(
          413, absl::StrCat("The request's body is larger than ", limits_.body_bytes, " bytes."));
    }
    if (error == http::error::need_more || (!error && taken == 0)) {
      // Only a chunk's own line can be incomplete here; it is held to the bound of a head.
      if (input.size() - consumed > limits_.header_bytes) {
        return Fail(431, "A chunk's extension or trailer is too large.");
      }
      if (!grammar_->is_done()) return Step::kNeedMore;
      break;
    }
    if (error) {
      return Fail(400, absl::StrCat("The request's body is malformed: ", error.message(), "."));
    }
  }
  return Step::kDone;
}

}  // namespace behemoth::gateway
