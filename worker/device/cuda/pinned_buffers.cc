// UploadBuffers of a CUDA device: one pinned block, an event per buffer.
#include <absl/strings/str_cat.h>
#include <cuda_runtime.h>

#include <utility>
#include <vector>

#include "worker/device/cuda/host_upload.h"

namespace behemoth::worker {
namespace {

absl::Status CheckCuda(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return absl::OkStatus();
  const std::string text = absl::StrCat("cuda: ", what, ": ", cudaGetErrorString(error));
  return error == cudaErrorMemoryAllocation ? absl::ResourceExhaustedError(text)
                                            : absl::InternalError(text);
}

class PinnedBuffers : public UploadBuffers {
 public:
  PinnedBuffers(cudaStream_t stream, const PinnedBufferShape& shape)
      : stream_(stream), buffer_bytes_(shape.bytes), copied_(shape.count, nullptr) {}

  absl::Status Allocate() {
    if (absl::Status got = CheckCuda(cudaGetDevice(&device_), "device"); !got.ok()) return got;
    const size_t bytes = copied_.size() * buffer_bytes_;
    void* block = nullptr;
    const absl::Status pinned =
        CheckCuda(cudaHostAlloc(&block, bytes, cudaHostAllocDefault), "pinned upload buffers");
    if (!pinned.ok()) return pinned;
    block_ = static_cast<std::byte*>(block);
    for (cudaEvent_t& event : copied_) {
      // Blocking: a reader that waits must leave its core to the others.
      const absl::Status made = CheckCuda(
          cudaEventCreateWithFlags(&event, cudaEventBlockingSync | cudaEventDisableTiming),
          "event");
      if (!made.ok()) return made;
    }
    return absl::OkStatus();
  }

  ~PinnedBuffers() override {
    for (const cudaEvent_t event : copied_) {
      if (event == nullptr) continue;
      cudaEventSynchronize(event);
      cudaEventDestroy(event);
    }
    if (block_ != nullptr) cudaFreeHost(block_);
  }

  size_t count() const override { return copied_.size(); }
  size_t buffer_bytes() const override { return buffer_bytes_; }
  std::byte* buffer(size_t index) override { return block_ + index * buffer_bytes_; }

  absl::Status Copy(size_t index, size_t bytes, void* device) override {
    // The current device is a thread's own, and readers are new threads.
    if (absl::Status set = CheckCuda(cudaSetDevice(device_), "device"); !set.ok()) return set;
    const absl::Status copied = CheckCuda(
        cudaMemcpyAsync(device, buffer(index), bytes, cudaMemcpyHostToDevice, stream_), "upload");
    if (!copied.ok()) return copied;
    return CheckCuda(cudaEventRecord(copied_[index], stream_), "upload");
  }

  absl::Status Await(size_t index) override {
    return CheckCuda(cudaEventSynchronize(copied_[index]), "upload");
  }

 private:
  const cudaStream_t stream_;
  const size_t buffer_bytes_;
  int device_ = 0;
  std::byte* block_ = nullptr;
  std::vector<cudaEvent_t> copied_;  // an event that was never recorded counts as done
};

}  // namespace

absl::StatusOr<std::unique_ptr<UploadBuffers>> MakePinnedBuffers(CUstream_st* stream,
                                                                 const PinnedBufferShape& shape) {
  auto buffers = std::make_unique<PinnedBuffers>(stream, shape);
  if (absl::Status allocated = buffers->Allocate(); !allocated.ok()) return allocated;
  return buffers;
}

}  // namespace behemoth::worker
