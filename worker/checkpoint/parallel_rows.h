// A loop over the rows of a matrix on all cores: for the layouts that a reader has to change.
#pragma once

#include <algorithm>
#include <cstdint>
#include <thread>
#include <vector>

namespace behemoth::worker {

// Calls body(begin, end) for ranges that together are [0, rows), each once, at the same time.
// `bytes`: of the whole matrix; below two MiB a thread costs more than it saves.
template <typename Body>
void ParallelRows(int32_t rows, uint64_t bytes, const Body& body) {
  const uint64_t cores = std::max(1u, std::thread::hardware_concurrency());
  const auto parts = static_cast<int32_t>(
      std::clamp<uint64_t>(std::min(bytes >> 20, static_cast<uint64_t>(rows)), 1, cores));
  const auto run = [&](int32_t part) {
    body(static_cast<int32_t>(int64_t{rows} * part / parts),
         static_cast<int32_t>(int64_t{rows} * (part + 1) / parts));
  };
  std::vector<std::thread> threads;
  for (int32_t part = 1; part < parts; ++part) threads.emplace_back(run, part);
  run(0);
  for (std::thread& thread : threads) thread.join();
}

}  // namespace behemoth::worker
