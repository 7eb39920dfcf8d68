#include "worker/structure/utf8_walk.h"

namespace behemoth::worker {
namespace {

Utf8State BeginCharacter(uint8_t byte) {
  if (byte < 0x80) return kUtf8Start;
  if (byte < 0xc2) return kUtf8Broken;
  if (byte < 0xe0) return 1;
  if (byte == 0xe0) return 2;
  if (byte == 0xed) return 4;
  if (byte < 0xf0) return 3;
  if (byte == 0xf0) return 5;
  if (byte < 0xf4) return 6;
  return byte == 0xf4 ? Utf8State{7} : kUtf8Broken;
}

struct Continuation {
  uint8_t least, most;
  Utf8State next;
};

// By state; the first has none.
constexpr Continuation kContinuations[kUtf8States] = {
    {0, 0, 0},       {0x80, 0xbf, 0}, {0xa0, 0xbf, 1}, {0x80, 0xbf, 1},
    {0x80, 0x9f, 1}, {0x90, 0xbf, 3}, {0x80, 0xbf, 3}, {0x80, 0x8f, 3}};

}  // namespace

Utf8State WalkUtf8(Utf8State state, std::string_view bytes) {
  for (const char c : bytes) {
    const uint8_t byte = static_cast<uint8_t>(c);
    if (state == kUtf8Broken) return state;
    if (state == kUtf8Start) {
      state = BeginCharacter(byte);
      continue;
    }
    const Continuation& step = kContinuations[state];
    state = byte >= step.least && byte <= step.most ? step.next : kUtf8Broken;
  }
  return state;
}

}  // namespace behemoth::worker
