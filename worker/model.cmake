# The model side of the worker: checkpoints, forward pass, backends, samplers, runner.
find_library(RE2_LIBRARY re2 REQUIRED)
behemoth_library(behemoth_worker_model
  SOURCES checkpoint/checkpoint.cc checkpoint/int4_readers.cc checkpoint/json_fields.cc
          checkpoint/linear_weights.cc checkpoint/quantization_config.cc
          checkpoint/random_weights.cc checkpoint/safetensors.cc checkpoint/safetensors_header.cc
          checkpoint/slice.cc checkpoint/stored.cc
          device/cpu/cpu_backend.cc device/cpu/cpu_linear.cc device/cpu/paged_cache.cc
          device/cpu/step_inputs.cc device/cpu/thread_team.cc device/cpu/vector_loops.cc
          device/cuda/host_upload.cc device/cuda/slot_lines.cc device/host_memory.cc device/plan_check.cc
          model/activations.cc model/model_config.cc model/sliced_source.cc model/transformer.cc
          model/weights.cc
          parallel/faulty_group.cc parallel/in_process_group.cc parallel/nccl_library.cc ranks.cc
          runner/model_folder.cc runner/model_loader.cc runner/parallel_runner.cc
          runner/transformer_runner.cc
          sampling/sampler.cc sampling/stages.cc sampling/token_history.cc
  LIBS behemoth_kernels behemoth_support absl::status absl::statusor absl::strings
       absl::synchronization absl::time
       nlohmann_json::nlohmann_json ${RE2_LIBRARY} Threads::Threads ${CMAKE_DL_LIBS})
if(BEHEMOTH_HAVE_CUDA)
  target_sources(behemoth_worker_model PRIVATE
    device/cuda/cuda_backend.cc device/cuda/cuda_device.cc device/cuda/graph_cache.cc
    device/cuda/linear_source.cc device/cuda/linear_store.cc device/cuda/memory.cc
    device/cuda/pinned_buffers.cc device/cuda/rank_operations.cc device/cuda/slot_states.cc device/cuda/step_inputs.cc
    device/cuda/step_results.cc device/cuda/stream_timer.cc device/cuda/workspace.cc
    parallel/nccl_group.cc parallel/peer_group.cc)
else()
  target_sources(behemoth_worker_model PRIVATE device/cuda/absent.cc)
endif()
# Multiply and add stay apart, and the loops are the product: -O3 whatever the build type says.
set_source_files_properties(device/cpu/vector_loops.cc PROPERTIES
  COMPILE_OPTIONS "-O3;-ffp-contract=off")
