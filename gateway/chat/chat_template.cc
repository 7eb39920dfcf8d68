#include "gateway/chat/chat_template.h"

#include <absl/base/thread_annotations.h>
#include <absl/synchronization/mutex.h>
#include <absl/synchronization/notification.h>
#include <absl/time/clock.h>
#include <absl/time/time.h>

#include <deque>
#include <optional>
#include <thread>
#include <utility>

#include "gateway/chat/jinja_interpreter.h"

namespace behemoth::gateway {
namespace {

// At start and when a vocabulary is replaced; the longest real template takes 0.1 s.
constexpr absl::Duration kCompileTimeout = absl::Seconds(30);
// An interrupt may fall on a place that swallows it (a destructor's): it is repeated.
constexpr absl::Duration kInterruptInterval = absl::Milliseconds(20);

}  // namespace

// Two threads: one runs Python, the other ends what runs too long and answers what is refused at
// once (the first may be busy for a whole render).
class Jinja::Impl {
 public:
  // With the call's number. Null: stopped before its turn came.
  using Run = absl::AnyInvocable<void(JinjaInterpreter*, uint64_t) &&>;
  using Refuse = absl::AnyInvocable<void() &&>;

  explicit Impl(const JinjaOptions& options) : options_(options) {}

  absl::Status Start() {
    absl::Status status;
    absl::Notification started;
    python_ = std::thread([&] {
      auto interpreter = JinjaInterpreter::Start(options_);
      status = interpreter.status();
      started.Notify();
      if (interpreter.ok()) Serve(**interpreter);
    });
    started.WaitForNotification();
    if (status.ok()) {
      watch_ = std::thread([this] { Watch(); });
    } else {
      python_.join();
    }
    return status;
  }

  void Stop() {
    {
      absl::MutexLock lock(&mutex_);
      stopping_ = true;
    }
    python_.join();
    watch_.join();
  }

  // Bounded by the callers: start, a new vocabulary, the end of a template. False: stopped.
  bool Post(absl::Duration timeout, Run run) {
    absl::MutexLock lock(&mutex_);
    if (stopping_) return false;
    jobs_.push_back({.run = std::move(run), .timeout = timeout});
    return true;
  }

  void PostRender(ChatTemplate::Done done, TemplateId id, ChatPrompt prompt) {
    absl::MutexLock lock(&mutex_);
    if (stopping_ || queued_renders_ >= options_.max_queued) {
      refused_.push_back([done = std::move(done), stopping = stopping_]() mutable {
        std::move(done)(stopping ? absl::CancelledError("The service is stopping.")
                                 : absl::ResourceExhaustedError(
                                       "Too many prompts wait for their chat template."));
      });
      return;
    }
    ++queued_renders_;
    jobs_.push_back({.run =
                         [done = std::move(done), id, prompt = std::move(prompt)](
                             JinjaInterpreter* interpreter, uint64_t call) mutable {
                           if (interpreter == nullptr) {
                             std::move(done)(absl::CancelledError("The service is stopping."));
                           } else {
                             std::move(done)(interpreter->Render(call, id, prompt));
                           }
                         },
                     .timeout = absl::Milliseconds(options_.render_timeout_ms),
                     .is_render = true});
  }

 private:
  struct Job {
    Run run;
    absl::Duration timeout;
    bool is_render = false;
  };

  bool HasWork() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return stopping_ || !jobs_.empty(); }

  void Serve(JinjaInterpreter& interpreter) {
    {
      absl::MutexLock lock(&mutex_);
      interpreter_ = &interpreter;
    }
    for (;;) {
      mutex_.LockWhen(absl::Condition(this, &Impl::HasWork));
      if (jobs_.empty()) {
        ended_ = true;
        // It would wait for an interpreter that is no more.
        mutex_.Await(
            absl::Condition(+[](bool* interrupting) { return !*interrupting; }, &interrupting_));
        mutex_.Unlock();
        return;
      }
      Job job = std::move(jobs_.front());
      jobs_.pop_front();
      if (job.is_render) --queued_renders_;
      const bool stopping = stopping_;
      const uint64_t call = ++calls_;
      if (!stopping) deadline_ = absl::Now() + job.timeout;
      mutex_.Unlock();
      std::move(job.run)(stopping ? nullptr : &interpreter, call);
      absl::MutexLock lock(&mutex_);
      deadline_.reset();
    }
  }

  bool HasWatchWork() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    return ended_ || !refused_.empty() || deadline_.has_value();
  }

  bool HasOtherWatchWork() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    return ended_ || !refused_.empty() || deadline_ != watched_;
  }

  void InterruptCall() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    JinjaInterpreter* const interpreter = interpreter_;
    const uint64_t call = calls_;
    interrupting_ = true;
    mutex_.Unlock();
    interpreter->Interrupt(call);  // may block: nobody shall wait for it
    mutex_.Lock();
    interrupting_ = false;
  }

  void Watch() {
    absl::MutexLock lock(&mutex_);
    while (!ended_ || !refused_.empty()) {
      if (!refused_.empty()) {
        Refuse refuse = std::move(refused_.front());
        refused_.pop_front();
        mutex_.Unlock();
        std::move(refuse)();
        mutex_.Lock();
      } else if (!deadline_) {
        mutex_.Await(absl::Condition(this, &Impl::HasWatchWork));
      } else {
        watched_ = deadline_;
        absl::Time next = *deadline_;
        if (const absl::Time now = absl::Now(); now >= next) {
          next = now + kInterruptInterval;
          InterruptCall();
        }
        mutex_.AwaitWithDeadline(absl::Condition(this, &Impl::HasOtherWatchWork), next);
      }
    }
  }

  const JinjaOptions options_;
  absl::Mutex mutex_;
  std::deque<Job> jobs_ ABSL_GUARDED_BY(mutex_);  // renders: at most max_queued
  int queued_renders_ ABSL_GUARDED_BY(mutex_) = 0;
  std::deque<Refuse> refused_ ABSL_GUARDED_BY(mutex_);  // drained at once by a thread that waits
  std::optional<absl::Time> deadline_ ABSL_GUARDED_BY(mutex_);  // of the job that runs
  std::optional<absl::Time> watched_ ABSL_GUARDED_BY(mutex_);
  JinjaInterpreter* interpreter_ ABSL_GUARDED_BY(mutex_) = nullptr;
  uint64_t calls_ ABSL_GUARDED_BY(mutex_) = 0;  // the number of the one that runs
  bool interrupting_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread python_, watch_;
};

namespace {

class CompiledTemplate final : public ChatTemplate {
 public:
  CompiledTemplate(std::shared_ptr<Jinja::Impl> jinja, TemplateId id)
      : jinja_(std::move(jinja)), id_(id) {}

  ~CompiledTemplate() override {
    jinja_->Post(kCompileTimeout, [id = id_](JinjaInterpreter* interpreter, uint64_t) {
      if (interpreter != nullptr) interpreter->Drop(id);
    });
  }

  void Render(ChatPrompt prompt, Done done) override {
    jinja_->PostRender(std::move(done), id_, std::move(prompt));
  }

 private:
  const std::shared_ptr<Jinja::Impl> jinja_;
  const TemplateId id_;
};

}  // namespace

Jinja::Jinja(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
Jinja::~Jinja() { impl_->Stop(); }

absl::StatusOr<std::unique_ptr<Jinja>> Jinja::Start(const JinjaOptions& options) {
  auto impl = std::make_shared<Impl>(options);
  if (const absl::Status status = impl->Start(); !status.ok()) return status;
  return std::unique_ptr<Jinja>(new Jinja(std::move(impl)));
}

absl::StatusOr<std::shared_ptr<ChatTemplate>> Jinja::Compile(TemplateSource source) {
  absl::StatusOr<TemplateId> id = absl::CancelledError("The service is stopping.");
  absl::Notification compiled;
  const bool posted =
      impl_->Post(kCompileTimeout, [&](JinjaInterpreter* interpreter, uint64_t call) {
        if (interpreter != nullptr) id = interpreter->Compile(call, source);
        compiled.Notify();
      });
  if (!posted) return id.status();
  compiled.WaitForNotification();
  if (!id.ok()) return id.status();
  return std::make_shared<CompiledTemplate>(impl_, *id);
}

}  // namespace behemoth::gateway
