// The GPU of this process, where several processes of a machine run one recipe: each rank of a
// learner has its own, whatever number run.device says.
//
// Thread safety: UseGpu once, before a device is asked for.
#pragma once

#include "common/base/device.h"

namespace plumb::kernels {

void UseGpu(int ordinal);
// Of a GPU, that of UseGpu where it was called; the CPU stays what it is.
Device OfThisProcess(Device device);

}  // namespace plumb::kernels
