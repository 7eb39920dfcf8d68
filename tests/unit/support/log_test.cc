#include "proto/support/log.h"

#include <gtest/gtest.h>

namespace behemoth::support {
namespace {

TEST(LogTest, NothingEscapedCanForgeALine) {
  EXPECT_EQ(Escaped("a\nb\x1b[0m\"'\\\xC3\xA9"), "a\\x0Ab\\x1B[0m\\x22\\x27\\x5C\\xC3\\xA9");
}

TEST(LogTest, EscapedIsAtMostTwoHundredBytes) {
  EXPECT_EQ(Escaped(std::string(1000, 'x')).size(), 200u);
  EXPECT_EQ(Escaped(std::string(1000, '\n')).size(), 200u);
}

}  // namespace
}  // namespace behemoth::support
