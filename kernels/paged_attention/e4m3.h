// e4m3 on the host: the format of fp8 KV (OCP 8-bit floating point, "E4M3": bias 7, largest 448, no
// infinity, 0x7f = NaN). Device code uses device_math.cuh; the two agree on every code but NaN's,
// which the attention kernels read as 480.
#pragma once

#include <cmath>
#include <cstdint>

namespace behemoth::kernels {

inline float E4m3ToFloat(uint8_t code) {
  const int exponent = (code >> 3) & 15, mantissa = code & 7;
  const float magnitude = exponent == 0
                              ? std::ldexp(static_cast<float>(mantissa), -9)
                              : std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
  return (code & 0x80) != 0 ? -magnitude : magnitude;
}

// Nearest even, saturating at 448; NaN stays NaN (0x7f).
inline uint8_t FloatToE4m3(float value) {
  const uint8_t sign = std::signbit(value) ? 0x80 : 0;
  const float magnitude = std::fabs(value);
  if (std::isnan(magnitude)) return sign | 0x7f;
  if (magnitude >= 448.0f) return sign | 0x7e;
  int exponent = 0;
  std::frexp(magnitude, &exponent);        // magnitude = f * 2^exponent, f in [0.5, 1)
  if (magnitude < 0x1p-6f) exponent = -5;  // subnormals share the smallest exponent
  const int steps = static_cast<int>(std::nearbyint(std::ldexp(magnitude, 4 - exponent)));
  // `steps` counts units of 2^(exponent - 4): 8..16 for normals, 0..8 below; carries fall into
  // place.
  return static_cast<uint8_t>(sign | (((exponent + 5) << 3) + steps));
}

}  // namespace behemoth::kernels
