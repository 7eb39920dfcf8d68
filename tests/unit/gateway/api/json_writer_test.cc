#include "gateway/api/json_writer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>

namespace behemoth::gateway {
namespace {

std::string Quoted(std::string_view text) {
  std::string out = ">";
  AppendJsonString(text, out);
  return out.substr(1);
}

template <typename Real>
std::string Number(Real value) {
  std::string out;
  AppendJsonNumber(value, out);
  return out;
}

TEST(JsonWriterTest, EveryByteComesOutAsOneLineOfValidJsonThatReadsBack) {
  for (int byte = 0; byte < 0x80; ++byte) {
    const std::string text = {'a', static_cast<char>(byte), 'b'};
    const std::string quoted = Quoted(text);
    EXPECT_EQ(nlohmann::json::parse(quoted).get<std::string>(), text) << byte;
    for (const char c : quoted) EXPECT_GE(static_cast<uint8_t>(c), 0x20) << byte;
  }
}

TEST(JsonWriterTest, EveryCharacterReadsBack) {
  for (uint32_t code = 0x80; code <= 0x10FFFF; code += code < 0x11000 ? 1 : 97) {
    if (code >= 0xD800 && code < 0xE000) continue;
    std::string text;
    if (code < 0x800) {
      text = {static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | (code & 0x3F))};
    } else if (code < 0x10000) {
      text = {static_cast<char>(0xE0 | code >> 12), static_cast<char>(0x80 | (code >> 6 & 0x3F)),
              static_cast<char>(0x80 | (code & 0x3F))};
    } else {
      text = {static_cast<char>(0xF0 | code >> 18), static_cast<char>(0x80 | (code >> 12 & 0x3F)),
              static_cast<char>(0x80 | (code >> 6 & 0x3F)),
              static_cast<char>(0x80 | (code & 0x3F))};
    }
    ASSERT_EQ(Quoted(text), '"' + text + '"') << code;
  }
}

// U+FFFD for each byte that is no part of a character (RFC 3629).
TEST(JsonWriterTest, BytesThatAreNoTextAreReplacedOneByOne) {
  const std::string fffd = "\xEF\xBF\xBD";
  const std::pair<std::string, int> wrong[] = {
      {"\x80", 1},         {"\xC0\x80", 2},         {"\xC2", 1},
      {"\xE0\x9F\xBF", 3}, {"\xE2\x82", 2},         {"\xED\xA0\x80", 3},
      {"\xFF", 1},         {"\xF0\x8F\xBF\xBF", 4}, {"\xF4\x90\x80\x80", 4},
      {"\xF0\x9F\x98", 3}, {"\xF5\x80", 2},
  };
  for (const auto& [bytes, count] : wrong) {
    std::string replaced;
    for (int i = 0; i < count; ++i) replaced += fffd;
    EXPECT_EQ(Quoted("a" + bytes), "\"a" + replaced + '"');
    EXPECT_EQ(Quoted(bytes + "\xC3\xA9"), '"' + replaced + "\xC3\xA9\"");
  }
}

TEST(JsonWriterTest, NumbersAreTheShortestThatReadBackEqual) {
  EXPECT_EQ(Number(0.1), "0.1");
  EXPECT_EQ(Number(-0.1f), "-0.1");
  EXPECT_EQ(Number(3.0), "3");
  for (const float value : {-13.815511f, 1e-38f, 3.4e38f, -0.0f, 16777217.0f}) {
    EXPECT_EQ(nlohmann::json::parse(Number(value)).get<float>(), value);
  }
}

TEST(JsonWriterTest, WhatJsonCannotSayIsVllmsMinus9999) {
  EXPECT_EQ(Number(-std::numeric_limits<float>::infinity()), "-9999.0");
  EXPECT_EQ(Number(std::nan("")), "-9999.0");
}

}  // namespace
}  // namespace behemoth::gateway
