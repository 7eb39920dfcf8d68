#include "worker/checkpoint/checkpoint.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_split.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <utility>

#include "worker/checkpoint/int4_readers.h"
#include "worker/checkpoint/json_fields.h"

namespace behemoth::worker {
namespace {

constexpr char kIndexName[] = "model.safetensors.index.json";
constexpr size_t kMaxFiles = 4096;

// tensor -> file, from the index.
absl::StatusOr<std::map<std::string, std::string>> ParseIndex(const nlohmann::json& index) {
  JsonFields fields(kIndexName, index);
  const nlohmann::json* map = fields.Object("weight_map");
  if (map == nullptr) fields.Refuse("weight_map", "is missing");
  if (!fields.status().ok()) return fields.status();
  std::map<std::string, std::string> file_of;
  for (const auto& [tensor, file] : map->items()) {
    const std::string name = file.is_string() ? file.get<std::string>() : "";
    if (!name.ends_with(".safetensors") || name.find('/') != std::string::npos ||
        name.find('\0') != std::string::npos) {
      return absl::InvalidArgumentError(
          absl::StrCat(kIndexName, ": ", tensor.substr(0, 200),
                       ": must name a .safetensors file of the folder"));
    }
    file_of.emplace(tensor, name);
  }
  return file_of;
}

// Without an index: model.safetensors alone, else every .safetensors of the folder.
absl::StatusOr<std::set<std::string>> FilesWithoutIndex(const std::string& folder) {
  std::error_code error;
  if (std::filesystem::exists(std::filesystem::path(folder) / "model.safetensors", error)) {
    return std::set<std::string>{"model.safetensors"};
  }
  std::set<std::string> names;
  for (std::filesystem::directory_iterator it(folder, error), end; !error && it != end;
       it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (name.ends_with(".safetensors") && names.size() < kMaxFiles) names.insert(name);
  }
  if (names.empty()) {
    return absl::NotFoundError("model.safetensors: no weights in the model folder");
  }
  return names;
}

// FNV-1a, two lanes with different offsets: tells folders apart, guards against no one.
class Fingerprinter {
 public:
  void Add(const uint8_t* bytes, size_t count) {
    for (size_t i = 0; i < count; ++i) {
      low_ = (low_ ^ bytes[i]) * 0x100000001b3u;
      high_ = (high_ ^ bytes[i]) * 0x100000001b3u + 0x9e3779b97f4a7c15u;
    }
  }
  void Add(const std::string& text) {
    Add(reinterpret_cast<const uint8_t*>(text.data()), text.size() + 1);
  }
  std::string Hex() const {
    return absl::StrCat(absl::Hex(high_, absl::kZeroPad16), absl::Hex(low_, absl::kZeroPad16));
  }

 private:
  uint64_t low_ = 0xcbf29ce484222325u, high_ = 0x84222325cbf29ce4u;
};

}  // namespace

absl::StatusOr<Checkpoint> Checkpoint::Open(const std::string& folder, QuantizationConfig scheme) {
  Checkpoint checkpoint;
  checkpoint.scheme_ = std::move(scheme);
  std::set<std::string> names;
  std::map<std::string, std::string> file_of;
  absl::StatusOr<nlohmann::json> index = ReadJsonObject(folder, kIndexName);
  if (index.ok()) {
    absl::StatusOr<std::map<std::string, std::string>> parsed = ParseIndex(*index);
    if (!parsed.ok()) return parsed.status();
    file_of = *std::move(parsed);
    for (const auto& [tensor, file] : file_of) names.insert(file);
    if (names.empty() || names.size() > kMaxFiles) {
      return absl::InvalidArgumentError(
          absl::StrCat(kIndexName, ": names ", names.size(), " files"));
    }
  } else if (absl::IsNotFound(index.status())) {
    absl::StatusOr<std::set<std::string>> found = FilesWithoutIndex(folder);
    if (!found.ok()) return found.status();
    names = *std::move(found);
  } else {
    return index.status();
  }
  checkpoint.files_.reserve(names.size());
  for (const std::string& name : names) {
    if (absl::Status added = checkpoint.AddFile(folder, name); !added.ok()) return added;
  }
  if (absl::Status checked = checkpoint.CheckIndex(file_of); !checked.ok()) return checked;
  return checkpoint;
}

absl::Status Checkpoint::AddFile(const std::string& folder, const std::string& name) {
  absl::StatusOr<SafetensorsFile> file = SafetensorsFile::Open(folder, name);
  if (!file.ok()) return file.status();
  files_.push_back(*std::move(file));
  const size_t index = files_.size() - 1;
  for (const auto& [tensor, entry] : files_.back().tensors()) {
    const auto [place, added] = places_.emplace(tensor, Place{index, &entry});
    if (!added) {
      return absl::InvalidArgumentError(
          absl::StrCat(name, ": ", tensor, ": is also in ", files_[place->second.file].name()));
    }
    tensor_bytes_ += entry.bytes();
  }
  return absl::OkStatus();
}

absl::Status Checkpoint::CheckIndex(const std::map<std::string, std::string>& file_of) const {
  for (const auto& [tensor, file] : file_of) {
    const auto place = places_.find(tensor);
    if (place == places_.end() || files_[place->second.file].name() != file) {
      return absl::InvalidArgumentError(
          absl::StrCat(file, ": ", tensor, ": is in the index but not in this file"));
    }
  }
  return absl::OkStatus();
}

absl::Status Checkpoint::Bad(const std::string& tensor, const std::string& what) const {
  const auto place = places_.find(tensor);
  const std::string file = place == places_.end() ? "" : files_[place->second.file].name() + ": ";
  return absl::InvalidArgumentError(absl::StrCat(file, tensor, ": ", what));
}

absl::StatusOr<std::string> Checkpoint::DtypeOf(const std::string& name) const {
  const auto place = places_.find(name);
  if (place == places_.end()) return Bad(name, "is missing");
  return place->second.entry->dtype;
}

absl::StatusOr<StoredBytes> Checkpoint::Find(const std::string& name, const char* dtypes,
                                             const std::vector<int64_t>& shape) const {
  const auto found = places_.find(name);
  if (found == places_.end()) return Bad(name, "is missing");
  const TensorEntry& entry = *found->second.entry;
  const std::vector<std::string> allowed = absl::StrSplit(dtypes, '|');
  if (std::find(allowed.begin(), allowed.end(), entry.dtype) == allowed.end()) {
    return Bad(name, absl::StrCat("is ", entry.dtype, ", must be ", dtypes));
  }
  if (entry.shape != shape) {
    return Bad(name, absl::StrCat("is ", ShapeText(entry.shape), ", must be ", ShapeText(shape)));
  }
  return files_[found->second.file].BytesOf(entry);
}

absl::StatusOr<DenseMatrix> Checkpoint::FindMatrix(const std::string& name,
                                                   const std::vector<int64_t>& shape) const {
  absl::StatusOr<StoredBytes> bytes = Find(name, "BF16|F16|F32", shape);
  if (!bytes.ok()) return bytes.status();
  const std::string& dtype = places_.find(name)->second.entry->dtype;
  DenseMatrix matrix;
  matrix.type = dtype == "F32"   ? ElementType::kFloat32
                : dtype == "F16" ? ElementType::kFloat16
                                 : ElementType::kBfloat16;
  matrix.rows = shape.size() < 2 ? 1 : static_cast<int32_t>(shape[0]);
  matrix.cols = shape.empty() ? 1 : static_cast<int32_t>(shape.back());
  matrix.bytes = Stored<uint8_t>(*std::move(bytes));
  return matrix;
}

absl::Status Checkpoint::OnlyHas(const std::string& module,
                                 const std::vector<std::string>& known) const {
  const std::string prefix = module + ".";
  for (auto it = places_.lower_bound(prefix); it != places_.end() && it->first.starts_with(prefix);
       ++it) {
    const std::string part = it->first.substr(prefix.size());
    if (std::find(known.begin(), known.end(), part) == known.end()) {
      return Bad(it->first, "is not part of a format that is served");
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<DenseMatrix> Checkpoint::ReadDense(const std::string& name, int32_t rows,
                                                  int32_t cols) {
  return FindMatrix(name,
                    rows == 1 ? std::vector<int64_t>{cols} : std::vector<int64_t>{rows, cols});
}

absl::StatusOr<bool> Checkpoint::ShareInputOrder(const std::vector<std::string>& modules,
                                                 int32_t in) {
  std::optional<Stored<uint32_t>> first;
  for (const std::string& module : modules) {
    Stored<uint32_t> groups;  // empty: in order
    for (const char* name : {".weight_g_idx", ".g_idx"}) {
      if (!Has(module + name)) continue;
      absl::StatusOr<Stored<uint32_t>> read = Read<uint32_t>(module + name, "I32", {in});
      if (!read.ok()) return read.status();
      groups = *std::move(read);
    }
    if (first && !(*first == groups)) return false;
    first = std::move(groups);
  }
  return true;
}

absl::StatusOr<LinearWeights> Checkpoint::ReadLinear(const std::string& module, int32_t out,
                                                     int32_t in) {
  const std::optional<LinearScheme> scheme = scheme_.SchemeOf(module);
  const bool plain = Has(module + ".weight");
  // GPTQ files list no exceptions: a module with a plain weight is one.
  if (scheme && !(plain && scheme->format != PackFormat::kPackQuantized)) {
    return ReadInt4(*this, *scheme, module, out, in);
  }
  if (absl::Status known = OnlyHas(module, {"weight"}); !known.ok()) return known;
  absl::StatusOr<DenseMatrix> weight = ReadDense(module + ".weight", out, in);
  if (!weight.ok()) return weight.status();
  return LinearWeights{out, in, *std::move(weight)};
}

absl::StatusOr<std::vector<float>> Checkpoint::ReadKvScale(const std::string& name,
                                                           int32_t kv_heads) {
  if (!scheme_.has_kv_scales()) return std::vector<float>();
  const auto place = places_.find(name);
  if (place == places_.end()) return Bad(name, "is missing, but there is a kv_cache_scheme");
  absl::StatusOr<DenseMatrix> stored = FindMatrix(name, place->second.entry->shape);
  if (!stored.ok()) return stored.status();
  if (absl::Status loaded = stored->bytes.Load(); !loaded.ok()) return loaded;
  std::vector<float> scales = FloatsOf(*stored);
  if (scales.size() == 1) scales.resize(static_cast<size_t>(kv_heads), scales[0]);
  if (scales.size() != static_cast<size_t>(kv_heads)) {
    return Bad(name, absl::StrCat("has ", scales.size(), " elements; one, or one for each of ",
                                  kv_heads, " KV heads, can be served"));
  }
  for (const float scale : scales) {
    if (!(scale > 0) || !std::isfinite(scale)) return Bad(name, "holds a scale that is not > 0");
  }
  return scales;
}

absl::StatusOr<std::string> Checkpoint::Fingerprint(const std::string& config_text) const {
  constexpr uint64_t kSample = 1024;
  Fingerprinter print;
  print.Add(config_text);
  std::vector<uint8_t> sample;
  for (const auto& [name, place] : places_) {
    const TensorEntry& entry = *place.entry;
    print.Add(name);
    print.Add(entry.dtype);
    print.Add(ShapeText(entry.shape));
    sample.resize(std::min(kSample, entry.bytes()));
    for (const uint64_t offset : {uint64_t{0}, entry.bytes() - sample.size()}) {
      absl::Status read = files_[place.file].Read(entry, offset, sample);
      if (!read.ok()) return read;
      print.Add(sample.data(), sample.size());
    }
  }
  return print.Hex();
}

}  // namespace behemoth::worker
