#include "kernels/paged_attention/prefill_kernels.h"

namespace behemoth::kernels {

KernelError LaunchPrefillAttention(const PrefillAttentionConfig& config,
                                   const PagedAttentionArgs& args, const LaunchContext& context) {
  const KernelError error = CheckAttentionArgs(args);
  if (!error.ok()) return error;
  if (args.q_start == nullptr) return {kInvalidArgument, "prefill attention: q_start"};
  if (config.shared_bytes <= 0) return {kInvalidArgument, "prefill attention: config"};
  if (args.rows == 0 || args.tokens == 0) return {};
  return config.blocks > 0 ? LaunchPrefillWgmma(config, args, context)
                           : LaunchPrefillMma(config, args, context);
}

}  // namespace behemoth::kernels
