// The tokenizer service as the gateway sees it. Thread-safe.
//
// Life: starts looking for the service at once and never stops: a service that comes back, or is
// replaced by one with another vocabulary, is noticed within a second without any request.
#pragma once

#include <absl/functional/any_invocable.h>
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "gateway/loop/loop.h"
#include "gateway/text/token_table.h"
#include "proto/support/tls.h"

namespace behemoth::gateway {

struct TextSegment {
  enum class Kind { kText, kMarkedText, kControl };
  Kind kind = Kind::kText;
  std::string text;
  uint32_t control_id = 0;
};

struct EncodeInput {
  std::vector<TextSegment> segments;
  bool add_special_tokens = false;
};

// Constant once published.
struct Vocabulary {
  std::shared_ptr<const TokenTable> table;
  std::vector<std::pair<std::string, uint32_t>> control_tokens;  // string, id
  std::string fingerprint, chat_template;
  std::string bos_token, eos_token, unk_token, pad_token;
  std::optional<uint32_t> bos_id, eos_id;
};

using IdLists = std::vector<std::vector<uint32_t>>;

class TokenizerClient {
 public:
  using EncodeDone = absl::AnyInvocable<void(absl::StatusOr<IdLists>)>;
  virtual ~TokenizerClient() = default;

  // `done` runs on `loop`, never from inside the call. UNAVAILABLE while the service is away.
  virtual void Encode(std::vector<EncodeInput> inputs, absl::Time deadline, Loop& loop,
                      EncodeDone done) = 0;
  virtual bool available() const = 0;
};

class Channels;

// `on_vocabulary` runs on `loop` for the first vocabulary and each one that differs. `loop`
// outlives the client and is stopped before it is destroyed; `channels` outlives both.
absl::StatusOr<std::unique_ptr<TokenizerClient>> NewGrpcTokenizerClient(
    const std::string& address, const support::ClientTlsConfig& tls, Channels& channels, Loop& loop,
    std::function<void(std::shared_ptr<const Vocabulary>)> on_vocabulary);

}  // namespace behemoth::gateway
