// Whether a file has changed since it was read last. A plain value.
#pragma once

#include <cstdint>
#include <string>

namespace behemoth::support {

struct FileStamp {
  int64_t modified_ns = 0;
  int64_t bytes = -1;  // -1 = there is no such file
  friend bool operator==(const FileStamp&, const FileStamp&) = default;
};

// Follows links: the files of a mounted Secret change by theirs.
FileStamp StampOf(const std::string& path);

}  // namespace behemoth::support
