// The queue that a role's work on a device goes through, in order.
//
// Purpose: a role creates one OwnedStream and passes it down as a Stream; memory is taken and
// copied on it, kernels and LibTorch (policy_model/memory/torch_stream.h) run on it. Nothing runs
// on the CUDA runtime's default stream: a step can so be captured in a graph, and roles that share
// a GPU do not wait for one another.
// Two streams know nothing of each other: whoever hands memory from one to the other calls
// Synchronize in between.
// On the CPU there is nothing to create and every call is done when it returns: Device::kCpu stands
// for the stream.
// Thread safety: Stream is a value; a stream is used by one thread at a time. Ownership: a Stream
// borrows; the OwnedStream outlives whatever works on it (memory taken on it may be given back
// later).
// Errors: kUnsupported for a GPU that this build or machine does not have, and for one used in a
// build without CUDA; kIo for what CUDA refuses, and for what failed in a kernel before, which
// shows at the next Synchronize.
#pragma once

#include <string>

#include "common/base/device.h"

namespace plumb {

class Stream {
 public:
  Stream(CpuDevice) {}  // NOLINT: the CPU stands for its stream
  // A CUDA stream of somebody else's making. REQUIRES: it is not nullptr, the
  // legacy default stream.
  static Stream Borrow(Device device, void* cuda_stream);

  Device device() const { return device_; }
  void* handle() const { return handle_; }  // cudaStream_t; nullptr on the CPU
  // Waits until everything enqueued so far has been done.
  void Synchronize() const;
  // Between cudaStreamBeginCapture and cudaStreamEndCapture.
  bool capturing() const;

 protected:
  Stream(Device device, void* handle) : device_(device), handle_(handle) {}
  Device device_;
  void* handle_ = nullptr;
};

class OwnedStream : public Stream {
 public:
  // A new stream of the device; nothing on the CPU.
  explicit OwnedStream(Device device);
  ~OwnedStream();  // waits for what is enqueued
  OwnedStream(OwnedStream&& other) noexcept;
  OwnedStream& operator=(OwnedStream&& other) noexcept;
};

namespace kernels {

// GPUs that answer; 0 in a build without CUDA.
int CudaDevices();
inline bool CudaAvailable() { return CudaDevices() > 0; }

// kUnsupported unless `device` is the CPU or one of `there` GPUs; `where` names the option that
// asked for it.
void CheckDevice(Device device, const std::string& where = {}, int there = CudaDevices());

// The device is the current one of this thread for as long as this lives: CUDA launches kernels
// only there.
class OnDevice {
 public:
  explicit OnDevice(Device device);
  ~OnDevice();
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

 private:
  int before_ = -1;  // -1: nothing was changed
};

}  // namespace kernels
}  // namespace plumb
