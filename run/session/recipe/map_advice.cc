#include "run/session/recipe/map_advice.h"

#include <algorithm>
#include <sstream>
#include <string_view>

namespace plumb::run {

std::string MapAdviceBySet(std::string text) {
  constexpr std::string_view kMap = "--map ", kRecipe = ", in a recipe data.map", kTable = " = { ";
  for (size_t begin = 0; (begin = text.find(kMap, begin)) != std::string::npos; ++begin) {
    const size_t part = begin + kMap.size(), recipe = text.find(kRecipe, part);
    const size_t equals = text.find('=', part);
    if (recipe == std::string::npos || equals > recipe || text.find(kMap, part) < recipe) continue;
    size_t end = recipe + kRecipe.size();
    if (text.compare(end, kTable.size(), kTable) == 0) {
      const size_t close = text.find(" }", end);
      if (close != std::string::npos) end = close + 2;
    }
    std::stringstream pairs(text.substr(part, recipe - part));
    std::string entries, pair;
    while (std::getline(pairs, pair, ',')) {
      const size_t at = std::min(pair.find('='), pair.size() - 1);
      entries +=
          (entries.empty() ? "" : ",") + pair.substr(0, at) + "=\"" + pair.substr(at + 1) + "\"";
    }
    const std::string set = "--set 'data.map={" + entries + "}'";
    text.replace(begin, end - begin, set);
  }
  return text;
}

}  // namespace plumb::run
