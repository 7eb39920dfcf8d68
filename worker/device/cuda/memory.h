// Memory of the device and pinned memory of the host, owned; and the bump pointer that cuts it up.
//
// An Arena that measures and one that cuts run the same code over the same sizes: so what a memory
// plan says and what a start takes are one sum.
#pragma once

#include <absl/status/statusor.h>

#include <cstddef>
#include <cstdint>
#include <utility>

namespace behemoth::worker::cuda {

enum class MemoryKind { kDevice, kPinnedHost };

// Owns one allocation; movable.
class Memory {
 public:
  Memory() = default;
  // RESOURCE_EXHAUSTED with the size. 0 bytes is a null buffer.
  static absl::StatusOr<Memory> Allocate(MemoryKind kind, size_t bytes);
  Memory(Memory&& other) noexcept { *this = std::move(other); }
  Memory& operator=(Memory&& other) noexcept;
  ~Memory();

  void* data() const { return data_; }
  size_t bytes() const { return bytes_; }

 private:
  MemoryKind kind_ = MemoryKind::kDevice;
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

class Arena {
 public:
  static constexpr size_t kAlignment = 256;  // of every piece: what bulk copies ask for, and more

  Arena() = default;  // measures: pieces are never to be touched
  Arena(void* base, size_t bytes) : base_(reinterpret_cast<uintptr_t>(base)), bytes_(bytes) {}

  // `count` elements; null past the end, and `overflowed` from then on.
  template <typename T>
  T* Take(size_t count) {
    return reinterpret_cast<T*>(TakeBytes(count * sizeof(T)));
  }
  static constexpr size_t Rounded(size_t bytes) {
    return (bytes + kAlignment - 1) / kAlignment * kAlignment;
  }
  size_t used() const { return used_; }
  bool overflowed() const { return overflowed_; }

 private:
  uintptr_t TakeBytes(size_t bytes);

  uintptr_t base_ = 0;
  size_t bytes_ = SIZE_MAX;
  size_t used_ = 0;
  bool overflowed_ = false;
};

}  // namespace behemoth::worker::cuda
