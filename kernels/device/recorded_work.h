// What was enqueued on a stream once, to be enqueued again by one call: a CUDA graph.
//
// Purpose: a decode step of a small model is some hundred launches of a few microseconds each, and
// the processor that makes them is what the GPU waits for. Recorded, they are one call.
// What is recorded holds the addresses and sizes of that time: whoever replays it sees to it that
// the memory is still there, and puts new values into it before.
// Thread safety: that of the stream. Ownership: owns the graph, not the memory that it works on.
// Errors: kIo for what CUDA refuses: a call that cannot be recorded, or a graph that cannot be
// made. kUnsupported on the CPU, where work is done as it is called.
#pragma once

#include <functional>
#include <memory>

#include "kernels/device/stream.h"

namespace plumb::kernels {

class RecordedWork {
 public:
  // Calls `enqueue`; what it puts on the stream is recorded and not done. What it throws passes
  // through, and the stream is then as before. Nothing in it may take memory or wait.
  RecordedWork(const Stream& stream, const std::function<void()>& enqueue);
  ~RecordedWork();
  RecordedWork(RecordedWork&&) noexcept;
  RecordedWork& operator=(RecordedWork&&) noexcept;

  void Replay() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace plumb::kernels
