// What every id stands for: the tokenizer service's vocabulary as the gateway keeps it. Immutable,
// shared by all sessions (std::shared_ptr<const TokenTable>), thread-safe.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace behemoth::gateway {

class TokenTable {
 public:
  // `control_ids` outside the vocabulary are ignored.
  TokenTable(std::span<const std::string> token_bytes, std::span<const uint32_t> control_ids);

  uint32_t size() const { return static_cast<uint32_t>(control_.size()); }
  bool contains(uint32_t id) const { return id < size(); }
  // The bytes in running text; empty for an id outside the vocabulary.
  std::string_view bytes(uint32_t id) const {
    return contains(id) ? std::string_view(all_).substr(begin_[id], begin_[id + 1] - begin_[id])
                        : std::string_view();
  }
  bool is_control(uint32_t id) const { return contains(id) && control_[id]; }

  // Ids, ascending, whose bytes hold `text` or end with it; control tokens are none of them. `text`
  // is not empty. The first reads every byte once, the second the tokens of one last byte.
  std::vector<uint32_t> Containing(std::string_view text) const;
  std::vector<uint32_t> EndingWith(std::string_view text) const;

 private:
  std::string all_;              // every token's bytes, end to end
  std::vector<uint32_t> begin_;  // size() + 1 offsets into all_
  std::vector<bool> control_;
  std::array<std::vector<uint32_t>, 256> by_last_byte_;  // of tokens that are text
};

}  // namespace behemoth::gateway
