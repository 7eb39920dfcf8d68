// Where one sequence stands in its form: token in, mask of the next one out. One thread at a time.
#pragma once

#include <absl/time/time.h>
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

  // A form can be so ambiguous that its possible readings grow with the text: who takes longer than
  // this for a token, in processor time, is lost.
  static constexpr absl::Duration kMaxTokenTime = absl::Milliseconds(250);
  // Of white space in a row; more only where nothing else fits.
  static constexpr int kMaxSpaces = 32;

  // False: the text has left the form; it stays left. A stop id at a place where the text may end
  // changes nothing.
  bool Accept(TokenId token);
  // `mask` gets mask_words() words. kReady, kComplete (mask unset) or kFailed: no token fits.
  FormState Fill(TokenMask* mask);

 private:
  bool Follow(const std::string& text);
  void LimitSpaces(TokenMask* mask) const;

  const std::shared_ptr<const CompiledForm> form_;
  const std::vector<TokenId> stop_ids_;
  bool begun_;                   // behind the marker
  size_t marker_matched_ = 0;    // before
  Utf8State utf8_ = kUtf8Start;  // behind
  bool at_start_ = true;         // nothing of the form yet
  bool lost_ = false;
  int spaces_ = 0;             // at the text's end
  absl::Duration token_time_;  // of the last token, as far as it is known
  xgrammar::GrammarMatcher matcher_;
  std::vector<int32_t> words_;  // of xgrammar's vocabulary, which has one id more
};

}  // namespace behemoth::worker
