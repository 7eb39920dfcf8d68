// A library that says that it is NCCL of version FAKE_NCCL_VERSION, for what the loader makes of
// it. One that is -DFAKE_NCCL_PARTIAL has not all the functions.
extern "C" {

int ncclGetVersion(int* version) {
  *version = FAKE_NCCL_VERSION;
  return 0;
}
const char* ncclGetErrorString(int) { return "a fake's error"; }
int ncclCommInitAll(void*, int, const int*) { return 1; }
int ncclCommDestroy(void*) { return 0; }
int ncclCommAbort(void*) { return 0; }
int ncclAllReduce(const void*, void*, unsigned long, int, int, void*, void*) { return 0; }
#ifndef FAKE_NCCL_PARTIAL
int ncclAllGather(const void*, void*, unsigned long, int, void*, void*) { return 0; }
#endif
int ncclGroupStart() { return 0; }
int ncclGroupEnd() { return 0; }
}
