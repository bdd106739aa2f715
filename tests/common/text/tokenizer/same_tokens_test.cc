// common/text/tokenizer/same_tokens.h on the built-in vocabularies.
#include "common/text/tokenizer/same_tokens.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace plumb {
namespace {

TEST(SameTokens, NamesTheFirstIdThatMeansSomethingElseOrThatOneAloneHas) {
  const auto bytes = Tokenizer::BuiltIn("bytes"), arithmetic = Tokenizer::BuiltIn("arithmetic");
  EXPECT_EQ(FirstDifference(*bytes, *Tokenizer::BuiltIn("bytes")), std::nullopt);
  const auto different = FirstDifference(*bytes, *arithmetic);
  ASSERT_TRUE(different);
  EXPECT_NE(bytes->TokenBytes(*different), arithmetic->TokenBytes(*different));
  for (int32_t id = 0; id < *different; ++id)
    EXPECT_EQ(bytes->TokenBytes(id), arithmetic->TokenBytes(id));

  auto longer = nlohmann::json::parse(bytes->json());
  nlohmann::json added = longer["added_tokens"][0];
  added["id"] = bytes->size(), added["content"] = "<one more>";
  longer["added_tokens"].push_back(added);
  EXPECT_EQ(FirstDifference(*bytes, *Tokenizer::Parse(longer.dump(), "longer")), bytes->size());
}

}  // namespace
}  // namespace plumb
