#include "kernels/device/stream.h"

#include <utility>

#include "common/base/error.h"
#ifdef PLUMB_CUDA
#include "kernels/device/cuda_check.h"
#endif

namespace plumb {

Stream Stream::Borrow(Device device, void* cuda_stream) {
  PLUMB_CHECK(device.is_cuda() && cuda_stream != nullptr, "no stream of " + DeviceName(device));
  return {device, cuda_stream};
}

OwnedStream::OwnedStream(OwnedStream&& other) noexcept
    : Stream(std::exchange(static_cast<Stream&>(other), Device::kCpu)) {}

OwnedStream& OwnedStream::operator=(OwnedStream&& other) noexcept {
  std::swap(static_cast<Stream&>(*this), static_cast<Stream&>(other));
  return *this;
}

namespace kernels {

void CheckDevice(Device device, const std::string& where, int there) {
  if (device.is_cpu() || device.ordinal < there) return;
  const std::string asked = "\"" + DeviceName(device) + "\" is not here: ";
#ifdef PLUMB_CUDA
  const std::string none = "no GPU answers; see plumb doctor, or use the CPU";
#else
  const std::string none =
      "this build has no CUDA; use the cuda preset on a machine with a GPU, or the CPU";
#endif
  if (there == 0) throw Error(ErrorCode::kUnsupported, asked + none, where);
  throw Error(ErrorCode::kUnsupported,
              asked + (there == 1 ? "this machine has 1 GPU, cuda:0"
                                  : "this machine has " + std::to_string(there) +
                                        " GPUs, cuda:0 to cuda:" + std::to_string(there - 1)),
              where);
}

}  // namespace kernels

#ifdef PLUMB_CUDA
using kernels::CheckCuda;

namespace {

cudaStream_t CudaStream(const Stream& stream) { return static_cast<cudaStream_t>(stream.handle()); }

}  // namespace

void Stream::Synchronize() const {
  if (device_.is_cuda())
    CheckCuda(cudaStreamSynchronize(CudaStream(*this)), "what was enqueued on a stream");
}

bool Stream::capturing() const {
  if (device_.is_cpu()) return false;
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  CheckCuda(cudaStreamIsCapturing(CudaStream(*this), &status), "cudaStreamIsCapturing");
  return status != cudaStreamCaptureStatusNone;
}

// Non-blocking: what others do on the legacy default stream does not hold it up.
OwnedStream::OwnedStream(Device device) : Stream(device, nullptr) {
  kernels::CheckDevice(device);
  if (device.is_cpu()) return;
  const kernels::OnDevice here(device);
  cudaStream_t made = nullptr;
  CheckCuda(cudaStreamCreateWithFlags(&made, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  handle_ = made;
}

OwnedStream::~OwnedStream() {
  if (handle_ == nullptr) return;
  // Nobody to tell what fails here.
  cudaStreamSynchronize(CudaStream(*this));
  cudaStreamDestroy(CudaStream(*this));
  cudaGetLastError();
}

namespace kernels {

int CudaDevices() {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) == cudaSuccess) return devices;
  cudaGetLastError();  // "no driver" must not surface at the next launch
  return 0;
}

OnDevice::OnDevice(Device device) {
  if (device.is_cpu()) return;
  int current = 0;
  CheckCuda(cudaGetDevice(&current), "cudaGetDevice");
  if (current == device.ordinal) return;
  CheckCuda(cudaSetDevice(device.ordinal), "cudaSetDevice");
  before_ = current;
}

OnDevice::~OnDevice() {
  if (before_ >= 0) cudaSetDevice(before_);
}

}  // namespace kernels
#else
// Streams of a GPU cannot be created here: there is nothing to do for them.
void Stream::Synchronize() const {}
bool Stream::capturing() const { return false; }
OwnedStream::OwnedStream(Device device) : Stream(Device::kCpu) { kernels::CheckDevice(device); }
OwnedStream::~OwnedStream() = default;

namespace kernels {

int CudaDevices() { return 0; }
OnDevice::OnDevice(Device) {}
OnDevice::~OnDevice() = default;

}  // namespace kernels
#endif
}  // namespace plumb
