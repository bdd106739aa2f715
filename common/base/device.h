// Where memory lies and work is done: the CPU, or one GPU of this machine.
//
// Thread safety: values. Whether there is such a GPU is asked in kernels/device/stream.h.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace plumb {

// Do not change the values of existing entries.
enum class DeviceKind : uint8_t { kCpu = 0, kCuda = 1 };

// The CPU by name. A type of its own, because it stands for a Device and for a Stream
// (kernels/device/stream.h) alike: on the CPU there is no stream to create.
struct CpuDevice {};

struct Device {
  DeviceKind kind = DeviceKind::kCpu;
  int16_t ordinal = 0;  // of the GPU; 0 on the CPU

  static constexpr CpuDevice kCpu{};
  static constexpr Device Cuda(int ordinal) {
    return {DeviceKind::kCuda, static_cast<int16_t>(ordinal)};
  }

  constexpr Device() = default;
  constexpr Device(CpuDevice) {}  // NOLINT: the CPU is a device
  constexpr Device(DeviceKind k, int16_t o) : kind(k), ordinal(o) {}

  constexpr bool is_cpu() const { return kind == DeviceKind::kCpu; }
  constexpr bool is_cuda() const { return kind == DeviceKind::kCuda; }
  friend constexpr bool operator==(Device, Device) = default;
};

// "cpu", "cuda" (the first GPU) or "cuda:1"; nothing for any other text.
std::optional<Device> ParseDevice(std::string_view name);
// "cpu" or "cuda:1".
std::string DeviceName(Device device);

}  // namespace plumb
