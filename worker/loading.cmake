# Values that stay in their files, and their way to a device.
target_sources(behemoth_worker_model PRIVATE
  checkpoint/linear_weights.cc checkpoint/stored.cc device/cuda/host_upload.cc)
target_link_libraries(behemoth_worker_model PUBLIC behemoth_support absl::synchronization)
if(BEHEMOTH_HAVE_CUDA)  # its headers, and the static runtime, come with the kernels
  target_sources(behemoth_worker_model PRIVATE device/cuda/pinned_buffers.cc)
  target_link_libraries(behemoth_worker_model PUBLIC behemoth_kernels)
endif()
