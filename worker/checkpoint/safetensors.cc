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

absl::Status ReadAt(int descriptor, const std::string& file, uint64_t offset,
                    std::span<uint8_t> out) {
  size_t done = 0;
  while (done < out.size()) {
    const ssize_t got =
        pread(descriptor, out.data() + done, out.size() - done, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return absl::UnavailableError(absl::StrCat(file, ": ", std::strerror(errno)));
    if (got == 0) return Bad(file, "the file ends early: it was cut while being read");
    done += static_cast<size_t>(got);
  }
  return absl::OkStatus();
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

  SafetensorsFile file;
  file.name_ = name;
  file.descriptor_ = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (file.descriptor_ < 0) {
    return absl::NotFoundError(absl::StrCat(name, ": ", std::strerror(errno)));
  }
  struct stat status{};
  if (fstat(file.descriptor_, &status) != 0 || !S_ISREG(status.st_mode)) {
    return Bad(name, "is not a regular file");
  }
  const uint64_t file_bytes = static_cast<uint64_t>(status.st_size);
  uint64_t header_bytes = 0;
  if (file_bytes < sizeof(header_bytes)) return Bad(name, "is too short for a header");
  uint8_t length[sizeof(header_bytes)];
  if (absl::Status read = ReadAt(file.descriptor_, name, 0, length); !read.ok()) return read;
  std::memcpy(&header_bytes, length, sizeof(length));
  if (header_bytes > kMaxHeaderBytes || header_bytes > file_bytes - sizeof(length)) {
    return Bad(name, absl::StrCat("header of ", header_bytes, " bytes in a file of ", file_bytes));
  }
  std::string header(header_bytes, '\0');
  const std::span<uint8_t> into(reinterpret_cast<uint8_t*>(header.data()), header.size());
  if (absl::Status read = ReadAt(file.descriptor_, name, sizeof(length), into); !read.ok()) {
    return read;
  }
  file.data_start_ = sizeof(length) + header_bytes;
  absl::StatusOr<TensorTable> table =
      ParseSafetensorsHeader(name, header, file_bytes - file.data_start_);
  if (!table.ok()) return table.status();
  file.tensors_ = *std::move(table);
  return file;
}

SafetensorsFile::SafetensorsFile(SafetensorsFile&& other) noexcept { *this = std::move(other); }

SafetensorsFile& SafetensorsFile::operator=(SafetensorsFile&& other) noexcept {
  std::swap(name_, other.name_);
  std::swap(descriptor_, other.descriptor_);
  std::swap(data_start_, other.data_start_);
  std::swap(tensors_, other.tensors_);
  return *this;
}

SafetensorsFile::~SafetensorsFile() {
  if (descriptor_ >= 0) close(descriptor_);
}

absl::Status SafetensorsFile::Read(const TensorEntry& entry, uint64_t offset,
                                   std::span<uint8_t> out) const {
  if (offset > entry.bytes() || out.size() > entry.bytes() - offset) {
    return absl::OutOfRangeError(absl::StrCat(name_, ": read past the end of a tensor"));
  }
  return ReadAt(descriptor_, name_, data_start_ + entry.begin + offset, out);
}

}  // namespace behemoth::worker
