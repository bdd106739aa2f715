#include "kernels/tasks/weigh_groups.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "common/base/rng.h"

namespace plumb::kernels {
namespace {

constexpr int64_t kRows = 7;
constexpr int64_t kWidth = 3;
constexpr int32_t kGroups = 4;
constexpr int32_t kTasks = 3;
constexpr size_t kElements = kRows * kGroups * kWidth;

struct Numbers {
  std::vector<float> x, d, weight;
  std::vector<int32_t> task;
  Numbers() : x(kElements), d(kElements), weight(kTasks * kGroups) {
    RandomStream random(4, 2);
    for (auto* list : {&x, &d, &weight}) {
      for (float& v : *list) v = random.NextNormal();
    }
    for (int64_t r = 0; r < kRows; ++r)
      task.push_back(static_cast<int32_t>(random.NextBelow(kTasks)));
  }
  WeighGroups Forward(float* at, int64_t first = 0, int64_t rows = kRows) const {
    return {.x = at,
            .rows = rows,
            .width = kWidth,
            .groups = kGroups,
            .task = task.data() + first,
            .weight = weight.data(),
            .scale = 1.5f};
  }
};

TEST(WeighGroupsTest, WeighsEachRunOfARowByItsTask) {
  const Numbers n;
  std::vector<float> y = n.x;
  Call({}, n.Forward(y.data()));
  for (int64_t r = 0; r < kRows; ++r) {
    for (int64_t c = 0; c < kGroups * kWidth; ++c) {
      const auto at = static_cast<size_t>(r * kGroups * kWidth + c);
      const float w =
          n.weight[static_cast<size_t>(n.task[static_cast<size_t>(r)] * kGroups + c / kWidth)];
      EXPECT_FLOAT_EQ(y[at], 1.5f * w * n.x[at]);
    }
  }
  // A row alone has the same bits.
  std::vector<float> alone(n.x.begin() + 2 * kGroups * kWidth, n.x.begin() + 3 * kGroups * kWidth);
  Call({}, n.Forward(alone.data(), 2, 1));
  EXPECT_TRUE(std::equal(alone.begin(), alone.end(), y.begin() + 2 * kGroups * kWidth));
}

TEST(WeighGroupsTest, ItsBackwardIsThatOfTheProduct) {
  const Numbers n;
  std::vector<float> x = n.x, d = n.d, y = n.x;
  std::vector<double> dweight(kTasks * kGroups, 0.25);
  Call({}, n.Forward(y.data()));
  Call({}, WeighGroupsBackward{.d = d.data(),
                               .x = x.data(),
                               .rows = kRows,
                               .width = kWidth,
                               .groups = kGroups,
                               .task = n.task.data(),
                               .weight = n.weight.data(),
                               .scale = 1.5f,
                               .dweight = dweight.data()});
  EXPECT_EQ(x, y);
  std::vector<float> weighed = n.d;
  Call({}, n.Forward(weighed.data()));
  EXPECT_EQ(d, weighed);
  for (int32_t t = 0; t < kTasks; ++t) {
    for (int32_t g = 0; g < kGroups; ++g) {
      double want = 0.25;
      for (int64_t r = 0; r < kRows; ++r) {
        if (n.task[static_cast<size_t>(r)] != t) continue;
        for (int64_t i = 0; i < kWidth; ++i) {
          const auto at = static_cast<size_t>((r * kGroups + g) * kWidth + i);
          want += 1.5 * static_cast<double>(n.d[at]) * static_cast<double>(n.x[at]);
        }
      }
      EXPECT_NEAR(dweight[static_cast<size_t>(t * kGroups + g)], want, 1e-5);
    }
  }
}

TEST(WeighGroupsTest, RoundsOnceInBFloat16) {
  const Numbers n;
  std::vector<BFloat16> x(kElements);
  for (size_t i = 0; i < kElements; ++i) x[i] = ToBFloat16(n.x[i]);
  std::vector<BFloat16> y = x;
  WeighGroups weigh = n.Forward(nullptr);
  weigh.x = y.data();
  Call({.dtype = DType::kBFloat16}, weigh);
  for (size_t i = 0; i < kElements; ++i) {
    const auto row = i / (kGroups * kWidth), group = i % (kGroups * kWidth) / kWidth;
    const float w = n.weight[static_cast<size_t>(n.task[row]) * kGroups + group];
    EXPECT_EQ(ToFloat(y[i]), ToFloat(ToBFloat16(1.5f * w * ToFloat(x[i]))));
  }
}

}  // namespace
}  // namespace plumb::kernels
