#include "worker/parallel/nccl_library.h"

#include <absl/strings/str_cat.h>
#include <dlfcn.h>

#include <cstdlib>

namespace behemoth::worker {
namespace {

std::string VersionText(int version) {
  return absl::StrCat(version / 10000, ".", version % 10000 / 100, ".", version % 100);
}

}  // namespace

absl::Status NcclLibrary::Check(int result, const char* operation) const {
  if (result == kSuccess) return absl::OkStatus();
  return absl::InternalError(absl::StrCat(operation, ": ", get_error_string(result)));
}

absl::StatusOr<NcclLibrary> LoadNccl(const std::string& library) {
  // Multicast has put shared hosts out of service, and its sums have no order that we know.
  setenv("NCCL_NVLS_ENABLE", "0", /*overwrite=*/1);
  void* const handle = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    return absl::FailedPreconditionError(absl::StrCat(
        "nccl: several GPUs need NVIDIA's NCCL, version ", VersionText(NcclLibrary::kLeastVersion),
        " or newer: ", dlerror(), "; name it with --nccl-library"));
  }
  NcclLibrary nccl;
  std::string missing;
  const auto find = [&](const char* name, auto& function) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(handle, name));
    if (function == nullptr) missing = name;
  };
  find("ncclGetVersion", nccl.get_version);
  find("ncclGetErrorString", nccl.get_error_string);
  find("ncclCommInitAll", nccl.init_all);
  find("ncclCommDestroy", nccl.destroy);
  find("ncclCommAbort", nccl.abort);
  find("ncclAllReduce", nccl.all_reduce);
  find("ncclAllGather", nccl.all_gather);
  find("ncclGroupStart", nccl.group_start);
  find("ncclGroupEnd", nccl.group_end);
  if (!missing.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat("nccl: ", library, " has no function ", missing));
  }
  int version = 0;
  if (absl::Status read = nccl.Check(nccl.get_version(&version), "ncclGetVersion"); !read.ok()) {
    return read;
  }
  if (version < NcclLibrary::kLeastVersion) {
    return absl::FailedPreconditionError(
        absl::StrCat("nccl: ", library, " is version ", VersionText(version), "; ",
                     VersionText(NcclLibrary::kLeastVersion), " or newer is needed"));
  }
  return nccl;
}

}  // namespace behemoth::worker
