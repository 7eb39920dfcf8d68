// A limit on what CPython allocates while a template runs: over it, allocation fails and Python
// raises MemoryError, so that an output bomb ends as a refused request.
//
// Counts what the raw domain and the arenas of small objects take from the system, on the thread
// that runs Python. Other threads' allocations are untouched.
#pragma once

#include <cstddef>

namespace behemoth::gateway {

class MemoryCap {
 public:
  // After the interpreter's start, before the first MemoryCap; again after a new start.
  static void Install();

  // From now to the end of this object's life the thread may take `bytes` more than it holds.
  explicit MemoryCap(size_t bytes);
  ~MemoryCap();
  MemoryCap(const MemoryCap&) = delete;
  MemoryCap& operator=(const MemoryCap&) = delete;
};

}  // namespace behemoth::gateway
