# Chat templates: the system's CPython with its Jinja2, embedded. Included by CMakeLists.txt.
# Not whatever python comes first in PATH: the one that runs where the binary runs.
set(Python_EXECUTABLE /usr/bin/python3 CACHE FILEPATH "The CPython to embed; has jinja2")
set(PYBIND11_FINDPYTHON ON)
find_package(Python 3.11 REQUIRED COMPONENTS Interpreter Development)
find_package(pybind11 2.10 REQUIRED CONFIG)
execute_process(COMMAND ${Python_EXECUTABLE} -I -c "import jinja2" RESULT_VARIABLE no_jinja2)
if(no_jinja2)
  message(FATAL_ERROR "${Python_EXECUTABLE} has no jinja2: apt-get install python3-jinja2")
endif()

foreach(module jinja_templates tool_prompt)
  set(python_source ${CMAKE_CURRENT_SOURCE_DIR}/chat/${module}.py)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${python_source})
  string(TOUPPER ${module}_SOURCE variable)
  file(READ ${python_source} ${variable})
  configure_file(chat/${module}_py.h.in
                 ${CMAKE_BINARY_DIR}/generated/gateway/chat/${module}_py.h @ONLY)
endforeach()

behemoth_library(behemoth_gateway_chat
  SOURCES chat/chat_template.cc chat/disguise.cc chat/jinja_interpreter.cc chat/memory_cap.cc
          chat/python_values.cc chat/string_matcher.cc chat/thinking_presets.cc
  LIBS behemoth_gateway_api absl::any_invocable absl::synchronization absl::time
       nlohmann_json::nlohmann_json Threads::Threads)
target_include_directories(behemoth_gateway_chat PRIVATE ${CMAKE_BINARY_DIR}/generated)
target_link_libraries(behemoth_gateway_chat PRIVATE pybind11::embed)
target_compile_definitions(behemoth_gateway_chat
                           PRIVATE BEHEMOTH_EMBEDDED_PYTHON="${Python_EXECUTABLE}")
# pybind11's own types are hidden: so must be ours that hold them.
set_target_properties(behemoth_gateway_chat PROPERTIES CXX_VISIBILITY_PRESET hidden)
