#include "worker/checkpoint/stored.h"

#include <absl/strings/str_cat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "proto/support/check.h"

namespace behemoth::worker {

OpenFile::~OpenFile() { close(descriptor_); }

absl::Status OpenFile::ReadAt(uint64_t offset, std::span<std::byte> out) const {
  size_t done = 0;
  while (done < out.size()) {
    const ssize_t got =
        pread(descriptor_, out.data() + done, out.size() - done, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return absl::UnavailableError(absl::StrCat(name_, ": ", std::strerror(errno)));
    if (got == 0) {
      return absl::InvalidArgumentError(
          absl::StrCat(name_, ": the file ends early: it was cut while being read"));
    }
    done += static_cast<size_t>(got);
  }
  return absl::OkStatus();
}

const std::byte* StoredBytes::data() const {
  BEHEMOTH_CHECK(in_memory(), "these values are still in their file: Load() them first");
  return memory_;
}

absl::Status StoredBytes::CopyTo(uint64_t begin, std::span<std::byte> out) const {
  BEHEMOTH_CHECK(begin <= size_ && out.size() <= size_ - begin, "copied from past the end");
  if (!in_memory()) return file_->ReadAt(offset_ + begin, out);
  if (!out.empty()) std::memcpy(out.data(), memory_ + begin, out.size());
  return absl::OkStatus();
}

absl::Status StoredBytes::Load() {
  if (in_memory()) return absl::OkStatus();
  // Not a vector: it would write zeros first. operator new aligns for every fundamental type.
  const std::shared_ptr<std::byte[]> memory(new std::byte[size_]);
  const std::span<std::byte> bytes(memory.get(), size_);
  if (absl::Status read = file_->ReadAt(offset_, bytes); !read.ok()) return read;
  *this = StoredBytes(memory, bytes);
  return absl::OkStatus();
}

}  // namespace behemoth::worker
