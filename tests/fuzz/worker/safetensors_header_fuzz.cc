// Four bytes of data size, then a header. What is accepted covers the data exactly, once.
#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

#include "worker/checkpoint/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using behemoth::worker::BytesPerDtype;
  uint32_t data_bytes = 0;
  if (size < sizeof(data_bytes)) return 0;
  std::memcpy(&data_bytes, data, sizeof(data_bytes));
  data_bytes %= 65536;  // the check below marks every byte
  const std::string_view header(reinterpret_cast<const char*>(data) + sizeof(data_bytes),
                                size - sizeof(data_bytes));
  const auto table = behemoth::worker::ParseSafetensorsHeader("f", header, data_bytes);
  if (!table.ok()) {
    if (table.status().message().empty()) __builtin_trap();
    return 0;
  }
  std::vector<bool> used(data_bytes, false);
  uint64_t total = 0;
  for (const auto& [name, entry] : *table) {
    uint64_t bytes = static_cast<uint64_t>(BytesPerDtype(entry.dtype));
    for (const int64_t extent : entry.shape) bytes *= static_cast<uint64_t>(extent);
    if (bytes != entry.bytes() || entry.end > data_bytes) __builtin_trap();
    for (uint64_t at = entry.begin; at < entry.end; ++at) {
      if (used[at]) __builtin_trap();
      used[at] = true;
    }
    total += bytes;
  }
  if (total != data_bytes) __builtin_trap();
  return 0;
}
