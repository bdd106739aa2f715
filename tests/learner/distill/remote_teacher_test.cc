// learner/distill/remote_teacher.h: what a server's reply is taken for, and when it is none. Over a
// real server: tests/run/serve/token_scorer_test.cc.
#include "learner/distill/remote_teacher.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "common/base/error.h"

namespace plumb::learner {
namespace {

using Json = nlohmann::json;

const std::vector<int32_t> kTokens = {5, 6, 7};
const std::vector<uint8_t> kMask = {0, 0, 1};
const SequenceView kView{.tokens = kTokens, .mask = kMask};

TEST(RemoteTeacherTest, ReadsTheScoredTokensAndKnowsNoOthersThanTheStudent) {
  const Json reply = {{"sequences",
                       {{{"logprobs", {-1.0, -2.0}},
                         {"top", {{1, 2, 3}, {9, 4, 2}}},
                         {"top_logprobs", {{-0.1, -3.0, -4.0}, {-0.5, -1.0, -2.5}}}}}}};
  const auto rows = ReadTokenAnswer(reply.dump(), std::span(&kView, 1), {.picks = 3}, 8, "s");
  ASSERT_EQ(rows.size(), 1u);
  EXPECT_EQ(rows[0].logprob, std::vector<float>{-2.0f});
  EXPECT_EQ(rows[0].ids, (std::vector<int32_t>{4, 2, -1})) << "9 is none of 8 tokens";
  EXPECT_EQ(rows[0].logprobs[0], -1.0f);
}

TEST(RemoteTeacherTest, AReplyThatIsNoneIsRefused) {
  const Json short_one = {
      {"sequences",
       {{{"logprobs", {-1.0}}, {"top", Json::array({{1}})}, {"top_logprobs", {{-0.1}}}}}}};
  for (const std::string& text :
       {std::string("no json"), std::string("{}"), std::string(R"({"sequences": []})"),
        std::string(R"({"sequences": [{"logprobs": [-1, -2]}]})"), short_one.dump()}) {
    try {
      ReadTokenAnswer(text, std::span(&kView, 1), {.picks = 1}, 8, "http://teacher");
      ADD_FAILURE() << "taken for an answer: " << text;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kConflict);
      EXPECT_EQ(e.where(), "http://teacher");
    }
  }
}

TEST(RemoteTeacherTest, AsksForWholeSequences) {
  const Json asked = Json::parse(TokenQuestion(
      std::span(&kView, 1), {.temperature = 0.5f, .picks = 7, .pick_temperature = 2.0f}));
  EXPECT_EQ(asked["tokens"], Json({{5, 6, 7}}));
  EXPECT_EQ(asked["top"], 7);
  EXPECT_EQ(asked["temperature"], 0.5);
  EXPECT_EQ(asked["top_temperature"], 2.0);
}

}  // namespace
}  // namespace plumb::learner
