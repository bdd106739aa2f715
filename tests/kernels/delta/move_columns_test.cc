#include "kernels/delta/move_columns.h"

#include "tests/kernels/kernel_test.h"

namespace plumb::kernels {
namespace {

TEST(MoveColumnsTest, MovesRunsThereAndBackAndLeavesTheRest) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    const Target target{Device::kCpu, dtype};
    const Launch launch{.stream = Device::kCpu, .dtype = dtype};
    const std::vector<ColumnRun> runs = {{0, 3, 2}, {2, 0, 1}, {5, 1, 2}};
    Tensor x(target, {0, 1, 2, 3, 4, 5, 6, 10, 11, 12, 13, 14, 15, 16}),
        y(target, std::vector<float>(12, -1)), back(target, std::vector<float>(14, -1));
    const auto move = [&](Tensor& from, Tensor& to, int64_t from_width, int64_t to_width,
                          const std::vector<ColumnRun>& by) {
      Call(launch, MoveColumns{.x = from.data(),
                               .rows = 2,
                               .x_width = from_width,
                               .y_width = to_width,
                               .runs = by.data(),
                               .count = static_cast<int64_t>(by.size()),
                               .y = to.data()});
    };
    move(x, y, 7, 6, runs);
    EXPECT_EQ(y.Host(), (std::vector<float>{2, 5, 6, 0, 1, -1, 12, 15, 16, 10, 11, -1}));
    move(y, back, 6, 7, Reversed(runs));
    EXPECT_EQ(back.Host(), (std::vector<float>{0, 1, 2, -1, -1, 5, 6, 10, 11, 12, -1, -1, 15, 16}));
  }
}

}  // namespace
}  // namespace plumb::kernels
