#include "worker/checkpoint/stored.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <filesystem>
#include <optional>

#include "tests/unit/worker/checkpoint/model_files.h"

namespace behemoth::worker {
namespace {

using testing::HasSubstr;

std::shared_ptr<const OpenFile> Open(const std::filesystem::path& path) {
  return std::make_shared<const OpenFile>(path.filename().string(), open(path.c_str(), O_RDONLY));
}

std::string Text(const StoredBytes& bytes, uint64_t begin, size_t count) {
  std::string text(count, '\0');
  EXPECT_TRUE(bytes.CopyTo(begin, std::as_writable_bytes(std::span(text))).ok());
  return text;
}

TEST(StoredTest, AVectorIsSharedNotCopied) {
  std::vector<uint32_t> values = {1, 2, 3};
  const uint32_t* const memory = values.data();
  std::optional<Stored<uint32_t>> first = std::move(values);
  const Stored<uint32_t> second = *first;
  first.reset();
  EXPECT_EQ(second.data(), memory);
  EXPECT_EQ(second, std::vector<uint32_t>({1, 2, 3}));
  EXPECT_EQ(second.size(), 3u);
  EXPECT_TRUE(Stored<uint32_t>().empty());
}

// Bytes outlive the name, the folder entry and every other owner of the file.
TEST(StoredTest, AValueKeepsItsFileOpen) {
  std::optional<StoredBytes> bytes;
  {
    const ModelFiles files;
    files.Write("f", "0123456789");
    bytes = StoredBytes(Open(files.path() / "f"), 2, 6);
  }
  EXPECT_FALSE(bytes->in_memory());
  EXPECT_EQ(bytes->size(), 6u);
  EXPECT_EQ(Text(*bytes, 0, 6), "234567");
  EXPECT_EQ(Text(*bytes, 4, 2), "67");
  EXPECT_EQ(Text(*bytes, 6, 0), "");
}

TEST(StoredTest, LoadingMakesMemoryOfItsOwn) {
  const ModelFiles files;
  files.Write("f", std::string("x") + BytesOf<uint64_t>({7, 8}));  // unaligned in the file
  Stored<uint64_t> values(StoredBytes(Open(files.path() / "f"), 1, 16));
  const Stored<uint64_t> left = values;
  ASSERT_TRUE(values.Load().ok());
  std::filesystem::resize_file(files.path() / "f", 0);
  EXPECT_EQ(values, std::vector<uint64_t>({7, 8}));
  EXPECT_EQ(reinterpret_cast<uintptr_t>(values.data()) % alignof(std::max_align_t), 0u);
  EXPECT_TRUE(values.Load().ok());  // is there already
  EXPECT_FALSE(left.bytes().in_memory());
}

TEST(StoredTest, AFileThatIsCutIsAnErrorWithItsName) {
  const ModelFiles files;
  files.Write("f", "0123456789");
  StoredBytes bytes(Open(files.path() / "f"), 2, 6);
  std::filesystem::resize_file(files.path() / "f", 7);
  char out[6];
  for (const absl::Status& status :
       {bytes.CopyTo(0, std::as_writable_bytes(std::span(out))), bytes.Load()}) {
    EXPECT_TRUE(absl::IsInvalidArgument(status));
    EXPECT_THAT(std::string(status.message()), HasSubstr("f: the file ends early"));
  }
}

TEST(StoredDeathTest, ValuesInAFileCannotBeLookedAt) {
  const ModelFiles files;
  files.Write("f", "0123456789");
  const StoredBytes bytes(Open(files.path() / "f"), 2, 6);
  const testing::KilledBySignal aborted(SIGABRT);
  EXPECT_EXIT(bytes.data(), aborted, "");
  EXPECT_EXIT(Text(bytes, 5, 2), aborted, "");
}

}  // namespace
}  // namespace behemoth::worker
