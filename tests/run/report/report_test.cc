#include "run/report/report.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "common/base/error.h"
#include "common/base/file.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

using plumb::testing::TempFolder;

void Put(const std::string& path, const std::string& text) {
  RealFileSystem().WriteFileAtomic(path, text);
}

std::string Page(const TempFolder& folder) {
  WriteReport(folder.path(), folder / "report.html");
  return RealFileSystem().ReadFile(folder / "report.html", size_t{1} << 26);
}

bool Has(const std::string& page, const std::string& text) {
  return page.find(text) != std::string::npos;
}

nlohmann::json DataOf(const std::string& page) {
  const std::string begin = "<script type=\"application/json\" id=\"data\">";
  const size_t at = page.find(begin) + begin.size();
  return nlohmann::json::parse(page.substr(at, page.find("</script>", at) - at));
}

const nlohmann::json* Chart(const nlohmann::json& data, const std::string& title) {
  for (const auto& chart : data["charts"]) {
    if (chart["title"] == title) return &chart;
  }
  return nullptr;
}

TEST(ReportTest, ShowsCurvesSummaryAndRecipe) {
  const TempFolder folder;
  Put(folder / "metrics.jsonl",
      "{\"step\":0,\"wall_s\":1,\"reward/mean\":0.25,\"reward/correct/mean\":0.5,\"optim/"
      "grad_norm\":null}\n"
      "{\"step\":1,\"wall_s\":2,\"reward/mean\":0.75,\"reward/correct/mean\":1,\"optim/"
      "grad_norm\":2,\"eval/accuracy\":0.5}\n");
  Put(folder / "samples.jsonl", "");
  Put(folder / "config.toml", "[run]\nname = \"a<b\"\n");
  Put(folder / "summary.json",
      R"({"eval":{"before":{"accuracy":0.1,"answers":1200,"unscored":3,"version":0},"after":{"accuracy":0.8,"answers":1200,"unscored":0,"version":4}},)"
      R"("steps":2,"wanted_steps":4,"wall_s":61.5,"tokens":1234567,"policy_digest":"abc123","dropped":{"stale":7},"counters":{"puts":9}})");
  const std::string page = Page(folder);
  // sqrt(0.1 * 0.9 / 1200) and sqrt(0.8 * 0.2 / 1200)
  EXPECT_TRUE(Has(page, "10.0\u00a0\u00b1\u00a00.9 \u2192 80.0\u00a0\u00b1\u00a01.2\u00a0%"));
  EXPECT_TRUE(Has(page, "+70.0 points"));
  EXPECT_TRUE(Has(page, "3 without a score count as not solved"));
  EXPECT_TRUE(Has(page, "of 4 steps"));
  EXPECT_TRUE(Has(page, "1\u00a0234\u00a0567"));
  EXPECT_TRUE(Has(page, "61.5 s"));
  EXPECT_TRUE(Has(page, "abc123"));
  EXPECT_TRUE(Has(page, "dropped/stale</td><td class=\"num\">7"));
  EXPECT_TRUE(Has(page, "name = &quot;a&lt;b&quot;"));
  EXPECT_FALSE(Has(page, "class=\"notes\"")) << "nothing is missing here";

  const auto data = DataOf(page);
  ASSERT_NE(Chart(data, "reward/mean"), nullptr);
  EXPECT_EQ((*Chart(data, "reward/mean"))["series"][0]["y"], nlohmann::json::parse("[0.25,0.75]"));
  EXPECT_EQ(Chart(data, "reward/correct/mean"), nullptr) << "one part alone is the reward";
  EXPECT_TRUE((*Chart(data, "optim/grad_norm"))["series"][0]["y"][0].is_null())
      << "not finite: a gap, not a zero";
  // Before, in the middle (the policy after step 1 is version 2) and after.
  EXPECT_EQ((*Chart(data, "eval/accuracy"))["series"][0]["x"], nlohmann::json::parse("[0,2,4]"));
  EXPECT_EQ((*Chart(data, "eval/accuracy"))["series"][0]["y"],
            nlohmann::json::parse("[0.1,0.5,0.8]"));
  EXPECT_EQ(Chart(data, "objective/kl"), nullptr) << "a metric the run has not is no empty chart";
}

TEST(ReportTest, TextOfAModelCannotBecomeMarkup) {
  const TempFolder folder;
  nlohmann::json sample = {{"step", 0},
                           {"prompt", "<img src=x onerror=alert(1)>"},
                           {"completion", "</td></script><script>alert('2')\x01"},
                           {"reward", 1.0},
                           {"parts", {{"<b>part", 0.5}}},
                           {"finish", "stop"},
                           {"ground_truth", "\"&\""}};
  Put(folder / "samples.jsonl", sample.dump() + "\n");
  Put(folder / "metrics.jsonl",
      "{\"step\":0,\"reward/</script><script>evil()//mean\":1,\"reward/</script>/mean\":2}\n");
  const std::string page = Page(folder);
  EXPECT_TRUE(Has(page, "&lt;img src=x onerror=alert(1)&gt;"));
  EXPECT_TRUE(Has(page, "&lt;/script&gt;&lt;script&gt;alert(&#39;2&#39;)\u2401"));
  EXPECT_TRUE(Has(page, "&lt;b&gt;part 0.5"));
  EXPECT_TRUE(Has(page, "&quot;&amp;&quot;"));
  EXPECT_FALSE(Has(page, "<img"));
  size_t scripts = 0;
  for (size_t at = 0; (at = page.find("<script", at)) != std::string::npos; ++at) ++scripts;
  EXPECT_EQ(scripts, 3u) << "the data and our own two scripts, nothing else";
  EXPECT_NE(Chart(DataOf(page), "reward parts"), nullptr);
}

TEST(ReportTest, LoadsNothingFromOutside) {
  const TempFolder folder;
  Put(folder / "metrics.jsonl", "{\"step\":0,\"reward/mean\":1}\n");
  std::string page = Page(folder);
  const std::string svg_namespace =
      "http://www.w3.org/2000/svg";  // a name, not an address that is fetched
  for (size_t at; (at = page.find(svg_namespace)) != std::string::npos;)
    page.erase(at, svg_namespace.size());
  for (const char* outside : {"http:", "https:", "src=", "href=", "@import", "url(//"})
    EXPECT_FALSE(Has(page, outside)) << outside;
  EXPECT_TRUE(Has(page, "default-src 'none'"));
  EXPECT_TRUE(Has(page, "prefers-color-scheme:dark"));
}

TEST(ReportTest, SaysWhatIsMissingOrTorn) {
  const TempFolder folder;
  Put(folder / "metrics.jsonl", "{\"step\":0,\"reward/mean\":1}\n{\"step\":1,\"rew");
  const std::string page = Page(folder);
  EXPECT_TRUE(Has(page, "samples.jsonl is missing"));
  EXPECT_TRUE(Has(page, "summary.json is missing"));
  EXPECT_TRUE(Has(page, "config.toml is missing"));
  EXPECT_TRUE(Has(page, "metrics.jsonl: 1 line is not readable"));
  EXPECT_TRUE(Has(page, "steps so far"));
}

TEST(ReportTest, LongRunsAreShownInBucketsAndItIsSaid) {
  const TempFolder folder;
  std::string metrics, samples;
  for (int i = 0; i <= 100000; ++i)
    metrics +=
        "{\"step\":" + std::to_string(i) + ",\"reward/mean\":" + std::to_string(i % 7) + "}\n";
  for (int i = 0; i < 1000; ++i) {
    samples += "{\"step\":" + std::to_string(i) + ",\"prompt\":\"p\",\"completion\":\"c" +
               std::to_string(i) + ".\"}\n";
  }
  Put(folder / "metrics.jsonl", metrics);
  Put(folder / "samples.jsonl", samples);
  const std::string page = Page(folder);
  EXPECT_LT(page.size(), 200'000u) << "what a browser opens at once";
  const auto data = DataOf(page);
  const auto& series = (*Chart(data, "reward/mean"))["series"][0];
  const auto& x = series["x"];
  ASSERT_EQ(x.size(), 500u);
  EXPECT_EQ(x.front(), 0);
  EXPECT_EQ(x.back(), 100000);
  for (size_t i = 0; i < x.size(); ++i) {
    EXPECT_EQ(series["low"][i], 0) << "no extreme is lost";
    EXPECT_EQ(series["high"][i], 6);
    EXPECT_NEAR(series["y"][i].get<double>(), 3, 0.1);
  }
  EXPECT_TRUE(Has(page, "Long curves show means of up to 201 steps"));
  // Every sixteenth, and the last.
  EXPECT_TRUE(Has(page, "64 of 1000 prompts, spread over the run"));
  EXPECT_TRUE(Has(page, ">c0.<"));
  EXPECT_TRUE(Has(page, ">c999.<"));
}

TEST(ReportTest, AFolderWithoutARunIsNotFound) {
  const TempFolder folder;
  try {
    WriteReport(folder.path(), folder / "report.html");
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kNotFound);
    EXPECT_EQ(e.where(), folder.path());
  }
  EXPECT_FALSE(RealFileSystem().Exists(folder / "report.html"));
}

}  // namespace
}  // namespace plumb::run
