// Curves of characters for WatchView.
#include <algorithm>
#include <cmath>
#include <limits>

#include "common/text/unicode.h"
#include "run/board/watch_view.h"

namespace plumb::run {
namespace {

constexpr float kNone = std::numeric_limits<float>::quiet_NaN();

// Means of `columns` equal parts of the values; fewer values than columns are repeated.
std::vector<float> Spread(const std::vector<float>& values, int columns) {
  std::vector<float> out(static_cast<size_t>(std::max(0, columns)), kNone);
  if (values.empty()) return out;
  for (size_t i = 0; i < out.size(); ++i) {
    size_t begin = i * values.size() / out.size(), end = (i + 1) * values.size() / out.size();
    end = std::max(end, begin + 1);
    double sum = 0;
    int count = 0;
    for (size_t k = begin; k < end; ++k) {
      if (!std::isfinite(values[k])) continue;
      sum += static_cast<double>(values[k]);
      ++count;
    }
    if (count > 0) out[i] = static_cast<float>(sum / count);
  }
  return out;
}

struct Range {
  float low = std::numeric_limits<float>::max(), high = std::numeric_limits<float>::lowest();
  bool empty() const { return low > high; }
};

Range RangeOf(const std::vector<float>& values) {
  Range range;
  for (const float v : values) {
    if (!std::isfinite(v)) continue;
    range.low = std::min(range.low, v);
    range.high = std::max(range.high, v);
  }
  return range;
}

// 0 at the lowest of `levels`, levels - 1 at the highest; the middle when all are equal.
int Level(float value, const Range& range, int levels) {
  const double span = static_cast<double>(range.high) - static_cast<double>(range.low);
  if (!(span > 0)) return (levels - 1) / 2;
  const double share = (static_cast<double>(value) - static_cast<double>(range.low)) / span;
  return std::clamp(static_cast<int>(std::lround(share * (levels - 1))), 0, levels - 1);
}

// Of U+2800: dots by column and row from above.
constexpr int kDots[2][4] = {{0x01, 0x02, 0x04, 0x40}, {0x08, 0x10, 0x20, 0x80}};

}  // namespace

std::vector<std::string> Braille(const std::vector<float>& values, int columns, int rows) {
  columns = std::max(0, columns);
  rows = std::max(0, rows);
  const std::vector<float> dots = Spread(values, 2 * columns);
  const Range range = RangeOf(dots);
  std::vector<int> cells(static_cast<size_t>(columns) * static_cast<size_t>(rows), 0);
  int before = -1;
  for (int x = 0; x < 2 * columns && rows > 0; ++x) {
    const float value = dots[static_cast<size_t>(x)];
    if (!std::isfinite(value) || range.empty()) {
      before = -1;
      continue;
    }
    const int y = 4 * rows - 1 - Level(value, range, 4 * rows);  // from above
    // A steep curve stays one line: the column is filled up to where the last one ended.
    int from = y, to = y;
    if (before >= 0 && before < y - 1) from = before + 1;
    if (before > y + 1) to = before - 1;
    for (int at = from; at <= to; ++at)
      cells[static_cast<size_t>(at / 4 * columns + x / 2)] |= kDots[x % 2][at % 4];
    before = y;
  }
  std::vector<std::string> out(static_cast<size_t>(rows));
  for (size_t i = 0; i < cells.size(); ++i) {
    std::string& line = out[i / static_cast<size_t>(columns)];
    if (cells[i] == 0) line += ' ';
    else AppendUtf8(static_cast<char32_t>(0x2800 + cells[i]), line);
  }
  return out;
}

}  // namespace plumb::run
