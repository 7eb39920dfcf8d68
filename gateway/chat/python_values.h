// Values on their way into Python and back. Interpreter's thread only, under the GIL; throws what
// Python throws. Included by chat/'s .cc files only.
#pragma once

#include <pybind11/pybind11.h>

#include <string>
#include <string_view>

#include "gateway/api/chat_request.h"
#include "gateway/api/json_document.h"
#include "gateway/chat/disguise.h"

namespace behemoth::gateway {

// "" if it is no text.
std::string ToUtf8(const pybind11::handle& text);
pybind11::str ToPython(std::u32string_view text);
pybind11::str ToPython(std::string_view utf8);
std::u32string FromPython(const pybind11::str& text);

// User text as it is or disguised.
struct Wording {
  const Disguise* disguise = nullptr;  // null: as it is
  Disguise::Depth depth = Disguise::Depth::kSpelling;

  pybind11::str operator()(std::string_view text) const {
    return disguise == nullptr ? ToPython(text) : ToPython(disguise->Hide(text, depth));
  }
};

// Depth is bounded by ReadJsonObject.
pybind11::object ToPython(const Json& value, const Wording& say);
bool HasControlToken(const Json& value, const Disguise& disguise);

// The messages of `prompt` as templates expect them (transformers' and vLLM's): role, content, and
// where they are name, tool_calls, tool_call_id. Arguments of calls as `arguments` says.
enum class Arguments {
  kValues,  // an object's text as that object
  kTexts,   // as the client wrote them
};
pybind11::list Messages(const ChatPrompt& prompt, const Wording& say, Arguments arguments);
// What a user wrote in them spells a control token.
bool HasControlToken(const ChatPrompt& prompt, const Disguise& disguise);

}  // namespace behemoth::gateway
