// Messages -> prompt, by Jinja2 itself in Hugging Face's environment (transformers'
// render_jinja_template), embedded as CPython. README.md tells how and why.
//
// Life: Jinja starts one CPython interpreter for the process, on a thread that it owns; make it
// once, in the composition root, and destroy it after everything that uses it. ChatTemplate is one
// compiled template on it. Both are thread-safe; callbacks run on threads of Jinja's own and must
// only post. Queue: at most `max_queued` renders wait; one more is RESOURCE_EXHAUSTED at once.
#pragma once

#include <absl/functional/any_invocable.h>
#include <absl/status/statusor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "gateway/api/chat_request.h"
#include "gateway/chat/prompt_text.h"

namespace behemoth::gateway {

struct JinjaOptions {
  int max_queued = 1024;
  int render_timeout_ms = 2000;                // from its start on the interpreter's thread
  size_t max_prompt_bytes = size_t{64} << 20;  // a template that prints more is stopped
  // What Python may take for one render: a prompt of max_prompt_bytes at 4 bytes a character, in
  // four copies (message, expression, pieces, whole).
  size_t render_memory_bytes = size_t{1} << 30;
  // Content that spells a control token becomes that token, as with Hugging Face's tokenizers.
  bool parse_special_in_content = false;
};

// What a template is compiled with. Copied from the tokenizer service's vocabulary.
struct TemplateSource {
  std::string jinja;
  std::string bos_token, eos_token, unk_token, pad_token;  // empty = not defined in the template
  std::vector<std::pair<std::string, uint32_t>> control_tokens;  // string, id
};

class ChatTemplate;

class Jinja {
 public:
  static absl::StatusOr<std::unique_ptr<Jinja>> Start(const JinjaOptions& options);
  ~Jinja();  // fails what is queued with CANCELLED, waits for the running render

  // Compiles on the interpreter's thread and waits for it: at start and when a vocabulary is
  // replaced, never on a loop. INVALID_ARGUMENT: not a template (Jinja2's message and line).
  absl::StatusOr<std::shared_ptr<ChatTemplate>> Compile(TemplateSource source);

  class Impl;

 private:
  explicit Jinja(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;
};

class ChatTemplate {
 public:
  using Done = absl::AnyInvocable<void(absl::StatusOr<PromptText>) &&>;

  virtual ~ChatTemplate() = default;

  // Never blocks, never calls `done` before it returns. Errors: INVALID_ARGUMENT with param
  // "messages" and the template's own message; RESOURCE_EXHAUSTED (queue full);
  // DEADLINE_EXCEEDED (the template ran over its time).
  virtual void Render(ChatPrompt prompt, Done done) = 0;
};

}  // namespace behemoth::gateway
