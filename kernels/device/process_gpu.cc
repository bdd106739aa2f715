#include "kernels/device/process_gpu.h"

#include <optional>

namespace plumb::kernels {
namespace {

std::optional<int>& Chosen() {
  static std::optional<int> chosen;
  return chosen;
}

}  // namespace

void UseGpu(int ordinal) { Chosen() = ordinal; }

Device OfThisProcess(Device device) {
  return device.is_cuda() && Chosen() ? Device::Cuda(*Chosen()) : device;
}

}  // namespace plumb::kernels
