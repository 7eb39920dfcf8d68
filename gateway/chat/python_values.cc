#include "gateway/chat/python_values.h"

#include <cstdint>

namespace behemoth::gateway {

namespace py = pybind11;

std::string ToUtf8(const py::handle& text) {
  const auto bytes =
      py::reinterpret_steal<py::bytes>(PyUnicode_AsEncodedString(text.ptr(), "utf-8", "replace"));
  if (!bytes) {
    PyErr_Clear();
    return "";
  }
  return bytes;
}

py::str ToPython(std::u32string_view text) {
  PyObject* made = PyUnicode_FromKindAndData(PyUnicode_4BYTE_KIND, text.data(),
                                             static_cast<Py_ssize_t>(text.size()));
  if (made == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::str>(made);
}

py::str ToPython(std::string_view utf8) {
  PyObject* made =
      PyUnicode_DecodeUTF8(utf8.data(), static_cast<Py_ssize_t>(utf8.size()), "strict");
  if (made == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::str>(made);
}

std::u32string FromPython(const py::str& text) {
  std::u32string out(static_cast<size_t>(PyUnicode_GET_LENGTH(text.ptr())), U'\0');
  const int kind = PyUnicode_KIND(text.ptr());
  const void* data = PyUnicode_DATA(text.ptr());
  for (size_t i = 0; i < out.size(); ++i) {
    out[i] = PyUnicode_READ(kind, data, static_cast<Py_ssize_t>(i));
  }
  return out;
}

py::object ToPython(const Json& value, const Wording& say) {
  switch (value.type()) {
    case Json::value_t::boolean:
      return py::bool_(value.get<bool>());
    case Json::value_t::number_integer:
      return py::int_(value.get<int64_t>());
    case Json::value_t::number_unsigned:
      return py::int_(value.get<uint64_t>());
    case Json::value_t::number_float:
      return py::float_(value.get<double>());
    case Json::value_t::string:
      return say(value.get_ref<const std::string&>());
    case Json::value_t::array: {
      py::list list;
      for (const Json& item : value) list.append(ToPython(item, say));
      return list;
    }
    case Json::value_t::object: {
      py::dict object;
      for (const auto& [key, item] : value.items()) object[say(key)] = ToPython(item, say);
      return object;
    }
    default:
      return py::none();
  }
}

bool HasControlToken(const Json& value, const Disguise& disguise) {
  if (value.is_string()) return disguise.HasControlToken(value.get_ref<const std::string&>());
  for (const auto& [key, item] : value.items()) {
    if (value.is_object() && disguise.HasControlToken(key)) return true;
    if (item.is_structured() || item.is_string()) {
      if (HasControlToken(item, disguise)) return true;
    }
  }
  return false;
}

bool HasControlToken(const ChatPrompt& prompt, const Disguise& disguise) {
  for (const ChatMessage& message : prompt.messages) {
    if (disguise.HasControlToken(message.content)) return true;
    if (message.name && disguise.HasControlToken(*message.name)) return true;
    for (const ToolCall& call : message.tool_calls) {
      if (disguise.HasControlToken(call.arguments)) return true;
      const auto value = ReadJsonObject(call.arguments);  // escapes may spell one
      if (value.ok() && HasControlToken(*value, disguise)) return true;
    }
  }
  return false;
}

namespace {

py::list Calls(const ChatMessage& message, const Wording& say, Arguments arguments) {
  py::list calls;
  for (const ToolCall& call : message.tool_calls) {
    py::dict function;
    function["name"] = say(call.name);
    function["arguments"] = say(call.arguments);
    if (arguments == Arguments::kValues) {
      const auto value = ReadJsonObject(call.arguments);
      if (value.ok()) function["arguments"] = ToPython(*value, say);
    }
    py::dict entry;
    entry["id"] = say(call.id);
    entry["type"] = "function";
    entry["function"] = std::move(function);
    calls.append(std::move(entry));
  }
  return calls;
}

}  // namespace

py::list Messages(const ChatPrompt& prompt, const Wording& say, Arguments arguments) {
  py::list messages;
  for (const ChatMessage& message : prompt.messages) {
    py::dict entry;
    entry["role"] = ToPython(std::string_view(message.role));
    entry["content"] = say(message.content);
    if (message.name) entry["name"] = say(*message.name);
    if (!message.tool_calls.empty()) entry["tool_calls"] = Calls(message, say, arguments);
    if (!message.tool_call_id.empty()) entry["tool_call_id"] = say(message.tool_call_id);
    messages.append(std::move(entry));
  }
  return messages;
}

}  // namespace behemoth::gateway
