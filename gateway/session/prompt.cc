#include "gateway/session/prompt.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <utility>

#include "gateway/api/api_error.h"
#include "gateway/text/think_splitter.h"

namespace behemoth::gateway {
namespace {

EncodeInput ToInput(PromptText prompt, bool add_special_tokens) {
  EncodeInput input{.add_special_tokens = add_special_tokens};
  for (auto& segment : prompt.segments) {
    if (auto* id = std::get_if<uint32_t>(&segment)) {
      input.segments.push_back({.kind = TextSegment::Kind::kControl, .control_id = *id});
    } else {
      input.segments.push_back({.text = std::get<std::string>(std::move(segment))});
    }
  }
  return input;
}

// A raw prompt's open turn: what stands behind its last control token.
std::string OpenTurn(const std::string& text, const Vocabulary& vocabulary) {
  size_t begin = std::string::npos;
  for (const auto& [token, id] : vocabulary.control_tokens) {
    if (token.empty()) continue;
    if (const size_t at = text.rfind(token); at != std::string::npos) {
      begin = begin == std::string::npos ? at + token.size() : std::max(begin, at + token.size());
    }
  }
  return begin == std::string::npos ? std::string() : text.substr(begin);
}

absl::Status NotReady() {
  return WithRetryAfter(absl::UnavailableError("The tokenizer is not ready."), 2);
}

using EncodeDone = TokenizerClient::EncodeDone;

void Encode(TokenizerClient& tokenizer, Probe& probe, std::vector<EncodeInput> inputs,
            absl::Time deadline, Loop& loop, EncodeDone done) {
  tokenizer.Encode(std::move(inputs), deadline, loop,
                   [&probe, &loop, began = loop.Now(),
                    done = std::move(done)](absl::StatusOr<IdLists> ids) mutable {
                     probe.OnEncoded(absl::ToDoubleSeconds(loop.Now() - began), ids.ok());
                     done(std::move(ids));
                   });
}

constexpr char kToolCalls[] = "[TOOL_CALLS]";

}  // namespace

std::optional<uint32_t> ToolCallsId(const Vocabulary& vocabulary) {
  const auto& tokens = vocabulary.control_tokens;
  const auto found = std::find_if(tokens.begin(), tokens.end(),
                                  [](const auto& token) { return token.first == kToolCalls; });
  return found == tokens.end() ? std::nullopt : std::optional(found->second);
}

void PrepareChat(const Services& services, const ModelText& text, ChatPrompt prompt,
                 absl::Time deadline, Loop& loop, Prepared done) {
  const auto calls_id = text.vocabulary ? ToolCallsId(*text.vocabulary) : std::nullopt;
  const bool no_calls = !prompt.tools_json.empty() && !calls_id;
  if (!text.chat_template || no_calls) {
    loop.Post([no_calls, done = std::move(done)]() mutable {
      done(no_calls ? InvalidField("tools", "This model has no token for tool calls.")
                    : InvalidField("messages", "This model has no chat template."));
    });
    return;
  }
  PreparedPrompt prepared;
  prepared.fresh_turn = prompt.add_generation_prompt && !prompt.continue_final_message;
  if (prompt.continue_final_message) prepared.prefill = prompt.messages.back().content;
  // A thought that is open comes first.
  prepared.begins_with_calls =
      prompt.begins_with_calls && !ThinkSplitter(prepared.prefill).thinking();
  const bool add_special = prompt.add_special_tokens;
  text.chat_template->Render(
      std::move(prompt), [tokenizer = services.tokenizer, probe = services.probe, &loop, deadline,
                          add_special, calls_id, prepared = std::move(prepared),
                          done = std::move(done)](absl::StatusOr<PromptText> rendered) mutable {
        loop.Post([tokenizer, probe, &loop, deadline, add_special, calls_id,
                   prepared = std::move(prepared), done = std::move(done),
                   rendered = std::move(rendered)]() mutable {
          if (!rendered.ok()) return done(rendered.status());
          if (prepared.begins_with_calls) {
            rendered->text += kToolCalls;
            rendered->segments.emplace_back(*calls_id);
          }
          prepared.text = rendered->text;
          std::vector<EncodeInput> inputs;
          inputs.push_back(ToInput(*std::move(rendered), add_special));
          Encode(*tokenizer, *probe, std::move(inputs), deadline, loop,
                 [prepared = std::move(prepared),
                  done = std::move(done)](absl::StatusOr<IdLists> ids) mutable {
                   if (!ids.ok()) return done(ids.status());
                   prepared.ids = std::move(ids->front());
                   PreparedPrompts prompts;
                   prompts.push_back(std::move(prepared));
                   done(std::move(prompts));
                 });
        });
      });
}

void PrepareRaw(const Services& services, const ModelText& text, std::vector<RawPrompt> prompts,
                bool add_special_tokens, absl::Time deadline, Loop& loop, Prepared done) {
  PreparedPrompts prepared(prompts.size());
  std::vector<EncodeInput> inputs;
  std::vector<size_t> owner;  // of inputs[i]: which prompt
  absl::Status status = text.vocabulary ? absl::OkStatus() : NotReady();
  for (size_t i = 0; i < prompts.size() && status.ok(); ++i) {
    if (auto* ids = std::get_if<std::vector<uint32_t>>(&prompts[i])) {
      const auto bad = std::find_if(ids->begin(), ids->end(), [&](uint32_t id) {
        return !text.vocabulary->table->contains(id);
      });
      if (bad != ids->end()) {
        status = InvalidField("prompt",
                              absl::StrCat("The token id ", *bad, " is not in the vocabulary of ",
                                           text.vocabulary->table->size(), " ids."));
      }
      prepared[i].ids = std::move(*ids);
      continue;
    }
    prepared[i].text = std::get<std::string>(std::move(prompts[i]));
    prepared[i].prefill = OpenTurn(prepared[i].text, *text.vocabulary);
    EncodeInput input{.add_special_tokens = add_special_tokens};
    input.segments.push_back({.kind = TextSegment::Kind::kMarkedText, .text = prepared[i].text});
    inputs.push_back(std::move(input));
    owner.push_back(i);
  }
  if (!status.ok() || inputs.empty()) {
    loop.Post([status, prepared = std::move(prepared), done = std::move(done)]() mutable {
      if (!status.ok()) return done(status);
      done(std::move(prepared));
    });
    return;
  }
  Encode(*services.tokenizer, *services.probe, std::move(inputs), deadline, loop,
         [prepared = std::move(prepared), owner = std::move(owner),
          done = std::move(done)](absl::StatusOr<IdLists> ids) mutable {
           if (!ids.ok()) return done(ids.status());
           for (size_t i = 0; i < owner.size(); ++i) prepared[owner[i]].ids = std::move((*ids)[i]);
           done(std::move(prepared));
         });
}

}  // namespace behemoth::gateway
