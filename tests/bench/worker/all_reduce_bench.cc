// Sums over ranks of [rows, hidden] bf16 inside a CUDA graph, as a decode step has them: NCCL's,
// and the own one out of peer memory, without and with the norm that it takes in.
//
//   all_reduce_bench [ranks, 2] [hidden, 12288] [library of NCCL]
//
// One line for each number of rows: microseconds a sum, the slowest rank's, least of several runs;
// link = the bytes that a rank reads of its peers by the own sum, a second.
#include <absl/strings/numbers.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <barrier>
#include <cstdio>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "kernels/all_reduce/all_reduce.h"
#include "worker/device/cuda/memory.h"
#include "worker/ranks.h"

namespace behemoth::worker {
namespace {

using kernels::bf16;

constexpr int32_t kSums = 176;  // two for each of 88 layers
constexpr int32_t kRuns = 6;
constexpr int32_t kMostRows = 8192;

void Must(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(error));
  std::exit(1);
}

// One rank's memory; its address is in the group's table.
struct Seat {
  RankGroup* group = nullptr;    // of peers; null where they do not reach each other
  RankGroup* library = nullptr;  // NCCL's
  cuda::Memory parts[2], residual, gamma, normed, flags;
  cudaStream_t stream = nullptr;

  void Take(int32_t ordinal, int32_t hidden) {
    Must(cudaSetDevice(ordinal), "cudaSetDevice");
    Must(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate");
    const size_t bytes = size_t{2} * kMostRows * static_cast<size_t>(hidden);
    for (cuda::Memory* memory : {&parts[0], &parts[1], &residual, &gamma, &normed}) {
      *memory = *cuda::Memory::Allocate(cuda::MemoryKind::kDevice, bytes);
      Must(cudaMemset(memory->data(), 0, bytes), "cudaMemset");
    }
    flags = *cuda::Memory::Allocate(cuda::MemoryKind::kDevice, 4 * kernels::kRankFlags);
    Must(cudaMemset(flags.data(), 0, flags.bytes()), "cudaMemset");
    Must(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
    if (group != nullptr) {
      group->peers()->ranks[static_cast<size_t>(group->rank())] = {
          .parts = {parts[0].data(), parts[1].data()},
          .flags = static_cast<uint32_t*>(flags.data())};
    }
  }

  kernels::RankSumArgs ArgsOf(int32_t rows, int32_t hidden, size_t buffer, bool norm) const {
    const PeerTable& table = *group->peers();
    kernels::RankSumArgs args{
        .meeting = {.rank = group->rank(), .ranks = group->size(), .aborted = table.aborted}};
    for (size_t rank = 0; rank < static_cast<size_t>(group->size()); ++rank) {
      args.parts[rank] = static_cast<const bf16*>(table.ranks[rank].parts[buffer]);
      args.meeting.flags[rank] = table.ranks[rank].flags;
    }
    args.row.residual = static_cast<bf16*>(residual.data());
    args.row.rows = rows;
    args.row.hidden = hidden;
    if (norm) {
      args.row.gamma = static_cast<const bf16*>(gamma.data());
      args.row.out = {.packed = static_cast<bf16*>(normed.data()), .packed_rows = rows};
    }
    return args;
  }
};

// What rank `seat` enqueues for sum `i` of a step.
using Enqueue = std::function<void(Seat& seat, int32_t i)>;

double RankMicroseconds(Seat& seat, int32_t ordinal, const Enqueue& enqueue, std::barrier<>& all) {
  Must(cudaSetDevice(ordinal), "cudaSetDevice");
  cudaGraph_t graph;
  cudaGraphExec_t step;
  Must(cudaStreamBeginCapture(seat.stream, cudaStreamCaptureModeThreadLocal), "capture");
  for (int32_t i = 0; i < kSums; ++i) enqueue(seat, i);
  Must(cudaStreamEndCapture(seat.stream, &graph), "capture");
  Must(cudaGraphInstantiate(&step, graph, 0), "cudaGraphInstantiate");
  cudaEvent_t began, ended;
  Must(cudaEventCreate(&began), "cudaEventCreate");
  Must(cudaEventCreate(&ended), "cudaEventCreate");
  double least = 1e30;
  for (int32_t run = 0; run < kRuns; ++run) {
    all.arrive_and_wait();
    // The first one brings the ranks together; the second one is timed.
    Must(cudaGraphLaunch(step, seat.stream), "cudaGraphLaunch");
    Must(cudaEventRecord(began, seat.stream), "cudaEventRecord");
    Must(cudaGraphLaunch(step, seat.stream), "cudaGraphLaunch");
    Must(cudaEventRecord(ended, seat.stream), "cudaEventRecord");
    Must(cudaEventSynchronize(ended), "a run");
    float ms = 0;
    Must(cudaEventElapsedTime(&ms, began, ended), "cudaEventElapsedTime");
    least = std::min(least, 1e3 * ms / kSums);
  }
  cudaGraphExecDestroy(step);
  cudaGraphDestroy(graph);
  cudaEventDestroy(began);
  cudaEventDestroy(ended);
  return least;
}

double Microseconds(std::vector<Seat>& seats, const Enqueue& enqueue) {
  std::barrier<> all(static_cast<std::ptrdiff_t>(seats.size()));
  std::vector<double> times(seats.size());
  std::vector<std::thread> threads;
  for (size_t rank = 0; rank < seats.size(); ++rank) {
    threads.emplace_back([&, rank] {
      times[rank] = RankMicroseconds(seats[rank], static_cast<int32_t>(rank), enqueue, all);
    });
  }
  for (std::thread& thread : threads) thread.join();
  return *std::max_element(times.begin(), times.end());
}

int Run(int32_t size, int32_t hidden, const std::string& library) {
  const RankOptions options{.backend = "cuda", .size = size, .nccl_library = library};
  const auto ranks = OpenRanks(options);
  RankOptions by_library = options;
  by_library.all_reduce = "nccl";
  const auto nccl_ranks = OpenRanks(by_library);
  for (const absl::Status& status : {ranks.status(), nccl_ranks.status()}) {
    if (!status.ok()) return std::printf("%s\n", status.ToString().c_str()), 1;
  }
  const bool own = ranks->groups.front()->peers() != nullptr;
  std::vector<Seat> seats(ranks->groups.size());
  for (size_t rank = 0; rank < seats.size(); ++rank) {
    seats[rank].group = own ? ranks->groups[rank].get() : nullptr;
    seats[rank].library = nccl_ranks->groups[rank].get();
    seats[rank].Take(static_cast<int32_t>(rank), hidden);
  }
  std::printf("%d x %s, [rows, %d] bf16, us a sum, %d in a graph\n", size,
              ranks->devices.front()->name().c_str(), hidden, kSums);
  for (const int32_t rows : {1, 2, 4, 8, 16, 32, 64, 128, 512, 2048, 8192}) {
    const double nccl = Microseconds(seats, [&](Seat& seat, int32_t) {
      const auto count = static_cast<size_t>(rows) * static_cast<size_t>(hidden);
      seat.library->AllReduce(seat.parts[0].data(), count, SumElement::kBfloat16, seat.stream)
          .IgnoreError();
    });
    std::printf("rows %5d: nccl %8.2f", rows, nccl);
    for (const bool norm : {false, true}) {
      if (!own) break;
      const double sum = Microseconds(seats, [&](Seat& seat, int32_t i) {
        const auto error =
            LaunchRankSum(seat.ArgsOf(rows, hidden, static_cast<size_t>(i) % 2, norm),
                          {.stream = seat.stream, .overlap_predecessor = i > 0});
        if (!error.ok()) std::printf("%s\n", error.operation);
      });
      const double read = 2.0 * (size - 1) * rows * hidden;
      std::printf(
          norm ? ", with residual and norm %8.2f" : ", own with residual %8.2f (link %.0f GB/s)",
          sum, read / sum * 1e-3);
    }
    std::printf("\n");
    std::fflush(stdout);
  }
  return 0;
}

}  // namespace
}  // namespace behemoth::worker

int main(int argc, char** argv) {
  int32_t ranks = 2, hidden = 12288;
  const bool right = (argc < 2 || absl::SimpleAtoi(argv[1], &ranks)) &&
                     (argc < 3 || absl::SimpleAtoi(argv[2], &hidden)) && argc <= 4;
  if (!right) return std::fprintf(stderr, "all_reduce_bench [ranks] [hidden] [library]\n"), 2;
  return behemoth::worker::Run(ranks, hidden, argc == 4 ? argv[3] : "libnccl.so.2");
}
