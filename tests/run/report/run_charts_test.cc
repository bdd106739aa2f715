// Which curves a run is shown by. run/report/run_charts.h
#include "run/report/run_charts.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "common/base/file.h"
#include "tests/testing/paths.h"

namespace plumb::run {
namespace {

using Json = nlohmann::ordered_json;

void Put(RunData& data, const std::string& metric, std::vector<double> values) {
  MetricColumn& column = data.columns[metric];
  for (size_t i = 0; i < values.size(); ++i) column.step.push_back(static_cast<int64_t>(i));
  column.value = std::move(values);
}

const Json* Chart(const RunCharts& charts, const std::string& title) {
  for (const Json& spec : charts.specs) {
    if (spec["title"] == title) return &spec;
  }
  return nullptr;
}

std::set<std::string> Metrics(const RunCharts& charts) {
  std::set<std::string> out;
  for (const Json& spec : charts.specs) {
    for (const Json& series : spec["series"]) out.insert(series["metric"].get<std::string>());
  }
  return out;
}

TEST(RunChartsTest, HeldOutValuesOfPairsStandBesideThoseOfTraining) {
  for (const std::string room : {"dpo", "rm"}) {
    RunData data;
    for (const char* word : {"loss", "accuracy", "margin", "reward_chosen", "reward_rejected"})
      Put(data, room + "/" + word, {0.7, 0.6, 0.5, 0.4});
    data.columns["eval/loss"] = {{1}, {0.65}};
    data.columns["eval/margin"] = {{1}, {0.2}};
    Put(data, "perf/tokens_per_s", {10, 11, 12, 13});
    data.summary = Json::parse(
        R"({"eval":{"before":{"accuracy":0.5,"reward":0,"loss":0.6931,"version":0},"after":{"accuracy":0.9,"reward":1.5,"reward_chosen":0.5,"reward_rejected":-1.0,"loss":0.3,"version":4}}})");
    const RunCharts charts = ChartsOf(data);
    const Json* loss = Chart(charts, "loss");
    ASSERT_NE(loss, nullptr) << room;
    EXPECT_EQ((*loss)["series"][0]["metric"], room + "/loss");
    EXPECT_EQ((*loss)["series"][1]["metric"], "eval/loss");
    EXPECT_EQ((*loss)["series"][1]["x"], Json::parse("[0,2,4]"))
        << "an evaluation after step 1 saw the weights that step 2 begins with";
    EXPECT_EQ((*loss)["series"][1]["y"], Json::parse("[0.6931,0.65,0.3]"));
    EXPECT_EQ((*loss)["series"][1]["marks"], true);
    EXPECT_EQ((*Chart(charts, "margin"))["series"][1]["y"], Json::parse("[0.0,0.2,1.5]"));
    EXPECT_EQ((*Chart(charts, "accuracy"))["series"].size(), 2u);
    const Json& rewards = (*Chart(charts, "rewards of chosen and rejected"))["series"];
    ASSERT_EQ(rewards.size(), 4u);
    EXPECT_EQ(rewards[2]["y"], Json::parse("[0.5]"));
    EXPECT_EQ(rewards[3]["name"], "rejected, held out");
    EXPECT_EQ((*Chart(charts, "perf/tokens_per_s"))["note"],
              "tokens trained on over the wall time of the step");
  }
}

TEST(RunChartsTest, DemonstrationsHaveLossAndPerplexity) {
  RunData data;
  Put(data, "sft/loss", {2, 1.5});
  data.columns["eval/loss"] = {{0}, {1.0}};
  const RunCharts charts = ChartsOf(data);
  EXPECT_EQ((*Chart(charts, "loss"))["series"].size(), 2u);
  EXPECT_NEAR((*Chart(charts, "perplexity"))["series"][0]["y"][0].get<double>(), std::exp(1.0),
              1e-4);
}

TEST(RunChartsTest, NothingIsFlatBesideSomethingLarge) {
  RunData data;
  Put(data, "reward/mean", {0.5, 0.6});
  Put(data, "reward/correct/mean", {0.5, 0.6});
  Put(data, "reward/format/mean", {0.9, 1});
  Put(data, "reward/score/mean", {-40, -30});
  Put(data, "reward/correct.words/mean", {29, 30});
  Put(data, "reward/correct.tags/mean", {0.5, 0.5});
  const RunCharts charts = ChartsOf(data);
  const Json* parts = Chart(charts, "reward parts");
  ASSERT_NE(parts, nullptr);
  EXPECT_EQ((*parts)["series"].size(), 2u) << "two of one size";
  for (const char* alone :
       {"reward/score/mean", "reward/correct.words/mean", "reward/correct.tags/mean"}) {
    ASSERT_NE(Chart(charts, alone), nullptr) << alone;
    EXPECT_EQ((*Chart(charts, alone))["series"].size(), 1u);
  }
}

TEST(RunChartsTest, AccuracyHasItsStandardError) {
  RunData data;
  Put(data, "reward/mean", {0.5});
  data.summary = Json::parse(
      R"({"eval":{"before":{"accuracy":0.0,"answers":100,"version":0},"after":{"accuracy":0.5,"accuracy_se":0.1,"answers":100,"version":8}}})");
  const RunCharts charts = ChartsOf(data);
  const Json& series = (*Chart(charts, "eval/accuracy"))["series"][0];
  EXPECT_EQ(series["low"], Json::parse("[0.0,0.4]"))
      << "what the evaluation said, not that of independent answers, 0.05";
  EXPECT_EQ(series["high"], Json::parse("[0.0,0.6]"));
  EXPECT_DOUBLE_EQ(AccuracyError(Json::parse(R"({"accuracy":0.5,"answers":100})")), 0.05);
}

TEST(RunChartsTest, SignsOfTroubleThatWereNeverThereAreOneLine) {
  RunData data;
  Put(data, "reward/mean", {0.5, 0.5});
  Put(data, "reward/unscored", {0, 0});
  Put(data, "reward/zero_std_groups", {0, 3});
  const RunCharts charts = ChartsOf(data);
  EXPECT_EQ(charts.quiet, (std::vector<std::string>{"reward/unscored"}));
  EXPECT_EQ(Chart(charts, "reward/unscored"), nullptr);
  EXPECT_NE(Chart(charts, "reward/zero_std_groups"), nullptr);
}

TEST(RunChartsTest, BucketsKeepGapsAndExtremes) {
  RunData data;
  std::vector<double> values(5000, 1.0);
  values[17] = 99;
  for (size_t i = 2000; i < 2100; ++i) values[i] = std::nan("");
  Put(data, "reward/mean", values);
  const RunCharts charts = ChartsOf(data);
  EXPECT_EQ(charts.steps_a_bucket, 10u);
  const Json& series = (*Chart(charts, "reward/mean"))["series"][0];
  EXPECT_EQ(series["x"].size(), 500u);
  EXPECT_EQ(series["high"][1], 99);
  EXPECT_NEAR(series["y"][1].get<double>(), 10.8, 1e-9);
  for (size_t b = 200; b < 210; ++b) EXPECT_TRUE(series["y"][b].is_null());
}

// The names in code quotes of the tables under `heading`, first column or all.
std::vector<std::string> Quoted(const std::string& page, const std::string& heading) {
  const size_t begin = page.find(heading);
  EXPECT_NE(begin, std::string::npos) << heading;
  const size_t end = page.find("\n## ", begin + 1);
  std::vector<std::string> out;
  const std::string part = page.substr(begin, end - begin);
  for (size_t at = 0; (at = part.find('`', at)) != std::string::npos;) {
    const size_t close = part.find('`', at + 1);
    out.push_back(part.substr(at + 1, close - at - 1));
    at = close + 1;
  }
  return out;
}

TEST(RunChartsTest, WhatTheDocumentationNamesFirstIsDrawn) {
  const std::string page =
      RealFileSystem().ReadFile(plumb::testing::SourcePath("docs/metrics.md"), size_t{1} << 20);
  const std::vector<std::string> names = Quoted(page, "## What to look at first");
  RunData rollouts, pairs, scores, demonstrations;
  size_t checked = 0;
  for (std::string name : names) {
    if (name.find('/') == std::string::npos || name.find('.') != std::string::npos) continue;
    if (const size_t part = name.find("<part>"); part != std::string::npos)
      name.replace(part, 6, "p");
    for (RunData* data : {&rollouts, &pairs, &scores, &demonstrations}) Put(*data, name, {1, 2});
    ++checked;
  }
  EXPECT_GT(checked, 12u);
  for (RunData* data : {&rollouts, &scores, &demonstrations})
    std::erase_if(data->columns, [](const auto& c) { return c.first.starts_with("dpo/"); });
  for (RunData* data : {&rollouts, &demonstrations})
    std::erase_if(data->columns, [](const auto& c) { return c.first.starts_with("rm/"); });
  std::erase_if(rollouts.columns, [](const auto& c) { return c.first.starts_with("sft/"); });
  Put(rollouts, "reward/q/mean", {1, 2});
  std::set<std::string> drawn;
  for (const RunData* data : {&rollouts, &pairs, &scores, &demonstrations})
    drawn.merge(Metrics(ChartsOf(*data)));
  for (std::string name : names) {
    if (name.find('/') == std::string::npos || name.find('.') != std::string::npos) continue;
    if (const size_t part = name.find("<part>"); part != std::string::npos)
      name.replace(part, 6, "p");
    EXPECT_TRUE(drawn.contains(name)) << name << " is named first and not drawn";
  }
}

}  // namespace
}  // namespace plumb::run
