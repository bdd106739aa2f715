// A conversation's turns: what the environment is asked, what the policy hears.
#include "environment/doors/conversation.h"

#include <gtest/gtest.h>

namespace plumb::environment {
namespace {

ConversationRules Rules(bool tools = true, int64_t turns = 3) {
  ConversationRules rules;
  rules.max_turns = turns;
  if (tools) {
    rules.tools = ToolTable(
        R"([{"name":"add","parameters":{"required":["a"],"properties":{"a":{"type":"integer"}}}}])");
  }
  return rules;
}

std::string Add(const std::string& arguments) {
  return "<tool_call>{\"name\":\"add\",\"arguments\":" + arguments + "}</tool_call>";
}

TEST(Conversation, ResultsBecomeMessagesOfTools) {
  const ConversationRules rules = Rules();
  Conversation talk(5, rules);
  auto turn = talk.Take("hm " + Add("{\"a\":1}") + Add("{\"a\":\"x\"}") + Add("{\"a\":2}"));
  EXPECT_FALSE(turn.answered);
  EXPECT_EQ(turn.request.content, "hm");
  ASSERT_EQ(turn.request.calls.size(), 2u);  // the one that does not fit is not passed on
  EXPECT_EQ(turn.request.calls[1].id, "call00002");
  PeerReply said;
  said.results = {{"one"}, {"two", true}};
  said.reward = 0.25;
  const EnvironmentReply reply = talk.Answer(turn, said);
  EXPECT_EQ(reply.episode, 5u);
  ASSERT_EQ(reply.messages.size(), 3u);
  EXPECT_EQ(reply.messages[0],
            (Message{"tool", "one", R"({"tool_call_id":"call00000","name":"add"})"}));
  EXPECT_EQ(reply.messages[1].content, "error: 'a' has to be of type integer, not \"x\"");
  EXPECT_EQ(reply.messages[2].content, "two");
  EXPECT_TRUE(reply.failed_call);
  EXPECT_FALSE(reply.done);
  EXPECT_EQ(reply.reward, 0.25);
}

TEST(Conversation, AMalformedCallIsAnObservationThatSaysSo) {
  const ConversationRules rules = Rules();
  Conversation talk(5, rules);
  const auto turn = talk.Take("<tool_call>{\"name\":");
  EXPECT_TRUE(turn.answered);
  const EnvironmentReply reply = talk.Answer(turn, {});
  EXPECT_TRUE(reply.failed_call);
  EXPECT_FALSE(reply.done);
  ASSERT_EQ(reply.messages.size(), 1u);
  EXPECT_NE(reply.messages[0].content.find("is not closed by </tool_call>"), std::string::npos);
  EXPECT_EQ(reply.error, "");
}

// Qwen 3.5 writes arguments as texts: the tool gets what its schema says, and a call that cannot be
// read is told of in the form that was tried.
TEST(Conversation, ArgumentsInTagsHaveTheirTypes) {
  const ConversationRules rules = Rules();
  Conversation talk(5, rules);
  const auto turn = talk.Take(
      "<tool_call>\n<function=add>\n<parameter=a>\n41\n</parameter>\n</function>\n</tool_call>"
      "<tool_call>\n<function=add>\n<parameter=a>\nmany\n</parameter>\n</function>\n</tool_call>");
  ASSERT_EQ(turn.request.calls.size(), 1u);
  EXPECT_EQ(turn.request.calls[0].arguments, R"({"a":41})");
  PeerReply said;
  said.results = {{"42"}};
  const EnvironmentReply reply = talk.Answer(turn, said);
  ASSERT_EQ(reply.messages.size(), 2u);
  EXPECT_EQ(reply.messages[1].content, "error: 'a' has to be of type integer, not \"many\"");
  const EnvironmentReply told = talk.Answer(talk.Take("<tool_call><function=add></tool_call>"), {});
  EXPECT_NE(told.messages.at(0).content.find("A call looks like <tool_call>\n<function=tool>"),
            std::string::npos)
      << told.messages.at(0).content;
}

TEST(Conversation, TheLastTurnIsSaidToBeAndEnds) {
  const ConversationRules rules = Rules(true, 2);
  Conversation talk(5, rules);
  EXPECT_FALSE(talk.Take(Add("{\"a\":1}")).request.last);
  // Also where the call cannot be read: the environment may have a reward to give.
  const auto turn = talk.Take("<tool_call>");
  EXPECT_TRUE(turn.request.last);
  EXPECT_FALSE(turn.answered);
  PeerReply said;
  said.reward = 0.5;
  const EnvironmentReply reply = talk.Answer(turn, said);
  EXPECT_TRUE(reply.done);
  EXPECT_EQ(reply.reward, 0.5);
}

TEST(Conversation, SilenceEndsIt) {
  const ConversationRules rules = Rules();
  Conversation talk(5, rules);
  const auto turn = talk.Take("It is 3.");
  EXPECT_TRUE(talk.Answer(turn, {}).done);
}

TEST(Conversation, IsTextForAModelWithoutATemplate) {
  ConversationRules rules = Rules(false);
  rules.chat = false;
  Conversation talk(5, rules);
  PeerReply opening;
  opening.messages = {{"user", "Guess."}};
  EXPECT_EQ(talk.Opening(opening).text, "\nGuess.\n");
  EXPECT_TRUE(talk.Opening(opening).messages.empty());
  const auto turn = talk.Take("7 <tool_call>");  // no tools: nothing is read into it
  EXPECT_EQ(turn.request.text, "7 <tool_call>");
  EXPECT_EQ(turn.malformed, "");
  PeerReply failed;
  failed.error = "gone";
  EXPECT_EQ(talk.Answer(turn, failed).error, "gone");
}

}  // namespace
}  // namespace plumb::environment
