#include "kernels/sampling/sampling.h"

namespace behemoth::kernels {

// Two lines a row, one word per id; lines are whole sweeps of a block (1,024 threads, four ids
// each).
size_t SampleScratchBytes(int vocabulary, int rows) {
  constexpr size_t kSweep = 4096;
  const size_t sweeps = (static_cast<size_t>(vocabulary) + kSweep - 1) / kSweep;
  return 2 * static_cast<size_t>(rows) * sweeps * kSweep * sizeof(uint32_t);
}

}  // namespace behemoth::kernels
