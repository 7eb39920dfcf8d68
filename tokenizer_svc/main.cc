#include <absl/strings/str_cat.h>
#include <prometheus/registry.h>

#include <memory>

#include "proto/support/grpc_server.h"
#include "proto/support/health.h"
#include "proto/support/log.h"
#include "proto/support/metrics_server.h"
#include "proto/support/process.h"
#include "tokenizer_svc/config.h"
#include "tokenizer_svc/tokenizer_service.h"
#include "tokenizer_svc/vocabulary_loader.h"

namespace behemoth::tokenizer {
namespace {

constexpr char kProcess[] = "behemoth-tokenizer";

std::string Bound(const std::string& listen, int port) {
  return absl::StrCat(listen.substr(0, listen.rfind(':')), ":", port);
}

int Main(int argc, char** argv) {
  support::BlockSignals();
  Config config;
  support::Flags flags(kProcess, "Turns text into token ids and says what every id means.");
  AddFlags(config, flags);
  if (const auto exit_code = flags.Parse(argc, argv)) return *exit_code;
  support::InitLog(kProcess, flags.log_level());
  support::Log().info("start {}", flags.Summary());

  const auto vocabulary = LoadVocabulary(config.model);
  if (!vocabulary.ok()) return support::Fail(kProcess, vocabulary.status());
  support::Log().info("loaded tokens={} control_tokens={} fingerprint={}", (*vocabulary)->size(),
                      (*vocabulary)->control_ids().size(), (*vocabulary)->fingerprint());

  const auto registry = std::make_shared<prometheus::Registry>();
  support::RegisterBuildInfo(*registry, kProcess);
  Probe probe(*registry);
  TokenizerService service(**vocabulary, config.limits, probe);
  support::Health health;
  health.Set("", true);
  health.Set(v1::TokenizerService::service_full_name(), true);
  const auto metrics =
      support::MetricsServer::Start(config.metrics_listen, registry, {config.tls.cert_file});
  if (!metrics.ok()) return support::Fail(kProcess, metrics.status());
  // The text, and per input and segment the few bytes of its tags and lengths.
  const auto message_bytes = static_cast<int>(config.limits.max_text_bytes + (2 << 20));
  const auto server = support::GrpcServer::Start({.listen = config.listen,
                                                  .tls = config.tls,
                                                  .max_receive_bytes = message_bytes,
                                                  .reflection = config.reflection},
                                                 {&service}, &health);
  if (!server.ok()) return support::Fail(kProcess, server.status());
  std::unique_ptr<support::GrpcServer> health_port;
  if (!config.health_listen.empty()) {
    auto port = support::GrpcServer::StartHealthPort(config.health_listen, &health);
    if (!port.ok()) return support::Fail(kProcess, port.status());
    health_port = *std::move(port);
  }

  support::Log().info("ready listen={} metrics={}", Bound(config.listen, (*server)->port()),
                      Bound(config.metrics_listen, (*metrics)->port()));
  const int signal_number = support::WaitForShutdown();
  support::Log().info("draining signal={}", signal_number);
  (*server)->Drain(absl::Seconds(config.drain_timeout_s));
  support::Log().info("stopped");
  return 0;
}

}  // namespace
}  // namespace behemoth::tokenizer

int main(int argc, char** argv) { return behemoth::tokenizer::Main(argc, argv); }
