// Workers behind ZeroMQ, honest and hostile (reward/doors/zmq_worker.h), and our own as one
// (reward/doors/reward_server.h).
#include "reward/doors/zmq_worker.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zmq.h>

#include <fstream>
#include <mutex>
#include <nlohmann/json.hpp>
#include <random>
#include <thread>

#include "reward/doors/reward_server.h"
#include "tests/reward/testing.h"
#include "tests/testing/temp_folder.h"

namespace plumb::reward {
namespace {

using Json = nlohmann::json;
using std::chrono::milliseconds;

configs::RewardPartConfig ZmqPart(const std::string& endpoint, double timeout_s = 10) {
  auto part = TestPart("zmq");
  part.endpoint = endpoint;
  part.timeout_s = timeout_s;
  return part;
}

configs::RewardConfig Config(const configs::RewardPartConfig& part, int64_t retries = 0) {
  configs::RewardConfig config;
  config.parts = {part};
  config.retries = retries;
  return config;
}

// Scores a completion by its length.
std::string Honest(std::string_view text, milliseconds) {
  const Json request = Json::parse(text);
  Json scores = Json::array();
  for (const auto& completion : request["completions"])
    scores.push_back(completion.get<std::string>().size());
  return Json{{"id", request["id"]}, {"scores", scores}, {"digest", "sha256:worker"}}.dump();
}

TEST(ZmqReward, ScoresAGroupAndSaysWhoseCodeItWas) {
  plumb::testing::TempFolder folder;
  std::mutex mu;  // the sockets order the two threads, too, but no sanitizer sees that
  Json seen;
  FrameServer server(folder.Ipc("s"), [&](std::string_view text, milliseconds waited) {
    std::lock_guard lock(mu);
    seen = Json::parse(text);
    return Honest(text, waited);
  });
  GroupScorer scorer(Config(ZmqPart(server.endpoint())));
  TrajectoryGroup group = TestGroup({"a", "four", "a \"quote\"\n\xff"}, "4", R"({"unit":"km"})");
  ASSERT_EQ(scorer.ScoreGroup(group), Outcome::kScored) << group.trajectories[0].unscored_reason;
  EXPECT_EQ(group.trajectories[1].reward, 4);
  EXPECT_EQ(group.trajectories[1].rewards[0].function_digest, "sha256:worker");
  std::lock_guard lock(mu);
  EXPECT_EQ(seen["plumb"], 1);
  EXPECT_EQ(seen["part"], "code");
  EXPECT_EQ(seen["prompt"], "What is it?");
  EXPECT_EQ(seen["ground_truth"], "4");
  EXPECT_EQ(seen["extra"]["unit"], "km");
  EXPECT_GT(seen["deadline_ms"].get<int64_t>(), 5000);
}

struct Lie {
  const char* name;
  const char* reply;  // ID stands for the id asked for
  const char* kind;
};
class ZmqLies : public ::testing::TestWithParam<Lie> {};

TEST_P(ZmqLies, LeaveTheGroupUnscored) {
  Notices notices;
  plumb::testing::TempFolder folder;
  FrameServer server(folder.Ipc("s"), [&](std::string_view text, milliseconds waited) {
    const Json request = Json::parse(text);
    if (request["completions"][0] == "good") return Honest(text, waited);
    std::string reply = GetParam().reply;
    if (const size_t at = reply.find("ID"); at != std::string::npos)
      reply.replace(at, 2, request["id"].get<std::string>());
    if (reply == "DEEP") reply = std::string(100000, '[');
    if (reply == "HUGE") reply = std::string(20 << 20, ' ');
    return reply;
  });
  GroupScorer scorer(Config(ZmqPart(server.endpoint(), (std::string(GetParam().kind) == "timeout" ||
                                                        GetParam().reply == std::string("HUGE"))
                                                           ? 0.4
                                                           : 10)));
  TrajectoryGroup group = TestGroup({"bad", "bad"});
  EXPECT_EQ(scorer.ScoreGroup(group), Outcome::kUnscored);
  const auto failed = [&](const std::string& kind) {
    return scorer.Counters().count("reward/failed/code/" + kind);
  };
  // A reply over the cap costs the connection: at the deadline it is away or just back.
  const bool either = GetParam().name == std::string("huge") && failed("timeout") == 1;
  EXPECT_TRUE(failed(GetParam().kind) == 1 || either) << group.trajectories[0].unscored_reason;
  EXPECT_FALSE(group.trajectories[0].scored);
  // what it says of the other answer is a score
  const bool one = GetParam().name == std::string("overflow");
  EXPECT_EQ(group.trajectories[1].scored, one);
  TrajectoryGroup next = TestGroup({"good", "x"});
  EXPECT_EQ(scorer.ScoreGroup(next), Outcome::kScored) << next.trajectories[0].unscored_reason;
}

INSTANTIATE_TEST_SUITE_P(
    All, ZmqLies,
    ::testing::Values(Lie{"too_few", R"({"id":"ID","scores":[1]})", "wrong_count"},
                      Lie{"too_many", R"({"id":"ID","scores":[1,2,3]})", "wrong_count"},
                      Lie{"nothing", R"({"id":"ID"})", "bad_reply"},
                      Lie{"no_json", "scores: 1, 2", "bad_reply"},
                      Lie{"list", "[1,2]", "bad_reply"}, Lie{"deep", "DEEP", "bad_reply"},
                      Lie{"text", R"({"id":"ID","scores":["1","2"]})", "bad_reply"},
                      Lie{"nan", R"({"id":"ID","scores":[NaN,1]})", "not_finite"},
                      Lie{"overflow",
                          R"({"id":"ID","scores":[{"scores":{"a":1e308,"b":1e308}},1]})",
                          "not_finite"},
                      Lie{"says_no", R"({"id":"ID","error":"no GPU"})", "reported"},
                      Lie{"other_id", R"({"id":"1","scores":[1,1]})", "timeout"},
                      Lie{"no_id", R"({"scores":[1,1]})", "timeout"},
                      Lie{"huge", "HUGE", "unavailable"}, Lie{"silent", "", "timeout"}),
    [](const auto& info) { return info.param.name; });

// RELIABILITY row 18: what answers nothing that was asked changes nothing, a thousand times.
TEST(ZmqReward, ForgedAndReplayedRepliesChangeNothing) {
  Notices notices;
  std::vector<std::string> old;
  const std::vector<std::string> forms = {
      R"({"id":"ID","scores":[9,9]})", R"({"scores":[9,9]})", R"({"id":7,"scores":[9,9]})",
      R"({"id":"","scores":[9,9]})", R"({"id":"ID","error":"forged"})"};
  int changed = 0, asked = 0;
  for (int i = 0; i < 1000; ++i) {
    const std::string id = "00ff-" + std::to_string(i);
    std::string forged = forms[static_cast<size_t>(i) % forms.size()];
    if (const size_t at = forged.find("ID"); at != std::string::npos) {
      forged.replace(at, 2,
                     i % 2 == 0    ? "00ff-" + std::to_string(i + 1)
                     : old.empty() ? "x"
                                   : old.back());
    }
    bool stray = false;
    const auto scores = ReadZmqReply(forged, id, 2, &stray);
    changed += !stray || !scores.empty();
    old.push_back(id);
    ++asked;
  }
  EXPECT_EQ(changed, 0) << "of " << asked;
}

// The same over a real socket: a worker whose every honest answer comes behind twenty that answer
// something else.
TEST(ZmqReward, StraysBeforeTheAnswerDoNotCount) {
  Notices notices;
  plumb::testing::TempFolder folder;
  const std::string endpoint = folder.Ipc("s");
  void* context = zmq_ctx_new();
  void* socket = zmq_socket(context, ZMQ_ROUTER);
  ASSERT_EQ(zmq_bind(socket, endpoint.c_str()), 0);
  std::atomic<bool> stop{false};
  std::atomic<int> forged{0};
  std::jthread worker([&] {
    const int wait_ms = 50;
    zmq_setsockopt(socket, ZMQ_RCVTIMEO, &wait_ms, sizeof wait_ms);
    std::vector<std::string> replayed;
    std::mt19937 random(18);
    char buffer[65536];
    while (!stop) {
      const int route_size = zmq_recv(socket, buffer, sizeof buffer, 0);
      if (route_size < 0) continue;
      const std::string route(buffer, static_cast<size_t>(route_size));
      zmq_recv(socket, buffer, sizeof buffer, 0);
      const int size = zmq_recv(socket, buffer, sizeof buffer, 0);
      const std::string honest =
          Honest(std::string_view(buffer, static_cast<size_t>(size)), milliseconds(0));
      const auto send = [&](const std::string& text) {
        zmq_send(socket, route.data(), route.size(), ZMQ_SNDMORE);
        if (text != "short") zmq_send(socket, "", 0, ZMQ_SNDMORE);
        zmq_send(socket, text.data(), text.size(), 0);
      };
      for (int i = 0; i < 20; ++i, ++forged) {
        const uint32_t kind = random() % 4;
        if (kind == 0 && !replayed.empty()) send(replayed[random() % replayed.size()]);
        else if (kind == 1) send("short");
        else if (kind == 2) send(Json{{"id", std::to_string(random())}, {"scores", {99}}}.dump());
        else send(R"({"scores":[99]})");
      }
      send(honest);
      replayed.push_back(honest);
    }
  });
  GroupScorer scorer(Config(ZmqPart(endpoint)));
  for (int i = 0; i < 50; ++i) {
    TrajectoryGroup group = TestGroup({std::string(static_cast<size_t>(i % 7 + 1), 'x')});
    ASSERT_EQ(scorer.ScoreGroup(group), Outcome::kScored) << group.trajectories[0].unscored_reason;
    EXPECT_EQ(group.trajectories[0].reward, i % 7 + 1);
  }
  EXPECT_GE(forged, 1000);
  stop = true;
  worker.join();
  zmq_close(socket);
  zmq_ctx_term(context);
}

TEST(ZmqReward, AnAbsentWorkerIsSaidAndNotHeldAgainstTheInput) {
  Notices notices;
  GroupScorer scorer(Config(ZmqPart("tcp://127.0.0.1:9", 0.3)));
  for (int i = 0; i < 4; ++i) {
    TrajectoryGroup group = TestGroup({"a"});
    EXPECT_EQ(scorer.ScoreGroup(group), Outcome::kUnscored);
    EXPECT_NE(group.trajectories[0].unscored_reason.find("nobody listens there"), std::string::npos)
        << group.trajectories[0].unscored_reason;
  }
  EXPECT_EQ(scorer.Counters().at("reward/failed/code/unavailable"), 4u);
  EXPECT_EQ(scorer.Counters().count("reward/failed/code/quarantined"), 0u);
  TrajectoryGroup last = TestGroup({"a"});
  EXPECT_THROW(scorer.ScoreGroup(last), FunctionDisabled) << "five within a minute stop the run";
}

TEST(ZmqReward, AWorkerThatDiesIsAskedAgainWhenItIsBack) {
  Notices notices;
  plumb::testing::TempFolder folder;
  const std::string endpoint = folder.Ipc("s");
  std::atomic<bool> asked{false};
  auto first = std::make_unique<FrameServer>(endpoint, [&](std::string_view, milliseconds) {
    asked = true;
    return std::string();  // takes the question with it
  });
  GroupScorer scorer(Config(ZmqPart(endpoint)));
  TrajectoryGroup group = TestGroup({"four"});
  std::jthread scoring([&] { EXPECT_EQ(scorer.ScoreGroup(group), Outcome::kScored); });
  for (int i = 0; i < 500 && !asked; ++i) usleep(10000);
  first.reset();
  usleep(300000);
  FrameServer second(endpoint, Honest);
  scoring.join();
  EXPECT_EQ(group.trajectories[0].reward, 4);
  EXPECT_EQ(scorer.Counters().count("reward/retries"), 0u) << "within one attempt";
}

TEST(ZmqReward, ASlowWorkersLateAnswerIsNotTakenForAnother) {
  Notices notices;
  plumb::testing::TempFolder folder;
  std::atomic<int> calls{0};
  FrameServer server(folder.Ipc("s"),
                     [&](std::string_view text, milliseconds waited) {
                       if (++calls == 1) usleep(700000);
                       return Honest(text, waited);
                     },
                     {.workers = 2});
  GroupScorer scorer(Config(ZmqPart(server.endpoint(), 0.3)));
  TrajectoryGroup slow = TestGroup({"1"});
  EXPECT_EQ(scorer.ScoreGroup(slow), Outcome::kUnscored);
  EXPECT_EQ(scorer.Counters().count("reward/failed/code/timeout"), 1u);
  for (int i = 0; i < 10; ++i) {
    TrajectoryGroup group = TestGroup({"four"});
    EXPECT_EQ(scorer.ScoreGroup(group), Outcome::kScored);
    EXPECT_EQ(group.trajectories[0].reward, 4);
    usleep(60000);
  }
}

TEST(ZmqReward, KeysBelongTogetherAndAreChecked) {
  plumb::testing::TempFolder folder;
  auto part = ZmqPart("tcp://127.0.0.1:5555");
  part.server_key = "x";
  EXPECT_THROW(MakeZmq(part), Error);
  EXPECT_THROW(MakeZmq(ZmqPart("")), Error);
  EXPECT_THROW(MakeZmq(ZmqPart("tcp://192.0.2.1:5555")), Error)
      << "beyond the loopback only with keys";
  const CurveKeys server = GenerateCurveKeys(), client = GenerateCurveKeys();
  WriteCurveKeys(folder / "server", server);
  WriteCurveKeys(folder / "client", client);
  { std::ofstream(folder / "allowed") << client.public_key << "\n"; }
  FrameServer worker("tcp://127.0.0.1:*", Honest, {.curve = {server, folder / "allowed"}});
  part = ZmqPart(worker.endpoint());
  part.server_key = folder / "server.pub";
  part.client_key = folder / "client.key";
  GroupScorer scorer(Config(part));
  TrajectoryGroup group = TestGroup({"four"});
  ASSERT_EQ(scorer.ScoreGroup(group), Outcome::kScored) << group.trajectories[0].unscored_reason;
  Notices notices;
  GroupScorer open(Config(ZmqPart(worker.endpoint(), 0.4)));
  EXPECT_EQ(open.ScoreGroup(group), Outcome::kUnscored);
  EXPECT_EQ(open.Counters().at("reward/failed/code/unavailable"), 1u)
      << group.trajectories[0].unscored_reason;
}

std::vector<ServedPart> TwoRules() {
  std::vector<ServedPart> parts;
  auto answer = TestPart("answer"), format = TestPart("format");
  answer.name = "correct", format.name = "shape";
  parts.push_back({MakeFunction(answer, false), 1});
  parts.push_back({MakeFunction(format, false), 0.5});
  return parts;
}

TEST(RewardServer, ServesTheSameNumbersAsInProcess) {
  plumb::testing::TempFolder folder;
  RewardServer server(TwoRules(), folder.Ipc("s"), {.workers = 2});
  GroupScorer remote(Config(ZmqPart(server.endpoint())));
  configs::RewardConfig config;
  config.parts = {TestPart("answer"), TestPart("format")};
  config.parts[0].name = "correct", config.parts[1].name = "shape", config.parts[1].weight = 0.5;
  GroupScorer local(config);
  TrajectoryGroup a = TestGroup({"<think>x</think><answer>4</answer>", "#### 4", "no"}, "4"), b = a;
  ASSERT_EQ(remote.ScoreGroup(a), Outcome::kScored) << a.trajectories[0].unscored_reason;
  ASSERT_EQ(local.ScoreGroup(b), Outcome::kScored);
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(a.trajectories[i].reward, b.trajectories[i].reward);
  EXPECT_EQ(a.trajectories[0].rewards[1].name, "code.correct");
  EXPECT_EQ(a.trajectories[0].rewards[0].function_digest, server.digest());
}

TEST(RewardServer, RefusesWithAReasonAndServesOn) {
  Notices notices;
  plumb::testing::TempFolder folder;
  RewardServer server(TwoRules(), folder.Ipc("s"));
  const auto error = [&](const std::string& request) {
    const std::string reply = server.Answer(request, milliseconds(0));
    return reply.empty() ? "nothing" : Json::parse(reply).value("error", "none");
  };
  EXPECT_NE(error("x").find("no JSON object"), std::string::npos);
  EXPECT_NE(error(std::string(100000, '[')).find("no JSON object"), std::string::npos);
  EXPECT_NE(error("{}").find("'id'"), std::string::npos);
  EXPECT_NE(error(R"({"id":"a","plumb":2})").find("version 1"), std::string::npos);
  EXPECT_NE(error(R"({"id":"a","plumb":1})").find("'prompt'"), std::string::npos);
  EXPECT_NE(error(R"({"id":"a","plumb":1,"prompt":3,"completions":["x"]})").find("neither"),
            std::string::npos);
  EXPECT_NE(
      error(R"({"id":"a","plumb":1,"prompt":[{"role":"user"}],"completions":["x"]})").find("role"),
      std::string::npos);
  EXPECT_NE(error(R"({"id":"a","plumb":1,"prompt":"p","completions":[1]})").find("no text"),
            std::string::npos);
  EXPECT_NE(error(R"({"id":"a","plumb":1,"prompt":"p","completions":[]})").find("'completions'"),
            std::string::npos);
  EXPECT_NE(
      error(R"({"id":"a","plumb":1,"prompt":[{"role":"user","content":null}],"completions":["x"]})")
          .find("role"),
      std::string::npos);
  EXPECT_EQ(
      error(
          R"({"id":"a","plumb":1,"deadline_ms":100,"prompt":[{"role":"user","content":[{"type":"text","text":"q"}]},)"
          R"({"role":"assistant","content":null,"tool_calls":[{"id":"1"}]}],"ground_truth":"4","completions":["#### 4"]})"),
      "none");
  const std::string good =
      R"({"id":"a","plumb":1,"deadline_ms":100,"prompt":"p","ground_truth":"4","completions":["#### 4"]})";
  EXPECT_EQ(error(good), "none");
  EXPECT_EQ(server.Answer(good, milliseconds(200)), "") << "its asker waits no longer";
  // A row without ground truth fails the rule: said for that answer, not turned into a number.
  const Json reply = Json::parse(
      server.Answer(R"({"id":"a","plumb":1,"prompt":"p","completions":["x"]})", milliseconds(0)));
  EXPECT_EQ(reply["scores"][0]["kind"], "reported");
}

// Texts have no tokens to count: no score instead of that of an answer without any.
TEST(RewardServer, LengthOfATextIsNoScore) {
  Notices notices;
  plumb::testing::TempFolder folder;
  auto part = TestPart("length");
  part.target_tokens = 10, part.max_tokens = 20;
  std::vector<ServedPart> parts;
  parts.push_back({MakeFunction(part, false, TestHost()), 1});
  RewardServer server(std::move(parts), folder.Ipc("s"));
  const Json reply = Json::parse(
      server.Answer(R"({"id":"a","plumb":1,"prompt":"p","completions":["x"]})", milliseconds(0)));
  EXPECT_EQ(reply["scores"][0]["kind"], "reported") << reply;
}

// A thousand damaged, repeated and cut requests: each is answered or refused, and none changes what
// the next gets.
TEST(RewardServer, DamagedAndReplayedRequestsChangeNothing) {
  Notices notices;
  plumb::testing::TempFolder folder;
  RewardServer server(TwoRules(), folder.Ipc("s"));
  const std::string good =
      R"({"id":"a","plumb":1,"deadline_ms":1000,"prompt":[{"role":"user","content":"p"}],"ground_truth":"4",)"
      R"("extra":{"x":[1,2]},"completions":["#### 4","<think>a</think><answer>5</answer>"]})";
  const std::string want = server.Answer(good, milliseconds(0));
  ASSERT_EQ(Json::parse(want)["scores"].size(), 2u);
  std::mt19937 random(18);
  for (int i = 0; i < 1000; ++i) {
    std::string bad = good;
    for (uint32_t n = 1 + random() % 4; n > 0; --n)
      bad[random() % bad.size()] = static_cast<char>(random());
    if (random() % 3 == 0) bad.resize(random() % bad.size());
    const std::string reply = server.Answer(bad, milliseconds(0));
    EXPECT_TRUE(reply.empty() || Json::accept(reply)) << reply;
    if (i % 50 == 0) {
      EXPECT_EQ(server.Answer(good, milliseconds(0)), want);
    }
  }
  EXPECT_EQ(server.Answer(good, milliseconds(0)), want);
}

}  // namespace
}  // namespace plumb::reward
