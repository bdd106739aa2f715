// How much of the GPU's memory is in use: by this process' allocator (which keeps what it once took) and by whoever shares the card.
//
// Thread safety: all. Errors: none; 0 without CUDA or a device that answers.
#pragma once

#include <cstdint>

namespace plumb::kernels {

int64_t DeviceBytesInUse();

}  // namespace plumb::kernels
