#include "worker/structure/form_matcher.h"

#include <algorithm>
#include <cstring>
#include <ctime>
#include <utility>

namespace behemoth::worker {
namespace {

// Of this thread: what other threads do to the machine is not the form's fault.
absl::Duration ProcessorTime() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return absl::DurationFromTimespec(now);
}

bool IsEmpty(const TokenMask& mask) {
  return std::all_of(mask.begin(), mask.end(), [](uint32_t word) { return word == 0; });
}

}  // namespace

FormMatcher::FormMatcher(std::shared_ptr<const CompiledForm> form, std::vector<TokenId> stop_ids)
    : form_(std::move(form)),
      stop_ids_(std::move(stop_ids)),
      begun_(form_->marker().size() == 0 && !form_->begins_after_id()),
      matcher_(form_->grammar()),
      words_(static_cast<size_t>(xgrammar::GetBitmaskSize(form_->vocabulary().size() + 1))) {}

bool FormMatcher::Accept(TokenId token) {
  const std::string& text = form_->vocabulary().text(token);
  if (lost_) return false;
  if (begun_) {
    return Follow(text);
  }
  if (const auto id = form_->begins_after_id()) {
    begun_ = token == *id;
    return true;
  }
  const size_t end = form_->marker().Find(text, &marker_matched_);
  if (end == std::string::npos) return true;
  begun_ = true;
  return Follow(text.substr(end));
}

bool FormMatcher::Follow(const std::string& text) {
  const absl::Duration began = ProcessorTime();
  utf8_ = WalkUtf8(utf8_, text);
  lost_ = utf8_ == kUtf8Broken || (!text.empty() && !matcher_.AcceptString(text));
  if (lost_ && form_->marker().size() > 0 && at_start_ && utf8_ != kUtf8Broken) {
    const std::string_view behind = WithoutLeadingSpace(text);
    lost_ = !behind.empty() && !matcher_.AcceptString(std::string(behind));
    at_start_ = behind.empty();
  } else if (!text.empty()) {
    at_start_ = false;
  }
  const auto last = std::find_if_not(text.rbegin(), text.rend(), IsJsonSpace);
  const int spaces = static_cast<int>(last - text.rbegin());
  spaces_ = last == text.rend() ? spaces_ + spaces : spaces;
  token_time_ = ProcessorTime() - began;
  lost_ = lost_ || token_time_ > kMaxTokenTime;
  return !lost_;
}

void FormMatcher::LimitSpaces(TokenMask* mask) const {
  if (!form_->is_json() || spaces_ < kMaxSpaces) return;
  TokenMask others = *mask;
  const std::vector<uint32_t>& no_space = form_->vocabulary().no_space_mask();
  for (size_t i = 0; i < others.size(); ++i) others[i] &= no_space[i];
  if (!IsEmpty(others)) *mask = std::move(others);
}

FormState FormMatcher::Fill(TokenMask* mask) {
  const Vocabulary& vocabulary = form_->vocabulary();
  if (lost_) return FormState::kFailed;
  bool may_end = false;
  const absl::Duration began = ProcessorTime();
  if (begun_) {
    int64_t shape = static_cast<int64_t>(words_.size());
    DLTensor tensor{.data = words_.data(),
                    .device = {kDLCPU, 0},
                    .ndim = 1,
                    .dtype = xgrammar::GetBitmaskDLType(),
                    .shape = &shape,
                    .strides = nullptr,
                    .byte_offset = 0};
    matcher_.FillNextTokenBitmask(&tensor);
    const size_t end = static_cast<size_t>(vocabulary.size());
    uint32_t& word = reinterpret_cast<uint32_t&>(words_[end / 32]);
    may_end = word >> (end % 32) & 1;
    word &= (uint32_t{1} << (end % 32)) - 1;
    mask->resize(vocabulary.mask_words());
    std::memcpy(mask->data(), words_.data(), mask->size() * sizeof(uint32_t));
    const std::vector<uint32_t>& utf8 = vocabulary.utf8_mask(utf8_);
    for (size_t i = 0; i < mask->size(); ++i) (*mask)[i] &= utf8[i];
    LimitSpaces(mask);
  } else if (form_->begins_after_id()) {
    mask->assign(vocabulary.mask_words(), ~uint32_t{0});
    if (vocabulary.size() % 32 != 0) mask->back() = (1u << (vocabulary.size() % 32)) - 1;
    may_end = true;
  } else {
    *mask = form_->free_mask(marker_matched_);
  }
  token_time_ += ProcessorTime() - began;
  lost_ = token_time_ > kMaxTokenTime;
  if (lost_) return FormState::kFailed;
  if (may_end && IsEmpty(*mask)) return FormState::kComplete;
  for (const TokenId id : stop_ids_) {
    uint32_t& word = (*mask)[static_cast<size_t>(id) / 32];
    const uint32_t bit = uint32_t{1} << (id % 32);
    word = may_end ? word | bit : word & ~bit;
  }
  return IsEmpty(*mask) ? FormState::kFailed : FormState::kReady;
}

}  // namespace behemoth::worker
