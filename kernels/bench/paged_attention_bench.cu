// Decode and prefill attention at the 123B's shape (96 query heads, 8 KV heads, head_dim 128).
// A graph walks several layers' pools, 2 GiB and more, so that every layer's KV comes from memory.
#include <cmath>
#include <string>

#include "kernels/bench/fused_graph_timer.cuh"
#include "kernels/paged_attention/paged_attention.h"

namespace behemoth::kernels::bench {
namespace {

constexpr size_t kPoolBytes = size_t{4} << 30;
constexpr int kMaxLayers = 88;

struct Setup {
  DeviceLimits limits;
  char* pool = nullptr;
  uint32_t* sink = nullptr;
  bf16* q = nullptr;
  bf16* out = nullptr;
};

AttentionShape Shape(KvType type) { return {.q_heads = 96, .kv = {8, 128, type}}; }

// The same bytes as plain reads, layer by layer in one graph.
double ReadMicroseconds(const Setup& s, size_t layer_bytes, int layers) {
  return GraphMicroseconds([&](cudaStream_t stream) {
           for (int layer = 0; layer < layers; ++layer) {
             ReadAll<<<8 * s.limits.sm_count, 256, 0, stream>>>(
                 reinterpret_cast<const uint4*>(s.pool + layer * layer_bytes), layer_bytes / 16,
                 s.sink);
           }
         }) /
         layers;
}

PagedAttentionArgs Args(const Setup& s, KvType type, const std::vector<int32_t>& lengths) {
  PagedAttentionArgs args;
  args.shape = Shape(type);
  args.q = s.q;
  args.out = s.out;
  args.rows = static_cast<int>(lengths.size());
  args.softmax_scale = 1.0f / std::sqrt(128.0f);
  for (int32_t length : lengths) {
    args.block_table_stride = std::max(args.block_table_stride, (length + 63) / 64);
  }
  std::vector<int32_t> table(lengths.size() * static_cast<size_t>(args.block_table_stride));
  int32_t next = 0;
  for (size_t row = 0; row < lengths.size(); ++row) {
    for (int i = 0; i < (lengths[row] + 63) / 64; ++i) {
      table[row * static_cast<size_t>(args.block_table_stride) + static_cast<size_t>(i)] = next++;
    }
  }
  args.block_table = Upload(table);
  args.kv_len = Upload(lengths);
  return args;
}

void Decode(const Setup& s, KvType type, const std::vector<int32_t>& lengths, const char* name) {
  PagedAttentionArgs args = Args(s, type, lengths);
  size_t blocks = 0;
  for (int32_t length : lengths) blocks += static_cast<size_t>((length + 63) / 64);
  const size_t layer_bytes = blocks * KvBlockBytes(args.shape.kv);
  const int layers = static_cast<int>(std::min<size_t>(kMaxLayers, kPoolBytes / layer_bytes));
  const DecodeAttentionConfig config = SelectDecodeAttention(args.shape, s.limits);
  const size_t workspace_bytes = DecodeWorkspaceBytes(args.shape, config, args.rows);
  args.workspace = Allocate<char>(workspace_bytes);
  Check(cudaMemset(args.workspace, 0, workspace_bytes), "memset");
  double us[2];
  for (const bool is_settled : {false, true}) {
    args.history_is_settled = is_settled;
    us[is_settled] =
        GraphMicroseconds([&](cudaStream_t stream) {
          for (int layer = 0; layer < layers; ++layer) {
            args.kv = s.pool + layer * layer_bytes;
            Check(LaunchDecodeAttention(config, args, {stream, /*overlap_predecessor=*/layer > 0}));
          }
        }) /
        layers;
  }
  const double read_us = ReadMicroseconds(s, layer_bytes, layers);
  const double bytes = static_cast<double>(layer_bytes);
  std::printf(
      "decode %-4s %-9s %6.1f MB | %7.2f us %5.1f %% | early keys %7.2f us %5.1f %% | read %7.2f "
      "us %5.0f GB/s\n",
      type == KvType::kBf16 ? "bf16" : "e4m3", name, bytes * 1e-6, us[0], 100 * read_us / us[0],
      us[1], 100 * read_us / us[1], read_us, bytes / read_us * 1e-3);
  Check(cudaFree(args.workspace), "free");
}

void Prefill(const Setup& s, KvType type, const std::vector<int32_t>& q_lengths,
             const std::vector<int32_t>& lengths, const char* name) {
  PagedAttentionArgs args = Args(s, type, lengths);
  std::vector<int32_t> q_start = {0};
  double visible = 0;
  for (size_t row = 0; row < lengths.size(); ++row) {
    const double q = q_lengths[row], kv = lengths[row];
    q_start.push_back(q_start.back() + q_lengths[row]);
    visible += q * (kv - q) + q * (q + 1) / 2;
  }
  args.q_start = Upload(q_start);
  args.tokens = q_start.back();
  args.kv = s.pool;
  const PrefillAttentionConfig config = SelectPrefillAttention(args.shape, s.limits);
  const double us = GraphMicroseconds(
      [&](cudaStream_t stream) { Check(LaunchPrefillAttention(config, args, {stream})); }, 5);
  const double flop = 4.0 * 128 * 96 * visible;
  std::printf("prefill %-4s %-22s %9.1f us %6.1f TFLOP/s\n",
              type == KvType::kBf16 ? "bf16" : "e4m3", name, us, flop / us * 1e-6);
}

void DecodeShapes(const Setup& s, KvType type) {
  Decode(s, type, {128}, "1 x 128");
  Decode(s, type, {384}, "1 x 384");
  Decode(s, type, {512}, "1 x 512");
  Decode(s, type, {1024}, "1 x 1k");
  Decode(s, type, {2048}, "1 x 2k");
  Decode(s, type, {4096}, "1 x 4k");
  Decode(s, type, {8192}, "1 x 8k");
  Decode(s, type, {32768}, "1 x 32k");
  Decode(s, type, {131072}, "1 x 128k");
  Decode(s, type, std::vector<int32_t>(8, 1024), "8 x 1k");
  Decode(s, type, std::vector<int32_t>(16, 1024), "16 x 1k");
  Decode(s, type, std::vector<int32_t>(8, 8192), "8 x 8k");
  Decode(s, type, std::vector<int32_t>(16, 4096), "16 x 4k");
  Decode(s, type, std::vector<int32_t>(64, 1024), "64 x 1k");
  Decode(s, type, {30000, 100, 2000, 777, 5000, 12000, 64, 900}, "skewed 8");
}

void PrefillShapes(const Setup& s, KvType type) {
  Prefill(s, type, {8192}, {8192}, "8k");
  Prefill(s, type, {2048}, {2048}, "2k");
  Prefill(s, type, {1024}, {1024}, "1k");
  Prefill(s, type, {100}, {8092}, "100 behind 8k");
  Prefill(s, type, {2048}, {8192}, "2k behind 6k");
  Prefill(s, type, {2048}, {32768}, "2k behind 30k");
  Prefill(s, type, {512, 37, 128, 300}, {512, 5000, 128, 1300}, "ragged 4");
}

// Arguments: decode, prefill; none: both.
int Main(int count, char** arguments) {
  const std::string only = count > 1 ? arguments[1] : "";
  Setup s;
  Check(QueryDeviceLimits(0, &s.limits));
  s.pool = Allocate<char>(kPoolBytes);
  s.sink = Allocate<uint32_t>(1);
  const size_t q_bytes = size_t{8192} * 96 * 128 * 2;
  s.q = Allocate<bf16>(q_bytes / 2);
  s.out = Allocate<bf16>(q_bytes / 2);
  FillRandom(s.pool, kPoolBytes, 1);
  FillRandom(s.q, q_bytes, 2);
  std::printf("commit %s, %d SMs\n", BEHEMOTH_COMMIT, s.limits.sm_count);
  for (const KvType type : {KvType::kBf16, KvType::kE4m3}) {
    if (only != "prefill") DecodeShapes(s, type);
    if (only != "decode") PrefillShapes(s, type);
  }
  return 0;
}

}  // namespace
}  // namespace behemoth::kernels::bench

int main(int count, char** arguments) { return behemoth::kernels::bench::Main(count, arguments); }
