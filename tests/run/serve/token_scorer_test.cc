// /token_logprobs over real sockets, and a teacher that is asked there: what it says is what its
// model computes in this process.
#include "run/serve/token_scorer.h"

#include <cmath>

#include "learner/distill/remote_teacher.h"
#include "tests/run/serve/serving.h"

namespace plumb::run {
namespace {

using nlohmann::json;
using testing::HttpReply;
using testing::Post;

class TokenScorerTest : public Serving {
 protected:
  HttpReply Ask(const json& body) { return Post(port(), "/token_logprobs", body); }
  configs::Config Student() const {
    configs::Config config;
    config.model.path = temp_ / "model";
    config.run.stall_seconds = 20;
    return config;
  }
  std::string Address() const { return "http://127.0.0.1:" + std::to_string(port()); }
};

TEST_F(TokenScorerTest, SaysHowLikelyGivenTokensAre) {
  Open(Endless());
  const std::vector<int32_t> tokens = models_->folder().EncodeText("12+3=15");
  const HttpReply reply = Ask({{"tokens", {tokens, {tokens[0], tokens[1]}}}, {"top", 3}});
  ASSERT_EQ(reply.status, 200) << reply.body;
  const json out = reply.json()["sequences"];
  ASSERT_EQ(out.size(), 2u);
  ASSERT_EQ(out[0]["logprobs"].size(), tokens.size() - 1);
  for (size_t i = 0; i + 1 < tokens.size(); ++i) {
    const json &ids = out[0]["top"][i], &tops = out[0]["top_logprobs"][i];
    ASSERT_EQ(ids.size(), 3u);
    EXPECT_GE(tops[0].get<double>(), tops[1].get<double>());
    EXPECT_GE(tops[0].get<double>(), out[0]["logprobs"][i].get<double>());
    for (size_t k = 0; k < 3; ++k) {
      if (ids[k] == tokens[i + 1]) {
        EXPECT_NEAR(tops[k].get<double>(), out[0]["logprobs"][i].get<double>(), 1e-5);
      }
    }
  }
  EXPECT_NEAR(out[1]["logprobs"][0].get<double>(), out[0]["logprobs"][0].get<double>(), 1e-5)
      << "a token does not know what follows it";
  // A greedy answer's tokens are the likeliest ones.
  const json drawn = Complete({{"prompt", tokens},
                               {"max_tokens", 5},
                               {"temperature", 0},
                               {"logprobs", 0},
                               {"return_token_ids", true}})
                         .json()["choices"][0];
  std::vector<int32_t> whole = drawn["prompt_token_ids"];
  const size_t prompt = whole.size();
  for (const json& id : drawn["token_ids"]) whole.push_back(id);
  const json again = Ask({{"tokens", json::array({whole})}, {"top", 1}}).json()["sequences"][0];
  for (size_t i = prompt; i < whole.size(); ++i) {
    EXPECT_EQ(again["top"][i - 1][0], whole[i]);
    EXPECT_NEAR(again["logprobs"][i - 1].get<double>(),
                drawn["logprobs"]["token_logprobs"][i - prompt].get<double>(), 1e-4);
  }
}

TEST_F(TokenScorerTest, WrongQuestionsNameTheField) {
  Open(Endless());
  for (const auto& [body, field] :
       {std::pair<json, std::string>{json::object(), "tokens"},
        {{{"tokens", json::array()}}, "tokens"},
        {{{"tokens", {{1, -2}}}}, "tokens"},
        {{{"tokens", {{1, 1 << 20}}}}, "tokens"},
        {{{"tokens", json::array({std::vector<int32_t>(5000, 1)})}}, "tokens"},
        {{{"tokens", {{1, 2}}}, {"top", 5000}}, "top"},
        {{{"tokens", {{1, 2}}}, {"temperature", 0}}, "temperature"},
        {{{"tokens", {{1, 2}}}, {"echo", true}}, "echo"}}) {
    const HttpReply reply = Ask(body);
    EXPECT_EQ(reply.status, 400) << body.dump();
    EXPECT_EQ(reply.json()["error"]["param"], field) << reply.body;
  }
  EXPECT_EQ(Ask({{"tokens", {{1, 2}}}, {"model", "other"}}).status, 404);
}

TEST_F(TokenScorerTest, ATeacherBehindAServerSaysWhatItsModelSays) {
  Open(Endless());
  const configs::Config config = Student();
  const ModelFolder& folder = models_->folder();
  const policy_model::Weights& weights = *models_->models()[0].weights;
  const std::vector<int32_t> a = folder.EncodeText("12+3=15"), b = folder.EncodeText("7-3=4");
  std::vector<uint8_t> mask_a(a.size(), 0), mask_b(b.size(), 1);
  mask_a.back() = mask_a[a.size() - 2] = 1;
  const std::vector<learner::SequenceView> views = {{.tokens = a, .mask = mask_a},
                                                    {.tokens = b, .mask = mask_b}};
  const learner::TeacherQuestion question{
      .temperature = 0.8f, .picks = 4, .pick_temperature = 1.5f};
  learner::RemoteTeacher remote(config, Address(), folder.shape, nullptr);
  learner::LocalTeacher local(config, temp_ / "model", weights, nullptr);
  const auto there = remote.Say(views, question), here = local.Say(views, question);
  for (size_t s = 0; s < views.size(); ++s) {
    EXPECT_EQ(there[s].ids, here[s].ids);
    ASSERT_EQ(there[s].logprob.size(), here[s].logprob.size());
    for (size_t i = 0; i < here[s].logprob.size(); ++i)
      EXPECT_NEAR(there[s].logprob[i], here[s].logprob[i], 1e-5);
    for (size_t i = 0; i < here[s].logprobs.size(); ++i)
      EXPECT_NEAR(there[s].logprobs[i], here[s].logprobs[i], 1e-5);
  }
  EXPECT_THROW(remote.Say(views, {.hidden = true}), Error);
}

TEST_F(TokenScorerTest, ATeacherOfOtherTokensOrNoneIsRefused) {
  Open(Endless());
  configs::Config config = Student();
  config.model.path.clear();
  config.model.vocabulary = configs::Vocabulary::kBytes;
  try {
    learner::RemoteTeacher remote(config, Address(), models_->folder().shape, nullptr);
    FAIL() << "bytes are not its tokens";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kConflict) << e.what();
    EXPECT_NE(std::string(e.what()).find("tokenizer is not the student's"), std::string::npos);
  }
  const std::string address = Address();
  const policy_model::ModelShape shape = models_->folder().shape;
  server_.reset();
  config = Student();
  config.run.stall_seconds = 1;
  try {
    learner::RemoteTeacher remote(config, address, shape, nullptr);
    FAIL() << "nobody is there";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kUnavailable) << e.what();
  }
}

}  // namespace
}  // namespace plumb::run
