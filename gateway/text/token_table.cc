#include "gateway/text/token_table.h"

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
}

}  // namespace behemoth::gateway
