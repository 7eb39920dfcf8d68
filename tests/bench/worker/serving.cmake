add_executable(serving_bench ${CMAKE_CURRENT_LIST_DIR}/serving_bench.cc
                             ${CMAKE_CURRENT_LIST_DIR}/form_inputs.cc
                             ${CMAKE_SOURCE_DIR}/worker/memory_budget.cc)
target_include_directories(serving_bench PRIVATE ${CMAKE_SOURCE_DIR})
target_compile_options(serving_bench PRIVATE ${BEHEMOTH_WARNINGS})
target_link_libraries(serving_bench PRIVATE
  behemoth_worker_engine behemoth_worker_model behemoth_worker_structure absl::str_format)
set_target_properties(serving_bench PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bench)
