// learner/update/stages/pipeline.h: one forward and one backward in turns, what is handed over, and
// how much is under way.
#include "learner/update/stages/pipeline.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/learner/rank_threads.h"
#include "tests/learner/tiny_learner.h"

namespace plumb::learner {
namespace {

constexpr int64_t kHidden = 4;

// What a stage did: i + 1 for the forward of micro-batch i, -(i + 1) for its backward.
struct Life {
  std::vector<int> order;
  size_t most = 0;  // under way at once
  int64_t sent = 0;
  std::vector<float> numbers;
};

// Micro-batch i has i + 1 tokens; a forward adds 1 to what came in, a backward doubles it.
Life Live(Ranks* ranks, size_t n, bool both) {
  Pipeline pipeline(*ranks, Device::kCpu, DType::kFloat32, kHidden, 19);
  policy_model::Transformer transformer(TinyShape(), Device::kCpu, DType::kFloat32);
  pipeline.Use(transformer, false);
  Life life;
  const auto floats = [](const PassSlot& slot) {
    return static_cast<size_t>(slot.batch.size() * kHidden);
  };
  std::vector<std::vector<float>> outputs(n), gradients(n);
  size_t under_way = 0;
  Pipeline::Parts parts;
  parts.pack = [&](PassSlot& slot, size_t i) {
    const std::vector<int32_t> tokens(i + 1, 3);
    const std::vector<uint8_t> mask(i + 1, 1);
    slot.batch.Clear();
    slot.batch.Append(tokens, mask);
  };
  parts.forward = [&](PassSlot& slot, size_t i) {
    life.order.push_back(static_cast<int>(i) + 1);
    life.most = std::max(life.most, ++under_way);
    EXPECT_EQ(slot.ends.first, ranks->rank() == 0);
    const auto* in = static_cast<const float*>(slot.ends.input);
    outputs[i].assign(floats(slot), 100.0f * static_cast<float>(i));
    for (size_t k = 0; in && k < outputs[i].size(); ++k) outputs[i][k] = in[k] + 1;
    slot.ends.output = outputs[i].data();
    if (pipeline.last()) {
      EXPECT_EQ(outputs[i].back(),
                100.0f * static_cast<float>(i) + static_cast<float>(pipeline.stages() - 1));
    }
  };
  if (both) {
    parts.backward = [&](PassSlot& slot, size_t i) {
      life.order.push_back(-static_cast<int>(i) - 1);
      --under_way;
      EXPECT_EQ(slot.batch.size(), static_cast<int64_t>(i) + 1) << "its own batch is still there";
      const auto* out = static_cast<const float*>(slot.ends.output_gradient);
      gradients[i].assign(floats(slot), static_cast<float>(i) + 1);
      for (size_t k = 0; !pipeline.last() && k < gradients[i].size(); ++k)
        gradients[i][k] = 2 * out[k];
      slot.ends.input_gradient = gradients[i].data();
      if (ranks->rank() == 0) {
        EXPECT_EQ(gradients[i].back(),
                  (static_cast<float>(i) + 1) * static_cast<float>(1 << (pipeline.stages() - 1)));
      }
    };
  }
  const int64_t before = ranks->sent_bytes();
  pipeline.Run(n, parts);
  life.sent = ranks->sent_bytes() - before;
  life.numbers.assign(3, pipeline.last() ? 7.0f : 0.0f);
  pipeline.ShareLast(life.numbers);
  EXPECT_GE(pipeline.TakeWaited(), 0);
  EXPECT_EQ(pipeline.TakeWaited(), 0);
  return life;
}

TEST(PipelineTest, OneForwardAndOneBackwardInTurns) {
  for (const int stages : {2, 4}) {
    for (const size_t n : {1, 2, 3, 9}) {
      std::vector<Life> lives(static_cast<size_t>(stages));
      AsRanks(stages, [&](Ranks* ranks) {
        lives[static_cast<size_t>(ranks->rank())] = Live(ranks, n, true);
      });
      const auto tokens = static_cast<int64_t>(n * (n + 1) / 2);
      for (size_t stage = 0; stage < lives.size(); ++stage) {
        const Life& life = lives[stage];
        const size_t ahead = std::min(n, lives.size() - 1 - stage);
        std::vector<int> order;
        for (size_t i = 0; i < ahead; ++i) order.push_back(static_cast<int>(i) + 1);
        for (size_t i = ahead; i < n + ahead; ++i) {
          if (i < n) order.push_back(static_cast<int>(i) + 1);
          order.push_back(-static_cast<int>(i - ahead) - 1);
        }
        EXPECT_EQ(life.order, order) << n << " through stage " << stage << " of " << stages;
        EXPECT_EQ(life.most, std::min(n, lives.size() - stage));
        const int64_t neighbours = (stage > 0) + (stage + 1 < lives.size());
        EXPECT_EQ(life.sent, neighbours * tokens * kHidden * 4);
        EXPECT_EQ(life.numbers, std::vector<float>(3, 7.0f));
      }
    }
  }
}

TEST(PipelineTest, ForwardsAlone) {
  AsRanks(3, [&](Ranks* ranks) {
    const Life life = Live(ranks, 4, false);
    EXPECT_EQ(life.order, (std::vector<int>{1, 2, 3, 4}));
    EXPECT_EQ(life.sent, ranks->rank() == 2 ? 0 : 10 * kHidden * 4);
  });
}

// A rank that has nothing to hand on waits for nobody.
TEST(PipelineTest, NoMicroBatchIsNoCall) {
  AsRanks(2, [&](Ranks* ranks) {
    const Life life = Live(ranks, 0, true);
    EXPECT_TRUE(life.order.empty());
    EXPECT_EQ(life.sent, 0);
  });
}

}  // namespace
}  // namespace plumb::learner
