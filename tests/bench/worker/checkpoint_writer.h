// Writes a checkpoint of the real layout with made-up weights, as fast as the file system takes it:
// for load tests of the 123B model without the 123B model.
//
// The folder is what llm-compressor leaves (spec: compressed-tensors pack-quantized, int4 groups,
// symmetric): config.json, an index, and shards whose tensors are ordered as the safetensors
// library orders them (I64, then I32, then BF16, by name within each). No tokenizer: the worker
// reads none.
//
// Values depend on seed, tensor name and place alone, whatever the threads: finite, of zero mean,
// and of a size that keeps activations in range through any number of layers.
#pragma once

#include <cstdint>
#include <string>

namespace behemoth::bench {

// Defaults: Mistral-Large-Instruct-2411 and its descendants, 64.4 GB.
struct CheckpointShape {
  int32_t layers = 88;
  int32_t hidden_size = 12288;
  int32_t intermediate_size = 28672;
  int32_t attention_heads = 96;
  int32_t kv_heads = 8;
  int32_t head_dim = 128;
  int32_t vocabulary_size = 32768;
  int32_t context_tokens = 131072;
  int32_t group_size = 128;
};

struct WriteOptions {
  std::string folder;  // made if it is not there
  CheckpointShape shape;
  uint64_t seed = 0;
  uint64_t shard_bytes = 5'000'000'000;  // as transformers cuts; a tensor is never cut
  int threads = 8;
};

// Bytes of all tensors.
uint64_t CheckpointBytes(const CheckpointShape& shape);

struct WriteResult {
  std::string error;  // empty = done
  uint64_t bytes = 0;
  int shards = 0;
};

WriteResult WriteCheckpoint(const WriteOptions& options);

}  // namespace behemoth::bench
