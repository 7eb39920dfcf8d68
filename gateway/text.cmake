# The gateway's text side: typed API, chat templates, ids -> text. Included by CMakeLists.txt.
behemoth_library(behemoth_gateway_text
  SOURCES text/token_table.cc text/detokenizer.cc text/stop_matcher.cc text/think_splitter.cc
          text/text_stream.cc)

behemoth_library(behemoth_gateway_api
  SOURCES api/api_error.cc api/json_writer.cc api/json_document.cc api/field_table.cc
          api/request_fields.cc api/generation_fields.cc api/structure_fields.cc api/chat_request.cc
          api/completion_request.cc api/token_request.cc api/reply_parts.cc api/replies.cc
          api/chunk_writer.cc
  LIBS absl::status absl::statusor absl::strings absl::str_format nlohmann_json::nlohmann_json)
