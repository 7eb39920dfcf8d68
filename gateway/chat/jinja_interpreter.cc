#include "gateway/chat/jinja_interpreter.h"

#include <absl/strings/str_cat.h>
#include <pybind11/embed.h>
#include <pybind11/stl.h>

#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "gateway/api/api_error.h"
#include "gateway/chat/disguise.h"
#include "gateway/chat/jinja_templates_py.h"
#include "gateway/chat/memory_cap.h"

#if defined(__SANITIZE_ADDRESS__)
// What CPython, its modules and pybind11 leave behind at an interpreter's end, once in a process.
extern "C" __attribute__((visibility("default"))) const char* __lsan_default_suppressions() {
  return "leak:libpython3\nleak:libcrypto\nleak:pybind11::detail\n";
}
#endif

namespace behemoth::gateway {
namespace {

namespace py = pybind11;
using nlohmann::json;

constexpr size_t kMaxMessageBytes = 512;  // of an error that a template raises

std::string ToUtf8(const py::handle& text) {
  const auto bytes =
      py::reinterpret_steal<py::bytes>(PyUnicode_AsEncodedString(text.ptr(), "utf-8", "replace"));
  if (!bytes) {
    PyErr_Clear();
    return "";
  }
  return bytes;
}

// Cut at a character's border.
std::string Shortened(std::string message) {
  if (message.size() <= kMaxMessageBytes) return message;
  size_t end = kMaxMessageBytes;
  while (end > 0 && (message[end] & 0xC0) == 0x80) --end;
  return message.substr(0, end) + "...";
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

// User text on its way into the template, as it is or disguised.
struct Wording {
  const Disguise* disguise = nullptr;  // null: as it is
  Disguise::Depth depth = Disguise::Depth::kSpelling;

  py::str operator()(std::string_view text) const {
    return disguise == nullptr ? ToPython(text) : ToPython(disguise->Hide(text, depth));
  }
};

// Depth is bounded by the request's parser.
py::object ToPython(const json& value, const Wording& say) {
  switch (value.type()) {
    case json::value_t::boolean:
      return py::bool_(value.get<bool>());
    case json::value_t::number_integer:
      return py::int_(value.get<int64_t>());
    case json::value_t::number_unsigned:
      return py::int_(value.get<uint64_t>());
    case json::value_t::number_float:
      return py::float_(value.get<double>());
    case json::value_t::string:
      return say(value.get_ref<const std::string&>());
    case json::value_t::array: {
      py::list list;
      for (const json& item : value) list.append(ToPython(item, say));
      return list;
    }
    case json::value_t::object: {
      py::dict object;
      for (const auto& [key, item] : value.items()) object[say(key)] = ToPython(item, say);
      return object;
    }
    default:
      return py::none();
  }
}

bool HasControlToken(const json& value, const Disguise& disguise) {
  if (value.is_string()) return disguise.HasControlToken(value.get_ref<const std::string&>());
  for (const auto& [key, item] : value.items()) {
    if (value.is_object() && disguise.HasControlToken(key)) return true;
    if (item.is_structured() || item.is_string()) {
      if (HasControlToken(item, disguise)) return true;
    }
  }
  return false;
}

bool HasControlToken(const ChatPrompt& prompt, const json& arguments, const Disguise& disguise) {
  for (const ChatMessage& message : prompt.messages) {
    if (disguise.HasControlToken(message.content)) return true;
    if (message.name && disguise.HasControlToken(*message.name)) return true;
  }
  return HasControlToken(arguments, disguise);
}

py::list Messages(const ChatPrompt& prompt, const Wording& say) {
  py::list messages;
  for (const ChatMessage& message : prompt.messages) {
    py::dict entry;
    entry["role"] = ToPython(std::string_view(message.role));
    entry["content"] = say(message.content);
    if (message.name) entry["name"] = say(*message.name);
    messages.append(std::move(entry));
  }
  return messages;
}

py::dict SpecialTokens(const TemplateSource& source) {
  py::dict tokens;
  const auto add = [&tokens](const char* name, const std::string& token) {
    if (!token.empty()) tokens[name] = ToPython(std::string_view(token));
  };
  add("bos_token", source.bos_token);
  add("eos_token", source.eos_token);
  add("unk_token", source.unk_token);
  add("pad_token", source.pad_token);
  return tokens;
}

absl::Status Refusal(std::string message) {
  return InvalidField("messages", Shortened(std::move(message)));
}

}  // namespace

class JinjaInterpreter::Impl {
 public:
  // Throws what Python throws.
  Impl(const JinjaOptions& options, PyConfig& config)
      : options_(options), python_(&config, 0, nullptr, false), module_(Load()) {
    refused_ = module_.attr("Refused");
    template_error_ = py::module_::import("jinja2.exceptions").attr("TemplateError");
    interrupted_ = module_.attr("Interrupted");
    MemoryCap::Install();
    // Free between calls, so that another thread can get hold of it to interrupt one.
    released_.emplace();
  }
  ~Impl() { released_.reset(); }

  TemplateId Add(const TemplateSource& source) {
    Compiled compiled = Make(source);
    const auto id = static_cast<TemplateId>(next_id_++);
    templates_.emplace(id, std::move(compiled));
    return id;
  }

  void Drop(TemplateId id) { templates_.erase(id); }

  absl::StatusOr<PromptText> Render(TemplateId id, const ChatPrompt& prompt) {
    const Compiled& own = templates_.at(id);
    if (!prompt.chat_template) return Render(own, prompt);
    // A trusted client's template: with the model's tokens, compiled for this request alone.
    TemplateSource source = own.source;
    source.jinja = *prompt.chat_template;
    return Render(Make(source), prompt);
  }

  // The status of the Python error in flight. Never throws.
  absl::Status Convert(py::error_already_set& error) const {
    if (error.matches(interrupted_)) {
      return absl::DeadlineExceededError("The chat template ran over its time.");
    }
    if (error.matches(PyExc_MemoryError)) {
      return Refusal("The chat template takes more memory than the limit of a prompt.");
    }
    PyObject* text = PyObject_Str(error.value().ptr());
    if (text == nullptr) PyErr_Clear();
    std::string message = text == nullptr ? "" : ToUtf8(text);
    Py_XDECREF(text);
    if (error.matches(refused_) || error.matches(template_error_)) {
      return Refusal(std::move(message));
    }
    const char* type = reinterpret_cast<PyTypeObject*>(error.type().ptr())->tp_name;
    return Refusal(absl::StrCat("The chat template failed: ", type, ": ", message));
  }

  // Under way from here to its end. Takes the GIL, which guards `call_` too.
  class Call {
   public:
    Call(Impl& impl, uint64_t number) : impl_(impl), cap_(impl.options_.render_memory_bytes) {
      impl_.call_ = number;
    }
    ~Call() {
      impl_.call_ = 0;
      PyThreadState_SetAsyncExc(impl_.thread_, nullptr);  // came too late
    }

   private:
    Impl& impl_;
    const py::gil_scoped_acquire gil_;
    const MemoryCap cap_;
  };

  void Interrupt(uint64_t call) {
    const py::gil_scoped_acquire gil;
    if (call_ == call) PyThreadState_SetAsyncExc(thread_, interrupted_.ptr());
  }

 private:
  struct Compiled {
    TemplateSource source;
    py::object object;
    Disguise disguise;
  };

  static py::module_ Load() {
    py::module_ module = py::module_::import("types").attr("ModuleType")("jinja_templates");
    const auto code = py::reinterpret_steal<py::object>(
        Py_CompileString(kJinjaTemplatesSource, "jinja_templates.py", Py_file_input));
    if (!code) throw py::error_already_set();
    const py::dict names = module.attr("__dict__");
    names["__builtins__"] = py::module_::import("builtins");
    const auto done =
        py::reinterpret_steal<py::object>(PyEval_EvalCode(code.ptr(), names.ptr(), names.ptr()));
    if (!done) throw py::error_already_set();
    return module;
  }

  Compiled Make(const TemplateSource& source) const {
    py::object object =
        module_.attr("Template")(ToPython(std::string_view(source.jinja)), SpecialTokens(source));
    std::vector<std::string> constants;
    for (const py::handle constant : object.attr("constants")) {
      constants.push_back(ToUtf8(constant));
    }
    return {.source = source,
            .object = std::move(object),
            .disguise = Disguise(source.control_tokens, constants)};
  }

  py::str Print(const Compiled& compiled, const ChatPrompt& prompt, const json& arguments,
                const Wording& say) const {
    return compiled.object.attr("render")(
        Messages(prompt, say), arguments.is_object() ? ToPython(arguments, say) : py::dict(),
        prompt.add_generation_prompt, prompt.continue_final_message, options_.max_prompt_bytes);
  }

  absl::StatusOr<PromptText> Render(const Compiled& compiled, const ChatPrompt& prompt) const {
    const json arguments = json::parse(prompt.template_kwargs_json, nullptr, false);
    compiled.object.attr("new_request")();
    const py::str truth = Print(compiled, prompt, arguments, {});
    Py_ssize_t bytes = 0;
    const char* utf8 = PyUnicode_AsUTF8AndSize(truth.ptr(), &bytes);
    if (utf8 == nullptr) throw py::error_already_set();
    PromptText text{.text = std::string(utf8, static_cast<size_t>(bytes))};
    if (text.text.size() > options_.max_prompt_bytes) {
      return Refusal("The chat template prints more than the limit of a prompt.");
    }
    auto segments = Segments(compiled, prompt, arguments, text.text);
    if (!segments) {
      return Refusal(
          "A message holds a control token of this model, and the chat template rewrites messages "
          "so that the two cannot be told apart.");
    }
    text.segments = *std::move(segments);
    return text;
  }

  std::optional<std::vector<PromptText::Segment>> Segments(const Compiled& compiled,
                                                           const ChatPrompt& prompt,
                                                           const json& arguments,
                                                           const std::string& truth) const {
    const Disguise& disguise = compiled.disguise;
    const auto plain = [&] { return disguise.Reveal(FromUtf8(truth), truth); };
    if (options_.parse_special_in_content) return plain();
    if (auto exact = Disguised(compiled, prompt, arguments, truth, Disguise::Depth::kSpelling)) {
      return exact;
    }
    // The template looks into messages. Where no message spells a whole control token, each one in
    // the prompt is the template's.
    if (!HasControlToken(prompt, arguments, disguise)) return plain();
    return Disguised(compiled, prompt, arguments, truth, Disguise::Depth::kTokens);
  }

  std::optional<std::vector<PromptText::Segment>> Disguised(const Compiled& compiled,
                                                            const ChatPrompt& prompt,
                                                            const json& arguments,
                                                            const std::string& truth,
                                                            Disguise::Depth depth) const {
    try {
      const Wording say{.disguise = &compiled.disguise, .depth = depth};
      return compiled.disguise.Reveal(FromPython(Print(compiled, prompt, arguments, say)), truth);
    } catch (const py::error_already_set& error) {
      // The template took offence at the disguise alone: it looks into messages.
      if (error.matches(interrupted_) || error.matches(PyExc_MemoryError)) throw;
      return std::nullopt;
    }
  }

  const JinjaOptions options_;
  py::scoped_interpreter python_;
  py::module_ module_;
  const unsigned long thread_ = PyThread_get_thread_ident();
  py::object refused_, template_error_, interrupted_;
  std::map<TemplateId, Compiled> templates_;
  uint64_t next_id_ = 1;
  uint64_t call_ = 0;  // under way; 0 = none
  std::optional<py::gil_scoped_release> released_;
};

JinjaInterpreter::JinjaInterpreter(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
JinjaInterpreter::~JinjaInterpreter() = default;

absl::StatusOr<std::unique_ptr<JinjaInterpreter>> JinjaInterpreter::Start(
    const JinjaOptions& options) {
  PyConfig config;
  // Isolated: neither the environment nor the working directory nor a user's own packages matter.
  PyConfig_InitIsolatedConfig(&config);
  config.write_bytecode = 0;
  // Its prefix is found from this name, or else from whatever python comes first in PATH.
  const PyStatus named =
      PyConfig_SetBytesString(&config, &config.program_name, BEHEMOTH_EMBEDDED_PYTHON);
  absl::Status status;
  std::unique_ptr<Impl> impl;
  if (PyStatus_Exception(named)) {
    status = absl::FailedPreconditionError("Python cannot be configured");
  } else {
    try {
      impl = std::make_unique<Impl>(options, config);  // pybind11 clears config
    } catch (const std::exception& error) {
      status = absl::FailedPreconditionError(
          absl::StrCat("Jinja2 cannot be started in " BEHEMOTH_EMBEDDED_PYTHON ": ", error.what()));
    }
  }
  if (!status.ok()) return status;
  return std::unique_ptr<JinjaInterpreter>(new JinjaInterpreter(std::move(impl)));
}

absl::StatusOr<TemplateId> JinjaInterpreter::Compile(uint64_t call, const TemplateSource& source) {
  const Impl::Call under_way(*impl_, call);
  try {
    return impl_->Add(source);
  } catch (py::error_already_set& error) {
    const absl::Status status = impl_->Convert(error);
    return absl::Status(status.code(), absl::StrCat("chat template: ", status.message()));
  } catch (const std::exception& error) {
    return absl::InternalError(absl::StrCat("chat template: ", error.what()));
  }
}

void JinjaInterpreter::Drop(TemplateId id) {
  const py::gil_scoped_acquire gil;
  impl_->Drop(id);
}

absl::StatusOr<PromptText> JinjaInterpreter::Render(uint64_t call, TemplateId id,
                                                    const ChatPrompt& prompt) {
  const Impl::Call under_way(*impl_, call);
  try {
    return impl_->Render(id, prompt);
  } catch (py::error_already_set& error) {
    return impl_->Convert(error);
  } catch (const std::bad_alloc&) {
    return Refusal("The chat template takes more memory than the limit of a prompt.");
  } catch (const std::exception& error) {
    return absl::InternalError(absl::StrCat("chat template: ", error.what()));
  }
}

void JinjaInterpreter::Interrupt(uint64_t call) { impl_->Interrupt(call); }

}  // namespace behemoth::gateway
