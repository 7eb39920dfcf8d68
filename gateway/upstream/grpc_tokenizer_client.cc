#include <absl/time/clock.h>
#include <grpcpp/grpcpp.h>

#include <atomic>

#include "behemoth/tokenizer/v1/tokenizer.grpc.pb.h"
#include "gateway/upstream/channel.h"
#include "gateway/upstream/open_calls.h"
#include "gateway/upstream/tokenizer_client.h"
#include "proto/support/log.h"
#include "proto/support/status_convert.h"

namespace behemoth::gateway {
namespace {

namespace pb = tokenizer::v1;

constexpr absl::Duration kProbeInterval = absl::Milliseconds(500);
constexpr absl::Duration kProbeTimeout = absl::Seconds(3);

template <typename Request, typename Reply>
struct UnaryCall {
  grpc::ClientContext context;
  Request request;
  Reply reply;
};

std::shared_ptr<const Vocabulary> FromProto(const pb::GetVocabularyResponse& in) {
  auto out = std::make_shared<Vocabulary>();
  const std::vector<std::string> bytes(in.token_bytes().begin(), in.token_bytes().end());
  const std::vector<uint32_t> control(in.control_ids().begin(), in.control_ids().end());
  out->table = std::make_shared<TokenTable>(bytes, control);
  for (const uint32_t id : control) {
    if (id < bytes.size()) out->control_tokens.emplace_back(bytes[id], id);
  }
  out->fingerprint = in.fingerprint();
  out->chat_template = in.chat_template();
  const pb::SpecialTokens& special = in.special_tokens();
  out->bos_token = special.bos_token();
  out->eos_token = special.eos_token();
  out->unk_token = special.unk_token();
  out->pad_token = special.pad_token();
  if (special.has_bos_id()) out->bos_id = special.bos_id();
  if (special.has_eos_id()) out->eos_id = special.eos_id();
  return out;
}

pb::EncodeRequest ToProto(std::vector<EncodeInput> inputs) {
  pb::EncodeRequest out;
  for (EncodeInput& input : inputs) {
    pb::EncodeInput& entry = *out.add_inputs();
    entry.set_add_special_tokens(input.add_special_tokens);
    for (TextSegment& segment : input.segments) {
      pb::Segment& piece = *entry.add_segments();
      switch (segment.kind) {
        case TextSegment::Kind::kText:
          piece.set_text(std::move(segment.text));
          break;
        case TextSegment::Kind::kMarkedText:
          piece.set_marked_text(std::move(segment.text));
          break;
        case TextSegment::Kind::kControl:
          piece.set_control_id(segment.control_id);
          break;
      }
    }
  }
  return out;
}

// What outlives the client: callbacks of gRPC hold it.
struct Shared : std::enable_shared_from_this<Shared> {
  std::unique_ptr<pb::TokenizerService::Stub> stub;
  Loop* loop;
  std::function<void(std::shared_ptr<const Vocabulary>)> on_vocabulary;
  std::atomic<bool> available{false};
  OpenCalls calls;
  // `loop` only.
  std::unique_ptr<Timer> timer;
  std::string fingerprint;

  // An encoding of nothing is the heartbeat: it proves the whole path, and its fingerprint tells
  // whether this is still the same vocabulary.
  void Probe() {
    auto call = std::make_shared<UnaryCall<pb::EncodeRequest, pb::EncodeResponse>>();
    call->request.add_inputs();
    call->context.set_deadline(absl::ToChronoTime(absl::Now() + kProbeTimeout));
    const uint64_t key = calls.Add([call] { call->context.TryCancel(); });
    stub->async()->Encode(&call->context, &call->request, &call->reply,
                          [self = shared_from_this(), call, key](const grpc::Status& status) {
                            self->loop->Post([self, call, ok = status.ok()] {
                              self->OnProbe(ok, call->reply.fingerprint());
                            });
                            self->calls.Remove(key);
                          });
  }

  void OnProbe(bool ok, const std::string& seen) {
    if (ok && seen != fingerprint) return Fetch();
    SetAvailable(ok);
    timer->Start(kProbeInterval, [this] { Probe(); });
  }

  void Fetch() {
    auto call = std::make_shared<UnaryCall<pb::GetVocabularyRequest, pb::GetVocabularyResponse>>();
    call->context.set_deadline(absl::ToChronoTime(absl::Now() + absl::Seconds(10)));
    const uint64_t key = calls.Add([call] { call->context.TryCancel(); });
    stub->async()->GetVocabulary(
        &call->context, &call->request, &call->reply,
        [self = shared_from_this(), call, key](const grpc::Status& status) {
          self->loop->Post([self, call, ok = status.ok()] { self->OnFetched(ok, call->reply); });
          self->calls.Remove(key);
        });
  }

  void OnFetched(bool ok, const pb::GetVocabularyResponse& reply) {
    if (ok) {
      fingerprint = reply.fingerprint();
      on_vocabulary(FromProto(reply));
      support::Log().info("vocabulary ids={} fingerprint={}", reply.token_bytes_size(),
                          support::Escaped(fingerprint));
    }
    SetAvailable(ok);
    timer->Start(kProbeInterval, [this] { Probe(); });
  }

  void SetAvailable(bool now) {
    if (available.exchange(now) != now) support::Log().info("tokenizer available={}", now);
  }
};

// gRPC's own words name addresses; a client of ours need not know them.
absl::Status ForClient(const absl::Status& status) {
  if (absl::IsUnavailable(status) || absl::IsCancelled(status)) {
    return absl::UnavailableError("The tokenizer cannot be reached.");
  }
  return status;
}

class GrpcTokenizerClient final : public TokenizerClient {
 public:
  explicit GrpcTokenizerClient(std::shared_ptr<Shared> shared) : shared_(std::move(shared)) {
    shared_->loop->Post([shared = shared_] {
      shared->timer = shared->loop->NewTimer();
      shared->Probe();
    });
  }

  ~GrpcTokenizerClient() override {
    shared_->calls.CancelAndWait();
    shared_->timer.reset();  // the last callback may release `shared_` after the loop is gone
  }

  void Encode(std::vector<EncodeInput> inputs, absl::Time deadline, Loop& loop,
              EncodeDone done) override {
    auto call = std::make_shared<UnaryCall<pb::EncodeRequest, pb::EncodeResponse>>();
    call->request = ToProto(std::move(inputs));
    call->context.set_deadline(absl::ToChronoTime(deadline));
    const uint64_t key = shared_->calls.Add([call] { call->context.TryCancel(); });
    shared_->stub->async()->Encode(
        &call->context, &call->request, &call->reply,
        [call, key, loop = &loop, shared = shared_,
         done = std::make_shared<EncodeDone>(std::move(done))](const grpc::Status& status) {
          if (status.error_code() == grpc::StatusCode::UNAVAILABLE) shared->available = false;
          loop->Post([call, done, result = support::FromServer(status)] {
            if (!result.ok()) return (*done)(ForClient(result));
            IdLists lists;
            for (const pb::Encoding& encoding : call->reply.encodings()) {
              lists.emplace_back(encoding.ids().begin(), encoding.ids().end());
            }
            if (lists.size() != static_cast<size_t>(call->request.inputs_size())) {
              return (*done)(absl::InternalError("the tokenizer's reply has a wrong size"));
            }
            (*done)(std::move(lists));
          });
          shared->calls.Remove(key);
        });
  }

  bool available() const override { return shared_->available; }

 private:
  std::shared_ptr<Shared> shared_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<TokenizerClient>> NewGrpcTokenizerClient(
    const std::string& address, const support::ClientTlsConfig& tls, Channels& channels, Loop& loop,
    std::function<void(std::shared_ptr<const Vocabulary>)> on_vocabulary) {
  auto channel = channels.Make(address, tls);
  if (!channel.ok()) return channel.status();
  auto shared = std::make_shared<Shared>();
  shared->stub = pb::TokenizerService::NewStub(*channel);
  shared->loop = &loop;
  shared->on_vocabulary = std::move(on_vocabulary);
  return std::make_unique<GrpcTokenizerClient>(std::move(shared));
}

}  // namespace behemoth::gateway
