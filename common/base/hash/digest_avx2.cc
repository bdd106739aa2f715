#include "common/base/hash/digest_avx2.h"

#if defined(__x86_64__)
#define XXH_INLINE_ALL
#include <xxhash.h>

namespace plumb {

uint64_t HashBytesAvx2(const void* data, size_t size) { return XXH3_64bits(data, size); }

}  // namespace plumb
#endif
