#include "gateway/upstream/channel.h"

#include <absl/base/thread_annotations.h>
#include <absl/synchronization/mutex.h>
#include <grpcpp/grpcpp.h>

#include <utility>
#include <vector>

namespace behemoth::gateway {
namespace {

// Every address of a name is used, so that one that leaves is missed by nobody. Tokenizing changes
// nothing: it is repeated elsewhere while a process drains (CANCELLED, UNAVAILABLE) or is gone. At
// most 0.35 s are spent on it. Generate is repeated by the pool, and only before the first token.
constexpr char kServiceConfig[] = R"({
  "loadBalancingConfig": [{"round_robin": {}}],
  "methodConfig": [{
    "name": [{"service": "behemoth.tokenizer.v1.TokenizerService"}],
    "retryPolicy": {"maxAttempts": 4, "initialBackoff": "0.05s", "maxBackoff": "0.5s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"]}}]})";
// The longest prompt that is repeated; gRPC's own bound is 256 KiB.
constexpr int kRetryBufferBytes = 4 << 20;

absl::StatusOr<std::shared_ptr<grpc::Channel>> Open(const std::string& address,
                                                    const support::ClientTlsConfig& tls) {
  auto credentials = support::ClientCredentials(tls);
  if (!credentials.ok()) return credentials.status();
  grpc::ChannelArguments arguments;
  // A restarted peer is found again within a second; gRPC's own bound is two minutes.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
  // A peer that hangs without closing: 10 s is the shortest ping that our servers tolerate.
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 10'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 5'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  // Two channels to one address must not share a connection: each worker's health is its own.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  // The vocabulary of a tokenizer: 128 K ids and a template stay well below.
  arguments.SetMaxReceiveMessageSize(64 << 20);
  arguments.SetServiceConfigJSON(kServiceConfig);
  arguments.SetInt(GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1);
  arguments.SetInt(GRPC_ARG_PER_RPC_RETRY_BUFFER_SIZE, kRetryBufferBytes);
  if (!tls.server_name.empty()) arguments.SetSslTargetNameOverride(tls.server_name);
  return grpc::CreateCustomChannel(address, *credentials, arguments);
}

}  // namespace

struct Channels::Returned {
  // Any thread, gRPC's too.
  void Add(std::shared_ptr<grpc::Channel> channel) {
    absl::MutexLock lock(&mutex);
    channels.push_back(std::move(channel));
    --lent;
  }
  std::vector<std::shared_ptr<grpc::Channel>> Take() {
    absl::MutexLock lock(&mutex);
    return std::exchange(channels, {});
  }

  absl::Mutex mutex;
  int lent ABSL_GUARDED_BY(mutex) = 0;
  std::vector<std::shared_ptr<grpc::Channel>> channels ABSL_GUARDED_BY(mutex);
};

Channels::Channels() : returned_(std::make_shared<Returned>()) {}

Channels::~Channels() {
  {
    absl::MutexLock lock(&returned_->mutex);
    const auto all_back = [this] {
      returned_->mutex.AssertHeld();
      return returned_->lent == 0;
    };
    returned_->mutex.Await(absl::Condition(&all_back));
  }
  returned_->Take();
}

absl::StatusOr<std::shared_ptr<grpc::Channel>> Channels::Make(const std::string& address,
                                                              const support::ClientTlsConfig& tls) {
  returned_->Take();
  auto channel = Open(address, tls);
  if (!channel.ok()) return channel.status();
  absl::MutexLock lock(&returned_->mutex);
  ++returned_->lent;
  grpc::Channel* const raw = channel->get();
  return std::shared_ptr<grpc::Channel>(
      raw, [channel = *std::move(channel), returned = returned_](grpc::Channel*) mutable {
        returned->Add(std::move(channel));
      });
}

}  // namespace behemoth::gateway
