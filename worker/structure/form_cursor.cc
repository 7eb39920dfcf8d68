#include "worker/structure/form_cursor.h"

#include <exception>
#include <utility>

#include "proto/support/log.h"

namespace behemoth::worker {

FormCursor::FormCursor(std::shared_ptr<const CompiledForm> form, std::vector<TokenId> stop_ids,
                       WorkQueue* queue, const std::function<void()>* wake)
    : form_(std::move(form)), stop_ids_(std::move(stop_ids)), queue_(queue), wake_(wake) {
  matcher_.emplace(form_, stop_ids_);
  auto mask = std::make_shared<TokenMask>();
  absl::MutexLock lock(&mutex_);
  state_ = matcher_->Fill(mask.get());
  mask_ = std::move(mask);
}

void FormCursor::Advance(TokenId token) {
  absl::MutexLock lock(&mutex_);
  if (state_ == FormState::kFailed) return;
  incoming_.push_back(token);
  Post();
}

void FormCursor::Restart(std::vector<TokenId> tokens) {
  absl::MutexLock lock(&mutex_);
  restarts_ = true;
  incoming_ = std::move(tokens);
  Post();
}

void FormCursor::Post() {
  state_ = FormState::kWorking;
  if (std::exchange(posted_, true)) return;
  if (!queue_->Post([self = shared_from_this()] { self->Work(); })) state_ = FormState::kFailed;
}

FormState FormCursor::state() const {
  absl::MutexLock lock(&mutex_);
  return state_;
}

std::shared_ptr<const TokenMask> FormCursor::mask() const {
  absl::MutexLock lock(&mutex_);
  return mask_;
}

void FormCursor::Work() {
  bool done = false;
  while (!done) {
    std::vector<TokenId> tokens;
    bool restarts = false;
    {
      absl::MutexLock lock(&mutex_);
      tokens.swap(incoming_);
      restarts = std::exchange(restarts_, false);
    }
    auto mask = std::make_shared<TokenMask>();
    FormState state = FormState::kFailed;
    try {
      if (restarts) matcher_.emplace(form_, stop_ids_);
      for (const TokenId token : tokens) matcher_->Accept(token);
      state = matcher_->Fill(mask.get());
    } catch (const std::exception& error) {
      support::Log().error("structure: {}", error.what());
    }
    absl::MutexLock lock(&mutex_);
    done = incoming_.empty() && !restarts_;
    if (!done) continue;
    posted_ = false;
    state_ = state;
    mask_ = std::move(mask);
  }
  (*wake_)();
}

}  // namespace behemoth::worker
