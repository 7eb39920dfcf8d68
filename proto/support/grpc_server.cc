#include "proto/support/grpc_server.h"

#include <absl/status/status.h>
#include <absl/strings/str_cat.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/impl/server_builder_option.h>
#include <grpcpp/impl/server_builder_plugin.h>

#include <chrono>
#include <utility>

namespace behemoth::support {
namespace {

// Linking the reflection library turns it on for every server of the process; this option makes it
// one server's choice.
class ReflectionOption : public grpc::ServerBuilderOption {
 public:
  explicit ReflectionOption(bool on) : on_(on) {}
  void UpdateArguments(grpc::ChannelArguments*) override {}
  void UpdatePlugins(std::vector<std::unique_ptr<grpc::ServerBuilderPlugin>>* plugins) override {
    auto own = std::make_unique<grpc::reflection::ProtoServerReflectionPlugin>();
    std::erase_if(*plugins, [&](const auto& plugin) { return plugin->name() == own->name(); });
    if (on_) plugins->push_back(std::move(own));
  }

 private:
  bool on_;
};

void SetArguments(const GrpcServerConfig& config, grpc::ServerBuilder& builder) {
  builder.SetMaxReceiveMessageSize(config.max_receive_bytes);
  // Without this a second process binds the same port and takes half of its calls.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  // Clients may ping every 10 s; a second less forgives their timers.
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 9'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  // A peer that vanished without a FIN is noticed after 60 s + 20 s, not after TCP's two hours.
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 60'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20'000);
  // No age grace: a stream that is still running when its connection grows old runs to its end.
  builder.AddChannelArgument(
      GRPC_ARG_MAX_CONNECTION_AGE_MS,
      static_cast<int>(absl::ToInt64Milliseconds(config.max_connection_age)));
}

}  // namespace

absl::StatusOr<std::unique_ptr<GrpcServer>> GrpcServer::Start(const GrpcServerConfig& config,
                                                              std::vector<grpc::Service*> services,
                                                              Health* health) {
  auto credentials = ServerCredentials(config.tls);
  if (!credentials.ok()) return credentials.status();

  auto server = std::unique_ptr<GrpcServer>(new GrpcServer);
  server->health_ = health;
  grpc::ServerBuilder builder;
  SetArguments(config, builder);
  builder.SetOption(std::make_unique<ReflectionOption>(config.reflection));
  builder.AddListeningPort(config.listen, *credentials, &server->port_);
  for (grpc::Service* service : services) builder.RegisterService(service);
  builder.RegisterService(health->service());
  server->server_ = builder.BuildAndStart();
  if (server->server_ == nullptr || server->port_ == 0) {
    return absl::UnavailableError(
        absl::StrCat("listen ", config.listen, ": cannot be bound (taken, or not an address)"));
  }
  return server;
}

absl::StatusOr<std::unique_ptr<GrpcServer>> GrpcServer::StartHealthPort(const std::string& listen,
                                                                        Health* health) {
  return Start({.listen = listen, .reflection = false}, {}, health);
}

GrpcServer::~GrpcServer() {
  if (server_ != nullptr) Drain(absl::ZeroDuration());
}

void GrpcServer::Drain(absl::Duration timeout) {
  health_->Shutdown();
  server_->Shutdown(std::chrono::system_clock::now() + absl::ToChronoMilliseconds(timeout));
  server_->Wait();
}

}  // namespace behemoth::support
