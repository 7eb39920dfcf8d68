// The few functions of NCCL that are used, out of a library that is loaded at run time. Types and
// values: nccl.h, whose functions and enumerations keep their ABI within version 2.
//
// Thread-safe once loaded. Never unloaded: NCCL's own threads may outlive every communicator.
#pragma once

#include <absl/status/statusor.h>

#include <cstddef>
#include <string>

struct CUstream_st;
struct ncclComm;

namespace behemoth::worker {

struct NcclLibrary {
  static constexpr int kSuccess = 0;   // ncclSuccess
  static constexpr int kSum = 0;       // ncclSum
  static constexpr int kBytes = 1;     // ncclUint8
  static constexpr int kFloat = 7;     // ncclFloat32
  static constexpr int kBfloat16 = 9;  // ncclBfloat16
  // major * 10,000 + minor * 100: with CUDA 12 and 13 there is no older one that was tried.
  static constexpr int kLeastVersion = 21800;

  int (*get_version)(int*) = nullptr;
  const char* (*get_error_string)(int) = nullptr;
  int (*init_all)(ncclComm**, int, const int*) = nullptr;
  int (*destroy)(ncclComm*) = nullptr;
  int (*abort)(ncclComm*) = nullptr;
  int (*all_reduce)(const void*, void*, size_t, int type, int operation, ncclComm*,
                    CUstream_st*) = nullptr;
  int (*all_gather)(const void*, void*, size_t, int type, ncclComm*, CUstream_st*) = nullptr;
  int (*group_start)() = nullptr;
  int (*group_end)() = nullptr;

  // `result` of `operation` as a status.
  absl::Status Check(int result, const char* operation) const;
};

// FAILED_PRECONDITION naming the library, and the function or version that is not right.
absl::StatusOr<NcclLibrary> LoadNccl(const std::string& library);

}  // namespace behemoth::worker
