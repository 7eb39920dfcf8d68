#include "gateway/api/json_document.h"

#include <absl/strings/str_cat.h>

#include <cstdint>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "gateway/api/api_error.h"

namespace behemoth::gateway {
namespace {

using json = Json;

constexpr size_t kMaxNamedKeyBytes = 64;
constexpr size_t kMaxReasonBytes = 160;

// The library's event interface: it lets us see a key twice and name the field of a bad number.
class Builder : public nlohmann::json_sax<json> {
 public:
  bool null() override { return Add(nullptr); }
  bool boolean(bool value) override { return Add(value); }
  bool number_integer(number_integer_t value) override { return Add(value); }
  bool number_unsigned(number_unsigned_t value) override { return Add(value); }
  bool number_float(number_float_t value, const string_t&) override { return Add(value); }
  bool string(string_t& value) override { return Add(std::move(value)); }
  bool binary(binary_t&) override { return false; }
  bool start_object(std::size_t) override { return Open(json::object()); }
  bool end_object() override { return Close(); }
  bool start_array(std::size_t) override { return Open(json::array()); }
  bool end_array() override { return Close(); }

  bool key(string_t& name) override {
    const json& object = *open_.back();
    key_ = std::move(name);
    keys_.back().assign(key_, 0, kMaxNamedKeyBytes);
    if (object.size() >= kMaxObjectMembers) {
      return Fail(absl::StrCat("an object holds at most ", kMaxObjectMembers, " members"));
    }
    if (!names_.back().insert(key_).second) return Fail("the key appears twice");
    return true;
  }

  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception& error) override {
    // "[json.exception.parse_error.101] parse error at line 1, column 5: syntax error ..."
    std::string what = error.what();
    if (const size_t bracket = what.find("] "); bracket != what.npos) what.erase(0, bracket + 2);
    // The text read last could be the prompt: it is not repeated; a number may be any length.
    if (const size_t read = what.find("; last read"); read != what.npos) what.erase(read);
    if (what.size() > kMaxReasonBytes) what.replace(kMaxReasonBytes, what.npos, "...");
    return Fail(absl::StrCat("not valid JSON at byte ", position, ": ", what));
  }

  json root;
  absl::Status status;

 private:
  template <typename Value>
  bool Add(Value&& value) {
    if (!Count()) return false;
    Place(json(std::forward<Value>(value)));
    return true;
  }

  bool Count() {
    if (++values_ <= kMaxJsonValues) return true;
    return Fail(absl::StrCat("a body holds at most ", kMaxJsonValues, " values"));
  }

  bool Open(json&& container) {
    if (!Count()) return false;
    if (open_.size() >= kMaxJsonDepth) {
      return Fail(absl::StrCat("JSON is nested deeper than ", kMaxJsonDepth, " levels"));
    }
    open_.push_back(Place(std::move(container)));
    keys_.emplace_back();
    names_.emplace_back();
    return true;
  }

  bool Close() {
    open_.pop_back();
    keys_.pop_back();
    names_.pop_back();
    return true;
  }

  json* Place(json&& value) {
    if (open_.empty()) return &(root = std::move(value));
    json& parent = *open_.back();
    if (parent.is_array()) {
      parent.push_back(std::move(value));
      return &parent.back();
    }
    // The list behind the members: what finds by name walks all of them.
    return &parent.get_ref<json::object_t&>().emplace_back(key_, std::move(value)).second;
  }

  bool Fail(std::string_view message) {
    std::string path;
    for (size_t i = 0; i < open_.size() && path.size() < 200; ++i) {
      if (open_[i]->is_array()) {
        // In front of an element's own container the element is already in the array.
        const bool inside = i + 1 < open_.size();
        absl::StrAppend(&path, "[", open_[i]->size() - (inside ? 1 : 0), "]");
      } else if (!keys_[i].empty()) {
        absl::StrAppend(&path, path.empty() ? "" : ".", keys_[i]);
      }
    }
    status = InvalidField(path, message);
    return false;
  }

  std::vector<json*> open_;        // a parent never moves while a child is open
  std::vector<std::string> keys_;  // of open_: the key read last, cut short for messages
  std::string key_;                // the same of the innermost object, whole
  std::vector<std::unordered_set<std::string>> names_;  // of open_: all of its keys
  size_t values_ = 0;
};

}  // namespace

absl::StatusOr<json> ReadJsonObject(std::string_view body) {
  if (body.substr(0, 3) == "\xEF\xBB\xBF") {
    return InvalidField("", "not valid JSON at byte 0: a byte order mark");
  }
  // The library takes a NUL for the end of its input, whatever stands behind it.
  if (const size_t nul = body.find('\0'); nul != body.npos) {
    return InvalidField("", absl::StrCat("not valid JSON at byte ", nul, ": a NUL"));
  }
  Builder builder;
  if (!json::sax_parse(body.begin(), body.end(), &builder)) {
    if (builder.status.ok()) return InvalidField("", "not valid JSON");
    return builder.status;
  }
  if (!builder.root.is_object()) return InvalidField("", "the body must be a JSON object");
  return std::move(builder.root);
}

}  // namespace behemoth::gateway
