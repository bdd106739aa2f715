// Files of a run that somebody else wrote: whatever is in them, the readers neither break nor read
// beyond them (ASan looks at this test, too).
#include <gtest/gtest.h>

#include <algorithm>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "run/board/line_tail.h"
#include "run/board/metric_table.h"
#include "run/board/run_facts.h"
#include "run/board/sample_table.h"
#include "run/board/watch_view.h"
#include "tests/run/board/made_runs.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

using plumb::testing::RunMaker;
using plumb::testing::TempFolder;

constexpr int kRounds = 1500;

std::string Mutated(std::string text, std::mt19937_64& random) {
  static const std::string kPieces[] = {"\"",
                                        "{",
                                        "}",
                                        "[",
                                        "]",
                                        ":",
                                        ",",
                                        "\n",
                                        "\\",
                                        "\\u0000",
                                        "\\ud800",
                                        "null",
                                        "1e999",
                                        "-",
                                        "1e-999",
                                        "99999999999999999999",
                                        "\xFF",
                                        std::string("\0", 1),
                                        "\"step\":",
                                        "\"step\":-1",
                                        "\"step\":9223372036854775807",
                                        "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
                                        "= \"",
                                        "[[",
                                        "\xF0\x9F\x98\x80",
                                        "\x1b[2J"};
  const auto below = [&](size_t n) { return n == 0 ? 0 : random() % n; };
  for (size_t changes = 1 + below(6); changes > 0; --changes) {
    const size_t at = below(text.size() + 1), n = below(40);
    switch (below(4)) {
      case 0: text.insert(at, kPieces[below(std::size(kPieces))]); break;
      case 1: text.erase(at, n); break;
      case 2:
        if (at < text.size()) text[at] = static_cast<char>(random());
        break;
      default: text.insert(at, text.substr(below(text.size() + 1), n));
    }
  }
  return text;
}

// The bytes in memory of just their size and the room that a reader may look at.
struct Exact {
  explicit Exact(const std::string& text)
      : bytes(text.size() + LineTail::kPadding), size(text.size()) {
    std::copy(text.begin(), text.end(), bytes.begin());
  }
  std::string_view lines() const { return {bytes.data(), size}; }
  std::vector<char> bytes;
  size_t size;
};

TEST(HostileFilesTest, MetricsSamplesAndRecipes) {
  const TempFolder temp;
  RunMaker maker(temp / "a", {});
  std::string metrics, samples;
  for (int64_t step = 0; step < 3; ++step) metrics += maker.MetricsLine(step);
  samples = maker.SampleLines(0);
  std::mt19937_64 random(7);
  MetricTable together;
  size_t taken = 0;
  for (int round = 0; round < kRounds; ++round) {
    const Exact lines(Mutated(metrics, random));
    MetricTable table;
    table.Append(lines.lines());
    together.Append(lines.lines());
    taken += table.rows();
    for (const std::string& name : table.Names()) {
      for (const XAxis axis : {XAxis::kStep, XAxis::kTokens, XAxis::kTime}) {
        const Curve curve = table.CurveOf(name, axis, 2);
        EXPECT_EQ(curve.x.size(), curve.mean.size());
        EXPECT_LE(curve.x.size(), 2u);
      }
    }
    const Exact answers(Mutated(samples, random));
    RealFileSystem().OpenAppend(temp / "samples", /*truncate=*/true)->Append(answers.lines());
    SampleTable table_of_answers(temp / "samples");
    table_of_answers.Append(answers.lines(), 0);
    for (const int64_t step : table_of_answers.Steps(10))
      table_of_answers.Groups(step, std::nullopt, 10);
    table_of_answers.Newest();
    OptionsOf(Mutated(maker.Recipe(), random));
  }
  EXPECT_GT(taken, static_cast<size_t>(kRounds)) << "most lines are still lines";
  EXPECT_GT(together.unreadable(), kRounds / 4);
}

TEST(HostileFilesTest, AWholeRunOfThem) {
  const TempFolder temp;
  RunMaker maker(temp / "a", {});
  maker.WriteAll();
  std::mt19937_64 random(8);
  const std::string metrics = maker.MetricsLine(0) + maker.MetricsLine(1),
                    samples = maker.SampleLines(1);
  for (int round = 0; round < 150; ++round) {
    maker.Put("metrics.jsonl", Mutated(metrics, random));
    maker.Put("samples.jsonl", Mutated(samples, random));
    maker.Put("summary.json",
              Mutated("{\"steps\":2,\"wanted_steps\":2,\"stopped_early\":false}", random));
    maker.Put("config.toml", Mutated(maker.Recipe(), random));
    maker.Put("changes.jsonl",
              Mutated("{\"step\":1,\"option\":\"a.b\",\"before\":1,\"now\":2}\n", random));
    maker.Put("logs/train.log", Mutated("x ended by an error: y\n", random));
    RunView run("a", temp / "a");
    run.Look();
    run.WithFacts([](const RunFacts& facts) { facts.Changes(); });
    const WatchState state = LookAt(run, 50);
    for (const std::string& line : DrawWatch(state, 80, 24, {.colour = false})) {
      EXPECT_LE(ShownColumns(line), 80);
      EXPECT_EQ(line.find('\x1b'), std::string::npos);
    }
  }
}

}  // namespace
}  // namespace plumb::run
