#include "common/base/size_text.h"

#include <cstdio>

namespace plumb {

std::string SizeText(int64_t bytes) {
  char text[40];
  const auto n = static_cast<double>(bytes);
  if (bytes >= 100'000'000'000) std::snprintf(text, sizeof text, "%.0f GB", n / 1e9);
  else if (bytes >= 950'000'000) std::snprintf(text, sizeof text, "%.1f GB", n / 1e9);
  else if (bytes >= 950'000) std::snprintf(text, sizeof text, "%.0f MB", n / 1e6);
  else if (bytes >= 1000) std::snprintf(text, sizeof text, "%.0f kB", n / 1e3);
  else std::snprintf(text, sizeof text, "%lld bytes", static_cast<long long>(bytes));
  return text;
}

std::string LimitText(int64_t bytes) {
  char text[40];
  const auto in = [&](int bits, const char* unit) {
    const bool whole = bytes % (int64_t{1} << bits) == 0;
    std::snprintf(text, sizeof text, whole ? "%.0f %s" : "%.1f %s",
                  static_cast<double>(bytes) / static_cast<double>(int64_t{1} << bits), unit);
  };
  if (bytes >= int64_t{1} << 30) in(30, "GiB");
  else if (bytes >= int64_t{1} << 20) in(20, "MiB");
  else if (bytes >= int64_t{1} << 10) in(10, "KiB");
  else std::snprintf(text, sizeof text, "%lld bytes", static_cast<long long>(bytes));
  return text;
}

}  // namespace plumb
