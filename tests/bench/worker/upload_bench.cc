// upload_bench FOLDER [GB]: how fast HostUpload reads the first GB of a checkpoint's shards and, in
// a build with CUDA, brings them to the GPU, by number of readers and size of a buffer. One row of
// JSON each:
//   read     pread into plain memory, no device: what the storage and the readers give
//   mapped   the same out of a mapping, which HostUpload's sources are not: the reason why
//   pinned   one big pinned copy, no reading: what PCIe gives
//   upload   both together: what a load gets
#include <fcntl.h>
#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#ifdef BEHEMOTH_HAVE_CUDA
#include <cuda_runtime.h>
#endif

#include "worker/device/cuda/host_upload.h"

namespace behemoth::worker {
namespace {

constexpr uint64_t kPieceBytes = uint64_t{176} << 20;  // a gate_proj of the 123B
constexpr uint64_t kStagingBytes = 4 * kPieceBytes;

double Seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Buffers that no device reads.
class PlainBuffers : public UploadBuffers {
 public:
  explicit PlainBuffers(const PinnedBufferShape& shape)
      : shape_(shape), memory_(shape.count * shape.bytes) {}
  size_t count() const override { return shape_.count; }
  size_t buffer_bytes() const override { return shape_.bytes; }
  std::byte* buffer(size_t index) override { return memory_.data() + index * shape_.bytes; }
  absl::Status Copy(size_t, size_t, void*) override { return absl::OkStatus(); }
  absl::Status Await(size_t) override { return absl::OkStatus(); }

 private:
  const PinnedBufferShape shape_;
  std::vector<std::byte> memory_;
};

// Pieces of the shards, in order, up to `limit` bytes in all.
struct Sources {
  std::vector<StoredBytes> read, mapped;
  uint64_t bytes = 0;
};

Sources SourcesOf(const std::string& folder, uint64_t limit) {
  std::vector<std::filesystem::path> shards;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() == ".safetensors") shards.push_back(entry.path());
  }
  std::sort(shards.begin(), shards.end());
  Sources sources;
  for (const auto& shard : shards) {
    const int descriptor = open(shard.c_str(), O_RDONLY);
    if (descriptor < 0) continue;
    const auto file = std::make_shared<const OpenFile>(shard.filename().string(), descriptor);
    const uint64_t size =
        std::min<uint64_t>(std::filesystem::file_size(shard), limit - sources.bytes);
    // Left mapped: the process is short.
    void* const map = mmap(nullptr, size, PROT_READ, MAP_SHARED, descriptor, 0);
    for (uint64_t begin = 0; begin < size; begin += kPieceBytes) {
      const uint64_t bytes = std::min(kPieceBytes, size - begin);
      sources.read.emplace_back(file, begin, bytes);
      if (map == MAP_FAILED) continue;
      const auto* memory = static_cast<const std::byte*>(map) + begin;
      sources.mapped.emplace_back(nullptr, std::span(memory, bytes));
    }
    sources.bytes += size;
    if (sources.bytes == limit) break;
  }
  return sources;
}

void Print(const char* what, const PinnedBufferShape& shape, double seconds,
           const UploadTimes& times) {
  const double readers = static_cast<double>(shape.count) / 2;
  std::printf(
      "{\"what\": \"%s\", \"readers\": %.0f, \"buffer_kib\": %zu, \"gb\": %.2f, "
      "\"s\": %.3f, \"gb_per_s\": %.2f, \"reading\": %.2f, \"awaiting_device\": %.2f, "
      "\"idle\": %.2f}\n",
      what, readers, shape.bytes >> 10, static_cast<double>(times.bytes) * 1e-9, seconds,
      static_cast<double>(times.bytes) * 1e-9 / seconds,
      absl::ToDoubleSeconds(times.reading) / readers / seconds,
      absl::ToDoubleSeconds(times.awaiting_device) / readers / seconds,
      absl::ToDoubleSeconds(times.idle) / readers / seconds);
  std::fflush(stdout);
}

// `staging` null: no device. `finish` waits for it.
template <typename Finish>
void Measure(const char* what, std::unique_ptr<UploadBuffers> buffers, std::byte* staging,
             const std::vector<StoredBytes>& sources, const Finish& finish) {
  const PinnedBufferShape shape = {buffers->count(), buffers->buffer_bytes()};
  HostUpload upload(std::move(buffers));
  const double began = Seconds();
  absl::Status status;
  uint64_t place = 0;
  for (const StoredBytes& source : sources) {
    status.Update(upload.Start(staging + place % kStagingBytes, source).status());
    place += kPieceBytes;
  }
  status.Update(upload.Flush());
  finish();
  if (status.ok()) return Print(what, shape, Seconds() - began, upload.times());
  std::printf("%s: %s\n", what, status.ToString().c_str());
}

void MeasureReading(const Sources& sources, const std::vector<PinnedBufferShape>& shapes) {
  for (const PinnedBufferShape& shape : shapes) {
    Measure("read", std::make_unique<PlainBuffers>(shape), nullptr, sources.read, [] {});
  }
  // Twice: the first time has all the page faults.
  for (const char* what : {"mapped", "mapped again"}) {
    Measure(what, std::make_unique<PlainBuffers>(PinnedBufferShape{}), nullptr, sources.mapped,
            [] {});
  }
}

#ifdef BEHEMOTH_HAVE_CUDA
void MeasurePinnedCopy(std::byte* staging, cudaStream_t stream) {
  constexpr uint64_t kBytes = kStagingBytes;
  void* pinned = nullptr;
  if (cudaHostAlloc(&pinned, kBytes, cudaHostAllocDefault) != cudaSuccess) return;
  for (int round = 0; round < 3; ++round) {
    const double began = Seconds();
    cudaMemcpyAsync(staging, pinned, kBytes, cudaMemcpyHostToDevice, stream);
    cudaStreamSynchronize(stream);
    Print("pinned", {.count = 2, .bytes = kBytes}, Seconds() - began, {.bytes = kBytes});
  }
  cudaFreeHost(pinned);
}

void MeasureUploads(const Sources& sources, const std::vector<PinnedBufferShape>& shapes) {
  cudaDeviceProp device{};
  void* staging = nullptr;
  cudaStream_t stream = nullptr;
  if (cudaGetDeviceProperties(&device, 0) != cudaSuccess ||
      cudaMalloc(&staging, kStagingBytes) != cudaSuccess ||
      cudaStreamCreate(&stream) != cudaSuccess) {
    std::printf("no GPU: %s\n", cudaGetErrorString(cudaGetLastError()));
    return;
  }
  std::printf("{\"device\": \"%s\"}\n", device.name);
  MeasurePinnedCopy(static_cast<std::byte*>(staging), stream);
  for (const PinnedBufferShape& shape : shapes) {
    auto buffers = MakePinnedBuffers(stream, shape);
    if (!buffers.ok()) {
      std::printf("%s\n", buffers.status().ToString().c_str());
      return;
    }
    Measure("upload", *std::move(buffers), static_cast<std::byte*>(staging), sources.read,
            [stream] { cudaStreamSynchronize(stream); });
  }
}
#endif

}  // namespace
}  // namespace behemoth::worker

int main(int argc, char** argv) {
  using namespace behemoth::worker;
  if (argc < 2) {
    std::fprintf(stderr, "upload_bench FOLDER [GB, default 16]\n");
    return 2;
  }
  const double gigabytes = argc > 2 ? std::strtod(argv[2], nullptr) : 16;
  const Sources sources = SourcesOf(argv[1], static_cast<uint64_t>(gigabytes * 1e9));
  if (sources.read.empty()) {
    std::fprintf(stderr, "%s: no shards\n", argv[1]);
    return 1;
  }
  std::vector<PinnedBufferShape> shapes;
  for (const size_t readers : {1, 4, 8, 12, 16}) {
    for (const size_t kib : {512, 2048, 4096, 16384}) {
      if (readers != 8 && kib != 4096) continue;
      shapes.push_back({2 * readers, kib << 10});
    }
  }
  MeasureReading(sources, shapes);
#ifdef BEHEMOTH_HAVE_CUDA
  MeasureUploads(sources, shapes);
#endif
  return 0;
}
