add_executable(worker_model_bench ${CMAKE_CURRENT_LIST_DIR}/model_bench.cc)
target_include_directories(worker_model_bench PRIVATE ${CMAKE_SOURCE_DIR})
target_compile_options(worker_model_bench PRIVATE ${BEHEMOTH_WARNINGS})
target_compile_definitions(worker_model_bench PRIVATE BEHEMOTH_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
target_link_libraries(worker_model_bench PRIVATE behemoth_worker_model benchmark::benchmark_main)
set_target_properties(worker_model_bench PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bench)

# Makes checkpoints of the real layout for load tests; static, because it travels to GPU machines.
add_executable(make_checkpoint ${CMAKE_CURRENT_LIST_DIR}/make_checkpoint.cc
                               ${CMAKE_CURRENT_LIST_DIR}/checkpoint_writer.cc)
target_include_directories(make_checkpoint PRIVATE ${CMAKE_SOURCE_DIR})
target_compile_options(make_checkpoint PRIVATE ${BEHEMOTH_WARNINGS})
target_link_libraries(make_checkpoint PRIVATE Threads::Threads)
if(NOT BEHEMOTH_SANITIZE)
  target_link_options(make_checkpoint PRIVATE -static)
endif()

add_executable(upload_bench ${CMAKE_CURRENT_LIST_DIR}/upload_bench.cc)
target_include_directories(upload_bench PRIVATE ${CMAKE_SOURCE_DIR})
target_compile_options(upload_bench PRIVATE ${BEHEMOTH_WARNINGS})
target_link_libraries(upload_bench PRIVATE behemoth_worker_model)
