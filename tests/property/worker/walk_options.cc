#include "tests/property/worker/walk_options.h"

#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>
#include <gtest/gtest.h>

#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <string>

namespace behemoth::worker {
namespace {

WalkOptions options;
std::string replay_line;

// abort() goes on once this returns.
void PrintReplayLine(int) {
  [[maybe_unused]] const auto written =
      write(STDERR_FILENO, replay_line.data(), replay_line.size());
}

bool Parse(const std::string& argument) {
  const size_t equals = argument.find('=');
  if (equals == std::string::npos) return false;
  const std::string name = argument.substr(0, equals);
  const std::string value = argument.substr(equals + 1);
  if (name == "--seed") return absl::SimpleAtoi(value, &options.seed);
  if (name == "--walks") return absl::SimpleAtoi(value, &options.walks);
  if (name == "--steps") return absl::SimpleAtoi(value, &options.steps);
  if (name == "--backend") {
    options.cuda = value == "cuda";
    return options.cuda || value == "cpu";
  }
  if (name == "--requests") return absl::SimpleAtoi(value, &options.requests);
  return false;
}

}  // namespace

const WalkOptions& Options() { return options; }

WalkScope::WalkScope(uint64_t seed, int32_t steps) {
  const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
  replay_line =
      absl::StrCat("replay: worker_walk_test --gtest_filter=", test->test_suite_name(), ".",
                   test->name(), " --walks=1 --seed=", seed, " --steps=", steps, "\n");
  std::signal(SIGABRT, PrintReplayLine);
}

WalkScope::~WalkScope() { std::signal(SIGABRT, SIG_DFL); }

const std::string& WalkScope::replay() const { return replay_line; }

}  // namespace behemoth::worker

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  for (int i = 1; i < argc; ++i) {
    if (!behemoth::worker::Parse(argv[i])) {
      std::fprintf(
          stderr,
          "unknown or bad: %s (--seed=N --walks=N --steps=N --requests=N --backend=cpu|cuda)\n",
          argv[i]);
      return 2;
    }
  }
  return RUN_ALL_TESTS();
}
