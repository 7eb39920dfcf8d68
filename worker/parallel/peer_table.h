// Where each rank's memory is that the others' kernels read and write (kernels/all_reduce). A plain
// table in host memory, of one model at a time: each rank's backend fills in its line while it
// loads, and reads the others' from the first step on, when all have loaded.
#pragma once

#include <array>
#include <cstdint>

namespace behemoth::worker {

struct PeerTable {
  struct Rank {
    std::array<void*, 2> parts = {};         // of sums, in turn
    std::array<void*, 2> logits_parts = {};  // in turn
    void* table = nullptr;                   // its rows of the embedding table
    uint32_t* flags = nullptr;
  };
  std::array<Rank, 8> ranks;
  // Set by Abort, seen by the devices: wait for no peer any more.
  volatile int* aborted = nullptr;
};

}  // namespace behemoth::worker
