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

  absl::StatusOr<TemplateId> Compile(const TemplateSource& source);
  void Drop(TemplateId id);

  // Errors as of ChatTemplate::Render.
  absl::StatusOr<PromptText> Render(TemplateId id, const ChatPrompt& prompt);

  // Ends the Compile or Render under way with DEADLINE_EXCEEDED at its next Python instruction.
  // Thread-safe, never blocks; to be repeated until it has ended. Its caller makes sure that
  // something is under way.
  static void Interrupt();
  // Between two calls: an Interrupt() that came too late must not hit the next one.
  static void ClearInterrupt();

 private:
  class Impl;
  explicit JinjaInterpreter(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace behemoth::gateway
