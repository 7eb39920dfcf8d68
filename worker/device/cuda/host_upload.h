// Bytes of a checkpoint into device memory at the speed of its storage: threads read them straight
// into a few pinned buffers, from which the device copies while the threads fill the next.
//
//   HostUpload upload(*MakePinnedBuffers(stream, {}));
//   UploadTicket ticket = *upload.Start(staging, weights.nibbles.bytes());   // returns at once
//   ... prepare the next projection, Start() it too: the readers never run dry ...
//   upload.Join(ticket);                       // all copies of it are enqueued on the stream now
//   LaunchRepack(staging, ..., stream);        // so this sees the bytes
//
// Order. Every copy is enqueued on the one stream of the buffers, between Start and the return of
// Join. So it comes after all that the caller enqueued there before Start (the kernel that read
// `device` last, say) and before all that he enqueues after Join. Nothing is synchronised: the
// bytes are on the device when the stream gets there. Uploads are read in the order of their
// Starts. To keep the readers busy, join an upload after the next one has been started: two
// staging areas, used in turn.
//
// Memory: the buffers, taken before construction; nothing is allocated afterwards. At most
// kMaxUploads may be started and not read yet: Start waits for room.
// Errors: the first one, of a file (named) or of the device, ends all: every later call returns it.
// Thread: Start, Join and Copy by one thread, the loader's. Threads of its own, one for each two
// buffers. The destructor gives up what is not read yet and waits for the device to let go.
#pragma once

#include <absl/base/thread_annotations.h>
#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/synchronization/mutex.h>
#include <absl/time/time.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <thread>
#include <vector>

#include "worker/checkpoint/stored.h"

struct CUstream_st;  // *: cudaStream_t

namespace behemoth::worker {

// The device's side: buffers that it reads at full speed, and the copies out of them.
// Thread-safe for different buffers.
class UploadBuffers {
 public:
  virtual ~UploadBuffers() = default;  // waits for the copies under way
  virtual size_t count() const = 0;
  virtual size_t buffer_bytes() const = 0;
  virtual std::byte* buffer(size_t index) = 0;
  // Enqueues the copy of the buffer's first `bytes` to `device`.
  virtual absl::Status Copy(size_t index, size_t bytes, void* device) = 0;
  // Returns when the buffer's last copy is done, if there was one: it may be written again.
  virtual absl::Status Await(size_t index) = 0;
};

// One reader brings 5 GB/s out of the page cache (upload_bench, 16 cores, an H100): 12 of them fill
// PCIe's 55 GB/s, 8 come to 40. 4 MiB is 0.8 ms of a reader and 80 us of PCIe, so that neither the
// last piece of an upload nor the call per piece costs much; 16 MiB no longer fits the caches.
struct PinnedBufferShape {
  size_t count = 24;  // two for each reader
  size_t bytes = size_t{4} << 20;
};

// Pinned memory of the current device, whose copies go to `stream`. RESOURCE_EXHAUSTED if the host
// has not that much to pin. Only with CUDA.
absl::StatusOr<std::unique_ptr<UploadBuffers>> MakePinnedBuffers(CUstream_st* stream,
                                                                 const PinnedBufferShape& shape);

// The n-th upload that was started.
enum class UploadTicket : uint64_t {};

// Sums over all readers: where the time went. All busy reading = limited by the storage (or by the
// number of readers); waiting for the device = by PCIe; idle = the caller starts too late.
struct UploadTimes {
  uint64_t bytes = 0;
  absl::Duration reading, awaiting_device, idle;
};

class HostUpload {
 public:
  static constexpr size_t kMaxUploads = 64;

  explicit HostUpload(std::unique_ptr<UploadBuffers> buffers);
  ~HostUpload();
  HostUpload(const HostUpload&) = delete;
  HostUpload& operator=(const HostUpload&) = delete;

  // Queues the copy of all of `from` to `device`, which must have room for it. `from` is kept; what
  // it merely points to, and `device`, must live until Join.
  absl::StatusOr<UploadTicket> Start(void* device, StoredBytes from);
  // Returns when this upload and all before it are enqueued on the stream.
  absl::Status Join(UploadTicket ticket);
  // The same for all that were started.
  absl::Status Flush();
  // Start and Join: simple, but the readers idle until the next one.
  absl::Status Copy(void* device, std::span<const std::byte> host);

  size_t readers() const { return readers_.size(); }
  UploadTimes times() const;

 private:
  struct Upload {
    std::byte* device = nullptr;
    StoredBytes from;
    size_t taken = 0;  // bytes that a reader has or had
    size_t left = 0;   // bytes not enqueued yet
  };
  struct Piece {
    uint64_t upload = 0;  // its number
    const StoredBytes* from = nullptr;
    size_t begin = 0, size = 0;
    std::byte* device = nullptr;
  };

  void Read(size_t reader);
  absl::Status MovePiece(const Piece& piece, size_t buffer, UploadTimes& times);
  bool TakePiece(Piece& piece) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void FinishPiece(const Piece& piece) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Upload& At(uint64_t number) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return uploads_[number % kMaxUploads];
  }

  const std::unique_ptr<UploadBuffers> buffers_;
  mutable absl::Mutex mutex_;
  absl::CondVar work_;      // a piece to take, or the end
  absl::CondVar progress_;  // an upload is enqueued, or the last piece after an error
  // Uploads are numbered from 1. enqueued_ <= taken_ <= started_ <= enqueued_ + kMaxUploads.
  std::array<Upload, kMaxUploads> uploads_ ABSL_GUARDED_BY(mutex_);
  uint64_t started_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t taken_ ABSL_GUARDED_BY(mutex_) = 0;     // all their pieces have been taken
  uint64_t enqueued_ ABSL_GUARDED_BY(mutex_) = 0;  // all their copies are on the stream
  size_t moving_ ABSL_GUARDED_BY(mutex_) = 0;      // readers with a piece in hand
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  UploadTimes times_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::thread> readers_;
};

}  // namespace behemoth::worker
