#include "run/session/sampled_tokens.h"

#include <gtest/gtest.h>

#include "common/base/error.h"

namespace plumb::run {
namespace {

class SampledTokensTest : public ::testing::Test {
 protected:
  SampledTokensTest() {
    shape_.vocab = tokenizer_->size();
    record_.prompt_text = "1+1=";
    record_.chosen = {{"assistant", "2"}};
    record_.rejected = {{"assistant", "34"}};
    record_.prompt_tokens = tokenizer_->Encode("<bos>1+1=");
    record_.chosen_tokens = tokenizer_->Encode("2<eos>");
    record_.rejected_tokens = tokenizer_->Encode("34");
    record_.row = 7;
  }
  Demonstration Read(bool chosen) const {
    return SampledTokens({*tokenizer_, nullptr, shape_, false, name_}, record_, chosen);
  }
  // What is said of it; "" where it is taken.
  std::string Refused(bool chosen) const {
    try {
      Read(chosen);
      return "";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument);
      return e.where() + ": " + e.message();
    }
  }
  static bool Has(const std::string& text, const char* part) {
    return text.find(part) != std::string::npos;
  }

  const std::unique_ptr<Tokenizer> tokenizer_ = Tokenizer::BuiltIn("arithmetic");
  policy_model::ModelShape shape_;
  const std::string name_ = "model";
  PreferenceRecord record_;
};

TEST_F(SampledTokensTest, AnAnswerWithOrWithoutItsEndIsTakenAsItWasSampled) {
  EXPECT_EQ(Read(true).tokens, tokenizer_->Encode("<bos>1+1=2<eos>"));
  EXPECT_EQ(Read(true).loss_mask, (std::vector<uint8_t>{0, 0, 0, 0, 0, 1, 1}));
  EXPECT_EQ(Read(false).tokens, tokenizer_->Encode("<bos>1+1=34")) << "it was cut";
  record_.chosen.front().content = "2<eos>";  // as an older Plumb mined it
  EXPECT_EQ(Read(true).tokens.size(), 7u);
  record_.chosen.clear();
  EXPECT_EQ(Read(true).tokens.size(), 7u) << "tokens alone";
}

TEST_F(SampledTokensTest, TokensThatSayAnotherThingAreRefused) {
  record_.chosen.front().content = "3";
  EXPECT_TRUE(Has(Refused(true), "row 7: the row's tokens do not spell its answer"))
      << Refused(true);
  record_.chosen.front().content = "";
  EXPECT_TRUE(Has(Refused(true), "--no-tokens"));
  record_.rejected_tokens.back() = static_cast<int32_t>(shape_.vocab);
  EXPECT_TRUE(Has(Refused(false), "none of this model's")) << Refused(false);
  record_.rejected_tokens = tokenizer_->Encode("34");
  shape_.unused_tokens = {record_.rejected_tokens.front()};
  EXPECT_TRUE(Has(Refused(false), "none of this model's")) << Refused(false);
}

}  // namespace
}  // namespace plumb::run
