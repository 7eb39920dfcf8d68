// The types of weights' elements. 16-bit floats to and from float: exact one way; round to nearest
// even the other.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace behemoth::worker {

enum class ElementType { kBfloat16, kFloat16, kFloat32 };

constexpr int32_t BytesPerElement(ElementType type) {
  return type == ElementType::kFloat32 ? 4 : 2;
}

inline float FloatFromBfloat16(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

inline uint16_t Bfloat16FromFloat(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if (std::isnan(value)) return static_cast<uint16_t>((bits >> 16) | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

inline float FloatFromFloat16(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000) << 16;
  const uint32_t exponent = (bits >> 10) & 31;
  const uint32_t mantissa = bits & 0x3ff;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000 | (mantissa << 13));
  if (exponent != 0)
    return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
  const float magnitude = std::ldexp(static_cast<float>(mantissa), -24);  // subnormal
  return sign ? -magnitude : magnitude;
}

// Rounds `value` to the nearest float16, as a float; overflow becomes infinity.
inline float RoundToFloat16(float value) {
  const float magnitude = std::fabs(value);
  if (!(magnitude < 65520.0f)) return std::isnan(value) ? value : std::copysign(INFINITY, value);
  // 11 significant bits, and never finer than the subnormals' 2^-24.
  int exponent = 0;
  std::frexp(magnitude, &exponent);
  const int step = exponent - 11 < -24 ? -24 : exponent - 11;
  return std::copysign(std::ldexp(std::nearbyint(std::ldexp(magnitude, -step)), step), value);
}

// `index`-th element of `bytes`, wherever it lies.
inline float ElementAt(ElementType type, const uint8_t* bytes, int64_t index) {
  if (type == ElementType::kFloat32) {
    float value;
    std::memcpy(&value, bytes + 4 * index, sizeof(value));
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, bytes + 2 * index, sizeof(bits));
  return type == ElementType::kBfloat16 ? FloatFromBfloat16(bits) : FloatFromFloat16(bits);
}

}  // namespace behemoth::worker
