#include "worker/checkpoint/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <ostream>

#include "tests/unit/worker/checkpoint/model_files.h"

namespace behemoth::worker {
namespace {

using testing::HasSubstr;

struct BadHeader {
  const char* name;
  std::string header;
  uint64_t data_bytes;
  const char* says;
};
void PrintTo(const BadHeader& bad, std::ostream* out) { *out << bad.header.substr(0, 200); }

std::string Tensor(const std::string& name, const std::string& dtype, const std::string& shape,
                   const std::string& offsets) {
  return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape +
         ",\"data_offsets\":" + offsets + "}";
}

TEST(SafetensorsHeaderTest, ReadsWhatTheFormatAllows) {
  // Any order in the header, padding after it, empty tensors, scalars, metadata.
  const auto table = ParseSafetensorsHeader(
      "f",
      "{" + Tensor("b", "I32", "[3]", "[8,20]") + "," + Tensor("a", "BF16", "[2,2]", "[0,8]") +
          "," + Tensor("none", "F32", "[0,7]", "[8,8]") + "," +
          Tensor("one", "U8", "[]", "[20,21]") + ",\"__metadata__\":{\"format\":\"pt\"}}   ",
      21);
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_EQ(table->size(), 4u);
  EXPECT_EQ(table->at("b").begin, 8u);
  EXPECT_EQ(table->at("b").bytes(), 12u);
  EXPECT_EQ(table->at("a").shape, (std::vector<int64_t>{2, 2}));
  EXPECT_EQ(table->at("a").dtype, "BF16");
  EXPECT_TRUE(ParseSafetensorsHeader("f", "{}", 0).ok());
}

class BadHeaderTest : public testing::TestWithParam<BadHeader> {};

TEST_P(BadHeaderTest, IsRefusedWithFileAndTensor) {
  const auto table =
      ParseSafetensorsHeader("file.safetensors", GetParam().header, GetParam().data_bytes);
  ASSERT_FALSE(table.ok());
  EXPECT_TRUE(absl::IsInvalidArgument(table.status()));
  EXPECT_THAT(std::string(table.status().message()), HasSubstr("file.safetensors: "));
  EXPECT_THAT(std::string(table.status().message()), HasSubstr(GetParam().says));
}

const std::string kFour = Tensor("t", "F32", "[1]", "[0,4]");

INSTANTIATE_TEST_SUITE_P(
    All, BadHeaderTest,
    testing::Values(
        BadHeader{"Empty", "", 0, "does not start"}, BadHeader{"Space", " {}", 0, "does not start"},
        BadHeader{"List", "[]", 0, "does not start"},
        BadHeader{"NotJson", "{" + kFour + ",}", 4, "not JSON"},
        BadHeader{"Cut", "{" + kFour, 4, "not JSON"}, BadHeader{"Trailing", "{}{}", 0, "not JSON"},
        BadHeader{"Duplicate", "{" + kFour + "," + kFour + "}", 4, "t: the name occurs twice"},
        BadHeader{"DuplicateField", R"({"t":{"dtype":"F32","dtype":"F32"}})", 4,
                  "t: field 'dtype'"},
        BadHeader{"TwoMetadata", R"({"__metadata__":{},"__metadata__":{}})", 0, "twice"},
        BadHeader{"UnknownField", R"({"t":{"extra":1}})", 4, "t: unknown field 'extra'"},
        BadHeader{"MissingField", R"({"t":{"dtype":"F32","shape":[1]}})", 4, "t: needs dtype"},
        BadHeader{"NotAnObject", R"({"t":4})", 4, "t: a number"},
        BadHeader{"NestedMetadata", R"({"__metadata__":{"a":{}}})", 0, "an object"},
        BadHeader{"NumberInMetadata", R"({"__metadata__":{"a":1}})", 0, "a number"},
        BadHeader{"Null", R"({"t":null})", 0, "t: null"},
        BadHeader{"UnknownDtype", "{" + Tensor("t", "F24", "[1]", "[0,3]") + "}", 3,
                  "t: unknown dtype 'F24'"},
        BadHeader{"NegativeShape", "{" + Tensor("t", "F32", "[-1]", "[0,4]") + "}", 4,
                  "t: a negative"},
        BadHeader{"FractionalShape", "{" + Tensor("t", "F32", "[1.0]", "[0,4]") + "}", 4,
                  "t: a fraction"},
        BadHeader{"ListInShape", "{" + Tensor("t", "F32", "[[1]]", "[0,4]") + "}", 4,
                  "t: an array"},
        BadHeader{"NineDimensions", "{" + Tensor("t", "F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]") + "}",
                  4, "t: more than 8"},
        BadHeader{"HugeExtent", "{" + Tensor("t", "U8", "[18446744073709551615]", "[0,4]") + "}", 4,
                  "t: shape overflows"},
        BadHeader{"ProductOverflows",
                  "{" + Tensor("t", "F32", "[4294967296,4294967296]", "[0,0]") + "}", 0,
                  "overflows"},
        BadHeader{"ProductWraps", "{" + Tensor("t", "U8", "[4294967296,4294967296]", "[0,0]") + "}",
                  0, "overflows"},
        BadHeader{"WrongLength", "{" + Tensor("t", "F32", "[2]", "[0,4]") + "}", 4,
                  "t: 4 bytes, but F32 [2] takes 8"},
        BadHeader{"Backwards", "{" + Tensor("t", "F32", "[1]", "[4,0]") + "}", 4,
                  "t: data_offsets"},
        BadHeader{"PastTheEnd", "{" + Tensor("t", "F32", "[1]", "[4,8]") + "}", 4,
                  "t: data_offsets"},
        BadHeader{"OneOffset", "{" + Tensor("t", "F32", "[1]", "[0]") + "}", 4, "t: data_offsets"},
        BadHeader{"Overlap",
                  "{" + Tensor("a", "F32", "[2]", "[0,8]") + "," +
                      Tensor("b", "F32", "[2]", "[4,12]") + "}",
                  12, "b: data starts at 4, inside"},
        BadHeader{"SameBytesTwice",
                  "{" + Tensor("a", "F32", "[1]", "[0,4]") + "," +
                      Tensor("b", "F32", "[1]", "[0,4]") + "}",
                  4, "inside another"},
        BadHeader{"Hole",
                  "{" + Tensor("a", "F32", "[1]", "[0,4]") + "," +
                      Tensor("b", "F32", "[1]", "[8,12]") + "}",
                  12, "b: data starts at 8, after a hole"},
        BadHeader{"HoleAtTheStart", "{" + Tensor("t", "F32", "[1]", "[4,8]") + "}", 8,
                  "after a hole"},
        BadHeader{"BytesLeftOver", "{" + kFour + "}", 9, "has 9 data bytes"},
        BadHeader{"NoTensors", "{}", 1, "has 1 data bytes"},
        BadHeader{"Deep", "{\"t\":" + std::string(100000, '['), 0, "t: an array"}),
    [](const auto& info) { return info.param.name; });

absl::Status OpenStatus(const ModelFiles& files, const std::string& name) {
  return SafetensorsFile::Open(files.folder(), name).status();
}

TEST(SafetensorsFileTest, ReadsBytesWhereverTheyLie) {
  const ModelFiles files;
  files.WriteTensors("m.safetensors",
                     {{"a", "U8", {3}, "abc"}, {"b", "F32", {1}, BytesOf<float>({1.5f})}});
  auto file = SafetensorsFile::Open(files.folder(), "m.safetensors");
  ASSERT_TRUE(file.ok()) << file.status();
  uint8_t out[2];
  ASSERT_TRUE(file->Read(file->tensors().at("a"), 1, out).ok());
  EXPECT_EQ(std::string(out, out + 2), "bc");
  EXPECT_TRUE(absl::IsOutOfRange(file->Read(file->tensors().at("a"), 2, out)));
  float value;
  uint8_t bytes[4];
  ASSERT_TRUE(file->Read(file->tensors().at("b"), 0, bytes).ok());  // at offset 3: not aligned
  std::memcpy(&value, bytes, sizeof(value));
  EXPECT_EQ(value, 1.5f);
}

TEST(SafetensorsFileTest, RefusesATruncatedFile) {
  const ModelFiles files;
  const std::string whole = SafetensorsBytes("{" + kFour + "}", "1234");
  for (const size_t length : {size_t{0}, size_t{7}, size_t{8}, size_t{20}, whole.size() - 1}) {
    files.Write("m.safetensors", whole.substr(0, length));
    EXPECT_TRUE(absl::IsInvalidArgument(OpenStatus(files, "m.safetensors"))) << length;
  }
  files.Write("m.safetensors", whole);
  EXPECT_TRUE(OpenStatus(files, "m.safetensors").ok());
}

TEST(SafetensorsFileTest, AFileCutAfterOpeningIsAnErrorNotACrash) {
  const ModelFiles files;
  files.Write("m.safetensors", SafetensorsBytes("{" + kFour + "}", "1234"));
  auto file = SafetensorsFile::Open(files.folder(), "m.safetensors");
  ASSERT_TRUE(file.ok());
  std::filesystem::resize_file(files.path() / "m.safetensors", 12);
  uint8_t out[4];
  EXPECT_TRUE(absl::IsInvalidArgument(file->Read(file->tensors().at("t"), 0, out)));
}

TEST(SafetensorsFileTest, CapsTheHeaderBeforeItIsRead) {
  const ModelFiles files;
  for (const uint64_t length : {uint64_t{(100u << 20) + 1}, ~uint64_t{0}, uint64_t{1} << 63}) {
    std::string bytes(sizeof(length), '\0');
    std::memcpy(bytes.data(), &length, sizeof(length));
    files.Write("m.safetensors", bytes + "{}");
    const absl::Status status = OpenStatus(files, "m.safetensors");
    EXPECT_TRUE(absl::IsInvalidArgument(status));
    EXPECT_THAT(std::string(status.message()), HasSubstr("header of"));
  }
  // A sparse file as long as its header claims: still over the cap.
  std::filesystem::resize_file(files.path() / "m.safetensors", uint64_t{200} << 20);
  const uint64_t length = (100u << 20) + 1;
  std::fstream(files.path() / "m.safetensors", std::ios::in | std::ios::out | std::ios::binary)
      .write(reinterpret_cast<const char*>(&length), sizeof(length));
  EXPECT_TRUE(absl::IsInvalidArgument(OpenStatus(files, "m.safetensors")));
}

TEST(SafetensorsFileTest, RefusesALinkOutOfTheFolder) {
  const ModelFiles outside, files;
  outside.Write("m.safetensors", SafetensorsBytes("{}", ""));
  std::filesystem::create_symlink(outside.path() / "m.safetensors", files.path() / "m.safetensors");
  const absl::Status status = OpenStatus(files, "m.safetensors");
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("outside the model folder"));
  EXPECT_FALSE(
      OpenStatus(files, "../" + outside.path().filename().string() + "/m.safetensors").ok());
  // A link inside the folder, and a folder that is itself a link, are fine.
  files.Write("real.safetensors", SafetensorsBytes("{}", ""));
  std::filesystem::create_symlink("real.safetensors", files.path() / "link.safetensors");
  EXPECT_TRUE(OpenStatus(files, "link.safetensors").ok());
  std::filesystem::create_directory_symlink(outside.path(), files.path() / "folder");
  EXPECT_TRUE(SafetensorsFile::Open((files.path() / "folder").string(), "m.safetensors").ok());
}

// Hugging Face's cache links snapshots/<commit>/file to ../../blobs/<hash>: one entry of the cache.
TEST(SafetensorsFileTest, FollowsTheLinksOfAHuggingFaceCache) {
  const ModelFiles files;
  const auto entry = files.path() / "models--org--name";
  std::filesystem::create_directories(entry / "snapshots" / "abc");
  std::filesystem::create_directories(entry / "blobs");
  std::ofstream(entry / "blobs" / "hash") << SafetensorsBytes("{}", "");
  std::filesystem::create_symlink("../../blobs/hash", entry / "snapshots/abc/m.safetensors");
  EXPECT_TRUE(SafetensorsFile::Open((entry / "snapshots" / "abc").string(), "m.safetensors").ok());
}

TEST(SafetensorsFileTest, RefusesWhatIsNoRegularFile) {
  const ModelFiles files;
  std::filesystem::create_directory(files.path() / "m.safetensors");
  EXPECT_FALSE(OpenStatus(files, "m.safetensors").ok());
  ASSERT_EQ(mkfifo((files.path() / "pipe.safetensors").c_str(), 0600), 0);
  EXPECT_FALSE(OpenStatus(files, "pipe.safetensors").ok());  // and does not wait for a writer
  EXPECT_TRUE(absl::IsNotFound(OpenStatus(files, "absent.safetensors")));
}

}  // namespace
}  // namespace behemoth::worker
