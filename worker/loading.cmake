# Values that stay in their files.
target_sources(behemoth_worker_model PRIVATE checkpoint/linear_weights.cc checkpoint/stored.cc)
target_link_libraries(behemoth_worker_model PUBLIC behemoth_support)
