#include "worker/rpc/description_messages.h"

namespace behemoth::worker {
namespace {

void Fill(const GenerationDefaults& in, v1::GenerationDefaults* out) {
  if (in.temperature) out->set_temperature(*in.temperature);
  if (in.top_p) out->set_top_p(*in.top_p);
  if (in.top_k) out->set_top_k(*in.top_k);
  if (in.min_p) out->set_min_p(*in.min_p);
  if (in.repetition_penalty) out->set_repetition_penalty(*in.repetition_penalty);
}

void Fill(const ModelDescription& in, v1::ModelDescription* out) {
  out->set_architecture(in.architecture);
  out->set_parameters(in.parameters);
  out->set_hidden_size(static_cast<uint32_t>(in.hidden_size));
  out->set_layers(static_cast<uint32_t>(in.layers));
  out->set_attention_heads(static_cast<uint32_t>(in.attention_heads));
  out->set_kv_heads(static_cast<uint32_t>(in.kv_heads));
  out->set_head_dim(static_cast<uint32_t>(in.head_dim));
  out->set_intermediate_size(static_cast<uint32_t>(in.intermediate_size));
  out->set_vocabulary_size(static_cast<uint32_t>(in.vocabulary_size));
  out->set_quantization(in.quantization);
  out->set_weights_fingerprint(in.weights_fingerprint);
  out->mutable_eos_ids()->Add(in.eos_ids.begin(), in.eos_ids.end());
  Fill(in.generation_defaults, out->mutable_generation_defaults());
}

}  // namespace

v1::GetStatusResponse ToMessage(const WorkerDescription& in) {
  v1::GetStatusResponse out;
  Fill(in.model, out.mutable_model());
  out.mutable_model()->set_tokenizer_fingerprint(in.tokenizer_fingerprint);
  for (const std::string& name : in.served_names) out.mutable_model()->add_served_names(name);
  v1::Limits& limits = *out.mutable_limits();
  limits.set_context_tokens(static_cast<uint32_t>(in.limits.context_tokens));
  limits.set_blocks(static_cast<uint32_t>(in.limits.blocks));
  limits.set_tokens_per_block(static_cast<uint32_t>(in.limits.tokens_per_block));
  limits.set_max_sequences(static_cast<uint32_t>(in.limits.max_sequences));
  limits.set_max_step_tokens(static_cast<uint32_t>(in.limits.max_step_tokens));
  limits.set_queue_requests(static_cast<uint32_t>(in.queue.queue_requests));
  limits.set_queue_tokens(static_cast<uint64_t>(in.queue.queue_tokens));
  for (const DeviceDescription& rank : in.devices) {
    v1::Device& device = *out.add_devices();
    device.set_name(rank.name);
    device.set_memory_bytes(rank.memory_bytes);
    device.set_planned_bytes(rank.planned_bytes);
  }
  out.set_build(in.build);
  return out;
}

}  // namespace behemoth::worker
