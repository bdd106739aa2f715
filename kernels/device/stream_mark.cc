#include "kernels/device/stream_mark.h"

#include <utility>

#include "common/base/error.h"
#ifdef PLUMB_CUDA
#include "kernels/device/cuda_check.h"
#endif

namespace plumb::kernels {

#ifdef PLUMB_CUDA
StreamMark::StreamMark(Device device) : device_(device) {
  if (device.is_cpu()) return;
  const OnDevice here(device);
  cudaEvent_t event = nullptr;
  CheckCuda(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "an event");
  event_ = event;
}

StreamMark::~StreamMark() {
  if (event_) cudaEventDestroy(static_cast<cudaEvent_t>(event_));
}

void StreamMark::Set(const Stream& stream) {
  if (!event_) return;
  const OnDevice here(device_);
  CheckCuda(
      cudaEventRecord(static_cast<cudaEvent_t>(event_), static_cast<cudaStream_t>(stream.handle())),
      "to mark a stream");
}

void StreamMark::LetWait(const Stream& stream) const {
  if (!event_) return;
  const OnDevice here(device_);
  CheckCuda(cudaStreamWaitEvent(static_cast<cudaStream_t>(stream.handle()),
                                static_cast<cudaEvent_t>(event_), 0),
            "to let a stream wait");
}
#else
StreamMark::StreamMark(Device device) : device_(device) {
  PLUMB_CHECK(device.is_cpu(), "a build without CUDA has no streams to mark");
}

StreamMark::~StreamMark() = default;
void StreamMark::Set(const Stream&) {}
void StreamMark::LetWait(const Stream&) const {}
#endif

StreamMark::StreamMark(StreamMark&& other) noexcept
    : device_(other.device_), event_(std::exchange(other.event_, nullptr)) {}

StreamMark& StreamMark::operator=(StreamMark&& other) noexcept {
  std::swap(device_, other.device_);
  std::swap(event_, other.event_);
  return *this;
}

}  // namespace plumb::kernels
