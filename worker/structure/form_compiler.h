// Forms for requests: compiles them on threads of its own, keeps what it compiled, makes a Form for
// each sequence. Thread-safe.
//
// Bounds: kQueue compilations wait (RESOURCE_EXHAUSTED beyond); compiled forms take cache_bytes,
// least recently used ones go first; a form's own size is bounded by CompiledForm.
#pragma once

#include <absl/base/thread_annotations.h>
#include <absl/container/flat_hash_map.h>
#include <absl/functional/any_invocable.h>
#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/synchronization/mutex.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <vector>

#include "worker/structure/compiled_form.h"
#include "worker/structure/form_cursor.h"
#include "worker/structure/work_queue.h"

namespace behemoth::worker {

// The device waits for masks between steps, a request for its form: half the cores, 2 to 8.
int DefaultMaskThreads();

struct FormCompilerConfig {
  int32_t vocabulary_size = 0;
  int compile_threads = 2;  // forms at a time
  int threads_of_a_compilation = DefaultMaskThreads();
  int mask_threads = DefaultMaskThreads();
  size_t cache_bytes = size_t{256} << 20;
};

class FormCompiler {
 public:
  static constexpr size_t kQueue = 256;
  using Forms = std::vector<std::shared_ptr<Form>>;
  using Done = absl::AnyInvocable<void(absl::StatusOr<Forms>)>;

  // `wake` is called on a mask thread each time a Form has changed its state.
  FormCompiler(const FormCompilerConfig& config, std::function<void()> wake);
  ~FormCompiler() { Stop(); }

  // `done` on a compiling thread, unless the call returns an error. OK also for the vocabulary that
  // is there; INVALID_ARGUMENT: another one, or none of this model's.
  absl::Status SetVocabulary(std::vector<std::string> tokens, std::vector<uint32_t> control_ids,
                             absl::AnyInvocable<void(absl::Status)> done);

  // `count` forms, each at its beginning. `done` here and now if the form is kept, else on a
  // compiling thread, unless the call returns an error: FAILED_PRECONDITION "vocabulary: ...",
  // RESOURCE_EXHAUSTED. `done`'s own: INVALID_ARGUMENT "structure.*: ...".
  absl::Status Make(FormSpec spec, std::vector<TokenId> stop_ids, int32_t count, Done done);

  // What was not compiled yet hears UNAVAILABLE; joins the threads. Before anything that `done`s
  // point at ends.
  void Stop();

  struct CacheState {
    size_t bytes = 0, forms = 0;
  };
  CacheState cache() const;

 private:
  struct Kept {
    std::string key;
    std::shared_ptr<const CompiledForm> form;
    size_t bytes = 0;
  };

  static std::string KeyOf(const FormSpec& spec);
  std::shared_ptr<const CompiledForm> Find(const std::string& key);
  void Keep(const std::string& key, std::shared_ptr<const CompiledForm> form);
  absl::StatusOr<Forms> Begin(const std::shared_ptr<const CompiledForm>& form,
                              const std::vector<TokenId>& stop_ids, int32_t count);
  std::shared_ptr<const Vocabulary> vocabulary() const;

  const FormCompilerConfig config_;
  std::atomic<bool> stopping_ = false;
  const std::function<void()> wake_;
  mutable absl::Mutex mutex_;
  std::shared_ptr<const Vocabulary> vocabulary_ ABSL_GUARDED_BY(mutex_);
  std::list<Kept> kept_ ABSL_GUARDED_BY(mutex_);  // used last first
  absl::flat_hash_map<std::string, std::list<Kept>::iterator> by_key_ ABSL_GUARDED_BY(mutex_);
  size_t kept_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  WorkQueue masks_, compilations_;
};

}  // namespace behemoth::worker
