// What a GPU's processors can do, as CUDA numbers it.
//
// Thread safety: all. Errors: kUnsupported in a build without CUDA, kIo for what CUDA refuses.
#pragma once

#include "common/base/device.h"

namespace plumb::kernels {

// Ten times the major number and the minor one: 89, 90. REQUIRES: a GPU.
int ComputeCapability(Device device);

}  // namespace plumb::kernels
