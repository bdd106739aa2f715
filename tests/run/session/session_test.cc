#include "run/session/session.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <set>

#include "common/base/error.h"
#include "common/base/file.h"
#include "kernels/products/row_product.h"
#include "policy_model/memory/weights.h"
#include "replay/store/store.h"
#include "run/session/demonstration_data.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

using plumb::testing::TempFolder;

constexpr char kRecipe[] = PLUMB_SOURCE_DIR "/configs/arithmetic_grpo.toml";

configs::Config Recipe(const std::string& out, std::vector<std::string> overrides = {}) {
  configs::Config config = configs::LoadRecipe(kRecipe, overrides).config;
  config.run.out = out;
  return config;
}

RunFolder Prepare(const std::string& out, std::vector<std::string> overrides) {
  configs::Config config = Recipe(out, std::move(overrides));
  return PrepareRun(config, kRecipe, /*resume=*/false, /*overwrite=*/false).folder();
}

template <class Body>
Error ErrorOf(Body body) {
  try {
    body();
  } catch (const Error& e) {
    return e;
  }
  ADD_FAILURE() << "no error";
  return Error(ErrorCode::kIo, "none");
}

TEST(SessionTest, OpensTheSameInEveryProcess) {
  const TempFolder temp;
  const RunFolder folder = Prepare(temp / "run", {"run.threads=1"});
  const auto a = Session::Open(folder.path), b = Session::Open(folder.path);
  EXPECT_EQ(a->run_id(), b->run_id());
  EXPECT_EQ(a->shape(), b->shape());
  EXPECT_EQ(a->shape().vocab, a->tokenizer().size());
  EXPECT_TRUE(std::filesystem::exists(folder.tokenizer() + "/tokenizer.json"));
  Prompt prompt;
  prompt.text = "1+2=";
  const auto tokens = a->Tokenize(prompt);
  EXPECT_EQ(tokens, b->Tokenize(prompt));
  EXPECT_EQ(tokens.front(), a->shape().bos_token);
  EXPECT_EQ(a->tokenizer().Decode(tokens, true), "1+2=");
}

TEST(SessionTest, SaysWhetherProductsAreExact) {
  const TempFolder temp;
  for (const bool exact : {false, true}) {
    const std::string set = std::string("run.exact=") + (exact ? "true" : "false");
    const RunFolder folder = Prepare(temp / (exact ? "on" : "off"), {"run.threads=1", set});
    kernels::SetExactProducts(!exact);
    Session::Open(folder.path);
    EXPECT_EQ(kernels::ExactProducts(), exact);
    kernels::SetExactProducts(!exact);
    Session::WithoutRun(Recipe(temp / "none", {"run.threads=1", set}));
    EXPECT_EQ(kernels::ExactProducts(), exact);
  }
}

TEST(SessionTest, PromptsMayLieInAStore) {
  const TempFolder temp;
  {
    const auto store = replay::Store::Open(temp / "store");
    std::vector<Prompt> prompts(8);
    for (size_t i = 0; i < prompts.size(); ++i) {
      prompts[i].text = std::to_string(i) + "+1=";
      prompts[i].ground_truth = std::to_string(i + 1);
    }
    store->PutPrompts("train", prompts);
    prompts.resize(2);
    store->PutPrompts("more", prompts);
    const auto held = replay::Store::Open(temp / "held");
    held->PutPrompts("eval", prompts);
    held->PutPrompts("others", prompts);
  }
  const auto load = [&](std::vector<std::string> more) {
    more.insert(more.begin(), {"data.train=" + (temp / "store"), "data.eval=" + (temp / "held"),
                               "rollout.prompts_per_step=4"});
    return LoadPrompts(*Session::WithoutRun(Recipe(temp / "run", more)));
  };
  const PromptData data = load({});
  ASSERT_EQ(data.train.size(), 8u);
  EXPECT_EQ(data.eval.size(), 2u) << "the dataset of that name";
  EXPECT_EQ(data.train[3].ground_truth, "4");
  EXPECT_FALSE(data.train[3].tokens.empty());
  EXPECT_EQ(load({"data.eval=" + (temp / "store"), "data.eval_skip=6", "data.limit=6"}).eval.size(),
            2u)
      << "of train, then";
  const Error none = ErrorOf([&] { load({"data.dataset=pairs"}); });
  EXPECT_NE(none.message().find("no dataset of prompts 'pairs'"), std::string::npos);
  EXPECT_NE(none.message().find("train (8 prompts)"), std::string::npos) << none.message();
}

// The simplest form that has what is asked for: other systems read the first three.
TEST(SessionTest, ANewModelIsOfTheFamilyThatItsOptionsNeed) {
  const TempFolder temp;
  const auto shape = [&](std::vector<std::string> overrides) {
    return Session::WithoutRun(Recipe(temp / "run", std::move(overrides)))->shape();
  };
  EXPECT_EQ(shape({}).family, "llama");
  EXPECT_EQ(shape({"model.norms=[\"rmsnorm\", \"rmsnorm\"]"}).family, "llama");
  const auto windowed = shape({"model.window=9"});
  EXPECT_EQ(windowed.family, "mistral");
  EXPECT_EQ(windowed.window, 9);
  const auto global = shape({"model.window=9", "model.global_every=4"});
  EXPECT_EQ(global.family, "plumb");
  EXPECT_EQ(global.global_every, 4);
  EXPECT_TRUE(global.layer_norms.empty());
  const auto sinks = shape({"model.sinks=true"});
  EXPECT_EQ(sinks.family, "plumb");
  EXPECT_TRUE(sinks.sinks);
  const auto scaled =
      shape({"model.window=9", "model.gate_top_k=5", "model.scales=[\"local\", \"global\"]"});
  EXPECT_EQ(scaled.family, "plumb");
  EXPECT_EQ(scaled.gate_top_k, 5);
  EXPECT_TRUE(scaled.slides(0));
  EXPECT_FALSE(scaled.slides(1));
  const auto mixed = shape({"model.norms=[\"layernorm\", \"rmsnorm\"]", "model.layers=3"});
  EXPECT_EQ(mixed.family, "plumb");
  EXPECT_EQ(mixed.layer_norms, (std::vector<uint8_t>{1, 0, 1}));
  EXPECT_TRUE(mixed.final_layer_norm);
  const auto latent =
      shape({"model.attention=latent", "model.kv_rank=24", "model.query_rank=20",
             "model.rope_dim=8", "experts.count=4", "model.hidden=96", "model.heads=6"});
  EXPECT_EQ(latent.family, "plumb");
  EXPECT_EQ(latent.latent, (policy_model::LatentShape{.kv_rank = 24,
                                                      .query_rank = 20,
                                                      .nope = 16,
                                                      .rope = 8,
                                                      .value = 16,
                                                      .norm_eps = latent.norm_eps}));
  EXPECT_EQ(latent.kv_heads, 6) << "model.kv_heads, which does not divide it, is not looked at";
  EXPECT_EQ(latent.head_dim, 24);
  EXPECT_EQ(latent.experts.count, 4);
  policy_model::Validate(latent, "the recipe");
  const auto session = Session::WithoutRun(Recipe(temp / "run", {"model.norms=[\"layernorm\"]"}));
  ASSERT_EQ(session->TextNotes().size(), 1u);
  EXPECT_NE(session->TextNotes()[0].find("not by transformers"), std::string::npos);
  EXPECT_TRUE(Session::WithoutRun(Recipe(temp / "run"))->TextNotes().empty());
}

TEST(SessionTest, PromptsAreTokenizedAndTrainIsNotEval) {
  const TempFolder temp;
  const RunFolder folder = Prepare(temp / "run", {"run.threads=1", "data.eval_prompts=50"});
  const auto session = Session::Open(folder.path);
  const PromptData data = LoadPrompts(*session);
  ASSERT_EQ(data.eval.size(), 50u);
  ASSERT_FALSE(data.notes.empty());
  std::set<std::vector<int32_t>> eval;
  for (const Prompt& p : data.eval) eval.insert(p.tokens);
  for (const Prompt& p : data.train) {
    ASSERT_FALSE(p.tokens.empty());
    ASSERT_FALSE(eval.count(p.tokens)) << p.text;
  }
  const DemonstrationData demonstrations = LoadDemonstrations(*session);
  ASSERT_EQ(static_cast<int64_t>(demonstrations.train.size()),
            session->config().data.arithmetic_sft_examples);
  for (const Demonstration& d : demonstrations.train) {
    ASSERT_EQ(d.tokens.size(), d.loss_mask.size());
    EXPECT_EQ(d.loss_mask.front(), 0) << "the prompt is not learnt";
    EXPECT_EQ(d.tokens.back(), session->shape().eos_tokens.front()) << "the end is learnt";
    EXPECT_EQ(d.loss_mask.back(), 1);
  }
}

TEST(SessionTest, ADamagedIdentityIsNamed) {
  const TempFolder temp;
  const RunFolder folder = Prepare(temp / "run", {});
  RealFileSystem().WriteFileAtomic(folder.identity(), "{\"run_id\":");
  const Error e = ErrorOf([&] { Session::Open(folder.path); });
  EXPECT_EQ(e.code(), ErrorCode::kCorruption);
  EXPECT_EQ(e.where(), folder.identity());
}

TEST(SessionTest, ASavedModelReadsPromptsAsTheRunThatMadeItDid) {
  const TempFolder temp;
  const RunFolder folder = Prepare(temp / "run", {});
  const auto run = Session::Open(folder.path);
  const Prompt prompt{.text = "12+34="};
  const auto tokens = run->Tokenize(prompt);
  ASSERT_EQ(tokens.size(), 7u);
  EXPECT_EQ(tokens[0], run->shape().bos_token);

  const std::string model = temp / "model";
  policy_model::SaveModelDirectory(
      policy_model::Weights(run->shape(), Device::kCpu, DType::kFloat32), model,
      run->tokenizer_source());
  // What transformers' AutoTokenizer needs, and that it begins texts alike.
  EXPECT_NE(RealFileSystem()
                .ReadFile(model + "/tokenizer_config.json", 4096)
                .find("PreTrainedTokenizerFast"),
            std::string::npos);
  EXPECT_NE(
      RealFileSystem().ReadFile(model + "/tokenizer.json", 1 << 16).find("TemplateProcessing"),
      std::string::npos);
  const auto again = Session::WithoutRun(Recipe("", {"model.path=" + model}));
  EXPECT_EQ(again->Tokenize(prompt), tokens)
      << "a recipe that starts from the folder sees other prompts than the model was made on";
}

// What a run may compute at most decides, not what a sequence happens to be long.
TEST(SessionTest, LongropeTurnsAsTheLongestSequenceOfTheRunNeeds) {
  const TempFolder temp;
  const RunFolder folder = Prepare(temp / "run", {});
  const auto run = Session::Open(folder.path);
  policy_model::ModelShape shape = run->shape();
  shape.family = "phi3";
  shape.max_positions = 64;
  const auto divisors = static_cast<size_t>(shape.head_dim / 2);
  shape.rope = {.kind = policy_model::RopeKind::kLongRope,
                .factor = 0,
                .original_positions = 64,
                .short_factor = std::vector<double>(divisors, 1),
                .long_factor = std::vector<double>(divisors, 4),
                .stretched_positions = 512};
  const std::string model = temp / "model";
  policy_model::SaveModelDirectory(policy_model::Weights(shape, Device::kCpu, DType::kFloat32),
                                   model, run->tokenizer_source());
  const auto positions = [&](std::vector<std::string> overrides) {
    overrides.push_back("model.path=" + model);
    return Session::WithoutRun(Recipe("", overrides))->shape().max_positions;
  };
  EXPECT_EQ(positions({"data.max_prompt_tokens=40", "rollout.max_new_tokens=24"}), 64);
  EXPECT_EQ(positions({"data.max_prompt_tokens=41", "rollout.max_new_tokens=24"}), 512);
}

// A model folder with a chat template: every turn of the assistant is learned as the template
// writes it, in its context.
TEST(SessionTest, DemonstrationsAreLearnedAsTheChatTemplateWritesThem) {
  const TempFolder temp;
  const RunFolder folder = Prepare(temp / "run", {});
  const auto run = Session::Open(folder.path);
  const std::string model = temp / "model";
  policy_model::SaveModelDirectory(
      policy_model::Weights(run->shape(), Device::kCpu, DType::kFloat32), model,
      run->tokenizer_source());
  RealFileSystem().WriteFileAtomic(model + "/chat_template.jinja",
                                   "{{ bos_token }}{% for m in messages %}{{ '-' if m.role == "
                                   "'assistant' else '+' }}{{ m.content | trim }},"
                                   "{% endfor %}{% if add_generation_prompt %}-{% endif %}");
  RealFileSystem().WriteFileAtomic(
      temp / "rows.jsonl",
      R"({"messages": [{"role": "user", "content": "1"}, {"role": "assistant", "content": " 2 "}, {"role": "user", "content": "3"}, {"role": "assistant", "content": "9", "weight": 0}, {"role": "user", "content": "4"}, {"role": "assistant", "content": "5", "train": true}]})"
      "\n"
      R"({"messages": [{"role": "user", "content": "1"}, {"role": "assistant", "content": "", "tool_calls": [{"id": "x"}]}, {"role": "tool", "content": "6"}, {"role": "assistant", "content": "7"}]})"
      "\n"
      R"({"prompt": "8", "completion": " 9"})"
      "\n"
      R"({"text": "1+1"})"
      "\n"
      R"({"messages": [{"role": "user", "content": "1"}, {"role": "assistant", "content": "2", "weight": 0.0}]})"
      "\n");
  RealFileSystem().WriteFileAtomic(temp / "prompts.jsonl", "{\"prompt\": \"1\"}\n");
  const auto session = Session::WithoutRun(
      Recipe("", {"model.path=" + model, "data.train=" + (temp / "prompts.jsonl"), "sft.steps=1",
                  "sft.data=" + (temp / "rows.jsonl")}));
  const DemonstrationData data = LoadDemonstrations(*session);
  std::vector<std::string> seen;
  for (const Demonstration& d : data.train) {
    std::string text = session->tokenizer().Decode(d.tokens) + " |";
    for (size_t i = 0; i < d.tokens.size(); ++i) {
      if (d.loss_mask[i]) text += session->tokenizer().TokenBytes(d.tokens[i]);
    }
    seen.push_back(text);
  }
  EXPECT_EQ(seen, (std::vector<std::string>{"<bos>+1,-2, |2,", "<bos>+1,-2,+3,-9,+4,-5, |5,",
                                            "<bos>+1,-,+6,-7, |7,", "<bos>+8,-9, |9,",
                                            "<bos>1+1<eos> |1+1<eos>"}));
  std::string notes;
  for (const std::string& note : data.notes) notes += note + "\n";
  EXPECT_NE(notes.find("1 nothing_to_learn"), std::string::npos) << notes;
  EXPECT_NE(notes.find("1 that call tools left out"), std::string::npos) << notes;
}

// Begin and end tokens that only the tokenizer's files name.
TEST(SessionTest, SpecialTokensComeFromTheTokenizersFilesToo) {
  const TempFolder temp;
  const RunFolder folder = Prepare(temp / "run", {});
  const auto run = Session::Open(folder.path);
  policy_model::ModelShape shape = run->shape();
  shape.bos_token = -1;
  shape.eos_tokens.clear();
  const std::string model = temp / "model";
  policy_model::SaveModelDirectory(policy_model::Weights(shape, Device::kCpu, DType::kFloat32),
                                   model, run->tokenizer_source());
  RealFileSystem().WriteFileAtomic(model + "/tokenizer_config.json", R"({"eos_token": "<pad>"})");
  RealFileSystem().WriteFileAtomic(model + "/special_tokens_map.json",
                                   R"({"bos_token": {"content": "<bos>"}, "eos_token": "<eos>"})");
  RealFileSystem().WriteFileAtomic(
      model + "/chat_template.jinja",
      "{{ bos_token }}{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}");
  const auto session = Session::WithoutRun(Recipe("", {"model.path=" + model}));
  EXPECT_EQ(session->shape().bos_token, run->shape().bos_token);
  EXPECT_EQ(session->shape().eos_tokens, run->shape().eos_tokens);
  EXPECT_EQ(session->tokenizer().Decode(session->Tokenize({.text = "1"})), "<bos>1<eos>");
  EXPECT_EQ(session->encoder().Text("1").front(), run->shape().bos_token);
}

}  // namespace
}  // namespace plumb::run
