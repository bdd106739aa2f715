// Texts and demonstrations under a tiny model, against sums of single log-probs.
#include "run/models/perplexity_eval.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "common/base/error.h"
#include "policy_model/packing.h"
#include "policy_model/transformer.h"
#include "tests/run/models/toy_model.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

bool GoOn(int64_t, int64_t) { return true; }

class PerplexityEvalTest : public ::testing::Test {
 protected:
  PerplexityReport Evaluate(const std::string& name, const std::string& text) {
    testing::WriteFile(temp_ / name, text);
    return EvaluatePerplexity(*model_, {.file = temp_ / name}, GoOn);
  }
  void Open(const testing::ToyModel& toy) {
    testing::WriteToyModel(temp_ / "model", toy);
    model_.emplace(LoadModel(temp_ / "model", {.threads = 1}));
  }
  // Nats of the tokens from `first` on.
  double Nats(const std::vector<int32_t>& tokens, size_t first) {
    std::vector<uint8_t> mask(tokens.size(), 1);
    std::fill_n(mask.begin(), first, uint8_t{0});
    policy_model::PackedBatch batch;
    batch.Clear();
    batch.Append(tokens, mask);
    policy_model::Transformer transformer(model_->shape, model_->stream, model_->dtype);
    std::vector<float> logprob(batch.rows.size());
    transformer.Forward(*model_->weights, batch, {.entropy = false}, false, logprob, {});
    return -std::accumulate(logprob.begin(), logprob.end(), 0.0);
  }

  plumb::testing::TempFolder temp_;
  std::optional<ModelFolder> model_;
};

TEST_F(PerplexityEvalTest, OfTextsEveryTokenButTheFirstCounts) {
  Open({});
  const PerplexityReport r =
      Evaluate("rows.jsonl", "{\"text\": \"1+1=2\"}\n{\"text\": \"34-3=31\"}\n");
  ASSERT_EQ(r.rows.size(), 2u);
  const double first = Nats(model_->EncodeText("1+1=2"), 1),
               second = Nats(model_->EncodeText("34-3=31"), 1);
  EXPECT_NEAR(r.rows[0].nats, first, 1e-4);
  EXPECT_EQ(r.rows[0].tokens, 5) << "<bos> alone is given";
  EXPECT_EQ(r.rows[1].bytes, 7);
  EXPECT_NEAR(r.NatsPerToken().mean, (first + second) / 12, 1e-5);
  EXPECT_NEAR(r.BitsPerByte(), (first + second) / 12 / std::log(2.0), 1e-5);
  const auto json = r.Json();
  EXPECT_NEAR(json["perplexity"].get<double>(), std::exp((first + second) / 12), 1e-4);
  EXPECT_LT(json["interval_95"][0], json["perplexity"]);
  EXPECT_NE(r.Text().find("perplexity"), std::string::npos);
  EXPECT_NE(r.Text().find("12 tokens of 2 rows\n"), std::string::npos) << r.Text();
}

TEST_F(PerplexityEvalTest, ALongTextIsCutAndSaid) {
  Open({});
  const std::string text(150, '7');
  const PerplexityReport r = Evaluate("text.txt", text);
  ASSERT_EQ(r.rows.size(), 1u);
  EXPECT_EQ(r.cut, 1);
  const std::vector<int32_t> all = model_->EncodeText(text);  // 151
  double nats = 0;
  for (size_t begin = 0; begin < all.size(); begin += 64) {
    nats += Nats({all.begin() + static_cast<ptrdiff_t>(begin),
                  all.begin() + static_cast<ptrdiff_t>(std::min(begin + 64, all.size()))},
                 1);
  }
  EXPECT_NEAR(r.rows[0].nats, nats, 1e-3);
  EXPECT_EQ(r.rows[0].tokens, 151 - 3);
  EXPECT_NE(r.Text().find("cut into pieces"), std::string::npos);
  EXPECT_NE(r.Text().find("148 tokens of 1 row\n"), std::string::npos) << r.Text();
}

TEST_F(PerplexityEvalTest, OfDemonstrationsTheAnswerCountsBehindItsPrompt) {
  Open({.chat_template = true});
  const PerplexityReport r = Evaluate(
      "rows.jsonl",
      "{\"prompt\": \"1+1\", \"completion\": \"2\"}\n{\"prompt\": \"1\", \"completion\": \"" +
          std::string(80, '3') + "\"}\n");
  ASSERT_EQ(r.rows.size(), 1u);
  EXPECT_EQ(r.left_out, 1) << "longer than the context";
  EXPECT_EQ(r.rows[0].tokens, 2) << "2 and <eos>";
  EXPECT_NEAR(r.rows[0].nats, Nats(model_->tokenizer->Encode("<bos>1+1=2<eos>"), 5), 1e-4);
  EXPECT_NE(r.Text().find("left out"), std::string::npos);
}

TEST_F(PerplexityEvalTest, NothingToScoreIsAnError) {
  Open({});
  EXPECT_THROW(Evaluate("empty.txt", ""), Error);
  EXPECT_THROW(EvaluatePerplexity(*model_, {.file = temp_ / "none.jsonl"}, GoOn), Error);
  testing::WriteFile(temp_ / "rows.jsonl", "{\"text\": \"1+1=2\"}\n");
  EXPECT_TRUE(EvaluatePerplexity(*model_, {.file = temp_ / "rows.jsonl"}, [](int64_t, int64_t) {
                return false;
              }).stopped);
}

}  // namespace
}  // namespace plumb::run
