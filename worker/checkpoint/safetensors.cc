#include "worker/checkpoint/safetensors.h"

#include <absl/strings/str_cat.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>

namespace behemoth::worker {
namespace {

static_assert(std::endian::native == std::endian::little, "checkpoints are read without swapping");

absl::Status Bad(const std::string& file, const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat(file, ": ", what));
}

// True if `path` with every link followed lies below `root` with every link followed. A Hugging
// Face cache links each file to ../../blobs: that whole cache entry counts as the folder.
bool LiesWithin(const std::filesystem::path& path, const std::filesystem::path& root) {
  const auto mismatch = std::mismatch(root.begin(), root.end(), path.begin(), path.end());
  return mismatch.first == root.end();
}

// models--org--name/snapshots/<commit> -> models--org--name; any other folder is itself.
std::filesystem::path TrustedRoot(const std::filesystem::path& folder) {
  const std::filesystem::path snapshots = folder.parent_path();
  const std::filesystem::path entry = snapshots.parent_path();
  const bool is_cache =
      snapshots.filename() == "snapshots" && entry.filename().string().starts_with("models--");
  return is_cache ? entry : folder;
}

}  // namespace

absl::StatusOr<SafetensorsFile> SafetensorsFile::Open(const std::string& root,
                                                      const std::string& name) {
  std::error_code error;
  const auto folder = std::filesystem::canonical(root, error);
  if (error) return absl::NotFoundError(absl::StrCat(root, ": ", error.message()));
  const auto path = std::filesystem::canonical(folder / name, error);
  if (error) return absl::NotFoundError(absl::StrCat(name, ": ", error.message()));
  if (!LiesWithin(path, TrustedRoot(folder))) return Bad(name, "lies outside the model folder");

  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (descriptor < 0) return absl::NotFoundError(absl::StrCat(name, ": ", std::strerror(errno)));
  SafetensorsFile file;
  file.file_ = std::make_shared<const OpenFile>(name, descriptor);
  struct stat status{};
  if (fstat(descriptor, &status) != 0 || !S_ISREG(status.st_mode)) {
    return Bad(name, "is not a regular file");
  }
  const uint64_t file_bytes = static_cast<uint64_t>(status.st_size);
  uint64_t header_bytes = 0;
  if (file_bytes < sizeof(header_bytes)) return Bad(name, "is too short for a header");
  const auto length = std::as_writable_bytes(std::span(&header_bytes, 1));
  if (absl::Status read = file.file_->ReadAt(0, length); !read.ok()) return read;
  if (header_bytes > kMaxHeaderBytes || header_bytes > file_bytes - length.size()) {
    return Bad(name, absl::StrCat("header of ", header_bytes, " bytes in a file of ", file_bytes));
  }
  std::string header(header_bytes, '\0');
  const auto into = std::as_writable_bytes(std::span(header));
  if (absl::Status read = file.file_->ReadAt(length.size(), into); !read.ok()) return read;
  file.data_start_ = length.size() + header_bytes;
  absl::StatusOr<TensorTable> table =
      ParseSafetensorsHeader(name, header, file_bytes - file.data_start_);
  if (!table.ok()) return table.status();
  file.tensors_ = *std::move(table);
  return file;
}

absl::Status SafetensorsFile::Read(const TensorEntry& entry, uint64_t offset,
                                   std::span<uint8_t> out) const {
  if (offset > entry.bytes() || out.size() > entry.bytes() - offset) {
    return absl::OutOfRangeError(absl::StrCat(name(), ": read past the end of a tensor"));
  }
  return file_->ReadAt(data_start_ + entry.begin + offset, std::as_writable_bytes(out));
}

}  // namespace behemoth::worker
