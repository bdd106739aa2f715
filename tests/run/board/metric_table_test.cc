#include "run/board/metric_table.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <limits>

#include "run/board/line_tail.h"

namespace plumb::run {
namespace {

void Add(MetricTable& table, std::string lines) {
  const size_t bytes = lines.size();
  lines.append(LineTail::kPadding, '\0');
  table.Append(std::string_view(lines).substr(0, bytes));
}

std::vector<float> Mean(const MetricTable& table, const char* key, size_t points = 1000) {
  return table.CurveOf(key, XAxis::kStep, points).mean;
}

TEST(MetricTableTest, HasAColumnAMetric) {
  MetricTable table;
  Add(table,
      "{\"step\":0,\"wall_s\":10,\"a\":1,\"b\":-2.5e-3}\n"
      "{\"step\":1,\"wall_s\":12,\"a\":2,\"late\":7}\n"
      "{\"step\":2,\"wall_s\":13,\"b\":4,\"a\":3}\n");
  EXPECT_EQ(table.rows(), 3u);
  EXPECT_EQ(table.Names(), (std::vector<std::string>{"a", "b", "late"}));
  EXPECT_EQ(Mean(table, "a"), (std::vector<float>{1, 2, 3}));
  EXPECT_EQ(Mean(table, "b"), (std::vector<float>{-2.5e-3f, 4}));
  EXPECT_EQ(table.CurveOf("b", XAxis::kStep, 9).x, (std::vector<double>{0, 2}))
      << "a step without it has no place in the curve";
  EXPECT_EQ(table.CurveOf("late", XAxis::kTime, 9).x, (std::vector<double>{2}));
  EXPECT_TRUE(table.CurveOf("none", XAxis::kStep, 9).x.empty());
  EXPECT_EQ(table.Newest().at("late").value, 7);
  EXPECT_EQ(table.Newest().at("late").step, 1);
  EXPECT_EQ(table.last_step(), 2);
  EXPECT_EQ(table.last_wall_s(), 13);
  EXPECT_EQ(table.unreadable(), 0);
}

TEST(MetricTableTest, ThePaceCountsWhatLiesBetweenSteps) {
  const auto lines = [](int from, int to, double begin) {
    std::string out;
    double now = begin;
    for (int step = from; step < to; ++step) {
      now += step % 10 == 9 ? 22 : 2;  // saved and judged every tenth
      out += "{\"step\":" + std::to_string(step) + ",\"wall_s\":" + std::to_string(now) +
             ",\"time/step\":2}\n";
    }
    return out;
  };
  MetricTable table;
  EXPECT_EQ(table.Pace(), 0);
  Add(table, lines(0, 1, 1000));
  EXPECT_EQ(table.Pace(), 0);
  Add(table, lines(1, 101, 1002));
  EXPECT_NEAR(table.Pace(), 4, 1e-6);
  Add(table, lines(101, 111, 90'000));  // a day later
  EXPECT_NEAR(table.Pace(), 4, 0.1);
}

// Pieces that threads parse give the same table as one after the other, whatever stands in them.
TEST(MetricTableTest, ManyThreadsReadWhatOneDoes) {
  std::string lines;
  for (int step = 0; step < 40'000; ++step) {
    if (step % 9973 == 77) lines += "{\"step\":" + std::to_string(step) + ",\"a\":1";  // torn
    else {
      lines += "{\"step\":" + std::to_string(step) + ",\"wall_s\":" + std::to_string(step);
      lines += ",\"a\":" + std::to_string(0.25 * step) + ",\"time/step\":2";
      if (step > 20'000) lines += ",\"late\":" + std::to_string(-step);
      if (step % 7 == 0) lines += ",\"seldom\":null,\"perf/train_tokens\":3";
      lines += std::string(static_cast<size_t>(step % 50), ' ') + "}";
    }
    lines += '\n';
  }
  lines += "{\"step\":39000,\"wall_s\":1,\"a\":5}\n";  // another life
  ASSERT_GT(lines.size(), 3 * MetricTable::kPieceBytes);
  MetricTable one(MetricTable::kDefaultMaxBytes, 1), four(MetricTable::kDefaultMaxBytes, 4);
  one.Expect(lines.size() * 2);
  Add(one, lines);
  Add(four, lines);
  EXPECT_EQ(one.rows(), 39'001u - 4);
  EXPECT_EQ(four.rows(), one.rows());
  EXPECT_EQ(four.Names(), one.Names());
  EXPECT_EQ(four.unreadable(), 5);
  EXPECT_EQ(four.missing().Text(), "77, 10050, 20023, 29996");
  EXPECT_EQ(four.tokens(), one.tokens());
  EXPECT_EQ(four.seconds(), one.seconds());
  for (const std::string& name : one.Names()) {
    for (const XAxis axis : {XAxis::kStep, XAxis::kTokens, XAxis::kTime}) {
      const Curve a = one.CurveOf(name, axis, 500), b = four.CurveOf(name, axis, 500);
      EXPECT_EQ(a.x, b.x) << name;
      for (size_t i = 0; i < a.x.size(); ++i) {
        const bool same =
            a.mean[i] == b.mean[i] || (std::isnan(a.mean[i]) && std::isnan(b.mean[i]));
        EXPECT_TRUE(same) << name << " " << i;
      }
    }
    EXPECT_EQ(one.Newest().at(name).value, four.Newest().at(name).value);
    EXPECT_EQ(one.Newest().at(name).step, four.Newest().at(name).step);
  }
}

// What is to come is known: no memory is copied on the way, and little taken in vain.
TEST(MetricTableTest, TakesTheMemoryOfWhatIsToComeOnce) {
  std::string lines;
  for (int step = 10'000; step < 12'000; ++step)
    lines += "{\"step\":" + std::to_string(step) + ",\"wall_s\":1,\"a\":1.25,\"b\":2.25}\n";
  MetricTable told, untold;
  told.Expect(40 * lines.size());
  Add(told, lines);
  Add(untold, lines);
  const size_t least = 80'000 * (sizeof(int64_t) + 3 * sizeof(double) + 2 * sizeof(float));
  EXPECT_GE(told.bytes(), least);
  EXPECT_LE(told.bytes(), least + least / 10);
  EXPECT_LT(untold.bytes(), least / 10);
}

TEST(MetricTableTest, SumsTokensAndTheTimeOfSteps) {
  MetricTable table;
  Add(table,
      "{\"step\":0,\"wall_s\":1000,\"perf/train_tokens\":100,\"time/step\":2}\n"
      // an hour's pause, then another life of the run
      "{\"step\":1,\"wall_s\":4600,\"perf/train_tokens\":50,\"time/step\":3}\n");
  EXPECT_EQ(table.tokens(), 150);
  EXPECT_EQ(table.seconds(), 5);
  EXPECT_EQ(table.CurveOf("time/step", XAxis::kTokens, 9).x, (std::vector<double>{100, 150}));
  EXPECT_EQ(table.CurveOf("time/step", XAxis::kTime, 9).x, (std::vector<double>{2, 5}));
}

TEST(MetricTableTest, BucketsSayMeanLowAndHigh) {
  MetricTable table;
  std::string lines;
  for (int i = 0; i < 1000; ++i)
    lines += "{\"step\":" + std::to_string(i) + ",\"v\":" + std::to_string(i % 10) +
             (i % 100 == 99 ? ",\"eval\":" + std::to_string(i) : "") + "}\n";
  Add(table, lines);
  const Curve curve = table.CurveOf("v", XAxis::kStep, 100);
  ASSERT_EQ(curve.x.size(), 100u);
  EXPECT_EQ(curve.x.front(), 9);
  EXPECT_EQ(curve.x.back(), 999) << "the newest value is in it";
  for (size_t i = 0; i < 100; ++i) {
    EXPECT_EQ(curve.mean[i], 4.5f);
    EXPECT_EQ(curve.low[i], 0);
    EXPECT_EQ(curve.high[i], 9);
  }
  EXPECT_EQ(Mean(table, "eval", 100).size(), 10u) << "each value of a rare metric is there";
}

TEST(MetricTableTest, NotFiniteIsAGapAndNeverANewestValue) {
  MetricTable table;
  Add(table, "{\"step\":0,\"v\":1}\n{\"step\":1,\"v\":null}\n{\"step\":2,\"v\":3}\n");
  const std::vector<float> v = Mean(table, "v");
  ASSERT_EQ(v.size(), 3u);
  EXPECT_TRUE(std::isnan(v[1]));
  Add(table, "{\"step\":3,\"v\":null}\n");
  EXPECT_EQ(table.Newest().at("v").value, 3);
  bool written = false;
  EXPECT_TRUE(std::isnan(table.At(0, 3, &written)));
  EXPECT_TRUE(written);
}

TEST(MetricTableTest, LeavesOutAndCountsWhatIsNoLineOfARun) {
  MetricTable table;
  Add(table,
      "{\"step\":0,\"v\":1}\n"
      "not json\n"
      "[1,2]\n"
      "{\"v\":2}\n"
      "{\"step\":\"x\",\"v\":2}\n"
      "{\"step\":-1,\"v\":2}\n"
      "{\"step\":1,\"v\":2} {\"step\":2}\n"
      "{\"step\":1,\"v\":\n"
      "\n"
      "{\"step\":5,\"v\":7,\"text\":\"seven\",\"list\":[1],\"a\\u0062c\":8}\n");
  EXPECT_EQ(table.rows(), 2u);
  EXPECT_EQ(table.unreadable(), 7);
  EXPECT_EQ(Mean(table, "v"), (std::vector<float>{1, 7}));
  EXPECT_EQ(Mean(table, "abc"), (std::vector<float>{8})) << "an escaped name is its text";
}

TEST(MetricTableTest, AStepThatComesAgainTakesThePlaceOfWhatFollowedIt) {
  MetricTable table;
  Add(table,
      "{\"step\":0,\"v\":1,\"time/step\":1}\n{\"step\":1,\"v\":2,\"time/"
      "step\":1}\n{\"step\":2,\"v\":3,\"time/step\":1}\n");
  const uint64_t before = table.revision();
  Add(table, "{\"step\":1,\"v\":20,\"time/step\":1}\n");
  EXPECT_EQ(Mean(table, "v"), (std::vector<float>{1, 20}));
  EXPECT_EQ(table.seconds(), 2);
  EXPECT_NE(table.revision(), before);
  table.Clear();
  EXPECT_EQ(table.rows(), 0u);
  EXPECT_EQ(table.last_step(), -1);
  EXPECT_TRUE(table.Names().empty());
}

TEST(MetricTableTest, StaysWithinItsBoundByKeepingEverySecondStep) {
  MetricTable table(/*max_bytes=*/200'000);
  std::string lines;
  for (int i = 0; i < 40'000; ++i) {
    lines +=
        "{\"step\":" + std::to_string(i) + ",\"time/step\":1,\"v\":" + std::to_string(i) + "}\n";
    if (lines.size() > 10'000) {
      Add(table, lines);
      lines.clear();
    }
  }
  Add(table, lines);
  EXPECT_GE(table.stride(), 4);
  EXPECT_LE(table.bytes(), 400'000u) << "a vector's room grows by halves";
  EXPECT_NEAR(static_cast<double>(table.rows()), 40'000.0 / static_cast<double>(table.stride()), 2);
  EXPECT_EQ(table.RowAt(1).step, table.stride());
  EXPECT_EQ(table.seconds(), 40'000) << "sums are of all steps";
  EXPECT_EQ(table.last_step(), 39'999);
  EXPECT_EQ(table.Newest().at("v").value, 39'999);
}

// A run of 100,000 steps with 60 metrics, 200 MB: opened once, then only what is new is read.
TEST(MetricTableTest, TakesALongRunInASecond) {
  std::string line = ",\"wall_s\":1700000000.5";
  for (int i = 0; i < 60; ++i)
    line += ",\"metric/number_" + std::to_string(i) + "\":0.123456789" + std::to_string(i);
  MetricTable table;
  double seconds = 0;
  for (int chunk = 0; chunk < 100; ++chunk) {
    std::string lines;
    for (int i = 0; i < 1000; ++i)
      lines += "{\"step\":" + std::to_string(chunk * 1000 + i) + line + "}\n";
    const size_t bytes = lines.size();
    lines.append(LineTail::kPadding, '\0');
    const auto begin = std::chrono::steady_clock::now();
    table.Append(std::string_view(lines).substr(0, bytes));
    seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  }
  EXPECT_EQ(table.rows(), 100'000u);
  EXPECT_EQ(table.unreadable(), 0);
  EXPECT_LT(table.bytes(), size_t{64} << 20);
  const auto begin = std::chrono::steady_clock::now();
  for (const std::string& name : table.Names()) EXPECT_EQ(Mean(table, name.c_str()).size(), 1000u);
  const double curves =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  std::printf(
      "[          ] 100,000 lines of 60 metrics taken in %.2f s, 60 curves of them in %.3f s\n",
      seconds, curves);
  RecordProperty("seconds", std::to_string(seconds));
#ifdef NDEBUG
  EXPECT_LT(seconds, 5) << "0.3 s on a machine that does nothing else";
#endif
}

}  // namespace
}  // namespace plumb::run
