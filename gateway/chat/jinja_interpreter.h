// CPython with Jinja2 in it: compiles chat templates and renders them, one at a time.
//
// Life: at most one in a process, used and destroyed on the thread that started it; Interrupt()
// alone may be called from any thread. Python's types stay inside the .cc.
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstdint>
#include <memory>

#include "gateway/api/chat_request.h"
#include "gateway/chat/chat_template.h"
#include "gateway/chat/prompt_text.h"

namespace behemoth::gateway {

enum class TemplateId : uint64_t {};

class JinjaInterpreter {
 public:
  // FAILED_PRECONDITION: no usable Python or no Jinja2 on this machine.
  static absl::StatusOr<std::unique_ptr<JinjaInterpreter>> Start(const JinjaOptions& options);
  ~JinjaInterpreter();

  // `call` is the caller's number for Interrupt, different each time.
  absl::StatusOr<TemplateId> Compile(uint64_t call, const TemplateSource& source);
  void Drop(TemplateId id);

  // Errors as of ChatTemplate::Render.
  absl::StatusOr<PromptText> Render(uint64_t call, TemplateId id, const ChatPrompt& prompt);

  // Ends that Compile or Render with DEADLINE_EXCEEDED at its next Python instruction; nothing
  // happens if it is over. To be repeated until it is: the error may fall on a place that swallows
  // it. Any thread, while the interpreter lives; blocks until Python can be stopped: 5 ms, or as
  // long as one operation takes.
  void Interrupt(uint64_t call);

 private:
  class Impl;
  explicit JinjaInterpreter(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace behemoth::gateway
