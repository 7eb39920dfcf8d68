#include "worker/rpc/worker_service.h"

#include <absl/strings/str_cat.h>
#include <absl/time/clock.h>

#include <algorithm>
#include <chrono>
#include <limits>
#include <memory>
#include <random>
#include <utility>

#include "proto/support/status_convert.h"

namespace behemoth::worker {
namespace {

absl::Time DeadlineOf(const grpc::CallbackServerContext& context) {
  // gRPC's "none" is the largest time there is.
  const auto deadline = context.deadline();
  if (deadline == std::chrono::system_clock::time_point::max()) return absl::InfiniteFuture();
  return absl::FromChrono(deadline);
}

uint64_t DrawSeed() {
  thread_local std::mt19937_64 source = [] {
    std::random_device device;
    std::seed_seq seed{device(), device(), device(), device()};
    return std::mt19937_64(seed);
  }();
  return source();
}

absl::StatusOr<absl::Duration> IntervalOf(const v1::WatchLoadRequest& request) {
  if (!request.has_interval()) return absl::Seconds(1);
  const absl::Duration interval =
      absl::Seconds(request.interval().seconds()) + absl::Nanoseconds(request.interval().nanos());
  if (interval < LoadFeed::kShortestInterval || interval > LoadFeed::kLongestInterval) {
    return absl::InvalidArgumentError("interval: must be 50 ms to 60 s");
  }
  return interval;
}

absl::Status NoForms() { return absl::UnimplementedError("structure: this service compiles none"); }

// A stream that ends with its first word.
class Refusal : public grpc::ServerWriteReactor<v1::WatchLoadResponse> {
 public:
  explicit Refusal(const absl::Status& status) { Finish(support::ToGrpc(status)); }
  void OnDone() override { delete this; }
};

}  // namespace

WorkerService::WorkerService(const RequestLimits& limits, const StatusBoard* board, LoadFeed* feed,
                             StreamWriter* writer, DoorObserver* observer)
    : limits_(limits), board_(board), feed_(feed), writer_(writer), observer_(observer) {}

absl::StatusOr<Engine*> WorkerService::ReadyEngine() const {
  Engine* const engine = engine_.load(std::memory_order_acquire);
  const WorkerState state = board_->state();
  if (engine == nullptr || state != WorkerState::kReady) {
    return absl::UnavailableError(absl::StrCat("the worker is ", Name(state)));
  }
  return engine;
}

grpc::ServerWriteReactor<v1::GenerateResponse>* WorkerService::Generate(
    grpc::CallbackServerContext* context, const v1::GenerateRequest* request) {
  const auto call = std::make_shared<GenerateCall>(writer_, observer_);
  const absl::Time deadline = DeadlineOf(*context);
  const absl::StatusOr<Engine*> engine = ReadyEngine();
  if (!engine.ok()) {
    call->Refuse(engine.status());
    return call.get();
  }
  absl::StatusOr<GenerationRequest> generation =
      ToGeneration(*request, limits_, deadline, DrawSeed());
  if (generation.ok() && request->has_structure()) {
    BeginStructured(call, *engine, *std::move(generation), request->structure(), deadline);
  } else if (generation.ok()) {
    call->Begin(*engine, *std::move(generation), deadline);
  } else {
    call->Refuse(generation.status());
  }
  return call.get();
}

// The forms come at once if they are kept, else from a compiling thread.
void WorkerService::BeginStructured(const std::shared_ptr<GenerateCall>& call, Engine* engine,
                                    GenerationRequest request, const v1::Structure& structure,
                                    absl::Time deadline) {
  call->Hold();
  if (forms_ == nullptr) return call->Refuse(NoForms());
  absl::StatusOr<FormSpec> spec = ToFormSpec(structure);
  if (!spec.ok()) return call->Refuse(spec.status());
  const std::vector<TokenId> stop_ids = request.sampling.stop_ids;
  const int32_t count = request.num_sequences;
  const absl::Status made = forms_->Make(*std::move(spec), stop_ids, count,
                                         [call, engine, request = std::move(request), deadline](
                                             absl::StatusOr<FormCompiler::Forms> forms) mutable {
                                           if (!forms.ok()) return call->Refuse(forms.status());
                                           request.forms = *std::move(forms);
                                           call->Begin(engine, std::move(request), deadline);
                                         });
  if (!made.ok()) call->Refuse(made);
}

absl::Status WorkerService::Act(const v1::ControlRequest& request, ControlDone done) {
  if (absl::Status id = CheckRequestId(request.request_id()); !id.ok()) return id;
  // A draining engine is still to be told what to do with what it runs.
  Engine* const engine = engine_.load(std::memory_order_acquire);
  if (engine == nullptr) return ReadyEngine().status();
  switch (request.action_case()) {
    case v1::ControlRequest::kCancel:
      return engine->Cancel(request.request_id(), std::move(done));
    case v1::ControlRequest::kForceIds: {
      absl::StatusOr<std::vector<TokenId>> ids = ToForcedIds(request.force_ids(), limits_);
      if (!ids.ok()) return ids.status();
      // Beyond int32 is beyond every request's sequences all the same.
      const uint32_t sequence =
          std::min<uint32_t>(request.force_ids().sequence(), std::numeric_limits<int32_t>::max());
      return engine->ForceIds(request.request_id(), static_cast<int32_t>(sequence), *std::move(ids),
                              std::move(done));
    }
    case v1::ControlRequest::kExtendMaxTokens: {
      const uint32_t more = request.extend_max_tokens().additional_tokens();
      if (more == 0 || more > static_cast<uint32_t>(limits_.context_tokens)) {
        return absl::InvalidArgumentError(
            absl::StrCat("extend_max_tokens.additional_tokens: ", more, " is not in 1..",
                         limits_.context_tokens));
      }
      return engine->ExtendMaxTokens(request.request_id(), static_cast<int32_t>(more),
                                     std::move(done));
    }
    case v1::ControlRequest::kRewind: {
      absl::StatusOr<Rewind> rewind = ToRewind(request.rewind(), limits_);
      if (!rewind.ok()) return rewind.status();
      return engine->Rewind(request.request_id(), *std::move(rewind), std::move(done));
    }
    case v1::ControlRequest::ACTION_NOT_SET:
      break;
  }
  return absl::InvalidArgumentError("action: none is set");
}

grpc::ServerUnaryReactor* WorkerService::Control(grpc::CallbackServerContext* context,
                                                 const v1::ControlRequest* request,
                                                 v1::ControlResponse*) {
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  const auto finish = [reactor](const absl::Status& s) { reactor->Finish(support::ToGrpc(s)); };
  if (const absl::Status sent = Act(*request, finish); !sent.ok()) finish(sent);
  return reactor;
}

grpc::ServerUnaryReactor* WorkerService::SetVocabulary(grpc::CallbackServerContext* context,
                                                       const v1::SetVocabularyRequest* request,
                                                       v1::SetVocabularyResponse*) {
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  const auto finish = [reactor](const absl::Status& s) { reactor->Finish(support::ToGrpc(s)); };
  absl::Status set = ReadyEngine().status();
  if (set.ok() && forms_ == nullptr) set = NoForms();
  if (set.ok()) {
    set = forms_->SetVocabulary({request->tokens().begin(), request->tokens().end()},
                                {request->control_ids().begin(), request->control_ids().end()},
                                finish);
  }
  if (!set.ok()) finish(set);
  return reactor;
}

grpc::ServerUnaryReactor* WorkerService::GetStatus(grpc::CallbackServerContext* context,
                                                   const v1::GetStatusRequest*,
                                                   v1::GetStatusResponse* response) {
  board_->Fill(response);
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

grpc::ServerWriteReactor<v1::WatchLoadResponse>* WorkerService::WatchLoad(
    grpc::CallbackServerContext*, const v1::WatchLoadRequest* request) {
  const absl::StatusOr<absl::Duration> interval = IntervalOf(*request);
  if (!interval.ok()) return new Refusal(interval.status());
  return feed_->Watch(*interval);
}

}  // namespace behemoth::worker
