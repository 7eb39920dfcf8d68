// What every session works with; made by the composition root, outlives all sessions.
#pragma once

#include <absl/base/thread_annotations.h>
#include <absl/synchronization/mutex.h>
#include <absl/time/time.h>

#include <memory>
#include <string>
#include <utility>

#include "gateway/admission/admission.h"
#include "gateway/admission/api_keys.h"
#include "gateway/api/generation_options.h"
#include "gateway/chat/chat_template.h"
#include "gateway/chat/thinking_presets.h"
#include "gateway/probe.h"
#include "gateway/upstream/tokenizer_client.h"
#include "gateway/upstream/worker_pool.h"

namespace behemoth::gateway {

class RequestRegistry;

// The model's text side as of now: replaced as a whole, so that a request never mixes two.
struct ModelText {
  std::shared_ptr<const Vocabulary> vocabulary;
  std::shared_ptr<ChatTemplate> chat_template;  // null: the model has none
};

// Thread-safe.
class ModelTextCell {
 public:
  std::shared_ptr<const ModelText> Get() const {
    absl::MutexLock lock(&mutex_);
    return text_;
  }
  void Set(std::shared_ptr<const ModelText> text) {
    absl::MutexLock lock(&mutex_);
    text_.swap(text);
  }

 private:
  mutable absl::Mutex mutex_;
  std::shared_ptr<const ModelText> text_ ABSL_GUARDED_BY(mutex_);
};

struct SessionLimits {
  absl::Duration request_timeout = absl::Minutes(30);  // a 32 K answer at 20 tokens/s
  absl::Duration heartbeat = absl::Seconds(10);        // below every proxy's idle limit
  size_t pause_bytes = size_t{64} << 10;               // unsent: stop reading from the worker
};

struct Services {
  TokenizerClient* tokenizer = nullptr;
  WorkerPool* workers = nullptr;
  ModelTextCell* text = nullptr;
  const ThinkingPresets* presets = nullptr;
  Admission* admission = nullptr;
  ApiKeys* keys = nullptr;
  RequestRegistry* registry = nullptr;
  Probe* probe = nullptr;
  ParseOptions parse;
  SessionLimits limits;
};

}  // namespace behemoth::gateway
