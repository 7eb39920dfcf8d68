#include "worker/structure/form_compiler.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <exception>
#include <limits>
#include <thread>
#include <utility>

namespace behemoth::worker {

int DefaultMaskThreads() {
  return std::clamp(static_cast<int>(std::thread::hardware_concurrency()) / 2, 2, 8);
}

FormCompiler::FormCompiler(const FormCompilerConfig& config, std::function<void()> wake)
    : config_(config),
      wake_(std::move(wake)),
      // At most one piece of work for each sequence that there is: the engine's queue bounds them.
      masks_(config.mask_threads, std::numeric_limits<size_t>::max()),
      compilations_(config.compile_threads, kQueue) {}

void FormCompiler::Stop() {
  stopping_ = true;
  compilations_.Stop();
  masks_.Stop();
}

std::shared_ptr<const Vocabulary> FormCompiler::vocabulary() const {
  absl::MutexLock lock(&mutex_);
  return vocabulary_;
}

absl::Status FormCompiler::SetVocabulary(std::vector<std::string> tokens,
                                         std::vector<uint32_t> control_ids,
                                         absl::AnyInvocable<void(absl::Status)> done) {
  const bool posted =
      compilations_.Post([this, tokens = std::move(tokens), control_ids = std::move(control_ids),
                          done = std::move(done)]() mutable {
        if (const auto known = vocabulary()) {
          return done(known->Equals(tokens, control_ids)
                          ? absl::OkStatus()
                          : absl::InvalidArgumentError("tokens: another vocabulary is set"));
        }
        auto made = Vocabulary::Make(std::move(tokens), control_ids, config_.vocabulary_size);
        if (made.ok()) {
          absl::MutexLock lock(&mutex_);
          if (vocabulary_ == nullptr) vocabulary_ = *std::move(made);
        }
        done(made.status());
      });
  return posted ? absl::OkStatus()
                : absl::ResourceExhaustedError("too many structures are being compiled");
}

absl::Status FormCompiler::Make(FormSpec spec, std::vector<TokenId> stop_ids, int32_t count,
                                Done done) {
  const auto words = vocabulary();
  if (words == nullptr) {
    return absl::FailedPreconditionError("vocabulary: call SetVocabulary first");
  }
  std::string key = KeyOf(spec);
  if (const auto form = Find(key)) {
    done(Begin(form, stop_ids, count));
    return absl::OkStatus();
  }
  const bool posted =
      compilations_.Post([this, words, spec = std::move(spec), key = std::move(key),
                          stop_ids = std::move(stop_ids), count, done = std::move(done)]() mutable {
        if (stopping_) return done(absl::UnavailableError("the worker is stopping"));
        auto form = Find(key);  // compiled while this one waited
        if (form == nullptr) {
          auto compiled = CompiledForm::Compile(spec, words, config_.threads_of_a_compilation);
          if (!compiled.ok()) return done(compiled.status());
          form = *std::move(compiled);
          Keep(key, form);
        }
        done(Begin(form, stop_ids, count));
      });
  return posted ? absl::OkStatus()
                : absl::ResourceExhaustedError("too many structures are being compiled");
}

absl::StatusOr<FormCompiler::Forms> FormCompiler::Begin(
    const std::shared_ptr<const CompiledForm>& form, const std::vector<TokenId>& stop_ids,
    int32_t count) {
  Forms forms;
  try {
    for (int32_t i = 0; i < count; ++i) {
      forms.push_back(std::make_shared<FormCursor>(form, stop_ids, &masks_, &wake_));
    }
  } catch (const std::exception& error) {
    return absl::InternalError("structure: the form cannot be begun");
  }
  if (forms.front()->state() != FormState::kReady) {
    return absl::InvalidArgumentError("structure: no text, or only the empty one, has this form");
  }
  return forms;
}

std::string FormCompiler::KeyOf(const FormSpec& spec) {
  return absl::StrCat(static_cast<int>(spec.kind), ":", spec.dumps_spaces, ":",
                      spec.begins_after_id.value_or(-1), ":", spec.begins_after.size(), ":",
                      spec.begins_after, spec.text);
}

std::shared_ptr<const CompiledForm> FormCompiler::Find(const std::string& key) {
  absl::MutexLock lock(&mutex_);
  const auto found = by_key_.find(key);
  if (found == by_key_.end()) return nullptr;
  kept_.splice(kept_.begin(), kept_, found->second);
  return found->second->form;
}

void FormCompiler::Keep(const std::string& key, std::shared_ptr<const CompiledForm> form) {
  const size_t bytes = form->bytes() + 2 * key.size();
  absl::MutexLock lock(&mutex_);
  if (bytes > config_.cache_bytes || by_key_.contains(key)) return;
  kept_.push_front({key, std::move(form), bytes});
  by_key_[key] = kept_.begin();
  kept_bytes_ += bytes;
  while (kept_bytes_ > config_.cache_bytes) {
    kept_bytes_ -= kept_.back().bytes;
    by_key_.erase(kept_.back().key);
    kept_.pop_back();
  }
}

FormCompiler::CacheState FormCompiler::cache() const {
  absl::MutexLock lock(&mutex_);
  return {.bytes = kept_bytes_, .forms = kept_.size()};
}

}  // namespace behemoth::worker
