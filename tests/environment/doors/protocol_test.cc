// The lines between Plumb and an environment elsewhere: written, and read strictly.
#include "environment/doors/protocol.h"

#include <gtest/gtest.h>

#include "common/base/error.h"

namespace plumb::environment {
namespace {

TEST(EnvironmentProtocol, WritesRequests) {
  Prompt prompt;
  prompt.messages = {{"user", "hi"}};
  prompt.ground_truth = "4";
  prompt.extra_json = R"({"level":2})";
  EXPECT_EQ(RequestLine({.ask = Ask::kBegin, .episode = 7, .prompt = &prompt, .sample = 3}, 1),
            R"({"id":1,"call":"begin","episode":7,"prompt":[{"role":"user","content":"hi"}],)"
            R"("ground_truth":"4","sample":3,"extra":{"level":2}})");
  PeerRequest act{.ask = Ask::kAct, .episode = 7, .text = "a\nb", .content = "a", .last = true};
  act.calls = {{"call00000", "add", R"({"a":1})"}};
  EXPECT_EQ(RequestLine(act, 2),
            R"({"id":2,"call":"act","episode":7,"text":"a\nb","content":"a","calls":)"
            R"([{"id":"call00000","name":"add","arguments":{"a":1}}],"last":true})");
  EXPECT_EQ(RequestLine({.ask = Ask::kEnd, .episode = 7}, 3),
            R"({"id":3,"call":"end","episode":7})");
}

TEST(EnvironmentProtocol, ReadsReplies) {
  PeerReply reply = ReadReply(
      R"({"id":2,"observation":"hi","messages":[{"role":"tool","content":"x","name":"f"}],)"
      R"("results":["a",{"content":"b","failed":true}],"reward":0.5,"done":true})",
      2, 2);
  ASSERT_EQ(reply.messages.size(), 2u);
  EXPECT_EQ(reply.messages[0], (Message{"user", "hi"}));
  EXPECT_EQ(reply.messages[1], (Message{"tool", "x", R"({"name":"f"})"}));
  EXPECT_TRUE(reply.results[1].failed);
  EXPECT_EQ(reply.reward, 0.5);
  EXPECT_TRUE(reply.done);
  EXPECT_EQ(ReadReply(R"({"id":2,"error":"no"})", 2, 5).error, "no");
  EXPECT_EQ(ReadReply("{\"id\":2,\"reward\":true}\r", 2, 0).reward, 1.0);
  for (const char* bad :
       {"", "x", "[]", R"({"id":3})", R"({})", R"({"id":2,"reward":"1"})",
        R"({"id":2,"reward":NaN})", R"({"id":2,"done":1})", R"({"id":2,"results":["a"]})",
        R"({"id":2,"observation":3})", R"({"id":2,"messages":[{"content":"x"}]})"}) {
    EXPECT_THROW(ReadReply(bad, 2, 0), Error) << bad;
  }
  EXPECT_THROW(ReadReply(R"({"id":2})", 2, 1), Error);  // a call without a result
  EXPECT_THROW(ReadReply(std::string(100000, '['), 2, 0), Error);
}

TEST(EnvironmentProtocol, ReadsGreetings) {
  EXPECT_EQ(ReadGreeting(R"({"ready":true})").tools, "");
  EXPECT_EQ(ReadGreeting(R"({"ready":true,"tools":[{"name":"f"}]})").tools, R"([{"name":"f"}])");
  EXPECT_EQ(ReadGreeting(R"({"error":"no"})").error, "no");
  EXPECT_THROW(ReadGreeting("hello"), Error);
  EXPECT_THROW(ReadGreeting(R"({"id":1})"), Error);
}

}  // namespace
}  // namespace plumb::environment
