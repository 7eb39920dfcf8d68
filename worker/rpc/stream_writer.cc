#include "worker/rpc/stream_writer.h"

#include <iterator>
#include <utility>

namespace behemoth::worker {

StreamWriter::StreamWriter() : thread_([this] { Run(); }) {}

StreamWriter::~StreamWriter() {
  {
    absl::MutexLock lock(&mutex_);
    stop_ = true;
  }
  thread_.join();
}

void StreamWriter::Flush() {
  if (scheduled_.empty()) return;
  {
    absl::MutexLock lock(&mutex_);
    ready_.insert(ready_.end(), std::make_move_iterator(scheduled_.begin()),
                  std::make_move_iterator(scheduled_.end()));
  }
  scheduled_.clear();
}

void StreamWriter::Run() {
  std::vector<std::shared_ptr<Stream>> streams;
  while (true) {
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(this, &StreamWriter::HasWork));
      if (ready_.empty()) return;
      streams.swap(ready_);
    }
    for (const auto& stream : streams) stream->WriteReady();
    streams.clear();
  }
}

}  // namespace behemoth::worker
