add_executable(worker_schedule_bench ${CMAKE_CURRENT_LIST_DIR}/schedule_bench.cc)
target_include_directories(worker_schedule_bench PRIVATE ${CMAKE_SOURCE_DIR})
target_compile_options(worker_schedule_bench PRIVATE ${BEHEMOTH_WARNINGS})
target_link_libraries(worker_schedule_bench PRIVATE behemoth_worker_schedule
  benchmark::benchmark_main)
set_target_properties(worker_schedule_bench PROPERTIES
  RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bench)
