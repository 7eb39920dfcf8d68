#include "proto/support/flags.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <CLI/CLI.hpp>

#include <fstream>
#include <vector>

namespace behemoth::support {
namespace {

class FlagsTest : public testing::Test {
 protected:
  FlagsTest() : flags_("behemoth-test", "Test.") {
    flags_.app().add_option("--max-num-seqs", seqs_)->check(CLI::Range(1, 1024));
    flags_.app().add_option("--api-key", key_);
  }
  ~FlagsTest() override { unsetenv("BEHEMOTH_MAX_NUM_SEQS"); }

  std::optional<int> Parse(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "behemoth-test");
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    return flags_.Parse(static_cast<int>(argv.size()), argv.data());
  }
  std::string ConfigFile(const std::string& text) {
    const std::string path = testing::TempDir() + "behemoth_flags_test.toml";
    std::ofstream(path) << text;
    return path;
  }

  Flags flags_;
  int seqs_ = 8;
  std::string key_;
};

TEST_F(FlagsTest, UnderscoresAreDashes) {
  EXPECT_EQ(Parse({"--max_num_seqs=3"}), std::nullopt);
  EXPECT_EQ(seqs_, 3);
}

TEST_F(FlagsTest, ValuesKeepTheirUnderscores) {
  EXPECT_EQ(Parse({"--api-key=a_b"}), std::nullopt);
  EXPECT_EQ(key_, "a_b");
}

TEST_F(FlagsTest, FlagBeatsEnvironmentBeatsFile) {
  const std::string file = ConfigFile("max_num_seqs = 5\n");
  EXPECT_EQ(Parse({"--config", file}), std::nullopt);
  EXPECT_EQ(seqs_, 5);
  setenv("BEHEMOTH_MAX_NUM_SEQS", "6", 1);
  EXPECT_EQ(Parse({"--config", file}), std::nullopt);
  EXPECT_EQ(seqs_, 6);
  EXPECT_EQ(Parse({"--config", file, "--max-num-seqs", "7"}), std::nullopt);
  EXPECT_EQ(seqs_, 7);
}

TEST_F(FlagsTest, AnUnknownFlagIsNamedAndEndsWithTwo) {
  testing::internal::CaptureStderr();
  EXPECT_EQ(Parse({"--no-such-flag"}), 2);
  EXPECT_THAT(testing::internal::GetCapturedStderr(), testing::HasSubstr("--no-such-flag"));
}

TEST_F(FlagsTest, ABadValueIsNamedWhereverItComesFrom) {
  testing::internal::CaptureStderr();
  EXPECT_EQ(Parse({"--max-num-seqs", "0"}), 2);
  setenv("BEHEMOTH_MAX_NUM_SEQS", "many", 1);
  EXPECT_EQ(Parse({}), 2);
  const std::string errors = testing::internal::GetCapturedStderr();
  EXPECT_THAT(errors, testing::ContainsRegex("max-num-seqs.*\n.*max-num-seqs"));
}

TEST_F(FlagsTest, AnUnknownKeyOfTheFileEndsWithTwo) {
  EXPECT_EQ(Parse({"--config", ConfigFile("no_such_key = 1\n")}), 2);
}

TEST_F(FlagsTest, HelpAndVersionEndWithZero) {
  EXPECT_EQ(Parse({"--help"}), 0);
  EXPECT_EQ(Parse({"--version"}), 0);
}

TEST_F(FlagsTest, TheSummaryHidesKeys) {
  EXPECT_EQ(Parse({"--api-key", "secret", "--max-num-seqs", "9"}), std::nullopt);
  EXPECT_THAT(flags_.Summary(), testing::HasSubstr("max-num-seqs=9"));
  EXPECT_THAT(flags_.Summary(), testing::HasSubstr("api-key=***"));
}

}  // namespace
}  // namespace behemoth::support
