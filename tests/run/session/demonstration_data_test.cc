// run/session/demonstration_data.h and the one rule for text of run/session/session.h: prompts,
// pairs and demonstrations go through the model's chat template alike, or none of them does.
#include "run/session/demonstration_data.h"

#include <gtest/gtest.h>

#include "common/base/error.h"
#include "common/base/file.h"
#include "policy_model/memory/weights.h"
#include "replay/store/store.h"
#include "run/session/preference_data.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

using plumb::testing::TempFolder;

// A folder of a model with a chat template over the vocabulary of sums: "+" speaks the user, "-"
// the assistant, "=" ends a turn.
class Rule : public ::testing::Test {
 protected:
  void SetUp() override {
    configs::Config config;
    config.data.train = "arithmetic";
    config.model.layers = 1;
    config.model.hidden = 16;
    config.model.heads = config.model.kv_heads = 1;
    config.model.ffn = 16;
    config.model.max_positions = 64;
    const auto session = Session::WithoutRun(config);
    const std::string tokenizer = temp_ / "tokenizer";
    RealFileSystem().CreateDirectories(tokenizer);
    RealFileSystem().WriteFileAtomic(tokenizer + "/tokenizer.json", session->tokenizer().json());
    for (const char* name : {"chat", "base"}) {
      policy_model::SaveModelDirectory(
          policy_model::Weights(session->shape(), Device::kCpu, DType::kFloat32), temp_ / name,
          tokenizer);
    }
    RealFileSystem().WriteFileAtomic(
        temp_ / "chat/chat_template.jinja",
        "{% for m in messages %}{{ '-' if m.role == 'assistant' else '+' }}{{ m.content }}="
        "{% endfor %}{% if add_generation_prompt %}-{% endif %}");
    Write("prompts", R"({"prompt": "1"}
{"prompt": [{"role": "user", "content": "2"}]}
)");
    Write("pairs", R"({"prompt": "1", "chosen": "3", "rejected": "4"}
{"prompt": [{"role": "user", "content": "2"}], "chosen": [{"role": "assistant", "content": "3"}], "rejected": [{"role": "assistant", "content": "4"}]}
)");
    Write("judged", R"({"prompt": "1", "completion": "3", "label": true}
{"prompt": [{"role": "user", "content": "2"}], "completion": [{"role": "assistant", "content": "3"}], "label": false}
)");
    Write("shown", R"({"prompt": "1", "completion": "3"}
{"messages": [{"role": "user", "content": "2"}, {"role": "assistant", "content": "3"}, {"role": "user", "content": "4"}, {"role": "assistant", "content": "5"}]}
{"text": "6"}
)");
  }

  void Write(const std::string& name, const std::string& rows) {
    RealFileSystem().WriteFileAtomic(temp_ / (name + ".jsonl"), rows);
  }

  configs::Config Recipe(const std::string& algorithm, const std::string& data, bool templated,
                         const std::string& model = "chat") const {
    configs::Config config;
    config.algorithm.name = *configs::FromName<configs::AlgorithmName>(algorithm);
    config.model.path = temp_ / model;
    config.data.train = temp_ / (data + ".jsonl");
    config.data.chat_template = templated;
    config.rollout.prompts_per_step = 1;
    config.rollout.max_new_tokens = 8;
    config.sft.heldout = config.preference.heldout = 0;
    return config;
  }

  static std::string Shown(const Session& session, const std::vector<int32_t>& tokens) {
    return session.tokenizer().Decode(tokens);
  }
  // The whole, and what of it is learned.
  static std::string Shown(const Session& session, const Demonstration& d) {
    std::string text = Shown(session, d.tokens) + " |";
    for (size_t i = 0; i < d.tokens.size(); ++i) {
      if (d.loss_mask[i] != 0) text += session.tokenizer().TokenBytes(d.tokens[i]);
    }
    return text;
  }

  const TempFolder temp_;
};

using Texts = std::vector<std::string>;

TEST_F(Rule, PromptsPairsAndDemonstrationsOfTextAreWrittenAlike) {
  for (const bool templated : {true, false}) {
    const std::string begin = templated ? "+1=-" : "<bos>1", end = templated ? "=" : "<eos>";
    {
      const auto session = Session::WithoutRun(Recipe("grpo", "prompts", templated));
      const PromptData data = LoadPrompts(*session);
      EXPECT_EQ(Shown(*session, data.train.at(0).tokens), begin);
      EXPECT_EQ(Shown(*session, data.train.at(1).tokens), "+2=-") << "messages: always";
      EXPECT_EQ(data.notes.at(0),
                templated ? "prompts: text through the model's chat template (data.chat_template = "
                            "false: as it is)"
                          : "prompts: text as it is, without the model's chat template "
                            "(data.chat_template = false)");
    }
    for (const char* algorithm : {"dpo", "reward_model"}) {
      const auto session = Session::WithoutRun(Recipe(algorithm, "pairs", templated));
      const auto store =
          replay::Store::Open(temp_ / (std::string(algorithm) + (templated ? "_yes" : "_no")));
      const PreferenceData data = LoadPreferences(*session, *store);
      ASSERT_EQ(data.train.size(), 2u);
      EXPECT_EQ(Shown(*session, data.train[0].chosen), begin + "3" + end + " |3" + end);
      EXPECT_EQ(Shown(*session, data.train[0].rejected), begin + "4" + end + " |4" + end);
      EXPECT_EQ(Shown(*session, data.train[1].chosen), "+2=-3= |3=");
      EXPECT_EQ(data.notes.at(0), session->TextNotes().at(0));
    }
    {
      auto config = Recipe("dpo", "judged", templated);
      config.preference.loss = configs::PreferenceLossKind::kKto;
      const auto session = Session::WithoutRun(config);
      const auto store = replay::Store::Open(temp_ / (templated ? "kto_yes" : "kto_no"));
      const PreferenceData data = LoadPreferences(*session, *store);
      ASSERT_EQ(data.completions.size(), 2u);
      EXPECT_EQ(Shown(*session, data.completions[0].completion), begin + "3" + end + " |3" + end);
      EXPECT_EQ(Shown(*session, data.completions[1].completion), "+2=-3= |3=");
    }
    const auto session = Session::WithoutRun(Recipe("sft", "shown", templated));
    const DemonstrationData data = LoadSftData(*session);
    Texts texts;
    for (const Demonstration& d : data.train) texts.push_back(Shown(*session, d));
    EXPECT_EQ(texts, (Texts{begin + "3" + end + " |3" + end,
                            "+2=-3= |3=", "+2=-3=+4=-5= |5=", "<bos>6<eos> |6<eos>"}));
    EXPECT_EQ(data.notes.at(0), session->TextNotes().at(0));
  }
}

TEST_F(Rule, AModelWithoutATemplateTakesTextAsItIsAndRefusesMessages) {
  const auto session = Session::WithoutRun(Recipe("grpo", "prompts", true, "base"));
  EXPECT_EQ(Shown(*session, session->Tokenize({.text = "1"})), "<bos>1");
  const auto refused = [](const auto& load) {
    try {
      load();
    } catch (const Error& e) {
      return e.message();
    }
    return std::string("no error");
  };
  const std::string prompts = refused([&] { LoadPrompts(*session); });
  EXPECT_NE(prompts.find("chat_template.jinja of a chat model of its family"), std::string::npos)
      << prompts;
  EXPECT_EQ(session->TextNotes(), Texts{"prompts: text as it is (the model has no chat template)"});
  const auto pairs = Session::WithoutRun(Recipe("dpo", "pairs", true, "base"));
  const auto store = replay::Store::Open(temp_ / "store");
  const std::string dialogues = refused([&] { LoadPreferences(*pairs, *store); });
  EXPECT_NE(dialogues.find("or give rows whose prompt is a text"), std::string::npos) << dialogues;
}

// A conversation is held out as a whole: its turns repeat each other.
TEST_F(Rule, RowsAreHeldOutNotTurns) {
  Write("rows", R"({"prompt": "1", "completion": "2"}
{"messages": [{"role": "user", "content": "2"}, {"role": "assistant", "content": "3"}, {"role": "user", "content": "4"}, {"role": "assistant", "content": "5"}]}
{"prompt": "7", "completion": "8"}
)");
  auto config = Recipe("sft", "rows", true);
  config.sft.heldout = 2;
  const auto session = Session::WithoutRun(config);
  const DemonstrationData data = LoadSftData(*session);
  EXPECT_EQ(data.train.size(), 1u);
  ASSERT_EQ(data.heldout.size(), 3u);
  EXPECT_EQ(Shown(*session, data.heldout[1]), "+2=-3=+4=-5= |5=");
  EXPECT_EQ(Shown(*session, data.heldout[2]), "+7=-8= |8=");
  const std::string identity = data.identity;
  EXPECT_EQ(LoadSftData(*session).identity, identity);
  config.sft.heldout = 1;
  EXPECT_NE(LoadSftData(*Session::WithoutRun(config)).identity, identity);
  config.sft.max_tokens = 8;  // the second turn has 12
  const DemonstrationData cut = LoadSftData(*Session::WithoutRun(config));
  EXPECT_EQ(cut.train.size(), 2u);
  EXPECT_NE(cut.notes.back().find("1 longer than 8 tokens left out"), std::string::npos)
      << cut.notes.back();
}

// Else the held-out loss would be of what was learned by heart.
TEST_F(Rule, WhatIsHeldOutIsNeverTrainedOn) {
  Write("rows", R"({"prompt": "1", "completion": "2"}
{"prompt": "3", "completion": "4"}
{"prompt": "3", "completion": "4"}
{"prompt": [{"role": "user", "content": "1"}], "completion": [{"role": "assistant", "content": "2"}]}
)");
  auto config = Recipe("sft", "rows", true);
  config.sft.heldout = 1;
  const auto session = Session::WithoutRun(config);
  const DemonstrationData data = LoadSftData(*session);
  ASSERT_EQ(data.train.size(), 2u) << "other duplicates stay";
  for (const Demonstration& d : data.train) EXPECT_EQ(Shown(*session, d), "+3=-4= |4=");
  ASSERT_EQ(data.heldout.size(), 1u);
  EXPECT_EQ(Shown(*session, data.heldout[0]), "+1=-2= |2=");
  EXPECT_NE(data.notes.back().find(", 1 equal to a held-out one left out"), std::string::npos)
      << data.notes.back();
  EXPECT_EQ(data.rows.at("rows/demonstrations/read"), 4);
  EXPECT_EQ(data.rows.at("rows/demonstrations/used"), 3);
  EXPECT_EQ(data.rows.at("rows/demonstrations/dropped/equal_to_heldout"), 1);
  config.sft.heldout = 0;
  const DemonstrationData all = LoadSftData(*Session::WithoutRun(config));
  EXPECT_EQ(all.train.size(), 4u);
  EXPECT_EQ(all.notes.back().find("equal to"), std::string::npos) << all.notes.back();
  Write("rows", R"({"prompt": "1", "completion": "2"}
{"prompt": "1", "completion": "2"}
)");
  config.sft.heldout = 1;
  try {
    LoadSftData(*Session::WithoutRun(config));
    FAIL() << "nothing is left to train on";
  } catch (const Error& e) {
    EXPECT_NE(e.message().find("all 1 demonstrations to train on are equal"), std::string::npos)
        << e.message();
  }
}

// Of a warm start every 20th row.
TEST_F(Rule, AWarmStartTrainsOnNothingThatItHoldsOut) {
  std::string rows;
  for (int i = 0; i < 20; ++i)
    rows += "{\"prompt\": \"" + std::to_string(i % 19) + "\", \"completion\": \"5\"}\n";
  Write("rows", rows);
  auto config = Recipe("grpo", "prompts", true);
  config.sft.data = temp_ / "rows.jsonl";
  config.sft.steps = 1;
  const DemonstrationData data = LoadDemonstrations(*Session::WithoutRun(config));
  EXPECT_EQ(data.train.size(), 18u);
  EXPECT_EQ(data.heldout.size(), 1u);
  EXPECT_EQ(data.rows.at("rows/sft/dropped/equal_to_heldout"), 1);
}

}  // namespace
}  // namespace plumb::run
