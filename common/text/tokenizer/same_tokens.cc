#include "common/text/tokenizer/same_tokens.h"

#include <algorithm>

namespace plumb {

std::optional<int32_t> FirstDifference(const Tokenizer& a, const Tokenizer& b) {
  const int32_t common = std::min(a.size(), b.size());
  int32_t id = 0;
  while (id < common && a.TokenBytes(id) == b.TokenBytes(id)) ++id;
  if (id == common && a.size() == b.size()) return std::nullopt;
  return id;
}

}  // namespace plumb
