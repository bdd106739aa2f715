// Pairs under a language model, against a reference and under a reward model: the values are those
// of the models' own forward passes.
#include "run/models/pair_eval.h"
#include "policy_model/memory/scalar_head.h"

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

class PairEvalTest : public ::testing::Test {
 protected:
  void SetUp() override {
    testing::WriteToyModel(model_);
    std::string rows;
    for (int i = 0; i < 40; ++i) {
      rows += nlohmann::json{{"prompt", std::to_string(i) + "+" + std::to_string(i) + "="},
                             {"chosen", std::to_string(2 * i)},
                             {"rejected", std::to_string(2 * i + 1) + (i % 3 ? "" : "00")}}
                  .dump() +
              "\n";
    }
    rows += "{\"prompt\": \"1+1=\", \"chosen\": \"2\", \"rejected\": \"2\"}\n";  // no pair
    testing::WriteFile(pairs_, rows);
  }
  PairEvalOptions Options() const {
    return {.model = model_, .pairs = pairs_, .options = {.threads = 1}};
  }
  // Log-prob of the answer's tokens behind the prompt, one sequence at a time.
  double LogProb(const ModelFolder& model, const std::string& prompt, const std::string& answer) {
    const std::vector<int32_t> before = model.EncodeText(prompt),
                               behind = model.encoder().Answer(answer);
    std::vector<int32_t> all = before;
    all.insert(all.end(), behind.begin(), behind.end());
    std::vector<uint8_t> mask(all.size(), 1);
    std::fill_n(mask.begin(), before.size(), uint8_t{0});
    policy_model::PackedBatch batch;
    batch.Clear();
    batch.Append(all, mask);
    policy_model::Transformer transformer(model.shape, model.stream, model.dtype);
    std::vector<float> logprob(batch.rows.size());
    transformer.Forward(*model.weights, batch, {.entropy = false}, false, logprob, {});
    return std::accumulate(logprob.begin(), logprob.end(), 0.0);
  }

  plumb::testing::TempFolder temp_;
  std::string model_ = temp_ / "model", pairs_ = temp_ / "pairs.jsonl";
};

TEST_F(PairEvalTest, WithoutAReferenceTheLogProbsDecide) {
  const PairEvalReport r = EvaluatePairs(Options(), GoOn);
  ASSERT_EQ(r.pairs.size(), 40u);
  const ModelFolder model = LoadModel(model_, {.threads = 1});
  double right = 0, margin = 0;
  for (int i : {0, 1, 2, 17, 39}) {
    const std::string prompt = std::to_string(i) + "+" + std::to_string(i) + "=";
    EXPECT_NEAR(r.pairs[static_cast<size_t>(i)].chosen,
                LogProb(model, prompt, std::to_string(2 * i)), 1e-4);
    EXPECT_NEAR(r.pairs[static_cast<size_t>(i)].rejected,
                LogProb(model, prompt, std::to_string(2 * i + 1) + (i % 3 ? "" : "00")), 1e-4);
  }
  for (const PairValues& p : r.pairs)
    right += p.chosen > p.rejected, margin += p.chosen - p.rejected;
  const auto json = r.Json();
  EXPECT_NEAR(json["accuracy"].get<double>(), right / 40, 1e-12);
  EXPECT_NEAR(json["margin"]["mean"].get<double>(), margin / 40, 1e-9);
  EXPECT_EQ(json["by"], "log-prob");
  EXPECT_FALSE(json.contains("dpo_loss"));
  EXPECT_EQ(r.pairs[1].chosen_tokens, 2) << "a digit and the end token";
  EXPECT_NE(r.Text().find("accuracy"), std::string::npos);
  EXPECT_EQ(r.Line(r.pairs[3])["row"], 3);
  ASSERT_FALSE(r.notes.empty()) << "the row that is no pair is told";
  EXPECT_NE(r.notes.back().find("pairs: 40 to compare"), std::string::npos) << r.notes.back();
  EXPECT_THROW(EvaluatePairs({.model = model_, .pairs = temp_ / "none.jsonl"}, GoOn), Error);
}

TEST_F(PairEvalTest, AgainstItselfEverythingIsTied) {
  PairEvalOptions options = Options();
  options.reference = model_;
  const auto json = EvaluatePairs(options, GoOn).Json();
  EXPECT_EQ(json["accuracy"], 0.5);
  EXPECT_EQ(json["margin"]["mean"], 0.0);
  EXPECT_NEAR(json["dpo_loss"].get<double>(), std::log(2.0), 1e-12);
}

TEST_F(PairEvalTest, TheImplicitRewardIsBetaTimesTheLogRatios) {
  testing::WriteToyModel(temp_ / "other", {.seed = 6});
  PairEvalOptions options = Options();
  options.reference = temp_ / "other";
  options.beta = 0.25;
  const PairEvalReport r = EvaluatePairs(options, GoOn);
  PairEvalOptions alone = Options();
  alone.model = temp_ / "other";
  const PairEvalReport other = EvaluatePairs(alone, GoOn);
  double loss = 0;
  for (size_t i = 0; i < r.pairs.size(); ++i) {
    const PairValues& p = r.pairs[i];
    EXPECT_EQ(p.ref_chosen, other.pairs[i].chosen);
    EXPECT_NEAR(r.RewardOf(p, true), 0.25 * (p.chosen - p.ref_chosen), 1e-12);
    loss += std::log1p(std::exp(-(r.RewardOf(p, true) - r.RewardOf(p, false))));
  }
  EXPECT_NEAR(r.Json()["dpo_loss"].get<double>(), loss / 40, 1e-9);
  EXPECT_EQ(r.Line(r.pairs[0])["reference_chosen"], r.pairs[0].ref_chosen);
}

TEST_F(PairEvalTest, AnAdapterAgainstItsBaseNeedsNoSecondModel) {
  const ModelFolder base = LoadModel(model_, {.threads = 1});
  policy_model::Weights weights(base.shape, Device::kCpu, DType::kFloat32);
  weights.Load(model_);
  weights.AddAdapter({.rank = 2, .alpha = 4}, 1);
  policy_model::FlatBuffer& flat = weights.adapters()[0]->flat;
  for (int64_t i = 0; i < flat.elements(); ++i) flat.f32()[i] += 0.05f;  // B is no longer 0
  policy_model::SaveModelDirectory(weights, temp_ / "adapter", "", model_);
  PairEvalOptions options = Options();
  options.model = temp_ / "adapter";
  options.reference = model_;
  const PairEvalReport r = EvaluatePairs(options, GoOn), plain = EvaluatePairs(Options(), GoOn);
  for (size_t i = 0; i < r.pairs.size(); ++i) {
    EXPECT_EQ(r.pairs[i].ref_chosen, plain.pairs[i].chosen);
    EXPECT_NE(r.pairs[i].chosen, plain.pairs[i].chosen);
  }
}

TEST_F(PairEvalTest, ARewardModelScoresWithItsHead) {
  policy_model::Weights policy = testing::ToyWeights();
  const policy_model::Weights head = policy_model::ScalarHeadFrom(policy, 3);
  policy_model::SaveModelDirectory(head, temp_ / "rm", model_ + ".tokenizer");
  PairEvalOptions options = Options();
  options.model = temp_ / "rm";
  const PairEvalReport r = EvaluatePairs(options, GoOn);
  EXPECT_TRUE(r.reward_model);
  const ModelFolder model = LoadModel(temp_ / "rm", {.threads = 1, .scalar_head = true});
  policy_model::Transformer transformer(model.shape, model.stream, model.dtype);
  for (int i : {0, 5, 39}) {
    std::vector<int32_t> tokens =
        model.EncodeText(std::to_string(i) + "+" + std::to_string(i) + "=");
    for (const int32_t id : model.encoder().Answer(std::to_string(2 * i))) tokens.push_back(id);
    const int32_t last = model.shape.ScoredPosition(tokens);
    policy_model::PackedBatch batch;
    batch.Clear();
    batch.AppendRows(tokens, std::span(&last, 1));
    std::vector<float> value(1);
    transformer.ForwardValues(*model.weights, batch, false, value);
    EXPECT_NEAR(r.pairs[static_cast<size_t>(i)].chosen, value[0], 1e-5);
  }
  const auto json = r.Json();
  EXPECT_EQ(json["by"], "reward model");
  EXPECT_NEAR(json["margin"]["mean"].get<double>(),
              json["score_chosen"].get<double>() - json["score_rejected"].get<double>(), 1e-9);
  options.reference = model_;
  EXPECT_THROW(EvaluatePairs(options, GoOn), Error) << "a reward model takes no reference";
}

TEST_F(PairEvalTest, TellsHowFarItIsAndStopsWhenAsked) {
  PairEvalOptions options = Options();
  options.reference = model_;
  std::vector<int64_t> seen;
  const PairEvalReport r = EvaluatePairs(options, [&](int64_t done, int64_t all) {
    EXPECT_EQ(all, 160);
    seen.push_back(done);
    return seen.size() < 3;
  });
  EXPECT_TRUE(r.stopped);
  EXPECT_EQ(seen, (std::vector<int64_t>{0, 64, 80}));
}

}  // namespace
}  // namespace plumb::run
