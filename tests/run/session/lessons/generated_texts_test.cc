// run/session/lessons/generated_texts.h: how many generated rows a recipe asks for.
#include "run/session/lessons/generated_texts.h"

#include <gtest/gtest.h>

namespace plumb::run {
namespace {

TEST(GeneratedTexts, AreAsManyAsTheRecipeSays) {
  configs::Config config;
  config.run.seed = 5;
  EXPECT_EQ(TinyTextsOf(config, -1).rows, replay::kTinyTextRows);
  EXPECT_EQ(TinyTextsOf(config, -1).heldout, 100);
  EXPECT_EQ(TinyTextsOf(config, -1).seed, 5u);
  config.data.limit = 50;
  EXPECT_EQ(TinyTextsOf(config, -1).heldout, 5);
  EXPECT_EQ(TinyTextsOf(config, 7).heldout, 7);
  EXPECT_EQ(TinyTextsOf(config, 7).rows, 50);
}

}  // namespace
}  // namespace plumb::run
