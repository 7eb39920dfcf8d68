// Requests in flight by the ids their clients know: for cancel and end_thinking. Thread-safe.
//
// Keyed by (caller, id): a caller reaches only its own requests, an admin every one. A client's own
// id may repeat; the action then reaches each of them. Ids inside the system are never taken from
// here.
#pragma once

#include <absl/base/thread_annotations.h>
#include <absl/container/flat_hash_map.h>
#include <absl/synchronization/mutex.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gateway/loop/loop.h"

namespace behemoth::gateway {

class Controllable {
 public:
  virtual ~Controllable() = default;
  virtual void EndByControl() = 0;  // on its loop
  virtual void EndThinkingByControl() = 0;
};

class RequestRegistry {
 public:
  enum class Action { kCancel, kEndThinking };

  void Add(const std::string& caller, const std::string& id, std::weak_ptr<Controllable> request,
           Loop* loop) {
    absl::MutexLock lock(&mutex_);
    requests_[{caller, id}].push_back({std::move(request), loop});
  }

  // Forgets what has ended under that id.
  void Remove(const std::string& caller, const std::string& id, const Controllable* request) {
    absl::MutexLock lock(&mutex_);
    const auto found = requests_.find({caller, id});
    if (found == requests_.end()) return;
    std::erase_if(found->second, [request](const Entry& entry) {
      const auto alive = entry.request.lock();
      return !alive || alive.get() == request;
    });
    if (found->second.empty()) requests_.erase(found);
  }

  // False: no such request in flight.
  bool Act(const std::string& caller, const std::string& id, Action action) {
    absl::MutexLock lock(&mutex_);
    const auto found = requests_.find({caller, id});
    return found != requests_.end() && Reach(found->second, action);
  }

  // The same for requests of that id of all callers: an admin's.
  bool ActOnAny(const std::string& id, Action action) {
    absl::MutexLock lock(&mutex_);
    bool reached = false;
    for (const auto& [key, entries] : requests_) {
      if (key.second == id) reached = Reach(entries, action) || reached;
    }
    return reached;
  }

 private:
  struct Entry {
    std::weak_ptr<Controllable> request;
    Loop* loop;
  };
  static bool Reach(const std::vector<Entry>& entries, Action action) {
    bool reached = false;
    for (const Entry& entry : entries) {
      reached = reached || !entry.request.expired();
      entry.loop->Post([request = entry.request, action] {
        const auto alive = request.lock();
        if (!alive) return;
        action == Action::kCancel ? alive->EndByControl() : alive->EndThinkingByControl();
      });
    }
    return reached;
  }

  absl::Mutex mutex_;
  absl::flat_hash_map<std::pair<std::string, std::string>, std::vector<Entry>> requests_
      ABSL_GUARDED_BY(mutex_);
};

}  // namespace behemoth::gateway
