// Any bytes as stops, prefill and tokens: the stream gives valid UTF-8 at every call, and the same
// texts and tool calls token by token, all at once and byte by byte. Fields of the input end with
// 0x00.
#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "gateway/text/text_stream.h"

namespace {

using namespace behemoth::gateway;

void Require(bool held) {
  if (!held) __builtin_trap();
}

std::string_view Field(std::string_view& input) {
  const std::string_view field = input.substr(0, input.find('\0'));
  input.remove_prefix(std::min(input.size(), field.size() + 1));
  return field;
}

// What a detokenizer makes of it: whole characters only.
std::string Valid(std::string_view bytes) {
  Utf8Assembler assembler;
  std::string out;
  assembler.Push(bytes, out);
  assembler.Flush(out);
  return out;
}

struct Texts {
  std::string reasoning, content, stop, calls;
  bool stopped = false;
  bool operator==(const Texts&) const = default;
};

void Take(const TextPieces& pieces, Texts& texts) {
  Require(Valid(pieces.content) == pieces.content);
  Require(Valid(pieces.reasoning) == pieces.reasoning);
  texts.content += pieces.content;
  texts.reasoning += pieces.reasoning;
  for (const ToolCallDelta& call : pieces.calls) {
    if (!call.name.empty()) texts.calls += "\n" + std::to_string(call.index) + call.name + " ";
    texts.calls += call.arguments;
  }
}

Texts Run(const std::vector<std::string>& tokens, size_t ids_per_call, TextStreamOptions options) {
  TextStream stream(std::make_shared<TokenTable>(tokens, std::span<const uint32_t>()),
                    std::move(options));
  std::vector<uint32_t> ids(tokens.size());
  for (uint32_t id = 0; id < ids.size(); ++id) ids[id] = id;
  Texts texts;
  for (size_t at = 0; at < ids.size() && !texts.stopped; at += ids_per_call) {
    TextPieces pieces;
    const size_t count = std::min(ids_per_call, ids.size() - at);
    texts.stopped = stream.Push(std::span(ids).subspan(at, count), pieces);
    Take(pieces, texts);
  }
  TextPieces pieces;
  if (!texts.stopped) texts.stopped = stream.Finish(pieces);
  Take(pieces, texts);
  texts.stop = stream.matched_stop().value_or("");
  Require(texts.stopped == !texts.stop.empty());
  return texts;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0 || size > 4096) return 0;
  std::string_view input(reinterpret_cast<const char*>(data) + 1, size - 1);
  TextStreamOptions options;
  options.stops_in_answer_only = data[0] & 1;
  options.include_stop_in_output = data[0] & 2;
  options.separate_reasoning = data[0] & 4;
  options.prefill = Valid(Field(input));
  std::vector<std::string> stops;
  for (int i = data[0] >> 4 & 7; i > 0; --i) {
    if (std::string stop = Valid(Field(input)); !stop.empty()) stops.push_back(std::move(stop));
  }
  if (!stops.empty()) options.stops = std::make_shared<StopSet>(stops);
  std::vector<std::string> tokens, bytes;
  if (data[0] & 8) {  // the first token is the one that calls begin with
    options.tool_calls_id = 0;
    tokens.emplace_back("[TOOL_CALLS]");
  }
  while (!input.empty()) tokens.emplace_back(Field(input));
  for (const std::string& token : tokens) {
    if (bytes.empty() && options.tool_calls_id) {
      bytes.push_back(token);
      continue;
    }
    for (const char c : token) bytes.emplace_back(1, c);
  }
  const Texts one_by_one = Run(tokens, 1, options);
  Require(Run(tokens, tokens.size() + 1, options) == one_by_one);
  Require(Run(bytes, 1, options) == one_by_one);
  return 0;
}
