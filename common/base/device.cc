#include "common/base/device.h"

#include "common/base/numbers/number_text.h"

namespace plumb {

std::optional<Device> ParseDevice(std::string_view name) {
  constexpr std::string_view kNumbered = "cuda:";
  constexpr int kMaxOrdinal = 1023;
  if (name == "cpu") return Device::kCpu;
  if (name == "cuda") return Device::Cuda(0);
  if (!name.starts_with(kNumbered)) return std::nullopt;
  const auto ordinal = ParseNumber<int>(name.substr(kNumbered.size()));
  if (!ordinal || *ordinal < 0 || *ordinal > kMaxOrdinal) return std::nullopt;
  return Device::Cuda(*ordinal);
}

std::string DeviceName(Device device) {
  return device.is_cpu() ? "cpu" : "cuda:" + std::to_string(device.ordinal);
}

}  // namespace plumb
