# The gateway's text side: typed API, chat templates, ids -> text. Included by CMakeLists.txt.
behemoth_library(behemoth_gateway_text
  SOURCES text/token_table.cc text/detokenizer.cc text/stop_matcher.cc text/think_splitter.cc
          text/json_walk.cc text/tool_call_parser.cc
          text/text_stream.cc text/case_fold.cc text/banned_text.cc
  LIBS behemoth_support)

set(openapi_parts ${CMAKE_CURRENT_SOURCE_DIR}/api/openapi_parts.json)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${openapi_parts})
file(READ ${openapi_parts} OPENAPI_PARTS)
configure_file(api/openapi_parts_json.h.in
               ${CMAKE_BINARY_DIR}/generated/gateway/api/openapi_parts_json.h @ONLY)

behemoth_library(behemoth_gateway_api
  SOURCES api/api_error.cc api/json_writer.cc api/json_document.cc api/field_table.cc
          api/request_fields.cc api/generation_fields.cc api/sampler_fields.cc
          api/structure_fields.cc api/tool_fields.cc api/chat_request.cc api/completion_request.cc
          api/token_request.cc api/reply_parts.cc api/replies.cc api/chunk_writer.cc
          api/door_replies.cc api/openapi.cc
  LIBS absl::status absl::statusor absl::strings absl::str_format nlohmann_json::nlohmann_json)
target_include_directories(behemoth_gateway_api PRIVATE ${CMAKE_BINARY_DIR}/generated)
