// How long the device spends on marked pieces of a stream's work, in sum.
//
// Thread-compatible. Measuring costs two events a piece, and no waiting before Total().
#pragma once

#include <absl/time/time.h>

#include <vector>

struct CUevent_st;
struct CUstream_st;

namespace behemoth::worker::cuda {

class StreamTimer {
 public:
  StreamTimer() = default;
  ~StreamTimer();
  StreamTimer(const StreamTimer&) = delete;
  StreamTimer& operator=(const StreamTimer&) = delete;

  // What is enqueued on `stream` between the two counts.
  void Start(CUstream_st* stream);
  void Stop(CUstream_st* stream);
  // Waits for the last piece, and forgets all. What the device could not measure counts as zero.
  absl::Duration Total();

 private:
  struct Piece {
    CUevent_st* begin = nullptr;
    CUevent_st* end = nullptr;
  };
  void Forget();

  std::vector<Piece> pieces_;
};

}  // namespace behemoth::worker::cuda
