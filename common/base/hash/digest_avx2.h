// HashBytes of common/base/hash/digest.h, compiled for AVX2: twice as fast. Only digest.cc, which
// asks the processor, calls it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace plumb {

#if defined(__x86_64__)
uint64_t HashBytesAvx2(const void* data, size_t size);  // REQUIRES: a processor with AVX2
#endif

}  // namespace plumb
