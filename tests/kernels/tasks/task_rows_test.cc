// kernels/tasks/task_rows.h and weigh_groups.h: tokens of tasks from the definition on both
// devices; weighed groups on CUDA against the CPU, which weigh_groups_test.cc holds to the
// definition.
#include "kernels/tasks/task_rows.h"

#include <algorithm>

#include "kernels/tasks/weigh_groups.h"
#include "tests/kernels/kernel_test.h"

namespace plumb::kernels {
namespace {

PLUMB_KERNEL_SUITE(TaskRowsTest);

// Two tasks of three tokens each, from 1000 on, 10 apart.
constexpr int32_t kFirst = 1000;
constexpr int32_t kStride = 10;
constexpr int32_t kPerTask = 3;
constexpr int32_t kTasks = 2;

TEST_P(TaskRowsTest, TokensOfTasksHaveTheirRowsAndOthersStay) {
  for (const int64_t width : {1, 37, 300}) {
    const std::vector<int32_t> tokens = {1000, 1001, 1002, 5, 1010, 1012, 0, 999, 1000, 1002, 1012};
    const std::vector<int64_t> place = {0, 1, 2, -1, 3, 5, -1, -1, 0, 2, 5};
    const auto rows = static_cast<int64_t>(tokens.size());
    const auto n = [&](int64_t r) { return static_cast<size_t>(r * width); };
    const auto table = Normal(n(kTasks * kPerTask), 1, dtype()), x = Normal(n(rows), 2, dtype()),
               d = Normal(n(rows), 3, dtype());
    Array<int32_t> ttokens(device(), tokens), known(device(), tokens.size());
    Tensor ttable(GetParam(), table), tx(GetParam(), x), td(GetParam(), d);
    Array<float> grad(device(), std::vector<float>(table.size(), 0.25f));
    const TaskTokenShape shape = {.tokens = ttokens.data(),
                                  .rows = rows,
                                  .width = width,
                                  .first = kFirst,
                                  .stride = kStride,
                                  .per_task = kPerTask,
                                  .tasks = kTasks};
    Call(launch(), KnownTokens{.shape = shape, .known = known.data()});
    Call(launch(), EmbedTaskTokens{.shape = shape, .table = ttable.data(), .x = tx.data()});
    Call(launch(), EmbedTaskTokensBackward{.shape = shape, .d = td.data(), .grad = grad.data()});
    std::vector<int32_t> want_known = tokens;
    std::vector<float> want = x;
    std::vector<double> want_grad(table.size(), 0.25);
    for (size_t r = 0; r < tokens.size(); ++r) {
      if (place[r] < 0) continue;
      want_known[r] = 0;
      for (int64_t i = 0; i < width; ++i) {
        const size_t at = n(static_cast<int64_t>(r)) + static_cast<size_t>(i),
                     row = n(place[r]) + static_cast<size_t>(i);
        want[at] = table[row];
        want_grad[row] += static_cast<double>(d[at]);
      }
    }
    EXPECT_EQ(known.Host(), want_known);
    ExpectSameBits(tx.Host(), want, "rows");
    ExpectClose(grad.Host(), want_grad, 2 * kEps, 4 * kEps, "gradient");  // sums of three
  }
}

TEST_P(TaskRowsTest, WeighedGroupsAreTheCpus) {
  for (const auto& [rows, width] : {std::pair{int64_t{1}, int64_t{3}}, {7, 8}, {700, 40}}) {
    constexpr int32_t kGroups = 3, kAll = 4;
    const auto n = static_cast<size_t>(rows * kGroups * width);
    const auto x = Normal(n, 1, dtype()), d = Normal(n, 2, dtype()),
               weight = Normal(kAll * kGroups, 3);
    std::vector<int32_t> task;
    for (int64_t r = 0; r < rows; ++r) task.push_back(static_cast<int32_t>(r * r % 3));  // not 3
    std::vector<float> forward[2], dx[2], y[2];
    std::vector<double> dweight[2];
    for (const Device on : {Device(Device::kCpu), device()}) {
      const Target target{on, dtype()};
      const Launch here{.stream = TestStream(on), .dtype = dtype()};
      const size_t which = forward[0].empty() ? 0 : 1;
      Tensor tx(target, x), tz(target, x), td(target, d);
      Array<int32_t> ttask(on, task);
      Array<float> tw(on, weight);
      Array<double> tdw(on, std::vector<double>(kAll * kGroups, 0.5));
      Call(here, WeighGroups{.x = tx.data(),
                             .rows = rows,
                             .width = width,
                             .groups = kGroups,
                             .task = ttask.data(),
                             .weight = tw.data(),
                             .scale = 1.5f});
      Call(here, WeighGroupsBackward{.d = td.data(),
                                     .x = tz.data(),
                                     .rows = rows,
                                     .width = width,
                                     .groups = kGroups,
                                     .tasks = kAll,
                                     .task = ttask.data(),
                                     .weight = tw.data(),
                                     .scale = 1.5f,
                                     .dweight = tdw.data()});
      forward[which] = tx.Host(), dx[which] = td.Host(), y[which] = tz.Host();
      dweight[which] = tdw.Host();
    }
    ExpectSameBits(forward[1], forward[0], "weighed");  // two products, each rounded
    ExpectSameBits(dx[1], dx[0], "gradient");
    ExpectSameBits(y[1], forward[0], "what was weighed");
    // Sums of `width` products of size 1 in another order, over the rows in double.
    for (size_t i = 0; i < dweight[0].size(); ++i) {
      EXPECT_NEAR(dweight[1][i], dweight[0][i],
                  16 * kEps * static_cast<double>(width) * static_cast<double>(rows))
          << i;
    }
    EXPECT_EQ(dweight[1][3 * kGroups], 0.5) << "a task without rows";
  }
}

}  // namespace
}  // namespace plumb::kernels
