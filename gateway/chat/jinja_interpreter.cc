#include "gateway/chat/jinja_interpreter.h"

#include <absl/strings/str_cat.h>
#include <pybind11/embed.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "gateway/api/api_error.h"
#include "gateway/chat/disguise.h"
#include "gateway/chat/jinja_templates_py.h"
#include "gateway/chat/memory_cap.h"
#include "gateway/chat/python_values.h"
#include "gateway/chat/tool_prompt_py.h"

#if defined(__SANITIZE_ADDRESS__)
// What CPython, its modules and pybind11 leave behind at an interpreter's end, once in a process.
extern "C" __attribute__((visibility("default"))) const char* __lsan_default_suppressions() {
  return "leak:libpython3\nleak:libcrypto\nleak:pybind11::detail\n";
}
#endif

namespace behemoth::gateway {
namespace {

namespace py = pybind11;

constexpr size_t kMaxMessageBytes = 512;  // of an error that a template raises

// Cut at a character's border.
std::string Shortened(std::string message) {
  if (message.size() <= kMaxMessageBytes) return message;
  size_t end = kMaxMessageBytes;
  while (end > 0 && (message[end] & 0xC0) == 0x80) --end;
  return message.substr(0, end) + "...";
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

// A result comes behind its call.
bool SpeaksOfTools(const ChatPrompt& prompt) {
  return !prompt.tools_json.empty() ||
         std::any_of(prompt.messages.begin(), prompt.messages.end(),
                     [](const ChatMessage& message) { return !message.tool_calls.empty(); });
}

// The control tokens of tool_prompt.py's form, by their strings; empty: this model has not all.
using ToolForm = std::map<std::string, uint32_t>;

ToolForm ToolFormOf(const TemplateSource& source) {
  ToolForm form;
  for (const std::string& token :
       {source.bos_token, source.eos_token, std::string("[SYSTEM_PROMPT]"),
        std::string("[/SYSTEM_PROMPT]"), std::string("[AVAILABLE_TOOLS]"),
        std::string("[/AVAILABLE_TOOLS]"), std::string("[INST]"), std::string("[/INST]"),
        std::string("[TOOL_CALLS]"), std::string("[TOOL_RESULTS]"), std::string("[TOOL_CONTENT]"),
        std::string("[/TOOL_RESULTS]")}) {
    const auto found =
        std::find_if(source.control_tokens.begin(), source.control_tokens.end(),
                     [&token](const auto& control) { return control.first == token; });
    if (found == source.control_tokens.end()) return {};
    form.insert(*found);
  }
  return form;
}

}  // namespace

class JinjaInterpreter::Impl {
 public:
  // Throws what Python throws.
  Impl(const JinjaOptions& options, PyConfig& config)
      : options_(options),
        python_(&config, 0, nullptr, false),
        module_(Load("jinja_templates", kJinjaTemplatesSource)),
        tool_module_(Load("tool_prompt", kToolPromptSource)) {
    refused_ = module_.attr("Refused");
    tool_refused_ = tool_module_.attr("Refused");
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
    if (error.matches(refused_) || error.matches(template_error_) || error.matches(tool_refused_)) {
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
    bool takes_tools = false;  // the template does
    ToolForm tool_form;
  };

  // What the request and its messages give to a template, parsed.
  struct Given {
    const ChatPrompt& prompt;
    Json arguments, tools;
  };

  static py::module_ Load(const char* name, const char* source) {
    py::module_ module = py::module_::import("types").attr("ModuleType")(name);
    const auto code = py::reinterpret_steal<py::object>(
        Py_CompileString(source, absl::StrCat(name, ".py").c_str(), Py_file_input));
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
    const bool takes_tools = object.attr("takes_tools").cast<bool>();
    return {.source = source,
            .object = std::move(object),
            .disguise = Disguise(source.control_tokens, constants),
            .takes_tools = takes_tools,
            .tool_form = ToolFormOf(source)};
  }

  py::str Print(const Compiled& compiled, const Given& given, const Wording& say) const {
    return compiled.object.attr("render")(
        Messages(given.prompt, say, Arguments::kValues),
        given.tools.is_array() ? ToPython(given.tools, say) : py::none(),
        given.arguments.is_object() ? ToPython(given.arguments, say) : py::dict(),
        given.prompt.add_generation_prompt, given.prompt.continue_final_message,
        options_.max_prompt_bytes);
  }

  absl::StatusOr<PromptText> Render(const Compiled& compiled, const ChatPrompt& prompt) const {
    const Given given{.prompt = prompt,
                      .arguments = Json::parse(prompt.template_kwargs_json, nullptr, false),
                      .tools = Json::parse(prompt.tools_json, nullptr, false)};
    if (SpeaksOfTools(prompt) && !compiled.takes_tools) return RenderTools(compiled, given);
    compiled.object.attr("new_request")();
    const py::str truth = Print(compiled, given, {});
    Py_ssize_t bytes = 0;
    const char* utf8 = PyUnicode_AsUTF8AndSize(truth.ptr(), &bytes);
    if (utf8 == nullptr) throw py::error_already_set();
    PromptText text{.text = std::string(utf8, static_cast<size_t>(bytes))};
    if (text.text.size() > options_.max_prompt_bytes) {
      return Refusal("The chat template prints more than the limit of a prompt.");
    }
    auto segments = Segments(compiled, given, text.text);
    if (!segments) {
      return Refusal(
          "A message holds a control token of this model, and the chat template rewrites messages "
          "so that the two cannot be told apart.");
    }
    text.segments = *std::move(segments);
    return text;
  }

  // In the model's own form, where its template knows none.
  absl::StatusOr<PromptText> RenderTools(const Compiled& compiled, const Given& given) const {
    if (compiled.tool_form.empty()) {
      return Refusal("This model's chat template takes no tools.");
    }
    const py::list pieces = tool_module_.attr("tool_prompt")(
        Messages(given.prompt, {}, Arguments::kTexts),
        given.tools.is_array() ? ToPython(given.tools, {}) : py::none(), compiled.source.bos_token,
        compiled.source.eos_token, given.prompt.continue_final_message);
    PromptText out;
    for (const py::handle piece : pieces) {
      const auto pair = piece.cast<py::tuple>();
      const std::string text = ToUtf8(pair[1]);
      out.text += text;
      if (pair[0].cast<bool>()) {
        out.segments.emplace_back(compiled.tool_form.at(text));
      } else if (!out.segments.empty() &&
                 std::holds_alternative<std::string>(out.segments.back())) {
        std::get<std::string>(out.segments.back()) += text;
      } else {
        out.segments.emplace_back(text);
      }
    }
    if (out.text.size() > options_.max_prompt_bytes) {
      return Refusal("The prompt is longer than the limit.");
    }
    if (!options_.parse_special_in_content) return out;
    auto parsed = compiled.disguise.Reveal(FromUtf8(out.text), out.text);
    if (parsed) out.segments = *std::move(parsed);
    return out;
  }

  std::optional<std::vector<PromptText::Segment>> Segments(const Compiled& compiled,
                                                           const Given& given,
                                                           const std::string& truth) const {
    const Disguise& disguise = compiled.disguise;
    const auto plain = [&] { return disguise.Reveal(FromUtf8(truth), truth); };
    if (options_.parse_special_in_content) return plain();
    if (auto exact = Disguised(compiled, given, truth, Disguise::Depth::kSpelling)) return exact;
    // The template looks into messages. Where no message spells a whole control token, each one in
    // the prompt is the template's.
    if (!HasControlToken(given.prompt, disguise) && !HasControlToken(given.arguments, disguise) &&
        !HasControlToken(given.tools, disguise)) {
      return plain();
    }
    return Disguised(compiled, given, truth, Disguise::Depth::kTokens);
  }

  std::optional<std::vector<PromptText::Segment>> Disguised(const Compiled& compiled,
                                                            const Given& given,
                                                            const std::string& truth,
                                                            Disguise::Depth depth) const {
    try {
      const Wording say{.disguise = &compiled.disguise, .depth = depth};
      return compiled.disguise.Reveal(FromPython(Print(compiled, given, say)), truth);
    } catch (const py::error_already_set& error) {
      // The template took offence at the disguise alone: it looks into messages.
      if (error.matches(interrupted_) || error.matches(PyExc_MemoryError)) throw;
      return std::nullopt;
    }
  }

  const JinjaOptions options_;
  py::scoped_interpreter python_;
  py::module_ module_, tool_module_;
  const unsigned long thread_ = PyThread_get_thread_ident();
  py::object refused_, tool_refused_, template_error_, interrupted_;
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
