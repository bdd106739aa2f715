// Counts allocations in steady decode steps (tests/testing/allocation_counter.h).
#include <gtest/gtest.h>

#include <string>

#include "actor/engine.h"
#include "tests/actor/tiny.h"
#include "tests/testing/allocation_counter.h"

namespace plumb::actor {
namespace {

TEST(EngineAllocation, TheCounterSeesOurAllocations) {
  StartCounting();
  int* volatile one = new int(3);
  std::string text(100 + static_cast<size_t>(*one), 'x');  // allocated inside libstdc++
  counting = false;
  EXPECT_EQ(text.size(), 103u);
  delete one;
  EXPECT_EQ(ours.load(), 2);
}

TEST(EngineAllocation, NoneInAHundredDecodeSteps) {
  const policy_model::Weights weights = TinyWeights();
  const LetterTokenizer tokenizer;
  EngineOptions options = TinyOptions();
  options.max_new_tokens = 140;
  options.eos = {};
  options.stop = {"never written by this model"};
  Engine engine(weights.shape(), Device::kCpu, DType::kFloat32, options, &tokenizer);
  for (uint64_t i = 0; i < 4; ++i) {
    GenerateRequest r;
    r.id = i;
    r.prompt_key = i;
    r.tokens = {1, 2, 3, 4, 5};
    r.num_samples = 4;
    engine.Submit(r);
  }
  for (int i = 0; i < 20; ++i) engine.Step(weights, 0);  // prefill, start, arenas grow
  ASSERT_EQ(engine.running(), 16);
  StartCounting();
  for (int i = 0; i < 100; ++i) engine.Step(weights, 0);
  counting = false;
  PrintAllocations("100 decode steps of 16 rows");
  EXPECT_EQ(ours.load(), 0);
  ASSERT_EQ(engine.running(), 16) << "the measured steps were not steady";
}

}  // namespace
}  // namespace plumb::actor
