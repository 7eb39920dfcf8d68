// make_checkpoint --out FOLDER [--layers 88] ...: see checkpoint_writer.h. Every flag is a number
// but --out.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <string>
#include <thread>

#include "tests/bench/worker/checkpoint_writer.h"

namespace {

using behemoth::bench::WriteOptions;

int Usage(const std::string& problem) {
  std::fprintf(stderr,
               "%s\nmake_checkpoint --out FOLDER [--layers 88] [--hidden-size 12288]\n"
               "  [--intermediate-size 28672] [--attention-heads 96] [--kv-heads 8]\n"
               "  [--head-dim 128] [--vocabulary-size 32768] [--group-size 128]\n"
               "  [--shard-bytes 5000000000] [--seed 0] [--threads (one per core)]\n",
               problem.c_str());
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  WriteOptions options;
  options.threads = static_cast<int>(std::thread::hardware_concurrency());
  auto& shape = options.shape;
  const std::map<std::string, std::function<void(long long)>> flags = {
      {"--layers", [&](long long n) { shape.layers = static_cast<int32_t>(n); }},
      {"--hidden-size", [&](long long n) { shape.hidden_size = static_cast<int32_t>(n); }},
      {"--intermediate-size",
       [&](long long n) { shape.intermediate_size = static_cast<int32_t>(n); }},
      {"--attention-heads", [&](long long n) { shape.attention_heads = static_cast<int32_t>(n); }},
      {"--kv-heads", [&](long long n) { shape.kv_heads = static_cast<int32_t>(n); }},
      {"--head-dim", [&](long long n) { shape.head_dim = static_cast<int32_t>(n); }},
      {"--vocabulary-size", [&](long long n) { shape.vocabulary_size = static_cast<int32_t>(n); }},
      {"--group-size", [&](long long n) { shape.group_size = static_cast<int32_t>(n); }},
      {"--shard-bytes", [&](long long n) { options.shard_bytes = static_cast<uint64_t>(n); }},
      {"--seed", [&](long long n) { options.seed = static_cast<uint64_t>(n); }},
      {"--threads", [&](long long n) { options.threads = static_cast<int>(n); }}};
  for (int i = 1; i + 1 < argc || i < argc; i += 2) {
    const std::string name = argv[i];
    if (i + 1 == argc) return Usage(name + ": needs a value");
    if (name == "--out") {
      options.folder = argv[i + 1];
      continue;
    }
    const auto flag = flags.find(name);
    if (flag == flags.end()) return Usage(name + ": no such flag");
    char* end = nullptr;
    const long long value = std::strtoll(argv[i + 1], &end, 10);
    const long long least = name == "--seed" ? 0 : 1;
    if (*end != '\0' || value < least) return Usage(name + ": must be a number from 1");
    flag->second(value);
  }
  if (options.folder.empty()) return Usage("--out: is missing");

  const auto began = std::chrono::steady_clock::now();
  const auto result = behemoth::bench::WriteCheckpoint(options);
  if (!result.error.empty()) {
    std::fprintf(stderr, "%s\n", result.error.c_str());
    return 1;
  }
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  std::printf("wrote %s: %.3f GB in %d shards, %.2f s, %.2f GB/s, %d threads\n",
              options.folder.c_str(), static_cast<double>(result.bytes) * 1e-9, result.shards,
              seconds, static_cast<double>(result.bytes) * 1e-9 / seconds, options.threads);
  return 0;
}
