#include "tests/bench/gateway/token_source.h"

#include <absl/strings/str_cat.h>
#include <absl/synchronization/mutex.h>
#include <grpcpp/alarm.h>
#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <utility>

#include "behemoth/tokenizer/v1/tokenizer.grpc.pb.h"
#include "behemoth/worker/v1/worker.grpc.pb.h"

namespace behemoth::bench {

namespace tpb = tokenizer::v1;
namespace wpb = worker::v1;

constexpr uint32_t kFirstWord = 3, kWords = 997;

struct TokenSource::State {
  explicit State(TokenSourceConfig c) : config(std::move(c)) {}
  const TokenSourceConfig config;
  std::atomic<int> open{0}, started{0}, cancelled{0}, controls{0}, fail{0}, fail_after_code{0};
  std::atomic<uint32_t> fail_after{0};
  std::atomic<bool> tokenizer_up{true}, ready{true};
  absl::Mutex mutex;
  std::vector<uint32_t> forced ABSL_GUARDED_BY(mutex);
};

namespace {

using State = TokenSource::State;

class Stream final : public grpc::ServerWriteReactor<wpb::GenerateResponse> {
 public:
  Stream(State* state, const wpb::GenerateRequest& request)
      : state_(state),
        prompt_(request.prompt_ids_size()),
        tokens_(request.has_max_tokens() ? request.max_tokens() : state->config.default_tokens),
        sequences_(request.has_num_sequences() ? request.num_sequences() : 1),
        fail_code_(state->fail_after_code),
        fail_after_(state->fail_after) {
    ++state_->open;
    ++state_->started;
    if (const int code = state_->fail) {
      Finish(grpc::Status(static_cast<grpc::StatusCode>(code), "scripted 10.1.2.3:4"));
      return;
    }
    Next();
  }

 private:
  void Next() {
    if (fail_code_ != 0 && messages_ == fail_after_) {
      return Finish(grpc::Status(static_cast<grpc::StatusCode>(fail_code_), "scripted"));
    }
    if (messages_ == state_->config.stall_after) return Stall();
    if (sequence_ == sequences_) return Finish(grpc::Status::OK);
    response_.Clear();
    if (sent_ < tokens_) {
      wpb::Tokens& out = *response_.mutable_tokens();
      out.set_sequence(sequence_);
      const uint32_t count = std::min(state_->config.tokens_per_message, tokens_ - sent_);
      for (uint32_t i = 0; i < count; ++i) {
        out.add_ids(kFirstWord + (sequence_ + sent_++) % kWords);
      }
    } else {
      wpb::Finish& out = *response_.mutable_finish();
      out.set_sequence(sequence_++);
      out.set_reason(wpb::Finish::REASON_LENGTH);
      out.mutable_usage()->set_prompt_tokens(prompt_);
      out.mutable_usage()->set_completion_tokens(tokens_);
      sent_ = 0;
    }
    ++messages_;
    StartWrite(&response_);
  }

  void OnWriteDone(bool ok) override {
    if (!ok || cancelled_) return Finish(grpc::Status::CANCELLED);
    if (state_->config.interval == absl::ZeroDuration()) return Next();
    alarm_.Set(absl::ToChronoTime(absl::Now() + state_->config.interval),
               [this](bool) { cancelled_ ? Finish(grpc::Status::CANCELLED) : Next(); });
  }

  // OnCancel comes with or after the write that ended; whoever is second finishes.
  void Stall() {
    if (stall_or_cancel_.exchange(true)) Finish(grpc::Status::CANCELLED);
  }
  void OnCancel() override {
    ++state_->cancelled;
    cancelled_ = true;
    alarm_.Cancel();
    if (stall_or_cancel_.exchange(true)) Finish(grpc::Status::CANCELLED);
  }
  void OnDone() override {
    --state_->open;
    delete this;
  }

  State* const state_;
  const uint32_t prompt_, tokens_, sequences_;
  const int fail_code_;
  const uint32_t fail_after_;
  uint32_t sequence_ = 0, sent_ = 0, messages_ = 0;
  std::atomic<bool> cancelled_{false}, stall_or_cancel_{false};
  wpb::GenerateResponse response_;
  grpc::Alarm alarm_;
};

class LoadStream final : public grpc::ServerWriteReactor<wpb::WatchLoadResponse> {
 public:
  explicit LoadStream(State* state) : state_(state) { Send(); }

 private:
  void Send() {
    response_.set_state(state_->ready ? wpb::WORKER_STATE_READY : wpb::WORKER_STATE_DRAINING);
    response_.set_running_sequences(state_->open);
    StartWrite(&response_);
  }
  void OnWriteDone(bool ok) override {
    if (!ok || cancelled_) return Finish(grpc::Status::CANCELLED);
    alarm_.Set(absl::ToChronoTime(absl::Now() + absl::Milliseconds(200)),
               [this](bool) { cancelled_ ? Finish(grpc::Status::CANCELLED) : Send(); });
  }
  void OnCancel() override {
    cancelled_ = true;
    alarm_.Cancel();
  }
  void OnDone() override { delete this; }

  State* const state_;
  std::atomic<bool> cancelled_{false};
  wpb::WatchLoadResponse response_;
  grpc::Alarm alarm_;
};

class Worker final : public wpb::WorkerService::CallbackService {
 public:
  explicit Worker(State* state) : state_(state) {}

  grpc::ServerWriteReactor<wpb::GenerateResponse>* Generate(
      grpc::CallbackServerContext*, const wpb::GenerateRequest* request) override {
    return new Stream(state_, *request);
  }

  grpc::ServerUnaryReactor* Control(grpc::CallbackServerContext* context,
                                    const wpb::ControlRequest* request,
                                    wpb::ControlResponse*) override {
    ++state_->controls;
    if (request->has_rewind()) {
      absl::MutexLock lock(&state_->mutex);
      state_->forced.assign(request->rewind().force_ids().begin(),
                            request->rewind().force_ids().end());
    }
    if (request->has_force_ids()) {
      absl::MutexLock lock(&state_->mutex);
      state_->forced.assign(request->force_ids().ids().begin(), request->force_ids().ids().end());
    }
    auto* reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }

  grpc::ServerUnaryReactor* GetStatus(grpc::CallbackServerContext* context,
                                      const wpb::GetStatusRequest*,
                                      wpb::GetStatusResponse* response) override {
    response->set_state(state_->ready ? wpb::WORKER_STATE_READY : wpb::WORKER_STATE_DRAINING);
    response->mutable_model()->add_served_names(state_->config.model);
    response->mutable_model()->set_vocabulary_size(kFirstWord + kWords);
    response->mutable_model()->add_eos_ids(2);
    response->mutable_limits()->set_context_tokens(state_->config.context_tokens);
    auto* reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }

  grpc::ServerWriteReactor<wpb::WatchLoadResponse>* WatchLoad(
      grpc::CallbackServerContext*, const wpb::WatchLoadRequest*) override {
    return new LoadStream(state_);
  }

 private:
  State* const state_;
};

class Tokenizer final : public tpb::TokenizerService::CallbackService {
 public:
  explicit Tokenizer(State* state) : state_(state) {}

  grpc::ServerUnaryReactor* Encode(grpc::CallbackServerContext* context,
                                   const tpb::EncodeRequest* request,
                                   tpb::EncodeResponse* response) override {
    auto* reactor = context->DefaultReactor();
    response->set_fingerprint("source");
    for (const tpb::EncodeInput& input : request->inputs()) {
      tpb::Encoding& encoding = *response->add_encodings();
      size_t bytes = 0;
      for (const tpb::Segment& segment : input.segments()) {
        bytes += segment.text().size() + segment.marked_text().size();
        if (segment.has_control_id()) encoding.add_ids(segment.control_id());
      }
      for (size_t i = 0; i < bytes; i += 8) encoding.add_ids(kFirstWord + i / 8 % kWords);
    }
    reactor->Finish(Verdict());
    return reactor;
  }

  grpc::ServerUnaryReactor* GetVocabulary(grpc::CallbackServerContext* context,
                                          const tpb::GetVocabularyRequest*,
                                          tpb::GetVocabularyResponse* response) override {
    for (const char* control : {"<unk>", "<s>", "</s>"}) response->add_token_bytes(control);
    for (uint32_t i = 0; i < kWords; ++i) {
      response->add_token_bytes(absl::StrCat(" w", kFirstWord + i));
    }
    for (uint32_t id = 0; id < kFirstWord; ++id) response->add_control_ids(id);
    response->set_fingerprint("source");
    response->set_chat_template(
        "{{ bos_token }}{% for message in messages %}{{ message.content }} {% endfor %}");
    response->mutable_special_tokens()->set_bos_id(1);
    response->mutable_special_tokens()->set_eos_id(2);
    response->mutable_special_tokens()->set_bos_token("<s>");
    response->mutable_special_tokens()->set_eos_token("</s>");
    auto* reactor = context->DefaultReactor();
    reactor->Finish(Verdict());
    return reactor;
  }

 private:
  grpc::Status Verdict() const {
    return state_->tokenizer_up ? grpc::Status::OK
                                : grpc::Status(grpc::StatusCode::UNAVAILABLE, "scripted 10.1.2.3");
  }
  State* const state_;
};

}  // namespace

class TokenSource::Servers {
 public:
  explicit Servers(State* state) : worker_(state), tokenizer_(state) {
    grpc::ServerBuilder builder;
    builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 9'000);
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
    builder.SetMaxReceiveMessageSize(64 << 20);
    builder.AddListeningPort(state->config.listen, grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(&worker_);
    builder.RegisterService(&tokenizer_);
    server_ = builder.BuildAndStart();
  }
  ~Servers() {
    server_->Shutdown(std::chrono::system_clock::now());
    server_->Wait();
  }
  int port() const { return port_; }

 private:
  Worker worker_;
  Tokenizer tokenizer_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

TokenSource::TokenSource(const TokenSourceConfig& config)
    : state_(std::make_shared<State>(config)), servers_(std::make_unique<Servers>(state_.get())) {}
TokenSource::~TokenSource() = default;

int TokenSource::port() const { return servers_->port(); }
std::string TokenSource::address() const { return absl::StrCat("127.0.0.1:", port()); }
int TokenSource::streams_open() const { return state_->open; }
int TokenSource::streams_started() const { return state_->started; }
int TokenSource::streams_cancelled() const { return state_->cancelled; }
int TokenSource::controls() const { return state_->controls; }
std::vector<uint32_t> TokenSource::forced_ids() const {
  absl::MutexLock lock(&state_->mutex);
  return state_->forced;
}
void TokenSource::FailGenerate(int grpc_code) { state_->fail = grpc_code; }
void TokenSource::FailAfter(int grpc_code, uint32_t messages) {
  state_->fail_after = messages;
  state_->fail_after_code = grpc_code;
}
void TokenSource::SetTokenizerUp(bool up) { state_->tokenizer_up = up; }
void TokenSource::SetReady(bool ready) { state_->ready = ready; }

}  // namespace behemoth::bench
