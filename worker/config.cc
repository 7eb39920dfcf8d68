#include "worker/config.h"

#include <absl/strings/str_cat.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <thread>

namespace behemoth::worker {
namespace {

void AddModelFlags(Config& config, CLI::App& app) {
  app.add_option("--model", config.model, "Folder with config.json and *.safetensors");
  app.add_option("--check-model", config.check_model,
                 "Folder to read headers and configuration of; says what it is, or what is wrong");
  app.add_option("--check-memory-gib", config.check_memory_gib,
                 "Memory of one device that --check-model plans for; 0 = no plan")
      ->check(CLI::Range(0.0, 4096.0))
      ->capture_default_str();
  app.add_option("--served-model-name", config.served_names,
                 "Names that requests may use, comma-separated; the first is in replies")
      ->delimiter(',');
  app.add_flag("--tokenizer-fingerprint,!--no-tokenizer-fingerprint", config.tokenizer_fingerprint,
               "Gateways refuse this worker if their tokenizer service read another file");
  app.add_option("--backend", config.backend, "auto = cuda if there is one, else cpu")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->capture_default_str();
  app.add_option("--device", config.device, "cuda backend: which GPU, counted as CUDA counts them")
      ->check(CLI::Range(0, 63))
      ->capture_default_str();
  app.add_option("--cpu-threads", config.cpu_threads, "cpu backend; 0 = one per core")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  app.add_option("--tensor-parallel-size", config.tensor_parallel_size,
                 "GPUs (cpu: threads) that share the model: 1, 2, 4, 8")
      ->check(CLI::IsMember({1, 2, 4, 8}))
      ->capture_default_str();
  app.add_option(
         "--nccl-library", config.nccl_library,
         "GPUs that do not reach each other: NVIDIA's NCCL, a name for the loader or a path")
      ->capture_default_str();
  app.add_option("--all-reduce", config.all_reduce,
                 "Several GPUs: nccl; auto = own sums out of peer memory where all GPUs reach it")
      ->check(CLI::IsMember({"auto", "nccl"}))
      ->capture_default_str();
  app.add_option("--step-timeout-s", config.step_timeout_s,
                 "Several ranks: a step that one has not done by then ends the process; 0 = 4 "
                 "(cuda), 30 (cpu)")
      ->check(CLI::Range(0.0, 3600.0))
      ->capture_default_str();
  app.add_option("--test-rank-fault", config.test_rank_fault)->group("");  // not in --help
  app.add_option("--load-format", config.load_format, "random = seeded weights without files")
      ->check(CLI::IsMember({"auto", "random"}))
      ->capture_default_str();
  app.add_option("--seed", config.seed, "Of random weights")->capture_default_str();
}

void AddCapacityFlags(Config& config, CLI::App& app) {
  app.add_option("--max-model-len", config.max_model_len,
                 "Tokens of prompt and output; 0 = the model's, capped to what fits")
      ->check(CLI::Range(0, 1 << 24))
      ->capture_default_str();
  app.add_option("--max-num-seqs", config.max_num_seqs, "Sequences in one step")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  app.add_option("--max-step-tokens,--max-num-batched-tokens", config.max_step_tokens,
                 "Tokens in one step; 0 = the device's: cpu 512, H100 2048, other GPUs 1024")
      ->check(CLI::Range(0, 65536))
      ->capture_default_str();
  app.add_option("--kv-cache-dtype", config.kv_cache_dtype, "auto = float32 (cpu) or bf16 (cuda)")
      ->check(CLI::IsMember({"auto", "float32", "bf16", "bfloat16", "fp8", "fp8_e4m3"}))
      ->capture_default_str();
  app.add_flag("--enable-prefix-caching,!--no-enable-prefix-caching", config.enable_prefix_caching,
               "Reuse the blocks of known prompt prefixes");
  app.add_option("--itl-target-ms", config.itl_target_ms,
                 "Prefill chunks shrink so that running users wait no longer; 0 = off")
      ->check(CLI::Range(0.0, 60'000.0))
      ->capture_default_str();
  app.add_option("--gpu-memory-utilization", config.gpu_memory_utilization,
                 "Share of the device's memory (cpu: of the host's) for this process")
      ->check(CLI::Range(0.01, 1.0))
      ->capture_default_str();
  app.add_option("--gpu-memory-limit-gib", config.gpu_memory_limit_gib, "0 = no limit")
      ->check(CLI::Range(0.0, 4096.0))
      ->capture_default_str();
  app.add_option("--kv-cache-memory-bytes", config.kv_cache_memory_bytes,
                 "0 = all that is left; cpu: 512 MiB or one context")
      ->capture_default_str();
  app.add_option("--queue-max-requests", config.queue_max_requests, "Waiting; more are refused")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  app.add_option("--queue-max-tokens", config.queue_max_tokens, "Their prompts' tokens")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 40))
      ->capture_default_str();
}

void AddServerFlags(Config& config, CLI::App& app) {
  app.add_option("--listen", config.listen, "HOST:PORT of gRPC; port 0 = any")
      ->capture_default_str();
  app.add_option("--health-listen", config.health_listen,
                 "HOST:PORT of gRPC health alone, without TLS; empty = none");
  app.add_option("--metrics-listen", config.metrics_listen, "HOST:PORT of /metrics; port 0 = any")
      ->capture_default_str();
  app.add_option("--tls-cert-file", config.tls.cert_file, "PEM chain; turns TLS on");
  app.add_option("--tls-key-file", config.tls.key_file, "PEM key of the certificate");
  app.add_option("--tls-client-ca-file", config.tls.client_ca_file,
                 "Clients must show a certificate signed by it");
  app.add_option("--reflection", config.reflection, "Serve gRPC reflection")->capture_default_str();
  app.add_option("--vllm-metrics", config.vllm_metrics, "Also serve vLLM's metric names")
      ->capture_default_str();
  app.add_option("--drain-timeout-s", config.drain_timeout_s, "Time for streams at SIGTERM")
      ->check(CLI::Range(0, 86'400))
      ->capture_default_str();
  app.add_option("--heartbeat-timeout-s", config.heartbeat_timeout_s,
                 "Health is NOT_SERVING when the engine has not beaten for so long")
      ->check(CLI::Range(1, 3600))
      ->capture_default_str();
}

}  // namespace

void AddFlags(Config& config, support::Flags& flags) {
  AddModelFlags(config, flags.app());
  AddCapacityFlags(config, flags.app());
  AddServerFlags(config, flags.app());
}

absl::Status Complete(Config& config) {
  if (config.model.empty() && config.check_model.empty()) {
    return absl::InvalidArgumentError("--model is required");
  }
  if (config.cpu_threads == 0) {
    config.cpu_threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  }
  if (config.max_step_tokens != 0 && config.max_step_tokens < config.max_num_seqs) {
    return absl::InvalidArgumentError(absl::StrCat("--max-step-tokens: ", config.max_step_tokens,
                                                   " is below --max-num-seqs ",
                                                   config.max_num_seqs));
  }
  if (config.served_names.empty()) {
    std::error_code unreadable;
    const auto folder = std::filesystem::weakly_canonical(config.model, unreadable);
    config.served_names.push_back(folder.filename().empty() ? "model" : folder.filename().string());
  }
  for (const std::string& name : config.served_names) {
    if (name.empty() || name.size() > 256) {
      return absl::InvalidArgumentError("--served-model-name: each name has 1 to 256 bytes");
    }
  }
  return absl::OkStatus();
}

}  // namespace behemoth::worker
