// Where one sequence stands in its form: token in, mask of the next one out. One thread at a time.
#pragma once

#include <xgrammar/matcher.h>

#include <memory>
#include <string>
#include <vector>

#include "worker/schedule/form.h"
#include "worker/structure/compiled_form.h"

namespace behemoth::worker {

class FormMatcher {
 public:
  // `stop_ids` may be sampled where the text may end, and nowhere else.
  FormMatcher(std::shared_ptr<const CompiledForm> form, std::vector<TokenId> stop_ids);

  // False: the text has left the form; it stays left. A stop id at a place where the text may end
  // changes nothing.
  bool Accept(TokenId token);
  // `mask` gets mask_words() words. kReady, kComplete (mask unset) or kFailed: no token fits.
  FormState Fill(TokenMask* mask);

 private:
  bool Follow(const std::string& text);

  const std::shared_ptr<const CompiledForm> form_;
  const std::vector<TokenId> stop_ids_;
  bool begun_;                   // behind the marker
  size_t marker_matched_ = 0;    // before
  Utf8State utf8_ = kUtf8Start;  // behind
  bool at_start_ = true;         // nothing of the form yet
  bool lost_ = false;
  xgrammar::GrammarMatcher matcher_;
  std::vector<int32_t> words_;  // of xgrammar's vocabulary, which has one id more
};

}  // namespace behemoth::worker
