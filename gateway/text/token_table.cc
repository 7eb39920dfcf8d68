#include "gateway/text/token_table.h"

#include <algorithm>

namespace behemoth::gateway {

TokenTable::TokenTable(std::span<const std::string> token_bytes,
                       std::span<const uint32_t> control_ids)
    : control_(token_bytes.size(), false) {
  begin_.reserve(token_bytes.size() + 1);
  begin_.push_back(0);
  for (const std::string& bytes : token_bytes) {
    all_ += bytes;
    begin_.push_back(static_cast<uint32_t>(all_.size()));
  }
  for (const uint32_t id : control_ids) {
    if (contains(id)) control_[id] = true;
  }
  for (uint32_t id = 0; id < size(); ++id) {
    if (control_[id] || bytes(id).empty()) continue;
    by_last_byte_[static_cast<uint8_t>(bytes(id).back())].push_back(id);
  }
}

std::vector<uint32_t> TokenTable::Containing(std::string_view text) const {
  std::vector<uint32_t> ids;
  const std::string_view all = all_;
  for (size_t at = all.find(text); at != std::string_view::npos; at = all.find(text, at)) {
    const auto next = std::upper_bound(begin_.begin(), begin_.end(), static_cast<uint32_t>(at));
    const auto id = static_cast<uint32_t>(next - begin_.begin() - 1);
    if (at + text.size() <= *next) {
      if (!control_[id]) ids.push_back(id);
      at = *next;  // the next token: once is enough
    } else {
      ++at;  // across the border of two tokens
    }
  }
  return ids;
}

std::vector<uint32_t> TokenTable::EndingWith(std::string_view text) const {
  std::vector<uint32_t> ids;
  for (const uint32_t id : by_last_byte_[static_cast<uint8_t>(text.back())]) {
    if (bytes(id).ends_with(text)) ids.push_back(id);
  }
  return ids;
}

}  // namespace behemoth::gateway
