// behemoth.worker.v1.WorkerService: one reactor per call, no thread per call, nothing that blocks.
//
// Thread-safe. Registered before the model is loaded: until Attach, Generate and Control are
// refused UNAVAILABLE, GetStatus and WatchLoad answer.
#pragma once

#include <grpcpp/grpcpp.h>

#include <atomic>

#include "behemoth/worker/v1/worker.grpc.pb.h"
#include "worker/engine/engine.h"
#include "worker/rpc/generate_call.h"
#include "worker/rpc/generation_request.h"
#include "worker/rpc/load_feed.h"
#include "worker/rpc/status_board.h"
#include "worker/rpc/stream_writer.h"
#include "worker/structure/form_compiler.h"

namespace behemoth::worker {

class WorkerService : public v1::WorkerService::CallbackService {
 public:
  // All outlive the service.
  WorkerService(const RequestLimits& limits, const StatusBoard* board, LoadFeed* feed,
                StreamWriter* writer, DoorObserver* observer);

  // Once, when the engine runs. Both outlive the server. `forms` null: no structures, for tests.
  void Attach(Engine* engine, FormCompiler* forms) {
    forms_ = forms;
    engine_.store(engine, std::memory_order_release);
  }

  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(
      grpc::CallbackServerContext* context, const v1::GenerateRequest* request) override;
  grpc::ServerUnaryReactor* Control(grpc::CallbackServerContext* context,
                                    const v1::ControlRequest* request,
                                    v1::ControlResponse* response) override;
  grpc::ServerUnaryReactor* SetVocabulary(grpc::CallbackServerContext* context,
                                          const v1::SetVocabularyRequest* request,
                                          v1::SetVocabularyResponse* response) override;
  grpc::ServerUnaryReactor* GetStatus(grpc::CallbackServerContext* context,
                                      const v1::GetStatusRequest* request,
                                      v1::GetStatusResponse* response) override;
  grpc::ServerWriteReactor<v1::WatchLoadResponse>* WatchLoad(
      grpc::CallbackServerContext* context, const v1::WatchLoadRequest* request) override;

 private:
  absl::StatusOr<Engine*> ReadyEngine() const;
  void BeginStructured(const std::shared_ptr<GenerateCall>& call, Engine* engine,
                       GenerationRequest request, const v1::Structure& structure,
                       absl::Time deadline);
  absl::Status Act(const v1::ControlRequest& request, ControlDone done);

  const RequestLimits limits_;
  const StatusBoard* const board_;
  LoadFeed* const feed_;
  StreamWriter* const writer_;
  DoorObserver* const observer_;
  FormCompiler* forms_ = nullptr;  // set before engine_
  std::atomic<Engine*> engine_ = nullptr;
};

}  // namespace behemoth::worker
