// Model folders made by hand, in a temporary folder that dies with the test.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace behemoth::worker {

struct FileTensor {
  std::string name;
  std::string dtype;
  std::vector<int64_t> shape;
  std::string bytes;
};

template <typename T>
std::string BytesOf(const std::vector<T>& values) {
  std::string bytes(values.size() * sizeof(T), '\0');
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

// Length, header, data.
inline std::string SafetensorsBytes(const std::string& header, const std::string& data) {
  const uint64_t length = header.size();
  std::string bytes(sizeof(length), '\0');
  std::memcpy(bytes.data(), &length, sizeof(length));
  return bytes + header + data;
}

class ModelFiles {
 public:
  ModelFiles() {
    std::string path = (std::filesystem::path(testing::TempDir()) / "model_XXXXXX").string();
    EXPECT_NE(mkdtemp(path.data()), nullptr);
    path_ = path;
  }
  ~ModelFiles() { std::filesystem::remove_all(path_); }
  ModelFiles(const ModelFiles&) = delete;
  ModelFiles& operator=(const ModelFiles&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::string folder() const { return path_.string(); }

  void Write(const std::string& name, const std::string& bytes) const {
    std::ofstream(path_ / name, std::ios::binary) << bytes;
  }

  void WriteTensors(const std::string& name, const std::vector<FileTensor>& tensors) const {
    nlohmann::json header;
    std::string data;
    for (const FileTensor& tensor : tensors) {
      const size_t begin = data.size();
      data += tensor.bytes;
      header[tensor.name] = {
          {"dtype", tensor.dtype}, {"shape", tensor.shape}, {"data_offsets", {begin, data.size()}}};
    }
    Write(name, SafetensorsBytes(header.dump(), data));
  }

 private:
  std::filesystem::path path_;
};

}  // namespace behemoth::worker
