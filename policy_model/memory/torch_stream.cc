#include "policy_model/memory/torch_stream.h"

#include <c10/core/Device.h>
#ifdef PLUMB_CUDA
#include <c10/cuda/CUDAStream.h>
#endif

namespace plumb::policy_model {

c10::Device TorchDevice(Device device) {
  if (device.is_cpu()) return c10::Device(c10::kCPU);
  return {c10::kCUDA, static_cast<c10::DeviceIndex>(device.ordinal)};
}

#ifdef PLUMB_CUDA
OnStream::OnStream(const Stream& stream) : device_(stream.device()), here_(stream.device()) {
  if (device_.is_cpu()) return;
  const auto index = TorchDevice(device_).index();
  before_ = c10::cuda::getCurrentCUDAStream(index).id();
  c10::cuda::setCurrentCUDAStream(
      c10::cuda::getStreamFromExternal(static_cast<cudaStream_t>(stream.handle()), index));
}

OnStream::~OnStream() {
  if (device_.is_cpu()) return;
  const c10::Stream before(c10::Stream::UNSAFE, TorchDevice(device_), before_);
  c10::cuda::setCurrentCUDAStream(c10::cuda::CUDAStream(c10::cuda::CUDAStream::UNCHECKED, before));
}
#else
OnStream::OnStream(const Stream& stream) : device_(stream.device()), here_(stream.device()) {}
OnStream::~OnStream() = default;
#endif

}  // namespace plumb::policy_model
