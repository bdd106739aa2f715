// Folders that Plumb writes in the hands of transformers and PEFT, and PEFT's adapters in Plumb's,
// where an interpreter with them is named; CONTRIBUTING.md says how. Through layers/: the same
// logits on both sides.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "common/base/file.h"
#include "common/base/rng.h"
#include "policy_model/families/model_config.h"
#include "policy_model/memory/scalar_head.h"
#include "policy_model/transformer.h"
#include "tests/policy_model/layers/families_golden.h"
#include "tests/testing/temp_folder.h"

namespace plumb::policy_model {
namespace {

using Json = nlohmann::json;

std::vector<int32_t> Tokens() {
  return FamiliesGolden()["sequences"][0].get<std::vector<int32_t>>();
}

Weights LoadFolder(const std::string& family, const std::string& folder) {
  Weights weights(ReadModelConfig(folder, LongestOf(family)), Device::kCpu, DType::kFloat32);
  weights.Load(folder);
  return weights;
}

// Numbers in B, so that every part of an adapter matters.
void DrawB(Weights& weights) {
  ParameterSet& set = *weights.adapters()[0];
  RandomStream random(9, 9);
  for (const TensorEntry& e : set.table->entries()) {
    if (!e.name.ends_with("lora_B")) continue;
    for (int64_t i = 0; i < e.elements; ++i)
      set.flat.f32()[e.offset + i] = 0.1f * random.NextNormal();
  }
}

// A row for each position that has a next token.
std::vector<float> Logits(const Weights& weights) {
  const std::vector<int32_t> tokens = Tokens();
  PackedBatch batch;
  batch.Clear();
  batch.Append(tokens, std::vector<uint8_t>(tokens.size(), 1));
  Transformer model(weights.shape(), Device::kCpu, DType::kFloat32);
  std::vector<float> out(batch.rows.size() * static_cast<size_t>(weights.shape().vocab));
  model.Logits(weights, batch, out);
  return out;
}

// Relative to the largest logit.
void ExpectSame(const std::vector<float>& ours, const Json& theirs, const std::string& what) {
  ASSERT_EQ(theirs.size(), Tokens().size()) << what;
  const size_t vocab = theirs[0].size();
  ASSERT_EQ(ours.size() % vocab, 0u) << what;
  ASSERT_EQ(ours.size() / vocab + 1, theirs.size()) << what << ": all rows but the last";
  double largest = 0, gap = 0;
  for (size_t i = 0; i < ours.size(); ++i) {
    const double want = theirs[i / vocab][i % vocab].get<double>();
    largest = std::max(largest, std::abs(want));
    gap = std::max(gap, std::abs(static_cast<double>(ours[i]) - want));
  }
  EXPECT_LE(gap, 1e-5 * largest) << what;
  std::cout << what << ": " << gap / largest << " of the largest logit\n";
}

// Whose feed-forward parts can have adapters: not those of experts, and under the usual names.
std::vector<std::string> DenseCases() {
  std::vector<std::string> cases = FamilyCases();
  std::erase_if(cases, [](const std::string& name) { return HasExperts(name) || name == "lfm2"; });
  return cases;
}

class Frameworks : public ::testing::Test {
 protected:
  void SetUp() override {
    python_ = std::getenv("PLUMB_TEST_FRAMEWORKS_PYTHON");
    if (python_ == nullptr)
      GTEST_SKIP() << "NOT TESTED: PLUMB_TEST_FRAMEWORKS_PYTHON names no interpreter with "
                      "transformers and peft";
  }
  Json Run(const Json& jobs) {
    RealFileSystem().WriteFileAtomic(temp_ / "jobs.json", jobs.dump());
    const std::string command = std::string("'") + python_ +
                                "' " PLUMB_SOURCE_DIR
                                "/tests/policy_model/python/reads_folders.py " +
                                (temp_ / "jobs.json") + " " + (temp_ / "answers.json");
    EXPECT_EQ(std::system(command.c_str()), 0) << command;
    std::ifstream in(temp_ / "answers.json");
    return in.good() ? Json::parse(in) : Json::array();
  }
  const char* python_ = nullptr;
  testing::TempFolder temp_;
};

TEST_F(Frameworks, InstalledTransformersComputesTheSameFromFoldersThatWeWrote) {
  Json jobs = Json::array();
  std::vector<std::vector<float>> ours;
  for (const std::string& family : FamilyCases()) {
    WriteFamilyFolder(family, temp_ / family);
    const Weights weights = LoadFolder(family, temp_ / family);
    const std::string folder = (temp_ / family) + "_written";
    SaveModelDirectory(weights, folder, "");
    ours.push_back(Logits(weights));
    jobs.push_back({{"base", folder}, {"tokens", Tokens()}});
  }
  const Json theirs = Run(jobs);
  ASSERT_EQ(theirs.size(), ours.size());
  for (size_t i = 0; i < ours.size(); ++i) ExpectSame(ours[i], theirs[i], FamilyCases()[i]);
}

TEST_F(Frameworks, InstalledTransformersScoresTheSameWithScalarHeadsThatWeWrote) {
  Json jobs = Json::array();
  std::vector<float> ours;
  std::vector<std::string> families;
  for (const std::string& family : FamilyCases()) {
    // transformers has no such class of these
    if (family == "granite" || family == "qwen3_5_moe" || family == "lfm2" ||
        family == "minimax_m2" || family == "olmoe" || family.starts_with("glm4_moe"))
      continue;
    WriteFamilyFolder(family, temp_ / family);
    const Weights weights = ScalarHeadFrom(LoadFolder(family, temp_ / family), 3);
    const std::string folder = (temp_ / family) + "_scores";
    SaveModelDirectory(weights, folder, "");
    PackedBatch batch;
    batch.Clear();
    const std::vector<int32_t> last = {static_cast<int32_t>(Tokens().size()) - 1};
    batch.AppendRows(Tokens(), last);
    Transformer model(weights.shape(), Device::kCpu, DType::kFloat32);
    float value = 0;
    model.ForwardValues(weights, batch, false, std::span(&value, 1));
    ours.push_back(value);
    families.push_back(family);
    jobs.push_back({{"base", folder}, {"tokens", Tokens()}, {"scores", true}});
  }
  const Json theirs = Run(jobs);
  ASSERT_EQ(theirs.size(), ours.size());
  for (size_t i = 0; i < ours.size(); ++i) {
    const auto want = theirs[i][0][0].get<float>();
    EXPECT_NEAR(ours[i], want, 1e-5f * std::max(1.0f, std::abs(want))) << families[i];
  }
}

TEST_F(Frameworks, InstalledPeftComputesTheSameWithAdaptersThatWeWrote) {
  Json jobs = Json::array();
  std::vector<std::vector<float>> ours;
  for (const std::string& family : FamilyCases()) {
    WriteFamilyFolder(family, temp_ / family);
    Weights weights = LoadFolder(family, temp_ / family);
    weights.AddAdapter({.rank = 3, .alpha = 5}, 5);
    DrawB(weights);
    const std::string folder = (temp_ / family) + "_adapter";
    SaveModelDirectory(weights, folder, "", temp_ / family);
    ours.push_back(Logits(weights));
    jobs.push_back({{"base", temp_ / family}, {"adapter", folder}, {"tokens", Tokens()}});
  }
  const Json theirs = Run(jobs);
  ASSERT_EQ(theirs.size(), ours.size());
  if (theirs[0].is_object()) GTEST_SKIP() << "NOT TESTED: " << theirs[0]["skip"];
  for (size_t i = 0; i < ours.size(); ++i) ExpectSame(ours[i], theirs[i], FamilyCases()[i]);
}

// Scales by the root of the rank, ranks and alphas of single modules, modules by a pattern. Of two
// patterns that match a module the first in the file counts: down_proj.
AdapterSpec WithPatterns() {
  return {.rank = 3,
          .alpha = 5,
          .targets = {},
          .target_pattern = ".*\\.(layers\\.[01]\\.self_attn\\.o|mlp\\.down)_proj",
          .rslora = true,
          .rank_pattern = {{"mlp.down_proj", 2}, {"(o|down)_proj", 5}},
          .alpha_pattern = {{"layers.0.*", 7}, {"down_proj", 2}}};
}

TEST_F(Frameworks, InstalledPeftReadsPatternsThatWeWrote) {
  Json jobs = Json::array();
  std::vector<std::vector<float>> ours;
  for (const std::string& family : DenseCases()) {
    WriteFamilyFolder(family, temp_ / family);
    Weights weights = LoadFolder(family, temp_ / family);
    weights.AddAdapter(WithPatterns(), 5);
    DrawB(weights);
    const std::string folder = (temp_ / family) + "_adapter";
    SaveModelDirectory(weights, folder, "", temp_ / family);
    ours.push_back(Logits(weights));
    jobs.push_back({{"base", temp_ / family}, {"adapter", folder}, {"tokens", Tokens()}});
  }
  const Json theirs = Run(jobs);
  ASSERT_EQ(theirs.size(), ours.size());
  if (theirs[0].is_object()) GTEST_SKIP() << "NOT TESTED: " << theirs[0]["skip"];
  for (size_t i = 0; i < ours.size(); ++i) ExpectSame(ours[i], theirs[i], DenseCases()[i]);
}

// Of adapters that are weighed by tasks, PEFT reads the adapter of one: their ranks together.
TEST_F(Frameworks, InstalledPeftComputesTheSameWithTheAdapterOfOneTask) {
  Json jobs = Json::array();
  std::vector<std::vector<float>> ours;
  for (const bool rslora : {false, true}) {
    for (const std::string& family : DenseCases()) {
      WriteFamilyFolder(family, temp_ / family);
      Weights weights = LoadFolder(family, temp_ / family);
      AdapterSpec spec = WithPatterns();
      spec.rslora = rslora;
      spec.adapters = 3;
      spec.tasks = {"code", "sums"};
      weights.AddAdapter(spec, 5);
      DrawB(weights);
      const Weights one = weights.ForTask("sums");
      const std::string folder = (temp_ / family) + (rslora ? "_rs" : "_plain");
      SaveModelDirectory(one, folder, "", temp_ / family);
      ours.push_back(Logits(one));
      jobs.push_back({{"base", temp_ / family}, {"adapter", folder}, {"tokens", Tokens()}});
    }
  }
  const Json theirs = Run(jobs);
  ASSERT_EQ(theirs.size(), ours.size());
  if (theirs[0].is_object()) GTEST_SKIP() << "NOT TESTED: " << theirs[0]["skip"];
  for (size_t i = 0; i < ours.size(); ++i)
    ExpectSame(ours[i], theirs[i], DenseCases()[i % DenseCases().size()]);
}

TEST_F(Frameworks, InstalledTransformersComputesTheSameFromAdaptersThatWeMerged) {
  Json jobs = Json::array();
  std::vector<std::vector<float>> ours;
  for (const std::string& family : DenseCases()) {
    WriteFamilyFolder(family, temp_ / family);
    Weights weights = LoadFolder(family, temp_ / family);
    weights.AddAdapter(WithPatterns(), 5);
    DrawB(weights);
    ours.push_back(Logits(weights));
    weights.Merge();
    const std::string folder = (temp_ / family) + "_merged";
    SaveModelDirectory(weights, folder, "");
    jobs.push_back({{"base", folder}, {"tokens", Tokens()}});
  }
  const Json theirs = Run(jobs);
  ASSERT_EQ(theirs.size(), ours.size());
  for (size_t i = 0; i < ours.size(); ++i) ExpectSame(ours[i], theirs[i], DenseCases()[i]);
}

TEST_F(Frameworks, PatternsThatInstalledPeftWroteComputeTheSameHere) {
  Json jobs = Json::array();
  std::vector<std::pair<std::string, std::string>> cases;
  for (const std::string& family : DenseCases()) {
    WriteFamilyFolder(family, temp_ / family);
    for (const Json& options : {Json{{"use_rslora", true}, {"lora_dropout", 0.1}},
                                Json{{"rank_pattern", {{"down_proj", 2}, {"model.layers.0.*", 5}}},
                                     {"alpha_pattern", {{"(o|down)_proj", 9}}}}}) {
      const std::string folder = (temp_ / family) + "_peft" + std::to_string(cases.size());
      cases.emplace_back(family, folder);
      jobs.push_back({{"base", temp_ / family},
                      {"make", folder},
                      {"targets", WithPatterns().target_pattern},
                      {"options", options},
                      {"tokens", Tokens()}});
    }
  }
  const Json theirs = Run(jobs);
  ASSERT_EQ(theirs.size(), cases.size());
  if (theirs[0].is_object()) GTEST_SKIP() << "NOT TESTED: " << theirs[0]["skip"];
  for (size_t i = 0; i < cases.size(); ++i) {
    const auto& [family, folder] = cases[i];
    const AdapterConfig config = ReadAdapterConfig(folder);
    EXPECT_EQ(config.spec.target_pattern, WithPatterns().target_pattern);
    Weights weights = LoadFolder(family, temp_ / family);
    weights.AddAdapter(config.spec, 0);
    weights.LoadTrained(folder);
    ExpectSame(Logits(weights), theirs[i], family + " " + jobs[i]["options"].dump());
  }
}

TEST_F(Frameworks, AdaptersThatInstalledPeftWroteComputeTheSameHere) {
  Json jobs = Json::array();
  std::vector<std::pair<std::string, std::string>> cases;
  for (const std::string& family : FamilyCases()) {
    WriteFamilyFolder(family, temp_ / family);
    // By name, all of them, and by the path of single modules. Of a model with experts PEFT takes
    // the names of the feed-forward part for those of experts, which have no adapters here.
    const bool moe = HasExperts(family);
    const bool latent = family.starts_with("deepseek") || family.ends_with("lite");
    const bool lfm = family == "lfm2";
    const bool narrow = latent && !family.ends_with("_fused");
    const std::string o = lfm ? "out_proj" : "o_proj";
    const char* other = latent ? "kv_a_proj_with_mqa" : moe ? "v_proj" : lfm ? "w2" : "down_proj";
    for (const Json& targets :
         {moe ? Json::array({narrow ? "q_b_proj" : "q_proj"}) : Json("all-linear"),
          Json::array({o, other}), Json::array({"layers.1.self_attn." + o, other})}) {
      const std::string folder = (temp_ / family) + "_peft" + std::to_string(cases.size());
      cases.emplace_back(family, folder);
      jobs.push_back(
          {{"base", temp_ / family}, {"make", folder}, {"targets", targets}, {"tokens", Tokens()}});
    }
  }
  const Json theirs = Run(jobs);
  ASSERT_EQ(theirs.size(), cases.size());
  if (theirs[0].is_object()) GTEST_SKIP() << "NOT TESTED: " << theirs[0]["skip"];
  for (size_t i = 0; i < cases.size(); ++i) {
    const auto& [family, folder] = cases[i];
    const AdapterConfig config = ReadAdapterConfig(folder);
    EXPECT_EQ(config.base_model, temp_ / family);
    Weights weights = LoadFolder(family, temp_ / family);
    weights.AddAdapter(config.spec, 0);
    weights.LoadTrained(folder);
    ExpectSame(Logits(weights), theirs[i], family + " " + jobs[i]["targets"].dump());
  }
}

// Whose experts transformers holds as parameters [experts, out, in].
std::vector<std::string> ExpertCases() {
  std::vector<std::string> cases;
  for (const std::string& family : FamilyCases()) {
    if (HasExperts(family) && !family.starts_with("gpt_oss")) cases.push_back(family);
  }
  return cases;
}

TEST_F(Frameworks, InstalledPeftComputesTheSameWithAdaptersOfExpertsThatWeWrote) {
  Json jobs = Json::array();
  std::vector<std::vector<float>> ours;
  std::vector<std::string> names;
  for (const std::string& family : ExpertCases()) {
    WriteFamilyFolder(family, temp_ / family);
    for (const std::vector<std::string>& targets :
         {std::vector<std::string>{"experts.gate_up_proj", "mlp.experts.down_proj"},
          {"o_proj", "experts.gate_up_proj"},
          {"experts.down_proj"}}) {
      Weights weights = LoadFolder(family, temp_ / family);
      AdapterSpec spec{.rank = 3, .alpha = 5};
      SetTargets(targets, spec);
      weights.AddAdapter(spec, 5);
      DrawB(weights);
      const std::string folder = (temp_ / family) + "_experts" + std::to_string(names.size());
      SaveModelDirectory(weights, folder, "", temp_ / family);
      ours.push_back(Logits(weights));
      names.push_back(family + " " + Json(targets).dump());
      jobs.push_back({{"base", temp_ / family}, {"adapter", folder}, {"tokens", Tokens()}});
    }
  }
  const Json theirs = Run(jobs);
  ASSERT_EQ(theirs.size(), ours.size());
  if (theirs[0].is_object()) GTEST_SKIP() << "NOT TESTED: " << theirs[0]["skip"];
  for (size_t i = 0; i < ours.size(); ++i) ExpectSame(ours[i], theirs[i], names[i]);
}

TEST_F(Frameworks, AdaptersOfExpertsThatInstalledPeftWroteComputeTheSameHere) {
  Json jobs = Json::array();
  std::vector<std::pair<std::string, std::string>> cases;
  for (const std::string& family : ExpertCases()) {
    WriteFamilyFolder(family, temp_ / family);
    for (const Json& options :
         {Json{{"target_parameters", {"mlp.experts.down_proj", "mlp.experts.gate_up_proj"}}},
          Json{{"target_parameters", {"experts.gate_up_proj"}}, {"use_rslora", true}}}) {
      const std::string folder = (temp_ / family) + "_peft" + std::to_string(cases.size());
      cases.emplace_back(family, folder);
      jobs.push_back(
          {{"base", temp_ / family},
           {"make", folder},
           {"targets", options.contains("use_rslora") ? Json::array({"o_proj"}) : Json::array()},
           {"options", options},
           {"tokens", Tokens()}});
    }
  }
  const Json theirs = Run(jobs);
  ASSERT_EQ(theirs.size(), cases.size());
  if (theirs[0].is_object()) GTEST_SKIP() << "NOT TESTED: " << theirs[0]["skip"];
  for (size_t i = 0; i < cases.size(); ++i) {
    const auto& [family, folder] = cases[i];
    Weights weights = LoadFolder(family, temp_ / family);
    weights.AddAdapter(ReadAdapterConfig(folder).spec, 0);
    weights.LoadTrained(folder);
    ExpectSame(Logits(weights), theirs[i], family + " " + jobs[i]["options"].dump());
  }
}

TEST_F(Frameworks, TextPartsOfWrappersThatInstalledTransformersWroteComputeTheSameHere) {
  Json jobs = Json::array();
  std::vector<std::pair<std::string, std::string>> cases;
  for (const auto& [wrapper, family] : {std::pair{"mistral3", "mistral"},
                                        {"mistral3", "ministral3"},
                                        {"gemma3", "gemma3"},
                                        {"qwen3_5", "qwen3_5"},
                                        {"qwen3_5_moe", "qwen3_5_moe"}}) {
    cases.emplace_back(family, (temp_ / family) + "_wrapped");
    jobs.push_back({{"wrapper", wrapper},
                    {"text", FamiliesGolden()["families"][family]["config"]},
                    {"make", cases.back().second},
                    {"tokens", Tokens()}});
  }
  const Json theirs = Run(jobs);
  ASSERT_EQ(theirs.size(), cases.size());
  for (size_t i = 0; i < cases.size(); ++i) {
    const auto& [family, folder] = cases[i];
    ExpectSame(Logits(LoadFolder(family, folder)), theirs[i], folder);
  }
}

}  // namespace
}  // namespace plumb::policy_model
