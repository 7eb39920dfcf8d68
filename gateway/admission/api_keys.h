// Who may call: API keys, kept as SHA-256 only, compared in constant time. Thread-safe.
//
// A key file holds one key a line; empty lines and lines that begin with '#' are skipped. Reload
// replaces all keys of the file at once; a file that cannot be read leaves the old keys in force.
#pragma once

#include <absl/base/thread_annotations.h>
#include <absl/status/status.h>
#include <absl/synchronization/mutex.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "proto/support/file_stamp.h"

namespace behemoth::gateway {

class ApiKeys {
 public:
  // Neither a key nor a file = open to everyone.
  ApiKeys(const std::vector<std::string>& keys, std::string file);

  // INVALID_ARGUMENT: the file cannot be read or holds no key.
  absl::Status Reload();
  // Reload if the file's time or size has changed.
  void ReloadIfChanged();

  bool open() const { return open_; }
  // The caller's identity, a short hash of the key ("" where open), or nullopt: not one of ours.
  // `authorization` and `x_api_key` are the headers' values; more than one of a kind is refused by
  // the caller.
  std::optional<std::string> Identify(std::optional<std::string_view> authorization,
                                      std::optional<std::string_view> x_api_key) const;

 private:
  using Digest = std::array<uint8_t, 32>;
  static Digest Hash(std::string_view key);

  const std::string file_;
  const bool open_;
  const std::vector<Digest> fixed_;
  mutable absl::Mutex mutex_;
  std::vector<Digest> from_file_ ABSL_GUARDED_BY(mutex_);
  support::FileStamp seen_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace behemoth::gateway
