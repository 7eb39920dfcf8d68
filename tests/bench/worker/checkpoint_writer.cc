// The standard library alone, so that the program links statically and runs on any machine.
#include "tests/bench/worker/checkpoint_writer.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <initializer_list>
#include <mutex>
#include <string_view>
#include <thread>
#include <vector>

namespace behemoth::bench {
namespace {

constexpr uint64_t kPieceBytes = uint64_t{4} << 20;

// How 64 random bits become 8 bytes of a tensor: masked, so that the exponents of four bf16 values
// are fixed and their signs and mantissas drawn.
struct Fill {
  uint64_t keep = ~uint64_t{0};
  uint64_t set = 0;
  bool nibbles = false;
};

uint64_t FourTimes(uint16_t bits) { return bits * uint64_t{0x0001000100010001}; }

// The exponent of the power of two nearest `value`, as the bits of a bf16.
uint16_t Exponent(double value) {
  const auto power = std::exp2f(static_cast<float>(std::lround(std::log2(value))));
  return static_cast<uint16_t>(std::bit_cast<uint32_t>(power) >> 16);
}

// +-[a, 2a): zero mean, RMS 1.53 a.
Fill Symmetric(double deviation) {
  return {.keep = FourTimes(0x807f), .set = FourTimes(Exponent(deviation / 1.53))};
}
// [a, 2a): mean 1.5 a.
Fill Positive(double mean) {
  return {.keep = FourTimes(0x007f), .set = FourTimes(Exponent(mean / 1.5))};
}
// [1, 1.125)
Fill Gain() { return {.keep = FourTimes(0x000f), .set = FourTimes(0x3f80)}; }
Fill Nibbles() { return {.nibbles = true}; }

struct Tensor {
  std::string name;
  const char* dtype = "BF16";  // I64: the shape of a linear, its two numbers in `shape_value`
  int64_t rows = 0, cols = 0;  // cols 0: [rows]
  Fill fill;
  int64_t shape_value[2] = {0, 0};
  int shard = 0;
  uint64_t offset = 0;  // in the file

  int rank() const { return dtype[1] == '6' ? 0 : dtype[0] == 'I' ? 1 : 2; }
  uint64_t bytes() const {
    const uint64_t element[] = {8, 4, 2};
    return element[rank()] * static_cast<uint64_t>(rows * std::max<int64_t>(1, cols));
  }
};

void AddLinear(std::vector<Tensor>& tensors, const std::string& module, int32_t out, int32_t in,
               int32_t group_size) {
  // A nibble minus 8, with 0 redrawn as 8, has mean 0 and deviation 4.2: the projection keeps its
  // input's size.
  const double scale = 1.0 / (4.2 * std::sqrt(in));
  tensors.push_back({module + ".weight_packed", "I32", out, in / 8, Nibbles()});
  tensors.push_back({module + ".weight_scale", "BF16", out, in / group_size, Positive(scale)});
  tensors.push_back({module + ".weight_shape", "I64", 2, 0, {}, {out, in}});
}

// In the order of the model, which is the order in which shards are filled.
std::vector<Tensor> TensorsOf(const CheckpointShape& s) {
  std::vector<Tensor> tensors;
  const double deviation = 1.0 / std::sqrt(s.hidden_size);
  tensors.push_back({"model.embed_tokens.weight", "BF16", s.vocabulary_size, s.hidden_size,
                     Symmetric(deviation)});
  for (int32_t layer = 0; layer < s.layers; ++layer) {
    const std::string at = "model.layers." + std::to_string(layer) + ".";
    const int32_t q = s.attention_heads * s.head_dim, kv = s.kv_heads * s.head_dim;
    AddLinear(tensors, at + "self_attn.q_proj", q, s.hidden_size, s.group_size);
    AddLinear(tensors, at + "self_attn.k_proj", kv, s.hidden_size, s.group_size);
    AddLinear(tensors, at + "self_attn.v_proj", kv, s.hidden_size, s.group_size);
    AddLinear(tensors, at + "self_attn.o_proj", s.hidden_size, q, s.group_size);
    AddLinear(tensors, at + "mlp.gate_proj", s.intermediate_size, s.hidden_size, s.group_size);
    AddLinear(tensors, at + "mlp.up_proj", s.intermediate_size, s.hidden_size, s.group_size);
    AddLinear(tensors, at + "mlp.down_proj", s.hidden_size, s.intermediate_size, s.group_size);
    tensors.push_back({at + "input_layernorm.weight", "BF16", s.hidden_size, 0, Gain()});
    tensors.push_back({at + "post_attention_layernorm.weight", "BF16", s.hidden_size, 0, Gain()});
  }
  tensors.push_back({"model.norm.weight", "BF16", s.hidden_size, 0, Gain()});
  tensors.push_back(
      {"lm_head.weight", "BF16", s.vocabulary_size, s.hidden_size, Symmetric(deviation)});
  return tensors;
}

// Returns the number of shards.
int AssignShards(std::vector<Tensor>& tensors, uint64_t shard_bytes) {
  int shard = 0;
  uint64_t filled = 0;
  for (Tensor& tensor : tensors) {
    if (filled > 0 && filled + tensor.bytes() > shard_bytes) {
      ++shard;
      filled = 0;
    }
    tensor.shard = shard;
    filled += tensor.bytes();
  }
  std::stable_sort(tensors.begin(), tensors.end(), [](const Tensor& a, const Tensor& b) {
    if (a.shard != b.shard) return a.shard < b.shard;
    return a.rank() != b.rank() ? a.rank() < b.rank() : a.name < b.name;
  });
  return shard + 1;
}

std::string Text(std::initializer_list<std::string_view> parts) {
  std::string text;
  for (const std::string_view part : parts) text += part;
  return text;
}

template <typename Number>
std::string Digits(Number number) {
  return std::to_string(number);
}

std::string ShardName(int shard, int shards) {
  char name[64];
  std::snprintf(name, sizeof(name), "model-%05d-of-%05d.safetensors", shard + 1, shards);
  return name;
}

// Length and JSON of one shard, and the places of its tensors in the file.
std::string HeaderOf(std::vector<Tensor>& tensors, int shard, uint64_t* file_bytes) {
  std::string json = R"({"__metadata__":{"format":"pt"})";
  uint64_t offset = 0;
  for (Tensor& tensor : tensors) {
    if (tensor.shard != shard) continue;
    tensor.offset = offset;
    offset += tensor.bytes();
    const std::string cols = tensor.cols > 0 ? Text({",", Digits(tensor.cols)}) : "";
    json += Text({",\"", tensor.name, "\":{\"dtype\":\"", tensor.dtype, "\",\"shape\":[",
                  Digits(tensor.rows), cols, "],\"data_offsets\":[", Digits(tensor.offset), ",",
                  Digits(offset), "]}"});
  }
  json += "}";
  json.resize((json.size() + 7) / 8 * 8, ' ');
  const uint64_t length = json.size();
  std::string header(sizeof(length), '\0');
  std::memcpy(header.data(), &length, sizeof(length));
  header += json;
  for (Tensor& tensor : tensors) {
    if (tensor.shard == shard) tensor.offset += header.size();
  }
  *file_bytes = header.size() + offset;
  return header;
}

std::string ConfigJson(const CheckpointShape& s) {
  const auto number = [](const char* key, int64_t value) {
    return Text({"  \"", key, "\": ", Digits(value), ",\n"});
  };
  const std::string numbers =
      number("hidden_size", s.hidden_size) + number("intermediate_size", s.intermediate_size) +
      number("num_hidden_layers", s.layers) + number("num_attention_heads", s.attention_heads) +
      number("num_key_value_heads", s.kv_heads) + number("head_dim", s.head_dim) +
      number("vocab_size", s.vocabulary_size) +
      number("max_position_embeddings", s.context_tokens) + number("bos_token_id", 1) +
      number("eos_token_id", 2);
  return Text({"{\n  \"architectures\": [\"MistralForCausalLM\"],\n",
               "  \"model_type\": \"mistral\",\n", numbers, R"(  "hidden_act": "silu",
  "rms_norm_eps": 1e-05,
  "rope_theta": 1000000.0,
  "sliding_window": null,
  "tie_word_embeddings": false,
  "attention_dropout": 0.0,
  "use_cache": true,
  "dtype": "bfloat16",
  "quantization_config": {
    "config_groups": {"group_0": {"format": "pack-quantized", "input_activations": null,
      "output_activations": null, "targets": ["Linear"], "weights": {"actorder": "static",
        "block_structure": null, "dynamic": false, "group_size": )",
               Digits(s.group_size), R"(, "num_bits": 4,
        "observer": "memoryless_minmax", "observer_kwargs": {}, "scale_dtype": null,
        "strategy": "group", "symmetric": true, "type": "int", "zp_dtype": null}}},
    "format": "pack-quantized", "global_compression_ratio": null, "ignore": ["lm_head"],
    "kv_cache_scheme": null, "quant_method": "compressed-tensors",
    "quantization_status": "compressed", "sparsity_config": {}, "transform_config": {},
    "version": "0.14.0"
  }
}
)"});
}

std::string IndexJson(const std::vector<Tensor>& tensors, int shards) {
  uint64_t total = 0;
  std::string map;
  for (const Tensor& tensor : tensors) {
    total += tensor.bytes();
    map += Text({map.empty() ? "\n    \"" : ",\n    \"", tensor.name, "\": \"",
                 ShardName(tensor.shard, shards), "\""});
  }
  return Text({"{\n  \"metadata\": {\"total_size\": ", Digits(total), "},\n  \"weight_map\": {",
               map, "\n  }\n}\n"});
}

// SplitMix64's output function of a counter: each word by itself, so that threads may share a
// tensor and the loop has no chain.
uint64_t Draw(uint64_t seed, uint64_t index) {
  uint64_t z = seed + index * 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

// Turns each nibble 0 into 8: of 1..15 with 8 twice the mean is 8.
uint64_t WithoutZeroNibbles(uint64_t word) {
  uint64_t any = word | (word >> 1);
  any |= any >> 2;
  return word | ((~any & 0x1111111111111111u) << 3);
}

uint64_t SeedOf(const std::string& name, uint64_t seed) {
  uint64_t hash = 0xcbf29ce484222325u ^ seed;
  for (const char c : name) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3u;
  return hash;
}

// The words of `tensor` from byte `begin` on; begin is a multiple of 8.
void FillWords(const Tensor& tensor, uint64_t seed, uint64_t begin, std::vector<uint64_t>& words) {
  const uint64_t tensor_seed = SeedOf(tensor.name, seed);
  const Fill& fill = tensor.fill;
  for (size_t i = 0; i < words.size(); ++i) {
    const uint64_t drawn = Draw(tensor_seed, begin / 8 + i);
    words[i] = fill.nibbles ? WithoutZeroNibbles(drawn) : (drawn & fill.keep) | fill.set;
  }
}

// The first error of any thread.
class FirstError {
 public:
  void Set(const std::string& what) {
    const std::lock_guard lock(mutex_);
    if (text_.empty()) text_ = what;
    failed_ = true;
  }
  bool failed() const { return failed_; }
  std::string text() const {
    const std::lock_guard lock(mutex_);
    return text_;
  }

 private:
  mutable std::mutex mutex_;
  std::string text_;
  std::atomic<bool> failed_ = false;
};

bool WriteAt(int descriptor, const void* data, size_t bytes, uint64_t offset) {
  const char* at = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t wrote = pwrite(descriptor, at, bytes, static_cast<off_t>(offset));
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote <= 0) return false;
    at += wrote;
    offset += static_cast<uint64_t>(wrote);
    bytes -= static_cast<size_t>(wrote);
  }
  return true;
}

class Writer {
 public:
  explicit Writer(const WriteOptions& options)
      : options_(options), tensors_(TensorsOf(options.shape)) {
    shards_ = AssignShards(tensors_, options.shard_bytes);
  }
  ~Writer() {
    for (const int file : files_) close(file);
  }

  WriteResult Run() {
    if (mkdir(options_.folder.c_str(), 0755) != 0 && errno != EEXIST) Fail(options_.folder);
    if (!error_.failed()) CheckRoom();
    if (error_.failed()) return {error_.text()};
    WriteFile("config.json", ConfigJson(options_.shape));
    for (int shard = 0; shard < shards_; ++shard) {
      uint64_t bytes = 0;
      const std::string header = HeaderOf(tensors_, shard, &bytes);
      WriteFile(ShardName(shard, shards_), header, bytes);
    }
    WriteFile("model.safetensors.index.json", IndexJson(tensors_, shards_));
    CutIntoPieces();
    std::vector<std::thread> threads;
    for (int t = 0; t < options_.threads; ++t) threads.emplace_back([this] { WritePieces(); });
    for (std::thread& thread : threads) thread.join();
    return {error_.text(), bytes_, shards_};
  }

 private:
  struct Piece {
    const Tensor* tensor;
    uint64_t begin, bytes;
  };

  void Fail(const std::string& what) { error_.Set(what + ": " + std::strerror(errno)); }

  void CheckRoom() {
    const uint64_t needed = CheckpointBytes(options_.shape);
    struct statvfs room{};
    if (statvfs(options_.folder.c_str(), &room) != 0) return Fail(options_.folder);
    const uint64_t available = uint64_t{room.f_bavail} * room.f_frsize;
    if (available < needed) {
      error_.Set(options_.folder + ": " + std::to_string(needed >> 20) + " MiB needed, " +
                 std::to_string(available >> 20) + " MiB free");
    }
  }

  // A shard's file stays open for its tensors, `bytes` long.
  void WriteFile(const std::string& name, const std::string& text, uint64_t bytes = 0) {
    if (error_.failed()) return;
    const std::string path = options_.folder + "/" + name;
    const int file = open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (file < 0) return Fail(path);
    if (!WriteAt(file, text.data(), text.size(), 0)) Fail(path);
    if (bytes == 0) {
      close(file);
      return;
    }
    files_.push_back(file);
    if (ftruncate(file, static_cast<off_t>(bytes)) != 0) Fail(path);
  }

  void CutIntoPieces() {
    for (const Tensor& tensor : tensors_) {
      for (uint64_t begin = 0; begin < tensor.bytes(); begin += kPieceBytes) {
        pieces_.push_back({&tensor, begin, std::min(kPieceBytes, tensor.bytes() - begin)});
      }
    }
  }

  void WritePieces() {
    std::vector<uint64_t> words;
    while (!error_.failed()) {
      const size_t next = next_.fetch_add(1);
      if (next >= pieces_.size()) return;
      const Piece& piece = pieces_[next];
      const Tensor& tensor = *piece.tensor;
      words.resize((piece.bytes + 7) / 8);
      if (tensor.rank() == 0) {
        std::memcpy(words.data(), tensor.shape_value, sizeof(tensor.shape_value));
      } else {
        FillWords(tensor, options_.seed, piece.begin, words);
      }
      const int file = files_[static_cast<size_t>(tensor.shard)];
      if (!WriteAt(file, words.data(), piece.bytes, tensor.offset + piece.begin)) {
        return Fail(options_.folder + "/" + ShardName(tensor.shard, shards_));
      }
      bytes_ += piece.bytes;
    }
  }

  const WriteOptions options_;
  std::vector<Tensor> tensors_;
  int shards_ = 0;
  std::vector<int> files_;  // by shard
  std::vector<Piece> pieces_;
  std::atomic<size_t> next_ = 0;
  std::atomic<uint64_t> bytes_ = 0;
  FirstError error_;
};

}  // namespace

uint64_t CheckpointBytes(const CheckpointShape& shape) {
  uint64_t bytes = 0;
  for (const Tensor& tensor : TensorsOf(shape)) bytes += tensor.bytes();
  return bytes;
}

WriteResult WriteCheckpoint(const WriteOptions& options) {
  const CheckpointShape& s = options.shape;
  const bool tiled = s.group_size > 0 && s.group_size % 8 == 0 &&
                     s.hidden_size % s.group_size == 0 && s.intermediate_size % s.group_size == 0 &&
                     (s.attention_heads * s.head_dim) % s.group_size == 0;
  if (!tiled) return {"group-size: must be a multiple of 8 that divides every linear's inputs"};
  return Writer(options).Run();
}

}  // namespace behemoth::bench
