#include "kernels/device_memory.h"

#ifndef PLUMB_CUDA
namespace plumb::kernels {

int64_t DeviceBytesInUse() { return 0; }

}  // namespace plumb::kernels
#endif
