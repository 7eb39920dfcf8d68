// Philox4x32-10: a counter-based random function. The same (key, counter) gives the same 128 bits
// on every device and in any order, so a draw depends on its place in its sequence and nothing
// else. Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC11.
#pragma once

#include <array>
#include <cstdint>

namespace behemoth::worker {

using PhiloxBlock = std::array<uint32_t, 4>;

constexpr PhiloxBlock Philox4x32(uint64_t key, PhiloxBlock counter) {
  uint32_t key0 = static_cast<uint32_t>(key);
  uint32_t key1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xd2511f53u} * counter[0];
    const uint64_t product1 = uint64_t{0xcd9e8d57u} * counter[2];
    counter = {
        static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key0, static_cast<uint32_t>(product1),
        static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key1, static_cast<uint32_t>(product0)};
    key0 += 0x9e3779b9u;
    key1 += 0xbb67ae85u;
  }
  return counter;
}

// The draw for one token, in (0, 1): never 0, never 1.
constexpr double UniformDraw(uint64_t seed, int32_t sequence, int32_t position) {
  const PhiloxBlock bits =
      Philox4x32(seed, {static_cast<uint32_t>(position), static_cast<uint32_t>(sequence), 0, 0});
  return (static_cast<double>(bits[0]) + 0.5) * 0x1p-32;
}

}  // namespace behemoth::worker
