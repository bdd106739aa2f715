#include "run/board/board_api.h"

#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>

#include "run/session/run_lock.h"
#include "tests/run/board/made_runs.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

using Json = nlohmann::json;
using plumb::testing::MadeRun;
using plumb::testing::MakeRuns;
using plumb::testing::RunMaker;
using plumb::testing::TempFolder;

// All runs of made_runs.h, once for all tests: none of them writes there.
class BoardApiTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new TempFolder;
    MakeRuns(folder_->path());
    catalog_ = new RunCatalog({folder_->path()});
  }
  static void TearDownTestSuite() {
    delete catalog_;
    delete folder_;
  }
  static Json Get(const std::string& path, const Query& query = {}, int status = 200) {
    const BoardReply reply = AnswerBoard(*catalog_, path, query);
    EXPECT_EQ(reply.status, status) << path << ": " << reply.json;
    return Json::parse(reply.json);
  }
  static TempFolder* folder_;
  static RunCatalog* catalog_;
};
TempFolder* BoardApiTest::folder_ = nullptr;
RunCatalog* BoardApiTest::catalog_ = nullptr;

const Json* RunIn(const Json& list, const std::string& name) {
  for (const Json& run : list["runs"]) {
    if (run["name"] == name) return &run;
  }
  return nullptr;
}

TEST_F(BoardApiTest, ListsRuns) {
  const Json list = Get("/api/runs");
  EXPECT_TRUE(list["now_s"].is_number_float());
  EXPECT_EQ(list["left_out"], 0);
  ASSERT_EQ(list["runs"].size(), 7u);
  const Json& ended = *RunIn(list, "arithmetic_ppo");
  EXPECT_EQ(ended["algorithm"], "ppo");
  EXPECT_EQ(ended["model"], "new, 4 x 128");
  EXPECT_EQ(ended["state"], "ended");
  EXPECT_EQ(ended["step"], 399);
  EXPECT_EQ(ended["steps"], 400);
  EXPECT_TRUE(ended["wall_s"].is_number());
  EXPECT_TRUE(ended["reward"].is_number());
  EXPECT_TRUE(ended["accuracy"].is_number());
  const Json& failed = *RunIn(list, "sweep/lr_1e-2");
  EXPECT_EQ(failed["state"], "failed");
  EXPECT_NE(failed["reason"].get<std::string>().find("not finite"), std::string::npos);
  EXPECT_EQ((*RunIn(list, "sweep/lr_1e-4"))["state"], "stopped");
  const Json& pairs = *RunIn(list, "hh_dpo");
  EXPECT_EQ(pairs["model"], "SmolLM2-135M-Instruct");
  EXPECT_TRUE(pairs["loss"].is_number());
}

TEST_F(BoardApiTest, SaysARunsFactsAndNewestValues) {
  const Json run = Get("/api/runs/gsm8k_async");
  EXPECT_EQ(run["name"], "gsm8k_async");
  EXPECT_EQ(run["rows"], 400);
  EXPECT_EQ(run["every"], 1);
  EXPECT_EQ(run["unreadable_lines"], 0);
  EXPECT_EQ(run["missing"]["steps"], 0);
  EXPECT_GT(run["tokens"], 1'000'000);
  EXPECT_GT(run["seconds"], 100);
  EXPECT_EQ(run["values"]["reward/mean"]["step"], 399);
  EXPECT_EQ(run["values"]["replay/inserts"]["value"], 400 * 32);
  EXPECT_EQ(run["summary"]["dropped"]["unscored"], 3);
  EXPECT_TRUE(Get("/api/runs/arithmetic_grpo")["summary"].is_null());
}

// A margin is the distance between two answers' rewards, not how good they are.
TEST_F(BoardApiTest, AMarginIsNoReward) {
  const Json pairs = Get("/api/runs/hh_dpo"), answers = Get("/api/runs/arithmetic_ppo");
  EXPECT_TRUE(pairs["reward"].is_null());
  EXPECT_EQ(pairs["margin"], pairs["values"]["dpo/margin"]["value"]);
  EXPECT_TRUE(answers["margin"].is_null());
  EXPECT_EQ(answers["reward"], answers["values"]["reward/mean"]["value"]);
}

// With eval.every = 0 no step has a held-out accuracy, and a life that goes on has none yet.
TEST(BoardApiSummaryTest, AnEndedRunsHeldOutAccuracyIsThatOfItsSummary) {
  const TempFolder temp;
  MadeRun made;
  made.steps = made.wanted = 4;
  RunMaker maker(temp / "a", made);
  maker.WriteAll();
  const auto accuracy = [&] {
    RunCatalog catalog({temp.path()});
    return Json::parse(AnswerBoard(catalog, "/api/runs", {}).json)["runs"][0]["accuracy"];
  };
  EXPECT_TRUE(accuracy().is_null()) << "no step evaluated";
  const std::string summary = temp / "a/summary.json";
  for (const char* eval : {R"("none")", R"({"after":[0.5]})", R"({"after":{"accuracy":"high"}})"}) {
    RealFileSystem().WriteFileAtomic(
        summary, std::string(R"({"steps":4,"wanted_steps":4,"eval":)") + eval + "}");
    EXPECT_TRUE(accuracy().is_null()) << eval;
  }
  RealFileSystem().WriteFileAtomic(
      summary, R"({"steps":4,"wanted_steps":4,"eval":{"after":{"accuracy":0.625}}})");
  EXPECT_EQ(accuracy(), 0.625);
  maker.AppendTo("metrics.jsonl", maker.MetricsLine(4));
  EXPECT_TRUE(accuracy().is_null()) << "the summary speaks of an earlier life";
}

TEST(BoardApiHolesTest, NamesTheStepsThatAreMissing) {
  const TempFolder temp;
  MadeRun made;
  made.steps = 4;
  RunMaker maker(temp / "a", made);
  maker.WriteAll();
  maker.AppendTo("metrics.jsonl", "{\"step\":4,\"rew\n");
  maker.AppendTo("metrics.jsonl", maker.MetricsLine(7));
  RunCatalog catalog({temp.path()});
  const Json run = Json::parse(AnswerBoard(catalog, "/api/runs/a", {}).json);
  EXPECT_EQ(run["unreadable_lines"], 1);
  EXPECT_EQ(run["missing"], Json::parse(R"({"steps":3,"holes":[[4,6]],"text":"4 to 6"})"));
}

TEST_F(BoardApiTest, GivesCurvesReducedOnRequest) {
  const Json all =
      Get("/api/runs/sweep/lr_1e-3/series", {{"keys", "reward/mean,eval/accuracy,none"}});
  EXPECT_EQ(all["run"], "sweep/lr_1e-3");
  EXPECT_EQ(all["last_step"], 399);
  EXPECT_EQ(all["series"]["reward/mean"]["x"].size(), 400u);
  EXPECT_FALSE(all["series"]["reward/mean"].contains("min")) << "a step a bucket";
  EXPECT_EQ(all["series"]["eval/accuracy"]["x"].size(), 16u);
  EXPECT_EQ(all["series"]["none"]["x"].size(), 0u);

  const Json some = Get("/api/runs/sweep/lr_1e-3/series",
                        {{"keys", "reward/mean"}, {"points", "50"}, {"x", "tokens"}});
  const Json& curve = some["series"]["reward/mean"];
  ASSERT_EQ(curve["x"].size(), 50u);
  for (const char* each : {"mean", "min", "max"}) EXPECT_EQ(curve[each].size(), 50u);
  EXPECT_GT(curve["x"][49], 1'000'000);
  for (size_t i = 0; i < 50; ++i) {
    EXPECT_LE(curve["min"][i], curve["mean"][i]);
    EXPECT_LE(curve["mean"][i], curve["max"][i]);
  }
}

TEST_F(BoardApiTest, GivesSamplesByStepAndPrompt) {
  const Json index = Get("/api/runs/arithmetic_ppo/samples");
  EXPECT_EQ(index["answers"], 80);
  EXPECT_EQ(index["steps"].size(), 20u);
  ASSERT_EQ(index["prompts"].size(), 3u);
  const std::string prompt = index["prompts"][0]["prompt_id"];
  EXPECT_EQ(index["prompts"][0]["begins"].get<std::string>().rfind("What is", 0), 0u);
  const Json step = Get("/api/runs/arithmetic_ppo/samples", {{"step", "40"}});
  ASSERT_EQ(step["groups"].size(), 1u);
  EXPECT_EQ(step["groups"][0]["answers"].size(), 4u);
  const Json same = Get("/api/runs/arithmetic_grpo/samples", {{"prompt", prompt}});
  EXPECT_GE(same["groups"].size(), 5u) << "the other run was asked the same";
  EXPECT_EQ(same["groups"][0]["prompt_id"], prompt);
}

TEST_F(BoardApiTest, GivesRecipes) {
  const Json recipe = Get("/api/runs/sweep/lr_1e-4/recipe");
  bool found = false;
  for (const Json& option : recipe["options"])
    found = found || option == Json{"optimizer.learning_rate", "0.0001"};
  EXPECT_TRUE(found) << recipe["options"].dump();
  EXPECT_EQ(recipe["changes"].size(), 0u);
}

TEST_F(BoardApiTest, BadNamesAndQueriesAreRefused) {
  for (const char* path :
       {"/api/runs/none", "/api/runs/", "/api/runs/../secret", "/api/runs/sweep", "/api/other",
        "/api", "/api/runs/arithmetic_ppo/secret", "/api/runs/none/series",
        "/api/runs/arithmetic_ppo/", "/api/runs/sweep/../arithmetic_ppo", "/api/runs//etc/passwd"})
    EXPECT_TRUE(Get(path, {}, 404)["error"].is_string());
  const std::string series = "/api/runs/arithmetic_ppo/series";
  Get(series, {{"points", "many"}}, 400);
  Get(series, {{"points", "0"}}, 400);
  Get(series, {{"points", "-1"}}, 400);
  Get(series, {{"x", "weight"}}, 400);
  std::string many;
  for (int i = 0; i < 65; ++i) many += "k" + std::to_string(i) + ",";
  Get(series, {{"keys", many}}, 400);
  Get("/api/runs/arithmetic_ppo/samples", {{"step", "x"}}, 400);
  EXPECT_EQ(
      Get("/api/runs/arithmetic_ppo/samples", {{"step", "18446744073709551615"}})["groups"].size(),
      0u);
}

// The events of a text/event-stream, as (name, data).
std::vector<std::pair<std::string, Json>> Events(const std::string& text) {
  std::vector<std::pair<std::string, Json>> events;
  for (size_t at = 0; at < text.size();) {
    const size_t end = text.find("\n\n", at);
    EXPECT_NE(end, std::string::npos);
    const std::string one = text.substr(at, end - at);
    const size_t line = one.find('\n');
    EXPECT_EQ(one.rfind("event: ", 0), 0u);
    EXPECT_EQ(one.substr(line + 1, 6), "data: ");
    events.emplace_back(one.substr(7, line - 7), Json::parse(one.substr(line + 7)));
    at = end + 2;
  }
  return events;
}

TEST(EventStreamTest, TellsWhatIsNewOnce) {
  const TempFolder temp;
  MadeRun made;
  made.steps = 5;
  made.summary = false;
  RunMaker maker(temp / "a", made);
  maker.WriteAll();
  RunMaker(temp / "b", made).WriteAll();
  auto lock = std::make_unique<RunLock>(temp / "a");
  RunCatalog catalog({temp.path()}, false, RunCatalog::kMaxBytes, std::chrono::milliseconds(0));
  EventStream stream(catalog, {"a", "no such"});
  const auto next = [&] {
    std::this_thread::sleep_for(RunView::kFresh + std::chrono::milliseconds(20));
    return Events(stream.Next());
  };
  auto events = next();
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(events[0].first, "run");
  EXPECT_EQ(events[0].second["state"], "running");
  EXPECT_EQ(events[1].second["state"], "failed");
  EXPECT_TRUE(next().empty()) << "nothing has happened";

  maker.AppendTo("metrics.jsonl", maker.MetricsLine(5) + maker.MetricsLine(6));
  maker.AppendTo("samples.jsonl", maker.SampleLines(6));
  events = next();
  ASSERT_EQ(events.size(), 3u);
  EXPECT_EQ(events[0].first, "run");
  EXPECT_EQ(events[0].second["step"], 6);
  EXPECT_EQ(events[1].first, "rows");
  EXPECT_EQ(events[1].second["run"], "a");
  ASSERT_EQ(events[1].second["rows"].size(), 2u);
  const Json& row = events[1].second["rows"][1];
  EXPECT_EQ(row["step"], 6);
  EXPECT_GT(row["tokens"], 0);
  EXPECT_GT(row["seconds"], 0);
  EXPECT_TRUE(row["values"]["reward/mean"].is_number());
  EXPECT_EQ(events[2].first, "samples");
  EXPECT_EQ(events[2].second["answers"], 8);

  // Many steps at once are for the curves to load, and so is what a resume rewrote.
  std::string many;
  for (int64_t step = 7; step < 100; ++step) many += maker.MetricsLine(step);
  maker.AppendTo("metrics.jsonl", many);
  events = next();
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(events[1].first, "reload");
  RealFileSystem().WriteFileAtomic(temp / "a/metrics.jsonl", maker.MetricsLine(0));
  events = next();
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(events[1].first, "reload");

  lock.reset();
  events = next();
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].second["state"], "failed");
  RealFileSystem().RemoveAll(temp / "b");
  events = next();
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].first, "gone");
  EXPECT_EQ(events[0].second["name"], "b");
}

}  // namespace
}  // namespace plumb::run
