// The header's grammar as a SAX handler: a DOM parser keeps the last of two equal keys and says
// nothing, and would build whatever a hostile header nests.
#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "worker/checkpoint/safetensors.h"

namespace behemoth::worker {
namespace {

using Json = nlohmann::json;

constexpr std::pair<std::string_view, int32_t> kDtypes[] = {
    {"BF16", 2}, {"F16", 2}, {"F32", 4},  {"F64", 8},     {"I8", 1},
    {"I16", 2},  {"I32", 4}, {"I64", 8},  {"U8", 1},      {"U16", 2},
    {"U32", 4},  {"U64", 8}, {"BOOL", 1}, {"F8_E4M3", 1}, {"F8_E5M2", 1}};

// {"name": {"dtype": "..", "shape": [..], "data_offsets": [b, e]}, "__metadata__": {"..": ".."}}
class HeaderHandler : public nlohmann::json_sax<Json> {
 public:
  bool start_object(size_t) override {
    switch (place_) {
      case Place::kStart:
        place_ = Place::kTop;
        return true;
      case Place::kTensor:
        place_ = Place::kFields;
        return true;
      case Place::kMetadata:
        place_ = Place::kMetadataFields;
        return true;
      default:
        return Refuse("an object where none belongs");
    }
  }

  bool end_object() override {
    if (place_ == Place::kFields) {
      if (!(has_dtype_ && has_shape_ && has_offsets_)) {
        return Refuse("needs dtype, shape and data_offsets");
      }
      tensors.emplace(name_, std::move(entry_));
      place_ = Place::kTop;
    } else if (place_ == Place::kMetadataFields) {
      place_ = Place::kTop;
    } else {
      place_ = Place::kEnd;
    }
    return true;
  }

  bool key(std::string& key) override {
    if (place_ == Place::kMetadataFields) return true;
    if (place_ == Place::kTop) return BeginEntry(key);
    field_ = key;
    bool* seen = key == "dtype"          ? &has_dtype_
                 : key == "shape"        ? &has_shape_
                 : key == "data_offsets" ? &has_offsets_
                                         : nullptr;
    if (seen == nullptr) return Refuse(absl::StrCat("unknown field '", key.substr(0, 64), "'"));
    if (*seen) return Refuse(absl::StrCat("field '", key, "' twice"));
    *seen = true;
    return true;
  }

  bool start_array(size_t) override {
    if (place_ != Place::kFields || field_ == "dtype") return Refuse("an array where none belongs");
    place_ = Place::kList;
    numbers_.clear();
    return true;
  }

  bool end_array() override {
    place_ = Place::kFields;
    if (field_ == "data_offsets") {
      if (numbers_.size() != 2) return Refuse("data_offsets needs two numbers");
      entry_.begin = numbers_[0];
      entry_.end = numbers_[1];
      return true;
    }
    for (const uint64_t extent : numbers_) {
      if (extent > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
        return Refuse("shape overflows");
      }
      entry_.shape.push_back(static_cast<int64_t>(extent));
    }
    return true;
  }

  bool number_unsigned(number_unsigned_t value) override {
    if (place_ != Place::kList) return Refuse("a number where none belongs");
    if (numbers_.size() == kMaxTensorDims) return Refuse("more than 8 dimensions");
    numbers_.push_back(value);
    return true;
  }

  bool string(std::string& value) override {
    if (place_ == Place::kMetadataFields) return true;
    if (place_ != Place::kFields || field_ != "dtype") return Refuse("a string where none belongs");
    entry_.dtype = value;
    return true;
  }

  bool null() override { return Refuse("null"); }
  bool boolean(bool) override { return Refuse("a boolean"); }
  bool number_integer(number_integer_t) override { return Refuse("a negative number"); }
  bool number_float(number_float_t, const std::string&) override { return Refuse("a fraction"); }
  bool binary(binary_t&) override { return Refuse("binary"); }
  bool parse_error(size_t at, const std::string&, const Json::exception&) override {
    name_.clear();
    return Refuse(absl::StrCat("the header is not JSON at byte ", at));
  }

  TensorTable tensors;
  std::string problem;

 private:
  enum class Place { kStart, kTop, kTensor, kFields, kList, kMetadata, kMetadataFields, kEnd };

  bool BeginEntry(const std::string& key) {
    if (key == "__metadata__") {
      name_ = key;
      if (std::exchange(has_metadata_, true)) return Refuse("twice");
      place_ = Place::kMetadata;
      return true;
    }
    name_ = key;
    if (tensors.contains(key)) return Refuse("the name occurs twice");
    entry_ = {};
    has_dtype_ = has_shape_ = has_offsets_ = false;
    place_ = Place::kTensor;
    return true;
  }

  bool Refuse(const std::string& what) {
    problem = name_.empty() ? what : absl::StrCat(name_.substr(0, 200), ": ", what);
    return false;
  }

  Place place_ = Place::kStart;
  std::string name_, field_;
  TensorEntry entry_;
  bool has_dtype_ = false, has_shape_ = false, has_offsets_ = false, has_metadata_ = false;
  std::vector<uint64_t> numbers_;
};

absl::Status Bad(const std::string& file, const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat(file, ": ", what));
}

// The bytes that dtype and shape promise, or an error.
absl::StatusOr<uint64_t> PromisedBytes(const std::string& file, const std::string& name,
                                       const TensorEntry& entry) {
  uint64_t bytes = BytesPerDtype(entry.dtype);
  if (bytes == 0) {
    return Bad(file, absl::StrCat(name, ": unknown dtype '", entry.dtype.substr(0, 32), "'"));
  }
  for (const int64_t extent : entry.shape) {
    if (__builtin_mul_overflow(bytes, static_cast<uint64_t>(extent), &bytes)) {
      return Bad(file, absl::StrCat(name, ": shape ", ShapeText(entry.shape), " overflows"));
    }
  }
  return bytes;
}

}  // namespace

int32_t BytesPerDtype(std::string_view dtype) {
  for (const auto& [name, bytes] : kDtypes) {
    if (name == dtype) return bytes;
  }
  return 0;
}

std::string ShapeText(const std::vector<int64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

absl::StatusOr<TensorTable> ParseSafetensorsHeader(const std::string& file, std::string_view header,
                                                   uint64_t data_bytes) {
  if (header.empty() || header.front() != '{') {
    return Bad(file, "the header does not start with '{'");
  }
  HeaderHandler handler;
  if (!Json::sax_parse(header.begin(), header.end(), &handler)) return Bad(file, handler.problem);

  std::vector<std::pair<const TensorEntry*, const std::string*>> by_offset;
  for (const auto& [name, entry] : handler.tensors) {
    const absl::StatusOr<uint64_t> promised = PromisedBytes(file, name, entry);
    if (!promised.ok()) return promised.status();
    if (entry.begin > entry.end || entry.end > data_bytes) {
      return Bad(file, absl::StrCat(name, ": data_offsets [", entry.begin, ", ", entry.end,
                                    ") lie outside the file's ", data_bytes, " data bytes"));
    }
    if (entry.bytes() != *promised) {
      return Bad(file, absl::StrCat(name, ": ", entry.bytes(), " bytes, but ", entry.dtype, " ",
                                    ShapeText(entry.shape), " takes ", *promised));
    }
    by_offset.emplace_back(&entry, &name);
  }
  // An empty tensor may share its offset with the next one: order by end as well.
  std::sort(by_offset.begin(), by_offset.end(), [](const auto& a, const auto& b) {
    return std::pair(a.first->begin, a.first->end) < std::pair(b.first->begin, b.first->end);
  });
  uint64_t covered = 0;
  for (const auto& [entry, name] : by_offset) {
    if (entry->begin != covered) {
      return Bad(file, absl::StrCat(*name, ": data starts at ", entry->begin, ", ",
                                    entry->begin < covered ? "inside another tensor's, which ends"
                                                           : "after a hole that starts",
                                    " at ", covered));
    }
    covered = entry->end;
  }
  if (covered != data_bytes) {
    return Bad(file, absl::StrCat("the file has ", data_bytes, " data bytes, the header describes ",
                                  covered));
  }
  return std::move(handler.tensors);
}

}  // namespace behemoth::worker
