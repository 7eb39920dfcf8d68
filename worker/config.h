// What the process is told at start. Flags equal the fields, vLLM's names where vLLM has the thing.
#pragma once

#include <absl/status/status.h>

#include <cstdint>
#include <string>
#include <vector>

#include "proto/support/flags.h"
#include "proto/support/tls.h"

namespace behemoth::worker {

struct Config {
  std::string model;                      // folder
  std::string check_model;                // folder to look at instead of serving
  double check_memory_gib = 0;            // of the device to plan it for; 0 = no plan
  std::vector<std::string> served_names;  // empty = the folder's own name
  bool tokenizer_fingerprint = true;      // reported, so that gateways check it
  std::string listen = "127.0.0.1:50052";
  std::string health_listen;  // empty = on `listen` only
  std::string metrics_listen = "127.0.0.1:9102";

  std::string backend = "auto";  // auto, cpu, cuda
  int device = 0;                // cuda: which GPU; of several ranks, the first one's
  int cpu_threads = 0;           // 0 = one per core; ranks share them
  int tensor_parallel_size = 1;  // ranks of one process that share the model: 1, 2, 4, 8
  std::string nccl_library = "libnccl.so.2";  // of several GPUs
  std::string all_reduce = "auto";            // of several GPUs: auto, nccl
  double step_timeout_s = 0;                  // of several ranks; 0 = cuda 4, cpu 30
  std::string test_rank_fault;                // for tests: parallel/faulty_group.h
  std::string load_format = "auto";           // auto, random
  uint64_t seed = 0;                          // of random weights

  int max_model_len = 0;    // 0 = the model's, capped to what fits
  int max_num_seqs = 64;    // rows of a step
  int max_step_tokens = 0;  // 0 = the device's own (worker/device); at least max_num_seqs
  std::string kv_cache_dtype = "auto";  // auto, float32 (cpu), bf16, fp8 (cuda)
  bool enable_prefix_caching = true;
  // Twice a decode step of the 123B model on its GPU, 23.5 ms: others who are served beside a long
  // prompt read at half their speed, 20 tokens a second.
  double itl_target_ms = 46.5;
  double gpu_memory_utilization = 0.9;
  double gpu_memory_limit_gib = 0;     // 0 = none
  uint64_t kv_cache_memory_bytes = 0;  // 0 = cpu: 512 MiB or one context; else all that is left

  int queue_max_requests = 1024;
  int64_t queue_max_tokens = 1 << 20;  // 128 prompts of 8,192

  support::ServerTlsConfig tls;
  bool reflection = true;
  bool vllm_metrics = true;
  int drain_timeout_s = 120;
  int heartbeat_timeout_s = 30;  // the slowest step: 512 tokens of a big model on few cores
};

void AddFlags(Config& config, support::Flags& flags);

// Fills in what follows from other fields. INVALID_ARGUMENT naming the flag.
absl::Status Complete(Config& config);

}  // namespace behemoth::worker
