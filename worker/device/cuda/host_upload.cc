#include "worker/device/cuda/host_upload.h"

#include <absl/time/clock.h>

#include <algorithm>
#include <utility>

namespace behemoth::worker {

HostUpload::HostUpload(std::unique_ptr<UploadBuffers> buffers) : buffers_(std::move(buffers)) {
  const size_t readers = std::max<size_t>(1, buffers_->count() / 2);
  readers_.reserve(readers);
  for (size_t reader = 0; reader < readers; ++reader) {
    readers_.emplace_back([this, reader] { Read(reader); });
  }
}

HostUpload::~HostUpload() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    work_.SignalAll();
  }
  for (std::thread& reader : readers_) reader.join();
}

absl::StatusOr<UploadTicket> HostUpload::Start(void* device, StoredBytes from) {
  absl::MutexLock lock(&mutex_);
  while (status_.ok() && started_ == enqueued_ + kMaxUploads) progress_.Wait(&mutex_);
  if (!status_.ok()) return status_;
  if (from.size() == 0) return UploadTicket{started_};
  Upload& upload = At(++started_);
  upload.device = static_cast<std::byte*>(device);
  upload.taken = 0;
  upload.left = from.size();
  upload.from = std::move(from);
  work_.SignalAll();
  return UploadTicket{started_};
}

absl::Status HostUpload::Join(UploadTicket ticket) {
  absl::MutexLock lock(&mutex_);
  // After an error too, no reader may still hold a piece: its memory is the caller's.
  while (status_.ok() ? enqueued_ < static_cast<uint64_t>(ticket) : moving_ > 0) {
    progress_.Wait(&mutex_);
  }
  return status_;
}

absl::Status HostUpload::Flush() {
  uint64_t last = 0;
  {
    absl::MutexLock lock(&mutex_);
    last = started_;
  }
  return Join(UploadTicket{last});
}

absl::Status HostUpload::Copy(void* device, std::span<const std::byte> host) {
  const absl::StatusOr<UploadTicket> ticket = Start(device, StoredBytes(nullptr, host));
  return ticket.ok() ? Join(*ticket) : ticket.status();
}

UploadTimes HostUpload::times() const {
  absl::MutexLock lock(&mutex_);
  return times_;
}

// Each reader has two buffers of its own: the device reads one while the other is filled.
void HostUpload::Read(size_t reader) {
  const size_t count = buffers_->count();
  for (size_t turn = 0;; ++turn) {
    const size_t buffer = count < 2 ? 0 : 2 * reader + turn % 2;
    const absl::Time began = absl::Now();
    Piece piece;
    {
      absl::MutexLock lock(&mutex_);
      while (!stopping_ && !TakePiece(piece)) work_.Wait(&mutex_);
      if (stopping_) return;
      ++moving_;
    }
    UploadTimes times;
    times.idle = absl::Now() - began;
    const absl::Status moved = MovePiece(piece, buffer, times);
    absl::MutexLock lock(&mutex_);
    --moving_;
    times_.reading += times.reading;
    times_.awaiting_device += times.awaiting_device;
    times_.idle += times.idle;
    if (moved.ok()) {
      times_.bytes += piece.size;
      FinishPiece(piece);
    } else if (status_.ok()) {
      status_ = moved;
    }
    if (!status_.ok()) progress_.SignalAll();
  }
}

absl::Status HostUpload::MovePiece(const Piece& piece, size_t buffer, UploadTimes& times) {
  const absl::Time began = absl::Now();
  if (absl::Status free = buffers_->Await(buffer); !free.ok()) return free;
  const absl::Time awaited = absl::Now();
  times.awaiting_device = awaited - began;
  const absl::Status read =
      piece.from->CopyTo(piece.begin, std::span(buffers_->buffer(buffer), piece.size));
  times.reading = absl::Now() - awaited;
  return read.ok() ? buffers_->Copy(buffer, piece.size, piece.device) : read;
}

// False if there is none, or none is wanted any more.
bool HostUpload::TakePiece(Piece& piece) {
  if (!status_.ok() || taken_ == started_) return false;
  Upload& upload = At(taken_ + 1);
  piece = {.upload = taken_ + 1,
           .from = &upload.from,
           .begin = upload.taken,
           .size = std::min(buffers_->buffer_bytes(), upload.from.size() - upload.taken),
           .device = upload.device + upload.taken};
  upload.taken += piece.size;
  if (upload.taken == upload.from.size()) ++taken_;
  return true;
}

// Pieces end in any order; uploads count as enqueued in theirs.
void HostUpload::FinishPiece(const Piece& piece) {
  At(piece.upload).left -= piece.size;
  const uint64_t before = enqueued_;
  while (enqueued_ < taken_ && At(enqueued_ + 1).left == 0) At(++enqueued_).from = StoredBytes();
  if (enqueued_ != before) progress_.SignalAll();
}

}  // namespace behemoth::worker
