// Values of a checkpoint: in memory, or still in the file that holds them.
//
// A big checkpoint is read once, by several threads, straight into the buffers that a device copies
// from: most of its values never need host memory of their own. Such a value is a file and a range.
// Whoever wants to look at it calls Load() first; who only moves it on uses CopyTo().
//
// Why ranges and not a mapping. A mapped file that is cut, or whose disk fails, is a SIGBUS in
// whatever thread touches it, as long as it is mapped; a read is a status that names the file. And
// a mapping is no faster when it is read once: its page faults cost what the system call's copy
// does (8 threads, page cache: 46.6 and 45.7 GB/s; tests/bench/worker/upload_bench), and a cold
// file is read in pieces of the fault's size, not of the request's.
//
// Ranks that share a model take parts of its tensors: Range() of rows, Columns() of all rows. Of a
// value in a file both read nothing but their part.
//
// A value type: copies share what they hold, which nobody changes. Thread-compatible; any number of
// threads may call the const members.
#pragma once

#include <absl/status/status.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace behemoth::worker {

// A file opened for positioned reads, closed with its last owner. Thread-safe.
class OpenFile {
 public:
  // Takes over `descriptor`. `name` is for messages.
  OpenFile(std::string name, int descriptor) : name_(std::move(name)), descriptor_(descriptor) {}
  ~OpenFile();
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;

  const std::string& name() const { return name_; }
  int descriptor() const { return descriptor_; }
  // Fills `out` from byte `offset` on. INVALID_ARGUMENT if the file ends early, UNAVAILABLE if the
  // system cannot read it; both name the file.
  absl::Status ReadAt(uint64_t offset, std::span<std::byte> out) const;

 private:
  const std::string name_;
  const int descriptor_;
};

class StoredBytes {
 public:
  StoredBytes() = default;
  // In memory that `owner` keeps; null if the caller keeps it himself.
  StoredBytes(std::shared_ptr<const void> owner, std::span<const std::byte> memory)
      : owner_(std::move(owner)), memory_(memory.data()), size_(memory.size()) {}
  // Bytes [offset, offset + size) of `file`.
  StoredBytes(std::shared_ptr<const OpenFile> file, uint64_t offset, size_t size)
      : file_(std::move(file)), offset_(offset), size_(size) {}

  size_t size() const { return size_; }
  bool in_memory() const { return file_ == nullptr; }
  // Only in memory.
  const std::byte* data() const;
  // Fills `out` from byte `begin` on, which must lie within. Errors are OpenFile::ReadAt's.
  absl::Status CopyTo(uint64_t begin, std::span<std::byte> out) const;
  // `size` of them from byte `begin` on.
  StoredBytes Range(uint64_t begin, size_t size) const;
  // Of rows of `row_bytes`, which divide these bytes: `size` bytes of each from its byte `begin`
  // on, one row's behind the other's. In memory: a copy. Of no Columns() itself.
  StoredBytes Columns(size_t row_bytes, size_t begin, size_t size) const;
  // Reads the bytes into memory of their own, aligned for every type; nothing to do if they are in
  // memory already.
  absl::Status Load();

 private:
  std::shared_ptr<const void> owner_;
  const std::byte* memory_ = nullptr;
  std::shared_ptr<const OpenFile> file_;
  uint64_t offset_ = 0;
  size_t size_ = 0;
  // In a file only: pieces of `piece_` bytes that begin `pitch_` bytes apart; 0 = one piece.
  size_t piece_ = 0, pitch_ = 0;
};

// The same as elements. What is read through data(), [], begin() and == must be in memory.
template <typename T>
class Stored {
 public:
  using value_type = T;

  Stored() = default;
  Stored(std::vector<T> values) {  // NOLINT(google-explicit-constructor): a vector is such a value
    const auto owned = std::make_shared<const std::vector<T>>(std::move(values));
    bytes_ = StoredBytes(owned, std::as_bytes(std::span(*owned)));
  }
  // `bytes` are whole elements; in memory only if aligned for T.
  explicit Stored(StoredBytes bytes) : bytes_(std::move(bytes)) {}

  size_t size() const { return bytes_.size() / sizeof(T); }
  bool empty() const { return bytes_.size() == 0; }
  const T* data() const { return reinterpret_cast<const T*>(bytes_.data()); }
  const T& operator[](size_t index) const { return data()[index]; }
  const T* begin() const { return data(); }
  const T* end() const { return data() + size(); }

  const StoredBytes& bytes() const { return bytes_; }
  absl::Status Load() { return bytes_.Load(); }

  friend bool operator==(const Stored& a, const Stored& b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end());
  }

 private:
  StoredBytes bytes_;
};

}  // namespace behemoth::worker
