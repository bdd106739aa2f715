#include "common/base/nearest.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace plumb {

size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<size_t> two_above, above, row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    two_above = std::exchange(above, row);
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({above[j] + 1, row[j - 1] + 1, above[j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        row[j] = std::min(row[j], two_above[j - 2] + 1);
    }
  }
  return row[b.size()];
}

std::string NearestName(std::string_view word, std::span<const std::string> names, size_t most) {
  std::string nearest;
  size_t best = 0;
  for (const std::string& name : names) {
    const size_t distance = EditDistance(word, name);
    if (distance > most || (!nearest.empty() && distance >= best)) continue;
    best = distance;
    nearest = name;
  }
  return nearest;
}

std::string DidYouMean(std::string_view word, std::span<const std::string> names) {
  const std::string nearest = NearestName(word, names, std::max<size_t>(2, word.size() / 3));
  return nearest.empty() ? "" : ", did you mean '" + nearest + "'?";
}

}  // namespace plumb
