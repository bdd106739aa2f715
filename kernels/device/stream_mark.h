// A place in what goes through a stream, for another stream to wait for.
//
// Purpose: two streams of one device that hand memory to each other without the host waiting for
// either (kernels/device/stream.h). On the CPU every call is done when it returns: nothing happens.
// Thread safety: one thread. Ownership: owns a CUDA event. Errors: kIo for what CUDA refuses.
#pragma once

#include "kernels/device/stream.h"

namespace plumb::kernels {

class StreamMark {
 public:
  explicit StreamMark(Device device);
  ~StreamMark();
  StreamMark(StreamMark&& other) noexcept;
  StreamMark& operator=(StreamMark&& other) noexcept;

  // Behind all that `stream` was given so far.
  void Set(const Stream& stream);
  // What `stream` is given from now on begins once the mark is passed; at once where it was never
  // set.
  void LetWait(const Stream& stream) const;

 private:
  Device device_;
  void* event_ = nullptr;  // cudaEvent_t
};

}  // namespace plumb::kernels
