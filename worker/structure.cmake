# Structured output: what a text must look like, as masks over tokens. Alone in seeing xgrammar.
set(XGRAMMAR "${BEHEMOTH_THIRD_PARTY}/xgrammar")
execute_process(COMMAND ${CMAKE_SOURCE_DIR}/deploy/local/fetch_xgrammar.sh ${XGRAMMAR}
                RESULT_VARIABLE fetched)
if(NOT fetched EQUAL 0)
  message(FATAL_ERROR "xgrammar's source could not be fetched: the lines above say why")
endif()
file(GLOB XGRAMMAR_SOURCES ${XGRAMMAR}/cpp/*.cc ${XGRAMMAR}/cpp/support/*.cc)
add_library(xgrammar STATIC ${XGRAMMAR_SOURCES})
target_include_directories(xgrammar SYSTEM PUBLIC
  ${XGRAMMAR}/include ${XGRAMMAR}/3rdparty/dlpack/include ${XGRAMMAR}/3rdparty/picojson)
# C++17, its own: in C++20 clang refuses the variants of its incomplete types.
set_target_properties(xgrammar PROPERTIES CXX_STANDARD 17)
target_compile_options(xgrammar PRIVATE -w)

behemoth_library(behemoth_worker_structure
  SOURCES structure/compiled_form.cc structure/expansion.cc structure/form_compiler.cc
          structure/form_cursor.cc structure/form_matcher.cc structure/format_pattern.cc
          structure/number_text.cc structure/regex_text.cc structure/schema.cc
          structure/utf8_walk.cc structure/vocabulary.cc structure/work_queue.cc
  LIBS absl::flat_hash_map absl::status absl::statusor absl::strings absl::synchronization
       absl::time behemoth_support nlohmann_json::nlohmann_json Threads::Threads xgrammar)
