#include "worker/device/host_memory.h"

#include <absl/strings/numbers.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <sstream>
#include <string>

namespace behemoth::worker {
namespace {

// "MemTotal:  16384000 kB"
uint64_t MeminfoBytes(const std::string& key) {
  std::ifstream file("/proc/meminfo");
  std::string line;
  while (std::getline(file, line)) {
    std::istringstream words(line);
    std::string name;
    uint64_t kib = 0;
    if (words >> name >> kib && name == key) return kib << 10;
  }
  return 0;
}

// A number alone in a file of the control group; "max" or no file = no limit.
uint64_t ControlGroupBytes(const char* path) {
  std::ifstream file(path);
  std::string word;
  uint64_t bytes = 0;
  if (file >> word && absl::SimpleAtoi(word, &bytes)) return bytes;
  return std::numeric_limits<uint64_t>::max();
}

}  // namespace

DeviceMemory HostMemory() {
  DeviceMemory memory;
  memory.total_bytes = MeminfoBytes("MemTotal:");
  memory.available_bytes = MeminfoBytes("MemAvailable:");
  const uint64_t limit = ControlGroupBytes("/sys/fs/cgroup/memory.max");
  if (limit < memory.total_bytes) {
    const uint64_t used = ControlGroupBytes("/sys/fs/cgroup/memory.current");
    memory.total_bytes = limit;
    memory.available_bytes = std::min(memory.available_bytes, limit - std::min(limit, used));
  }
  return memory;
}

}  // namespace behemoth::worker
