// Who may call: API keys, kept as SHA-256 only, compared in constant time. Thread-safe.
//
// A key file holds one key a line; empty lines and lines that begin with '#' are skipped:
//
//   KEY [scope=user|admin] [in-flight=N] [per-minute=N]
//
// KEY is the key itself or "sha256:" and the 64 hex digits of its hash, so that whoever reads the
// file holds no key. An admin may end requests of others; the limits replace the gateway's own for
// this key, 0 = none. Reload replaces all keys of the file at once; a file with a bad line, or that
// cannot be read, leaves the old keys in force.
#pragma once

#include <absl/base/thread_annotations.h>
#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/synchronization/mutex.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "gateway/admission/admission.h"
#include "proto/support/file_stamp.h"

namespace behemoth::gateway {

struct Caller {
  std::string id;  // a short hash of the key; "" where the door is open
  bool admin = false;
  KeyLimits limits;
};

class ApiKeys {
 public:
  // Neither a key nor a file = open to everyone.
  ApiKeys(const std::vector<std::string>& keys, std::string file);

  // INVALID_ARGUMENT: the file cannot be read, holds no key, or has a bad line; its number is
  // named.
  absl::Status Reload();
  // Reload if the file's time or size has changed.
  void ReloadIfChanged();

  bool open() const { return open_; }
  // Who calls, or nullopt: not one of ours. `authorization` and `x_api_key` are the headers'
  // values; more than one of a kind is refused by who asks.
  std::optional<Caller> Identify(std::optional<std::string_view> authorization,
                                 std::optional<std::string_view> x_api_key) const;

 private:
  using Digest = std::array<uint8_t, 32>;
  struct Key {
    Digest digest;
    bool admin = false;
    KeyLimits limits;
  };
  static Digest Hash(std::string_view key);
  static absl::StatusOr<Key> ParseLine(std::string_view line);

  const std::string file_;
  const bool open_;
  const std::vector<Key> fixed_;
  mutable absl::Mutex mutex_;
  std::vector<Key> from_file_ ABSL_GUARDED_BY(mutex_);
  support::FileStamp seen_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace behemoth::gateway
