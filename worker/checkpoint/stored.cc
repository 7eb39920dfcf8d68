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
  if (in_memory()) {
    if (!out.empty()) std::memcpy(out.data(), memory_ + begin, out.size());
    return absl::OkStatus();
  }
  if (piece_ == 0) return file_->ReadAt(offset_ + begin, out);
  while (!out.empty()) {
    const size_t at = begin % piece_;
    const std::span<std::byte> next = out.first(std::min(out.size(), piece_ - at));
    absl::Status read = file_->ReadAt(offset_ + begin / piece_ * pitch_ + at, next);
    if (!read.ok()) return read;
    begin += next.size();
    out = out.subspan(next.size());
  }
  return absl::OkStatus();
}

StoredBytes StoredBytes::Range(uint64_t begin, size_t size) const {
  BEHEMOTH_CHECK(begin <= size_ && size <= size_ - begin, "a range past the end");
  BEHEMOTH_CHECK(piece_ == 0, "a range of columns");
  StoredBytes range = *this;
  if (in_memory()) range.memory_ += begin;
  range.offset_ += begin;
  range.size_ = size;
  return range;
}

StoredBytes StoredBytes::Columns(size_t row_bytes, size_t begin, size_t size) const {
  BEHEMOTH_CHECK(row_bytes > 0 && size_ % row_bytes == 0, "bytes that are no whole rows");
  BEHEMOTH_CHECK(begin <= row_bytes && size <= row_bytes - begin, "columns past a row's end");
  BEHEMOTH_CHECK(piece_ == 0, "columns of columns");
  const size_t rows = size_ / row_bytes;
  if (!in_memory()) {
    StoredBytes columns(file_, offset_ + begin, rows * size);
    columns.piece_ = size;
    columns.pitch_ = row_bytes;
    return columns;
  }
  const std::shared_ptr<std::byte[]> copy(new std::byte[rows * size]);
  for (size_t row = 0; row < rows; ++row) {
    std::memcpy(copy.get() + row * size, memory_ + row * row_bytes + begin, size);
  }
  return StoredBytes(copy, {copy.get(), rows * size});
}

absl::Status StoredBytes::Load() {
  if (in_memory()) return absl::OkStatus();
  // Not a vector: it would write zeros first. operator new aligns for every fundamental type.
  const std::shared_ptr<std::byte[]> memory(new std::byte[size_]);
  const std::span<std::byte> bytes(memory.get(), size_);
  if (absl::Status read = CopyTo(0, bytes); !read.ok()) return read;
  *this = StoredBytes(memory, bytes);
  return absl::OkStatus();
}

}  // namespace behemoth::worker
