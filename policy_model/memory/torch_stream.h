// LibTorch on a stream of ours.
//
// Thread safety: all; an OnStream changes LibTorch's current stream of this thread alone, and
// changes it back.
// On the CPU nothing is done.
#pragma once

#include <cstdint>

#include "kernels/device/stream.h"

namespace c10 {
struct Device;
}

namespace plumb::policy_model {

// Everything that LibTorch takes and runs on the stream's device goes to the stream for as long as
// this lives.
class OnStream {
 public:
  explicit OnStream(const Stream& stream);
  ~OnStream();
  OnStream(const OnStream&) = delete;
  OnStream& operator=(const OnStream&) = delete;

 private:
  const Device device_;
  const kernels::OnDevice here_;
  int64_t before_ = 0;  // LibTorch's number of the stream that was current
};

// With the ordinal; ATen has to be included where this is called.
c10::Device TorchDevice(Device device);

}  // namespace plumb::policy_model
