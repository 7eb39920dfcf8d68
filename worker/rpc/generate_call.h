// One Generate call: the engine's sink on one side, gRPC's stream on the other, and between them a
// bounded buffer in which events that have not been written are coalesced.
//
// Life: made by the service -> Begin or Refuse -> events -> Close -> Finish -> OnDone. Keeps itself
// alive until OnDone; the engine's reference may outlive it and then finds a finished call.
// Threads: Push and Close on the engine thread, WriteReady on the writer's, the rest on gRPC's. One
// write at a time; `writing_` is the token that says who starts the next.
// A caller that goes away, or whose deadline passes, makes OnCancel abort the request.
#pragma once

#include <absl/base/thread_annotations.h>
#include <absl/synchronization/mutex.h>
#include <grpcpp/grpcpp.h>

#include <deque>
#include <memory>
#include <optional>
#include <string>

#include "behemoth/worker/v1/worker.pb.h"
#include "worker/engine/engine.h"
#include "worker/rpc/stream_writer.h"
#include "worker/schedule/generation.h"

namespace behemoth::worker {

// Told of each call that is refused at the door. Thread-safe, must not block.
class DoorObserver {
 public:
  virtual ~DoorObserver() = default;
  virtual void OnRefused(const absl::Status& why) = 0;
};

class GenerateCall : public grpc::ServerWriteReactor<v1::GenerateResponse>,
                     public TokenSink,
                     public StreamWriter::Stream,
                     public std::enable_shared_from_this<GenerateCall> {
 public:
  // Unwritten bytes of one stream before its reader counts as too slow: 16,000 plain tokens, or
  // 600 with twenty logprobs each. One event is always let in, whatever its size.
  static constexpr size_t kBufferBytes = 128 << 10;

  // Both outlive the call.
  GenerateCall(StreamWriter* writer, DoorObserver* observer)
      : writer_(writer), observer_(observer) {}

  // Begin or Refuse will follow, later and on any thread.
  void Hold() { self_ = shared_from_this(); }
  // Hands the request to the engine, or refuses the call with the engine's answer.
  void Begin(Engine* engine, GenerationRequest request, absl::Time deadline);
  void Refuse(const absl::Status& status);

  // TokenSink
  bool Push(TokenEvent event) override;
  void Close(const absl::Status& status) override;

  // StreamWriter::Stream
  void WriteReady() override { Advance(); }

  // grpc::ServerWriteReactor
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  void Advance();
  void ScheduleWrite();

  StreamWriter* const writer_;
  DoorObserver* const observer_;
  std::shared_ptr<GenerateCall> self_;

  v1::GenerateResponse response_;  // of the token's holder
  absl::Mutex mutex_;
  // Set by Begin.
  Engine* engine_ ABSL_GUARDED_BY(mutex_) = nullptr;
  std::string request_id_ ABSL_GUARDED_BY(mutex_);
  RequestSerial serial_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Time deadline_ ABSL_GUARDED_BY(mutex_);
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  std::deque<TokenEvent> events_ ABSL_GUARDED_BY(mutex_);
  size_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  std::optional<absl::Status> closed_ ABSL_GUARDED_BY(mutex_);
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool broken_ ABSL_GUARDED_BY(mutex_) = false;     // nobody reads any more
  bool scheduled_ ABSL_GUARDED_BY(mutex_) = false;  // in the writer's list
};

}  // namespace behemoth::worker
