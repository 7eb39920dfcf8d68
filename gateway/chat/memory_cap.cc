#include "gateway/chat/memory_cap.h"

#include <Python.h>
#include <malloc.h>

#include <cstdint>
#include <limits>

namespace behemoth::gateway {
namespace {

constexpr int64_t kUnlimited = std::numeric_limits<int64_t>::max();
// Small blocks may pass the limit by this much: Python needs a few to raise the error and unwind.
constexpr int64_t kSlackBytes = int64_t{32} << 20;
constexpr size_t kSmallBytes = 64 << 10;

// Signed: a render may free what was allocated before the count began.
thread_local int64_t held_bytes = 0;
thread_local int64_t limit_bytes = kUnlimited;

PyMemAllocatorEx raw;
PyObjectArenaAllocator arenas;

bool Fits(size_t bytes) {
  if (limit_bytes == kUnlimited) return true;
  if (bytes > static_cast<size_t>(limit_bytes)) return false;
  const int64_t slack = bytes <= kSmallBytes ? kSlackBytes : 0;
  return held_bytes + static_cast<int64_t>(bytes) <= limit_bytes + slack;
}

int64_t Size(void* block) { return static_cast<int64_t>(malloc_usable_size(block)); }

void* Malloc(void* context, size_t bytes) {
  if (!Fits(bytes)) return nullptr;
  void* block = raw.malloc(context, bytes);
  held_bytes += Size(block);
  return block;
}

void* Calloc(void* context, size_t count, size_t bytes) {
  if (bytes != 0 && count > std::numeric_limits<size_t>::max() / bytes) return nullptr;
  if (!Fits(count * bytes)) return nullptr;
  void* block = raw.calloc(context, count, bytes);
  held_bytes += Size(block);
  return block;
}

void* Realloc(void* context, void* block, size_t bytes) {
  const int64_t before = Size(block);
  // Growing in place counts its growth alone; a move holds both for a moment only.
  if (static_cast<int64_t>(bytes) > before && !Fits(bytes - static_cast<size_t>(before))) {
    return nullptr;
  }
  void* moved = raw.realloc(context, block, bytes);
  if (moved != nullptr) held_bytes += Size(moved) - before;
  return moved;
}

void Free(void* context, void* block) {
  held_bytes -= Size(block);
  raw.free(context, block);
}

void* TakeArena(void* context, size_t bytes) {
  if (!Fits(bytes)) return nullptr;
  void* arena = arenas.alloc(context, bytes);
  if (arena != nullptr) held_bytes += static_cast<int64_t>(bytes);
  return arena;
}

void GiveArena(void* context, void* arena, size_t bytes) {
  held_bytes -= static_cast<int64_t>(bytes);
  arenas.free(context, arena, bytes);
}

}  // namespace

void MemoryCap::Install() {
  PyMemAllocatorEx now;
  PyMem_GetAllocator(PYMEM_DOMAIN_RAW, &now);
  if (now.malloc == Malloc) return;
  raw = now;
  PyMemAllocatorEx counted = {raw.ctx, Malloc, Calloc, Realloc, Free};
  PyMem_SetAllocator(PYMEM_DOMAIN_RAW, &counted);
  PyObject_GetArenaAllocator(&arenas);
  PyObjectArenaAllocator counted_arenas = {arenas.ctx, TakeArena, GiveArena};
  PyObject_SetArenaAllocator(&counted_arenas);
}

MemoryCap::MemoryCap(size_t bytes) {
  held_bytes = 0;
  limit_bytes = static_cast<int64_t>(bytes);
}

MemoryCap::~MemoryCap() { limit_bytes = kUnlimited; }

}  // namespace behemoth::gateway
