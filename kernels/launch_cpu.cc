#include "kernels/launch.h"

#ifndef PLUMB_CUDA
namespace plumb::kernels {

bool CudaAvailable() { return false; }

}  // namespace plumb::kernels
#endif
