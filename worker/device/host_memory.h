// The host's memory, and what of it could be had now: MemAvailable, and the control group's limit
// if that is lower. Thread-safe.
#pragma once

#include "worker/device/device.h"

namespace behemoth::worker {

DeviceMemory HostMemory();

}  // namespace behemoth::worker
