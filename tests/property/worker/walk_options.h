// How far the random walks go, from the command line: the defaults are what ctest runs.
#pragma once

#include <cstdint>
#include <random>
#include <string>

namespace behemoth::worker {

struct WalkOptions {
  uint64_t seed = 1;     // of the first walk; the next ones count on
  int32_t walks = 0;     // 0 = what the test says
  int32_t steps = 0;     // of each walk; 0 = what the test says
  int32_t requests = 0;  // of the solo runs; 0 = what the test says
  bool cuda = false;     // the solo runs on GPU 0
};
const WalkOptions& Options();

// One walk of the running test. If the process is aborted meanwhile, the line that repeats the walk
// is printed all the same.
class WalkScope {
 public:
  WalkScope(uint64_t seed, int32_t steps);
  ~WalkScope();
  const std::string& replay() const;
};

class Dice {
 public:
  explicit Dice(uint64_t seed) : engine_(seed) {}
  // Uniform in [low, high]. Not std::uniform_int_distribution: libraries differ in it.
  int32_t Between(int32_t low, int32_t high) {
    const uint64_t span = static_cast<uint64_t>(high - low) + 1;
    return low + static_cast<int32_t>(engine_() % span);
  }
  bool OneIn(int32_t n) { return Between(1, n) == 1; }

 private:
  std::mt19937_64 engine_;
};

}  // namespace behemoth::worker
