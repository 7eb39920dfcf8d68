#include "gateway/gateway.h"

#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <absl/time/clock.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <optional>
#include <thread>
#include <utility>

#include "gateway/chat/chat_template.h"
#include "gateway/chat/thinking_presets.h"
#include "gateway/loop/asio_loop.h"
#include "gateway/session/front_door.h"
#include "gateway/session/request_registry.h"
#include "gateway/upstream/channel.h"
#include "gateway/upstream/discovery.h"
#include "gateway/upstream/grpc_worker_client.h"
#include "gateway/upstream/tokenizer_client.h"
#include "gateway/upstream/worker_pool.h"
#include "proto/support/log.h"
#include "proto/support/metrics_server.h"

namespace behemoth::gateway {
namespace {

constexpr absl::Duration kTick = absl::Seconds(1);  // key file, gauges of the pool
constexpr absl::Duration kLastBytes = absl::Seconds(5);
constexpr absl::Duration kDnsInterval = absl::Seconds(5);
constexpr char kDns[] = "dns:///";

int LoopThreads(int wanted) {
  if (wanted > 0) return wanted;
  return std::clamp(static_cast<int>(std::thread::hardware_concurrency()), 1, 4);
}

absl::StatusOr<ThinkingPresets> LoadPresets(const std::string& file) {
  if (file.empty()) return ThinkingPresets();
  std::ifstream in(file, std::ios::binary);
  if (!in) return absl::InvalidArgumentError("thinking-presets: the file cannot be read");
  const std::string json((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  return ThinkingPresets::FromJson(json);
}

// Workers behind a DNS name are dialled by address; their certificates carry the name.
support::ClientTlsConfig WorkerTls(const Config& config) {
  support::ClientTlsConfig tls = config.upstream_tls;
  tls.server_name = config.worker_tls_name;
  const std::string& target = config.workers.front();
  if (tls.server_name.empty() && absl::StartsWith(target, kDns)) {
    tls.server_name = target.substr(sizeof(kDns) - 1, target.rfind(':') - (sizeof(kDns) - 1));
  }
  return tls;
}

}  // namespace

// In the order of construction: what stands lower uses what stands higher.
struct Gateway::Parts {
  Parts(const Config& c, ThinkingPresets p)
      : config(c),
        registry(std::make_shared<prometheus::Registry>()),
        probe(*registry),
        keys(c.api_keys, c.api_key_file),
        admission(c.admission),
        presets(std::move(p)),
        loops(LoopThreads(c.threads)) {}

  void Publish(std::shared_ptr<const Vocabulary> vocabulary) {
    auto fresh = std::make_shared<ModelText>();
    fresh->vocabulary = vocabulary;
    if (!vocabulary->chat_template.empty()) {
      auto compiled = jinja->Compile({.jinja = vocabulary->chat_template,
                                      .bos_token = vocabulary->bos_token,
                                      .eos_token = vocabulary->eos_token,
                                      .unk_token = vocabulary->unk_token,
                                      .pad_token = vocabulary->pad_token,
                                      .control_tokens = vocabulary->control_tokens});
      if (compiled.ok()) {
        fresh->chat_template = *std::move(compiled);
      } else {
        support::Log().error("chat template refused status=\"{}\"",
                             support::Escaped(compiled.status().ToString()));
      }
    }
    text.Set(std::move(fresh));
    workers->SetTokenizerFingerprint(vocabulary->fingerprint);
  }

  // `upstream` only.
  void Tick() {
    keys.ReloadIfChanged();
    http->ReloadTlsIfChanged();
    const PoolView view = workers->View();
    probe.OnWorkers(view.workers, view.usable, static_cast<int>(view.running_sequences),
                    static_cast<int>(view.waiting_requests), view.kv_use);
    ticks->Start(kTick, [this] { Tick(); });
  }

  Config config;
  std::shared_ptr<prometheus::Registry> registry;
  Probe probe;
  ApiKeys keys;
  Admission admission;
  ThinkingPresets presets;
  RequestRegistry requests;
  ModelTextCell text;
  std::unique_ptr<Jinja> jinja;
  Channels channels;  // what the loops still hold of calls goes before them
  AsioLoop upstream;  // watches, probes, template compilation: nothing that a client waits for
  LoopGroup loops;
  std::unique_ptr<Timer> ticks;
  std::unique_ptr<LeastLoadPool> workers;
  std::unique_ptr<TokenizerClient> tokenizer;
  std::unique_ptr<Discovery> discovery;
  Services services;
  std::optional<FrontDoor> door;
  std::unique_ptr<support::MetricsServer> metrics;
  std::unique_ptr<HttpServer> http;
};

Gateway::Gateway(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}

absl::StatusOr<std::unique_ptr<Gateway>> Gateway::Start(const Config& config) {
  auto presets = LoadPresets(config.thinking_presets_file);
  if (!presets.ok()) return presets.status();
  auto parts = std::make_unique<Parts>(config, *std::move(presets));
  Parts& p = *parts;
  auto gateway = std::unique_ptr<Gateway>(new Gateway(std::move(parts)));
  if (const auto status = p.keys.Reload(); !status.ok()) return status;
  // A request waits for its template with its ticket in hand: there are never more than tickets.
  auto jinja = Jinja::Start({.max_queued = config.admission.max_in_flight});
  if (!jinja.ok()) return jinja.status();
  p.jinja = *std::move(jinja);
  p.workers = std::make_unique<LeastLoadPool>(
      WorkerPoolConfig{},
      [&p, tls = WorkerTls(config)](const std::string& address) {
        return NewGrpcWorkerClient(address, tls, p.channels);
      },
      p.upstream);
  auto tokenizer = NewGrpcTokenizerClient(
      config.tokenizer, config.upstream_tls, p.channels, p.upstream,
      [&p](std::shared_ptr<const Vocabulary> vocabulary) { p.Publish(std::move(vocabulary)); });
  if (!tokenizer.ok()) return tokenizer.status();
  p.tokenizer = *std::move(tokenizer);
  p.discovery = std::make_unique<Discovery>(
      config.workers, kDnsInterval,
      [&p](std::vector<std::string> addresses) { p.workers->SetAddresses(std::move(addresses)); });
  p.services = {.tokenizer = p.tokenizer.get(),
                .workers = p.workers.get(),
                .text = &p.text,
                .presets = &p.presets,
                .admission = &p.admission,
                .keys = &p.keys,
                .registry = &p.requests,
                .probe = &p.probe,
                .parse = {.trust_request_template = config.trust_request_chat_template},
                .limits = {.request_timeout = absl::Seconds(config.request_timeout_s)}};
  p.door.emplace(&p.services, absl::Now());
  support::RegisterBuildInfo(*p.registry, "behemoth-gateway");
  auto metrics =
      support::MetricsServer::Start(config.metrics_listen, p.registry, {config.http.cert_file});
  if (!metrics.ok()) return metrics.status();
  p.metrics = *std::move(metrics);
  auto http = HttpServer::Start(config.http, &p.loops, &*p.door);
  if (!http.ok()) return http.status();
  p.http = *std::move(http);
  p.upstream.Post([&p] {
    p.ticks = p.upstream.NewTimer();
    p.Tick();
  });
  return gateway;
}

int Gateway::port() const { return parts_->http->port(); }
int Gateway::metrics_port() const { return parts_->metrics->port(); }

bool Gateway::Drain() {
  Parts& p = *parts_;
  p.admission.Drain();
  p.http->RetireConnections();
  const absl::Time end = absl::Now() + absl::Seconds(p.config.drain_timeout_s);
  const bool finished = p.admission.WaitIdle(end - absl::Now());
  p.http->StopAccepting();
  // The last bytes are on their way when the last ticket is back. Who is not done has had its time.
  if (finished) p.http->WaitForConnections(kLastBytes);
  return finished;
}

Gateway::~Gateway() {
  Parts& p = *parts_;
  if (p.http) p.http->Stop();
  p.discovery.reset();
  p.upstream.Stop();  // no tick looks at what goes now
  p.http.reset();
  // Callbacks of gRPC and of the interpreter only post from here on, into loops that run nothing.
  p.loops.Stop();
  p.jinja.reset();
}

}  // namespace behemoth::gateway
