#include "proto/support/fingerprint.h"

#include <openssl/evp.h>

#include <array>

namespace behemoth::support {

std::string Fingerprint(std::string_view bytes) {
  std::array<unsigned char, 32> sum{};
  EVP_Digest(bytes.data(), bytes.size(), sum.data(), nullptr, EVP_sha256(), nullptr);
  std::string hex;
  for (const unsigned char byte : sum) {
    hex += "0123456789abcdef"[byte >> 4];
    hex += "0123456789abcdef"[byte & 15];
  }
  return hex;
}

}  // namespace behemoth::support
