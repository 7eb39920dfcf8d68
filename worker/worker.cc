#include "worker/worker.h"

#include <absl/strings/str_cat.h>
#include <absl/time/clock.h>

#include <algorithm>
#include <random>
#include <utility>
#include <vector>

#include "proto/support/log.h"
#include "proto/support/process.h"
#include "proto/support/version.h"
#include "worker/engine/warm_up.h"
#include "worker/rpc/description_messages.h"
#include "worker/tokenizer_file.h"

namespace behemoth::worker {
namespace {

constexpr char kProcess[] = "behemoth-worker";
// For the last bytes of streams that have ended.
constexpr absl::Duration kCloseTime = absl::Seconds(2);
constexpr absl::Duration kProgressLogInterval = absl::Seconds(2);

std::string Bound(const std::string& listen, int port) {
  return absl::StrCat(listen.substr(0, listen.rfind(':')), ":", port);
}

std::optional<KvType> KvTypeOf(const std::string& dtype) {
  if (dtype == "float32") return KvType::kFloat32;
  if (dtype == "bf16" || dtype == "bfloat16") return KvType::kBfloat16;
  if (dtype == "fp8" || dtype == "fp8_e4m3") return KvType::kFp8;
  return std::nullopt;  // auto
}

// A GPU's longest step, 2,048 tokens of the 123B model, takes under a second; a cpu's what the
// engine's heartbeat allows.
absl::Duration StepBound(const Config& config, const Ranks& ranks) {
  if (config.step_timeout_s > 0) return absl::Seconds(config.step_timeout_s);
  return ranks.on_cpu ? absl::Seconds(30) : absl::Seconds(4);
}

LoadOptions OptionsOf(const Config& config, const Ranks& ranks) {
  return {.folder = config.model,
          .load_format = config.load_format == "random" ? LoadFormat::kRandom : LoadFormat::kAuto,
          .random_seed = config.seed,
          .kv_type = KvTypeOf(config.kv_cache_dtype),
          .max_model_len = config.max_model_len,
          .max_sequences = config.max_num_seqs,
          .max_step_tokens = config.max_step_tokens,
          .threads = std::max(1, config.cpu_threads / config.tensor_parallel_size),
          .step_bound = StepBound(config, ranks)};
}

absl::StatusOr<MemoryPlan> Plan(const Config& config, const Ranks& ranks, const OpenedModel& model,
                                int32_t* fitting) {
  const ModelNeeds& needs = model.needs();
  std::vector<MemoryLimits> limits;
  for (const std::unique_ptr<Device>& device : ranks.devices) {
    const DeviceMemory memory = device->memory();
    limits.push_back({.total_bytes = memory.total_bytes,
                      .available_bytes = memory.available_bytes,
                      .utilization = config.gpu_memory_utilization,
                      .limit_bytes = static_cast<uint64_t>(config.gpu_memory_limit_gib * (1 << 30)),
                      .kv_bytes = config.kv_cache_memory_bytes});
    if (limits.back().kv_bytes == 0 && device->default_kv_bytes() != 0) {
      limits.back().kv_bytes =
          std::max(device->default_kv_bytes(),
                   needs.block_bytes * static_cast<uint32_t>(needs.blocks_for_one_context));
    }
  }
  return PlanMemory(needs, model.description().context_tokens, config.max_num_seqs, limits,
                    fitting);
}

uint64_t DrawSecret() {
  std::random_device device;
  return uint64_t{device()} << 32 | device();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Worker>> Worker::Start(const Config& wanted) {
  Config config = wanted;
  absl::StatusOr<Ranks> ranks = OpenRanks({.backend = config.backend,
                                           .device = config.device,
                                           .size = config.tensor_parallel_size,
                                           .nccl_library = config.nccl_library,
                                           .all_reduce = config.all_reduce,
                                           .test_fault = config.test_rank_fault});
  if (!ranks.ok()) return ranks.status();
  if (!ranks->why_not_cuda.empty()) support::Log().info("backend=cpu: {}", ranks->why_not_cuda);
  const std::vector<RankPlace> places = ranks->places();
  auto model = OpenModel(OptionsOf(config, *ranks), places);
  if (!model.ok()) return model.status();
  int32_t fitting_tokens = 0;
  absl::StatusOr<MemoryPlan> plan = Plan(config, *ranks, **model, &fitting_tokens);
  if (!plan.ok() && config.max_model_len == 0 && fitting_tokens > 1) {
    support::Log().warn("context capped to what fits max_model_len={} model={}", fitting_tokens,
                        (*model)->description().context_tokens);
    config.max_model_len = fitting_tokens;
    model = OpenModel(OptionsOf(config, *ranks), places);
    if (!model.ok()) return model.status();
    plan = Plan(config, *ranks, **model, nullptr);
  }
  if (!plan.ok()) return plan.status();
  support::Log().info("device={} ranks={} memory plan{}: {}", ranks->devices.front()->name(),
                      places.size(), places.size() > 1 ? " of each rank" : "", plan->Describe());
  absl::StatusOr<std::string> tokenizer =
      config.tokenizer_fingerprint ? TokenizerFingerprint(config.model) : std::string();
  if (!tokenizer.ok()) return tokenizer.status();
  auto worker = std::unique_ptr<Worker>(new Worker(config, *std::move(ranks), *std::move(model),
                                                   *std::move(plan), *std::move(tokenizer)));
  if (const absl::Status serving = worker->Serve(); !serving.ok()) return serving;
  return worker;
}

Worker::Worker(const Config& config, Ranks ranks, std::unique_ptr<OpenedModel> model,
               const MemoryPlan& plan, std::string tokenizer_fingerprint)
    : config_(config),
      ranks_(std::move(ranks)),
      plan_(plan),
      queue_{.queue_requests = config.queue_max_requests, .queue_tokens = config.queue_max_tokens},
      model_(std::move(model)),
      registry_(std::make_shared<prometheus::Registry>()) {
  const ModelDescription& description = model_->description();
  support::RegisterBuildInfo(*registry_, kProcess);
  probe_ = std::make_unique<Probe>(*registry_,
                                   ProbeConfig{.model_name = config_.served_names.front(),
                                               .blocks = plan_.blocks,
                                               .tokens_per_block = plan_.needs.tokens_per_block,
                                               .weight_bytes = plan_.needs.weight_bytes,
                                               .activation_bytes = plan_.needs.activation_bytes,
                                               .workspace_bytes = plan_.needs.workspace_bytes,
                                               .block_bytes = plan_.needs.block_bytes,
                                               .ranks = config_.tensor_parallel_size,
                                               .vllm_names = config_.vllm_metrics});
  std::vector<DeviceDescription> devices;
  for (const std::unique_ptr<Device>& device : ranks_.devices) {
    devices.push_back({.name = device->name(),
                       .memory_bytes = device->memory().total_bytes,
                       .planned_bytes = plan_.planned_bytes()});
  }
  board_ = std::make_unique<StatusBoard>(ToMessage(
      WorkerDescription{.served_names = config_.served_names,
                        .model = description,
                        .tokenizer_fingerprint = std::move(tokenizer_fingerprint),
                        .limits = {.vocabulary_size = description.vocabulary_size,
                                   .context_tokens = description.context_tokens,
                                   .blocks = plan_.blocks,
                                   .tokens_per_block = plan_.needs.tokens_per_block,
                                   .max_sequences = config_.max_num_seqs,
                                   .max_step_tokens = model_->limits().max_step_tokens},
                        .queue = queue_,
                        .devices = std::move(devices),
                        .build = absl::StrCat(support::Version(), " ", support::Commit())}));
}

absl::Status Worker::Serve() {
  feed_ = std::make_unique<LoadFeed>([this] { return Snapshot(); });
  const auto last_beat = [this] { return running_engine_.load()->last_beat(); };
  watchdog_ = std::make_unique<EngineWatchdog>(absl::Seconds(config_.heartbeat_timeout_s),
                                               last_beat, board_.get(), &health_);
  board_->SetListener([this] {
    watchdog_->Refresh();
    feed_->Announce();
    probe_->OnState(board_->reported());
    support::Log().info("state={}", Name(board_->reported()));
  });
  const ModelDescription& description = model_->description();
  const RequestLimits limits{.vocabulary_size = description.vocabulary_size,
                             .context_tokens = description.context_tokens,
                             .max_sequences = config_.max_num_seqs,
                             .eos_ids = description.eos_ids};
  service_ =
      std::make_unique<WorkerService>(limits, board_.get(), feed_.get(), &writer_, probe_.get());
  health_.Set("", true);
  auto metrics =
      support::MetricsServer::Start(config_.metrics_listen, registry_, {config_.tls.cert_file});
  if (!metrics.ok()) return metrics.status();
  metrics_ = *std::move(metrics);
  auto server = support::GrpcServer::Start({.listen = config_.listen,
                                            .tls = config_.tls,
                                            .max_receive_bytes = MaxRequestBytes(limits),
                                            .reflection = config_.reflection},
                                           {service_.get()}, &health_);
  if (!server.ok()) return server.status();
  server_ = *std::move(server);
  if (!config_.health_listen.empty()) {
    auto port = support::GrpcServer::StartHealthPort(config_.health_listen, &health_);
    if (!port.ok()) return port.status();
    health_port_ = *std::move(port);
  }
  support::Log().info("loading listen={} metrics={}", Bound(config_.listen, server_->port()),
                      Bound(config_.metrics_listen, metrics_->port()));
  loader_ = std::thread([this] { LoadInBackground(); });
  return absl::OkStatus();
}

void Worker::LoadInBackground() {
  const absl::Time began = absl::Now();
  const absl::Status loaded = Load();
  loading_ = false;
  if (!loaded.ok()) {
    support::Fail(kProcess, loaded);
    board_->Enter(WorkerState::kFailed);
    return support::RequestShutdown();
  }
  if (!board_->Enter(WorkerState::kReady)) return;  // a signal came first
  support::Log().info(
      "ready listen={} metrics={} load_s={:.2f}", Bound(config_.listen, server_->port()),
      Bound(config_.metrics_listen, metrics_->port()), absl::ToDoubleSeconds(absl::Now() - began));
}

absl::Status Worker::Load() {
  absl::Time logged = absl::Now();
  const auto progress = [&](const LoadProgress& load) {
    const absl::Time now = absl::Now();
    board_->SetLoadProgress(load.done_bytes, load.total_bytes, now);
    const double rate = board_->load_bytes_per_second();
    probe_->OnLoadProgress(load.done_bytes, load.total_bytes, rate);
    if (now - logged < kProgressLogInterval) return;
    logged = now;
    support::Log().info("loading percent={:.1f} bytes={} gb_per_s={:.2f}", board_->load_percent(),
                        load.done_bytes, rate * 1e-9);
  };
  progress({.done_bytes = 0, .total_bytes = plan_.needs.weight_bytes});
  const absl::Time began = absl::Now();
  auto runner = model_->Load(plan_.blocks, progress);
  if (!runner.ok()) return runner.status();
  const LoadTimes times = model_->load_times();
  support::Log().info(
      "loaded bytes={} s={:.2f} gb_per_s={:.2f} reading_s={:.2f} copying_s={:.2f} idle_s={:.2f} "
      "packing_s={:.2f}",
      plan_.needs.weight_bytes, absl::ToDoubleSeconds(absl::Now() - began),
      board_->load_bytes_per_second() * 1e-9, absl::ToDoubleSeconds(times.reading),
      absl::ToDoubleSeconds(times.copying), absl::ToDoubleSeconds(times.idle),
      absl::ToDoubleSeconds(times.packing));
  runner_ = *std::move(runner);
  board_->Enter(WorkerState::kWarming);
  if (absl::Status warm = WarmUp(*runner_); !warm.ok()) return warm;

  EngineHooks hooks;
  hooks.on_publish = [this](const LoadSnapshot& load) {
    probe_->OnLoad(load);
    writer_.Flush();
  };
  hooks.on_failure = [this](const absl::Status& why) {
    support::Fail(kProcess, why);
    board_->Enter(WorkerState::kFailed);
    support::RequestShutdown();
  };
  forms_ = std::make_unique<FormCompiler>(
      FormCompilerConfig{.vocabulary_size = runner_->limits().vocabulary_size}, [this] {
        if (Engine* const engine = running_engine_.load()) engine->Wake();
      });
  engine_ = std::make_unique<Engine>(ScheduleFor(runner_->limits()), queue_, runner_.get(),
                                     probe_.get(), std::move(hooks));
  engine_->Start();
  running_engine_ = engine_.get();
  service_->Attach(engine_.get(), forms_.get());
  return absl::OkStatus();
}

SchedulerConfig Worker::ScheduleFor(const RunnerLimits& limits) const {
  SchedulerConfig config = ConfigFor(limits);
  config.prefix_caching = config_.enable_prefix_caching;
  config.itl_target = absl::Milliseconds(config_.itl_target_ms);
  config.cache_secret = DrawSecret();
  return config;
}

v1::WatchLoadResponse Worker::Snapshot() const {
  Engine* const engine = running_engine_.load();
  return ToMessage(board_->reported(), engine == nullptr ? LoadSnapshot{} : engine->load());
}

bool Worker::Shutdown() {
  board_->Enter(WorkerState::kDraining);  // not if it has failed
  if (loading_) {
    server_->Drain(absl::ZeroDuration());
    return false;
  }
  loader_.join();
  if (engine_ != nullptr) {
    const bool finished =
        failed() || engine_->Drain(absl::Now() + absl::Seconds(config_.drain_timeout_s));
    support::Log().info("drained finished={}", finished);
    if (!board_->responsive()) return false;
    forms_->Stop();
    engine_->Stop();
  }
  feed_->End();
  server_->Drain(kCloseTime);
  return runner_ == nullptr || !runner_->stuck();
}

Worker::~Worker() {
  if (loader_.joinable()) loader_.join();
}

}  // namespace behemoth::worker
