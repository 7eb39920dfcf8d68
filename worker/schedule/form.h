// What the output of one sequence must look like, as the scheduler sees it: each token goes in, and
// some time later a mask for the next one comes out. worker/structure implements it; the masks are
// computed on its threads, and the engine is woken when one is there.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "worker/ids.h"

namespace behemoth::worker {

// [ceil(vocabulary / 32)] words; bit (id % 32) of word (id / 32) set = the id may be sampled.
using TokenMask = std::vector<uint32_t>;

enum class FormState {
  kWorking,   // the mask of the next token is not there yet
  kReady,     // mask() is
  kComplete,  // the text has its form and nothing can follow: the sequence ends
  kFailed,    // the text left the form (by forced tokens), or nothing fits any more
};

class Form {
 public:
  virtual ~Form() = default;
  // Engine thread; never blocks. Tokens may come while it is working.
  virtual void Advance(TokenId token) = 0;
  // The text is that of `tokens` now: a rewind has taken what followed.
  virtual void Restart(std::vector<TokenId> tokens) = 0;
  virtual FormState state() const = 0;
  // Of the next token; only if ready.
  virtual std::shared_ptr<const TokenMask> mask() const = 0;
};

}  // namespace behemoth::worker
