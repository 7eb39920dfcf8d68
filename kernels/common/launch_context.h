// LaunchContext: where a kernel is enqueued. A value, passed to every Launch* function.
// Launch functions only enqueue: no allocation, no synchronisation, legal under stream capture.
#pragma once

struct CUstream_st;  // cudaStream_t is a pointer to it

namespace behemoth::kernels {

struct LaunchContext {
  CUstream_st* stream = nullptr;
  // Programmatic dependent launch (code for sm_90 and newer; ignored for older): the kernel may
  // start before its predecessor on the stream has ended. Every kernel of this library then
  // executes griddepcontrol.wait before it touches anything but constant weights, so the flag never
  // changes a result. Set it for all kernels of a step but the first.
  bool overlap_predecessor = false;
};

}  // namespace behemoth::kernels
