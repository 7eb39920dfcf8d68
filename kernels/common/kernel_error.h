// KernelError: what every launch and query function of kernels/ returns.
// `code` is a cudaError_t (0 = success), `operation` a string literal that names the call or the
// violated precondition. Declared without CUDA headers, so that host-only builds see the same type.
#pragma once

namespace behemoth::kernels {

inline constexpr int kInvalidArgument = 1;  // cudaErrorInvalidValue

struct [[nodiscard]] KernelError {
  int code = 0;
  const char* operation = "";

  bool ok() const { return code == 0; }
};

}  // namespace behemoth::kernels
