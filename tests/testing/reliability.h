// How often a test of docs/reliability.md repeats itself. Thread safety: safe.
#pragma once

#include <cstdlib>
#include <cstring>

namespace plumb::testing {

// `smoke` in `make test`, `ci` in `make test-reliability` (PLUMB_RELIABILITY=ci).
inline int Count(int smoke, int ci) {
  const char* size = std::getenv("PLUMB_RELIABILITY");
  return size != nullptr && std::strcmp(size, "ci") == 0 ? ci : smoke;
}

}  // namespace plumb::testing
