#include "environment/environments.h"

#include <gtest/gtest.h>

#include "common/base/error.h"

namespace plumb::environment {
namespace {

using configs::EnvironmentKind;

std::string Refusal(auto call) {
  try {
    call();
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

TEST(Environments, OfARecipe) {
  const auto tokenizer = Tokenizer::BuiltIn("arithmetic");
  configs::EnvironmentConfig config;
  EXPECT_EQ(MakeEnvironments(config, *tokenizer, nullptr, false), nullptr);
  config.kind = EnvironmentKind::kAgent;
  EXPECT_EQ(MakeEnvironments(config, *tokenizer, nullptr, false), nullptr) << "it asks itself";
  EXPECT_EQ(ToolsJsonOf(config, nullptr, false), "");
  config.kind = EnvironmentKind::kCalculator;
  const auto calculator = MakeEnvironments(config, *tokenizer, nullptr, false);
  ASSERT_NE(calculator, nullptr);
  EXPECT_EQ(calculator->ToolsJson(), ToolsJsonOf(config, nullptr, false));
  // A vocabulary without letters gets an error that it can read.
  calculator->Begin(0, {}, 0);
  calculator->Act(0, "=");
  const auto replies = calculator->Poll(After(std::chrono::seconds(1)));
  ASSERT_EQ(replies.size(), 2u);
  EXPECT_NO_THROW(tokenizer->Encode(replies[1].text));
  EXPECT_TRUE(replies[1].failed_call);
}

TEST(Environments, WhatIsNotThereIsNamed) {
  const auto tokenizer = Tokenizer::BuiltIn("arithmetic");
  configs::EnvironmentConfig config;
  config.kind = EnvironmentKind::kProgram;
  config.path = "/no/such/program";
  const std::string said = Refusal([&] { MakeEnvironments(config, *tokenizer, nullptr, false); });
  EXPECT_NE(said.find("/no/such/program"), std::string::npos) << said;
}

TEST(Environments, ATemplateThatRewritesIsRefusedBeforeARun) {
  configs::EnvironmentConfig config;
  config.kind = EnvironmentKind::kCalculator;
  const auto chatml = ChatTemplate::BuiltIn("chatml");
  EXPECT_NO_THROW(CheckTemplate(config, chatml.get(), "", "folder"));
  EXPECT_NO_THROW(CheckTemplate(config, nullptr, "", "folder"));
  const auto counting = ChatTemplate::Parse(
      "{{ messages | length }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}", "",
      "");
  const std::string said = Refusal([&] { CheckTemplate(config, counting.get(), "", "folder"); });
  EXPECT_NE(said.find("folder"), std::string::npos) << said;
  EXPECT_NE(said.find("turn 1"), std::string::npos) << said;
  for (const EnvironmentKind kind : {EnvironmentKind::kNone, EnvironmentKind::kAgent}) {
    config.kind = kind;
    EXPECT_NO_THROW(CheckTemplate(config, counting.get(), "", "folder"));
  }
}

}  // namespace
}  // namespace plumb::environment
