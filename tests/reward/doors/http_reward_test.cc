// Reward servers over HTTP, honest, away, slow and lying (reward/doors/http_reward.h,
// common/net/http_client.h).
#include "reward/doors/http_reward.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "common/net/http_client.h"
#include "tests/reward/testing.h"
#include "tests/testing/http_server.h"

namespace plumb::reward {
namespace {

using Json = nlohmann::json;
using plumb::testing::HttpOk;
using plumb::testing::HttpRequest;
using plumb::testing::HttpServer;

configs::RewardConfig Config(const std::string& endpoint, const std::string& api,
                             double timeout_s = 10, int64_t workers = 1) {
  configs::RewardConfig config;
  auto part = TestPart("http");
  part.endpoint = endpoint;
  part.api = configs::FromName<configs::HttpApi>(api).value();
  part.timeout_s = timeout_s;
  part.workers = workers;
  config.parts = {part};
  config.retries = 0;
  return config;
}

// The length of each answer.
std::string Honest(const HttpRequest& request) {
  const Json body = Json::parse(request.body);
  Json reply = {{"rewards", Json::array()},
                {"scores", Json::array()},
                {"extra_logs", {{"length", Json::array()}}}};
  for (size_t i = 0; i < body["query"].size(); ++i) {
    const size_t n =
        body["query"][i].get<std::string>().size() - body["prompts"][i].get<std::string>().size();
    reply["rewards"].push_back(n);
    reply["scores"].push_back(static_cast<double>(n) / 10);
    reply["extra_logs"]["length"].push_back(n);
  }
  return HttpOk(reply.dump());
}

TEST(HttpReward, OpenRlhfServer) {
  Json seen;
  std::string head;
  HttpServer server([&](const HttpRequest& request) {
    seen = Json::parse(request.body);
    head = request.head;
    return Honest(request);
  });
  GroupScorer scorer(Config(server.url(), "openrlhf"));
  for (int i = 0; i < 5; ++i) {
    TrajectoryGroup group = TestGroup({"a", "four"}, "4");
    ASSERT_EQ(scorer.ScoreGroup(group), Outcome::kScored) << group.trajectories[0].unscored_reason;
    EXPECT_EQ(group.trajectories[1].reward, 4);
    ASSERT_EQ(group.trajectories[1].rewards.size(), 3u);
    EXPECT_EQ(group.trajectories[1].rewards[1].name, "code.scores");
    EXPECT_EQ(group.trajectories[1].rewards[1].value, 0.4);
    EXPECT_EQ(group.trajectories[1].rewards[2].name, "code.length");
    EXPECT_EQ(group.trajectories[1].rewards[0].function_digest,
              "http:openrlhf:" + server.url("/get_reward"));
  }
  EXPECT_EQ(server.connections(), 1) << "kept alive";
  EXPECT_EQ(head.rfind("POST /get_reward HTTP/1.1", 0), 0u) << head;
  EXPECT_EQ(seen["query"][1], "What is it?four");
  EXPECT_EQ(seen["prompts"][1], "What is it?");
  EXPECT_EQ(seen["labels"], (Json{"4", "4"}));
}

TEST(HttpReward, SlimeServerOneAnswerARequestSideBySide) {
  std::atomic<int> now{0}, most{0};
  HttpServer server([&](const HttpRequest& request) {
    most = std::max<int>(most, ++now);
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    const Json body = Json::parse(request.body);
    --now;
    if (body["response"] == "number") return HttpOk("0.75");
    EXPECT_EQ(body["label"], "4");
    EXPECT_EQ(body["prompt"], "What is it?");
    return HttpOk(R"({"score":0.5,"style":0.25,"note":"fine"})");
  });
  GroupScorer scorer(Config(server.url("/rm"), "slime", 10, 4));
  TrajectoryGroup group = TestGroup({"number", "b", "c", "d"}, "4");
  ASSERT_EQ(scorer.ScoreGroup(group), Outcome::kScored) << group.trajectories[0].unscored_reason;
  EXPECT_EQ(group.trajectories[0].reward, 0.75);
  EXPECT_EQ(group.trajectories[3].reward, 0.5);
  EXPECT_EQ(group.trajectories[3].rewards[1].name, "code.style");
  EXPECT_EQ(server.requests(), 4);
  EXPECT_GT(most, 1) << "a group's answers wait together";
}

struct Lie {
  const char* name;
  const char* reply;  // raw bytes; a leading '{' or '[' stands for an honest reply with that body
  const char* kind;
};
class HttpLies : public ::testing::TestWithParam<Lie> {};

TEST_P(HttpLies, LeaveTheGroupUnscored) {
  Notices notices;
  HttpServer server([&](const HttpRequest& request) {
    if (Json::parse(request.body)["query"][0] == "What is it?good") return Honest(request);
    const std::string reply = GetParam().reply;
    if (reply == "HUGE") return HttpOk("{\"rewards\":[" + std::string(5 << 20, ' ') + "1,1]}");
    if (reply == "ENDLESS")
      return "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + std::string(6 << 20, ' ');
    if (reply == "DEEP") return HttpOk(std::string(100000, '['));
    return reply.starts_with('{') || reply.starts_with('[') ? HttpOk(reply) : reply;
  });
  const bool until_deadline =
      std::string(GetParam().kind) == "unavailable" || std::string(GetParam().kind) == "timeout";
  GroupScorer scorer(Config(server.url(), "openrlhf", until_deadline ? 0.5 : 10));
  TrajectoryGroup group = TestGroup({"bad", "bad"});
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(scorer.ScoreGroup(group), Outcome::kUnscored);
  EXPECT_LT(std::chrono::steady_clock::now() - start,
            std::chrono::milliseconds(until_deadline ? 1500 : 5000));
  EXPECT_EQ(scorer.Counters().count("reward/failed/code/" + std::string(GetParam().kind)), 1u)
      << group.trajectories[0].unscored_reason;
  TrajectoryGroup next = TestGroup({"good", "x"});
  EXPECT_EQ(scorer.ScoreGroup(next), Outcome::kScored) << next.trajectories[0].unscored_reason;
  EXPECT_EQ(next.trajectories[0].reward, 4);
}

INSTANTIATE_TEST_SUITE_P(
    All, HttpLies,
    ::testing::Values(
        Lie{"too_few", R"({"rewards":[1]})", "wrong_count"},
        Lie{"too_many", R"({"rewards":[1,2,3]})", "wrong_count"},
        Lie{"no_rewards", R"({"scores":[1,2]})", "bad_reply"}, Lie{"list", "[1,2]", "bad_reply"},
        Lie{"words", R"({"rewards":["1","2"]})", "bad_reply"},
        Lie{"half_json", R"({"rewards":[1,)", "bad_reply"}, Lie{"deep", "DEEP", "bad_reply"},
        Lie{"nan", R"({"rewards":[NaN,1]})", "not_finite"},
        Lie{"infinity", R"({"rewards":[1,-Infinity]})", "not_finite"},
        Lie{"overflow", R"({"rewards":[1e999,1]})", "bad_reply"},
        Lie{"out_of_range", R"({"rewards":[1,1e300]})", "bad_reply"},
        Lie{"huge", "HUGE", "output_cap"}, Lie{"endless", "ENDLESS", "output_cap"},
        Lie{"length_says_more",
            "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nConnection: "
            "close\r\n\r\n{\"rewards\":[1,1]}",
            "unavailable"},
        Lie{"length_says_less", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{\"rewards\":[1,1]}",
            "bad_reply"},
        Lie{"length_is_no_number",
            "HTTP/1.1 200 OK\r\nContent-Length: abc\r\nConnection: "
            "close\r\n\r\n{\"rewards\":[1,1]}",
            "bad_reply"},
        Lie{"no_http", "hello\r\n\r\n", "unavailable"}, Lie{"hangs_up", "", "unavailable"},
        Lie{"error", "HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\nboom", "reported"},
        Lie{"overloaded", "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", "unavailable"},
        Lie{"redirect",
            "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
            "bad_reply"}),
    [](const auto& info) { return info.param.name; });

TEST(HttpReward, ASecondReplyIsNotTakenForTheNextAnswer) {
  std::atomic<int> served{0};
  HttpServer server([&](const HttpRequest& request) {
    // An honest reply with a forged one behind it, on the same connection.
    return ++served == 1 ? Honest(request) + HttpOk(R"({"rewards":[99,99]})") : Honest(request);
  });
  GroupScorer scorer(Config(server.url(), "openrlhf"));
  for (int i = 0; i < 3; ++i) {
    TrajectoryGroup group = TestGroup({"a", "b"});
    ASSERT_EQ(scorer.ScoreGroup(group), Outcome::kScored);
    EXPECT_EQ(group.trajectories[0].reward, 1);
    usleep(50000);
  }
}

TEST(HttpReward, AServerThatDripsMeetsItsDeadline) {
  Notices notices;
  HttpServer server(Honest, 0, /*drip_ms=*/50);
  GroupScorer scorer(Config(server.url(), "openrlhf", 0.5));
  TrajectoryGroup group = TestGroup({"a"});
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(scorer.ScoreGroup(group), Outcome::kUnscored);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(1500));
  EXPECT_EQ(scorer.Counters().count("reward/failed/code/timeout"), 1u)
      << group.trajectories[0].unscored_reason;
}

TEST(HttpReward, AServerThatComesBackIsAskedAgain) {
  Notices notices;
  int port = 0;
  { port = HttpServer(Honest).port(); }
  GroupScorer scorer(Config("http://127.0.0.1:" + std::to_string(port), "openrlhf"));
  TrajectoryGroup group = TestGroup({"a"});
  std::jthread scoring([&] {
    EXPECT_EQ(scorer.ScoreGroup(group), Outcome::kScored) << group.trajectories[0].unscored_reason;
  });
  usleep(400000);
  HttpServer server(Honest, port);
  scoring.join();
  EXPECT_EQ(scorer.Counters().count("reward/failed/code/unavailable"), 0u) << "within one attempt";
}

TEST(HttpReward, AnAbsentServerIsSaidAndStopsTheRunInTheEnd) {
  Notices notices;
  int port = 0;
  { port = HttpServer(Honest).port(); }
  GroupScorer scorer(Config("http://127.0.0.1:" + std::to_string(port), "openrlhf", 0.2));
  for (int i = 0; i < 4; ++i) {
    TrajectoryGroup group = TestGroup({"a"});
    EXPECT_EQ(scorer.ScoreGroup(group), Outcome::kUnscored);
    EXPECT_NE(group.trajectories[0].unscored_reason.find("unavailable"), std::string::npos)
        << group.trajectories[0].unscored_reason;
  }
  TrajectoryGroup group = TestGroup({"a"});
  EXPECT_THROW(scorer.ScoreGroup(group), FunctionDisabled);
}

TEST(HttpReward, TheKeyIsSentAndNeverSaid) {
  ::setenv("PLUMB_TEST_HTTP_KEY", "sk-secret-123", 1);
  Notices notices;
  std::string head;
  HttpServer server([&](const HttpRequest& request) {
    head = request.head;
    return std::string("HTTP/1.1 401 No\r\nContent-Length: 28\r\n\r\nwrong key sk-secret-123, sir");
  });
  auto config = Config(server.url(), "openrlhf");
  config.parts[0].api_key_env = "PLUMB_TEST_HTTP_KEY";
  GroupScorer scorer(config);
  TrajectoryGroup group = TestGroup({"a"});
  EXPECT_EQ(scorer.ScoreGroup(group), Outcome::kUnscored);
  EXPECT_NE(head.find("Authorization: Bearer sk-secret-123"), std::string::npos) << head;
  EXPECT_NE(group.trajectories[0].unscored_reason.find("wrong key ***"), std::string::npos)
      << group.trajectories[0].unscored_reason;
  EXPECT_EQ(notices.text().find("sk-secret"), std::string::npos);
  config.parts[0].api_key_env = "PLUMB_TEST_KEY_THAT_IS_NOT_SET";
  EXPECT_THROW(GroupScorer{config}, Error);
}

TEST(HttpReward, AddressesThatCannotBe) {
  for (const char* bad :
       {"", "127.0.0.1:80", "ftp://x", "http://", "http://:80", "http://x:0", "http://x:99999",
        "http://x:8a", "http://user:pw@host/", "http://a b/", "http://x/\r\nX: y"}) {
    EXPECT_THROW(GroupScorer(Config(bad, "openrlhf")), Error) << bad;
  }
  EXPECT_FALSE(configs::FromName<configs::HttpApi>("verl")) << "a recipe's reader refuses it";
  EXPECT_THROW(GroupScorer(Config("http://127.0.0.1:1", "")), Error);
  const Url url = ParseUrl("https://host:8000/a/b?key=1#x");
  EXPECT_EQ(url.origin, "https://host:8000");
  EXPECT_EQ(url.path, "/a/b?key=1");
  EXPECT_EQ(url.shown, "https://host:8000/a/b") << "a query may hold a secret";
}

TEST(HttpReward, TlsWithoutAProvenNameIsRefused) {
  Notices notices;
  HttpServer server(Honest);  // speaks no TLS
  GroupScorer scorer(Config("https://127.0.0.1:" + std::to_string(server.port()), "openrlhf", 0.5));
  TrajectoryGroup group = TestGroup({"a"});
  EXPECT_EQ(scorer.ScoreGroup(group), Outcome::kUnscored);
  EXPECT_EQ(server.requests(), 0) << "nothing is sent in the clear";
}

}  // namespace
}  // namespace plumb::reward
