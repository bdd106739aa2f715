#include "learner/loop/memory_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <tuple>

#include "common/base/error.h"
#include "learner/update/gradients/gradient_rooms.h"
#include "learner/update/offload/state_stream.h"
#include "learner/update/optimizer.h"
#include "policy_model/families/stages/stage_shape.h"
#include "tests/learner/distill/teaching_rig.h"
#include "tests/learner/tiny_learner.h"

namespace plumb::learner {
namespace {

using configs::AlgorithmName;
using policy_model::Weights;

configs::Config PlanRecipe(AlgorithmName name = AlgorithmName::kGrpo) {
  configs::Config config;
  config.algorithm.name = name;
  config.optimizer.micro_batch_tokens = 256;
  return config;
}

int64_t BytesOf(const MemoryPlan& plan, const std::string& kind) {
  int64_t bytes = 0;
  for (const MemoryItem& item : plan.items) bytes += item.kind == kind ? item.bytes : 0;
  return bytes;
}

// The buffers themselves, for every way of keeping them.
TEST(MemoryPlanTest, StateIsWhatTheOptimizerHolds) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (const bool lora : {false, true}) {
      for (const auto masters : {configs::Masters::kFloat32, configs::Masters::kNone}) {
        for (const auto moments : {configs::Moments::kFloat32, configs::Moments::kInt8}) {
          configs::Config config = PlanRecipe();
          config.model.dtype = dtype;
          config.optimizer.masters = masters;
          config.optimizer.moments = moments;
          Weights weights(TinyShape(), Device::kCpu, dtype),
              planned = Weights::WithoutMemory(TinyShape(), Device::kCpu, dtype);
          if (lora) {
            weights.AddAdapter({.rank = 4}, 1);
            planned.AddAdapter({.rank = 4}, 1);
          }
          Optimizer optimizer(weights, config.optimizer);
          size_t held = 0, gradients = 0, kept = 0, own = 0;
          for (const auto& set : weights.sets()) held += set->flat.bytes();
          for (Optimizer::SetState& state : optimizer.sets()) {
            gradients += state.grad.bytes();
            own += state.own_master.bytes();
            for (const auto* each : state.moments()) kept += each->bytes();
          }
          const MemoryPlan plan = PlanLearner(config, planned);
          EXPECT_EQ(BytesOf(plan, "weights"), static_cast<int64_t>(held));
          EXPECT_EQ(BytesOf(plan, "gradients"), static_cast<int64_t>(gradients));
          EXPECT_EQ(BytesOf(plan, "masters"), static_cast<int64_t>(own));
          // Blocks of tensors that are smaller than one.
          EXPECT_NEAR(static_cast<double>(BytesOf(plan, "moments")), static_cast<double>(kept),
                      moments == configs::Moments::kInt8 ? 0.12 * static_cast<double>(kept) : 0);
        }
      }
    }
  }
}

// What lies in the host's memory, and the rooms that the device has instead.
TEST(MemoryPlanTest, OffloadedStateIsTheHosts) {
  for (const auto masters : {configs::Masters::kFloat32, configs::Masters::kNone}) {
    for (const auto moments : {configs::Moments::kFloat32, configs::Moments::kInt8}) {
      configs::Config config = PlanRecipe(AlgorithmName::kPpo);
      config.model.dtype = DType::kBFloat16;
      config.optimizer.masters = masters;
      config.optimizer.moments = moments;
      const Weights weights = Weights::WithoutMemory(TinyShape(), Device::kCpu, DType::kBFloat16);
      const MemoryPlan there = PlanLearner(config, weights);
      EXPECT_TRUE(PlanHost(config, weights).items.empty());
      config.optimizer.offload = true;
      const MemoryPlan device = PlanLearner(config, weights), host = PlanHost(config, weights);
      EXPECT_EQ(BytesOf(host, "masters"), BytesOf(there, "masters"));
      EXPECT_EQ(BytesOf(host, "moments"), BytesOf(there, "moments"));
      EXPECT_EQ(BytesOf(device, "masters") + BytesOf(device, "moments"), 0);
      EXPECT_EQ(BytesOf(device, "gradients"), BytesOf(there, "gradients"));
      const int64_t rooms = BytesOf(device, "offload rooms");
      EXPECT_EQ(rooms, StateStream::RoomBytes(weights.flat().elements(),
                                              {.masters = masters == configs::Masters::kFloat32,
                                               .in_8_bits = moments == configs::Moments::kInt8}));
      // The critic's too, whose rooms are among what is its own.
      EXPECT_EQ(
          device.total() + host.total() - rooms -
              (BytesOf(device, "critic") + BytesOf(host, "critic") - BytesOf(there, "critic")),
          there.total());
      EXPECT_GT(BytesOf(host, "critic"), 0);
    }
  }
}

// Codes of tokens and weights, and scales.
TEST(MemoryPlanTest, ProductsInFp8TakeTheirOperands) {
  configs::Config config = PlanRecipe();
  const Weights weights = Weights::WithoutMemory(TinyShape(), Device::kCpu, DType::kFloat32);
  const int64_t without = BytesOf(PlanLearner(config, weights), "scratch");
  config.model.products = configs::Products::kFp8;
  EXPECT_GT(BytesOf(PlanLearner(config, weights), "scratch"), without);
}

// The stage that takes most: the first holds most micro-batches, the last the head and its logits.
TEST(MemoryPlanTest, AStageIsPlannedAsItIsHeld) {
  policy_model::ModelShape shape = TinyShape();
  shape.layers = 4;
  configs::Config config = PlanRecipe();
  const Weights whole = Weights::WithoutMemory(shape, Device::kCpu, DType::kFloat32);
  const MemoryPlan alone = PlanLearner(config, whole);
  config.run.parallel = "pp=2";
  const MemoryPlan two = PlanLearner(config, whole);
  Weights first(policy_model::StageShape(shape, 0, 2, ""), Device::kCpu, DType::kFloat32);
  EXPECT_EQ(BytesOf(two, "weights"), static_cast<int64_t>(first.flat().bytes()));
  const Optimizer optimizer(first, config.optimizer);
  EXPECT_EQ(BytesOf(two, "moments"), 2 * static_cast<int64_t>(first.flat().bytes()));
  EXPECT_EQ(BytesOf(two, "whole weights"), static_cast<int64_t>(whole.flat().bytes()));
  // Two micro-batches under way of half of the layers.
  EXPECT_GT(BytesOf(two, "activations"), BytesOf(alone, "activations") * 8 / 10);
  bool said = false;
  for (const MemoryItem& item : two.items) {
    if (item.kind == "weights") said = item.what.find("stage 1 of 2, layers 0 to 1, ") == 0;
  }
  EXPECT_TRUE(said) << two.Text();
  config.run.parallel = "tp=2,pp=2";
  EXPECT_THROW(PlanLearner(config, whole), Error);
  config.run.parallel = "pp=2";
  shape.vocab = 4000;  // the head outweighs them
  const MemoryPlan head =
      PlanLearner(config, Weights::WithoutMemory(shape, Device::kCpu, DType::kFloat32));
  EXPECT_NE(head.Text().find("stage 2 of 2, layers 3 to 3, "), std::string::npos) << head.Text();
}

// Two bytes a parameter and the room, which is the optimizer's own.
TEST(MemoryPlanTest, GradientsInBfloat16AreWhatTheOptimizerHolds) {
  for (const bool tied : {false, true}) {
    policy_model::ModelShape shape = TinyShape();
    shape.tied = tied;
    configs::Config config = PlanRecipe();
    config.model.dtype = DType::kBFloat16;
    config.optimizer.gradients = configs::Gradients::kBFloat16;
    Weights weights(shape, Device::kCpu, DType::kBFloat16);
    const Optimizer optimizer(weights, config.optimizer);
    const auto& rooms = dynamic_cast<const GradientRooms&>(*optimizer.parts());
    const MemoryPlan plan =
        PlanLearner(config, Weights::WithoutMemory(shape, Device::kCpu, DType::kBFloat16));
    EXPECT_EQ(BytesOf(plan, "gradients"), 2 * weights.flat().elements() + rooms.bytes());
    EXPECT_LT(rooms.bytes(), 4 * weights.flat().elements());
  }
}

TEST(MemoryPlanTest, AParameterOfAFullFineTuneHasItsBytes) {
  configs::OptimizerConfig options;
  const int64_t n = 1 << 20;
  EXPECT_EQ(BytesOfState(n, 0, DType::kFloat32, options).total(), 16 * n);
  EXPECT_EQ(BytesOfState(n, 0, DType::kBFloat16, options).total(), 18 * n);
  options.masters = configs::Masters::kNone;
  EXPECT_EQ(BytesOfState(n, 0, DType::kBFloat16, options).total(), 14 * n);
  options.moments = configs::Moments::kInt8;
  EXPECT_EQ(BytesOfState(n, 0, DType::kBFloat16, options).total(), 8 * n + n / 32);
  EXPECT_EQ(BytesOfState(0, n, DType::kBFloat16, options).total(), 2 * n) << "frozen";
  options.gradients = configs::Gradients::kBFloat16;
  EXPECT_EQ(BytesOfState(n, 0, DType::kBFloat16, options).total(), 6 * n + n / 32);
}

// Storage is padded, so its elements are more.
TEST(MemoryPlanTest, ParametersAreThoseOfTheTensors) {
  const auto what = [](const MemoryPlan& plan, const std::string& kind) {
    for (const MemoryItem& item : plan.items) {
      if (item.kind == kind) return item.what;
    }
    return std::string();
  };
  const auto count = [](int64_t n) { return std::to_string(n) + " parameters"; };
  Weights weights = Weights::WithoutMemory(TinyShape(), Device::kCpu, DType::kFloat32);
  const int64_t base = weights.base().table->parameters();
  ASSERT_LT(base, weights.flat().elements()) << "nothing is padded: this shows nothing";
  MemoryPlan plan = PlanLearner(PlanRecipe(), weights);
  EXPECT_EQ(what(plan, "weights"), count(base) + ", float32");
  EXPECT_EQ(what(plan, "gradients"), "float32, " + count(base) + " trained");
  policy_model::ModelShape scalar = TinyShape();
  scalar.scalar_head = true;
  EXPECT_EQ(what(PlanLearner(PlanRecipe(AlgorithmName::kPpo), weights), "critic"),
            count(policy_model::TensorTable(scalar).parameters()) +
                " with their masters, gradients and moments");
  weights.AddAdapter({.rank = 4}, 1);
  const int64_t adapter = weights.sets()[1]->table->parameters();
  ASSERT_LT(adapter, weights.sets()[1]->flat.elements());
  plan = PlanLearner(PlanRecipe(), weights);
  EXPECT_EQ(what(plan, "weights"), count(base + adapter) + ", float32");
  EXPECT_EQ(what(plan, "gradients"), "float32, " + count(adapter) + " trained");
}

TEST(MemoryPlanTest, TheLargestBatchIsTheRecipesOwn) {
  policy_model::ModelShape shape = TinyShape();
  shape.max_positions = 4096;
  configs::Config config = PlanRecipe();
  config.data.max_prompt_tokens = 100;
  config.rollout.max_new_tokens = 60;
  config.rollout.prompts_per_step = 32;
  EXPECT_EQ(LargestBatch(config, shape).tokens, 256) << "the budget";
  EXPECT_EQ(LargestBatch(config, shape).longest, 160);
  config.rollout.max_new_tokens = 400;
  EXPECT_EQ(LargestBatch(config, shape).tokens, 500) << "an answer that is longer";
  config.optimizer.micro_batch_tokens = 1 << 20;
  config.rollout.prompts_per_step = 2;
  config.rollout.samples_per_prompt = 4;
  EXPECT_EQ(LargestBatch(config, shape).tokens, 8 * 500) << "all there is in a step";
  shape.max_positions = 128;
  EXPECT_EQ(LargestBatch(config, shape).longest, 128);

  config = PlanRecipe(AlgorithmName::kDpo);
  shape.max_positions = 4096;
  config.preference.max_tokens = 200;
  EXPECT_EQ(LargestBatch(config, shape).tokens, 400) << "a pair is not parted";
  config = PlanRecipe(AlgorithmName::kSft);
  config.sft.max_tokens = 20;
  config.sft.batch = 3;
  EXPECT_EQ(LargestBatch(config, shape).tokens, 60);
}

TEST(MemoryPlanTest, OtherModelsAreCounted) {
  const Weights policy = Weights::WithoutMemory(TinyShape(), Device::kCpu, DType::kFloat32);
  const int64_t n = policy.flat().elements();
  EXPECT_EQ(BytesOf(PlanLearner(PlanRecipe(), policy), "reference"), 0);
  configs::Config kl = PlanRecipe();
  kl.algorithm.kl_coef = 0.1;
  EXPECT_EQ(BytesOf(PlanLearner(kl, policy), "reference"), 4 * n);
  EXPECT_EQ(BytesOf(PlanLearner(PlanRecipe(AlgorithmName::kDpo), policy), "reference"), 4 * n);
  EXPECT_EQ(BytesOf(PlanLearner(PlanRecipe(AlgorithmName::kSft), policy), "reference"), 0);
  Weights lora = Weights::WithoutMemory(TinyShape(), Device::kCpu, DType::kFloat32);
  lora.AddAdapter({.rank = 4}, 1);
  EXPECT_EQ(BytesOf(PlanLearner(kl, lora), "reference"), 0) << "the base with the adapter off";
  kl.sft.steps = 3;
  EXPECT_EQ(BytesOf(PlanLearner(kl, lora), "reference"), 4 * lora.sets()[1]->flat.elements());

  const MemoryPlan ppo = PlanLearner(PlanRecipe(AlgorithmName::kPpo), policy);
  EXPECT_GT(BytesOf(ppo, "critic"), 15 * n);
  EXPECT_GT(BytesOf(ppo, "activations (critic)"), BytesOf(ppo, "activations") / 2);
  configs::Config shared = PlanRecipe(AlgorithmName::kPpo);
  shared.critic.mode = configs::CriticMode::kShared;
  EXPECT_EQ(BytesOf(PlanLearner(shared, policy), "critic"), 16 * 32);
}

TEST(MemoryPlanTest, ALayerThatIsComputedAgainIsNotKept) {
  policy_model::ModelShape shape = TinyShape();
  shape.layers = 12;
  const Weights weights = Weights::WithoutMemory(shape, Device::kCpu, DType::kFloat32);
  configs::Config config = PlanRecipe();
  const int64_t all = BytesOf(PlanLearner(config, weights), "activations");
  config.optimizer.recompute = configs::Recompute::kLayer;
  EXPECT_LT(4 * BytesOf(PlanLearner(config, weights), "activations"), all);
}

// Ranks that hand over a part each wait for every checkpoint (StepLoop::WritesBeside): no copy.
TEST(MemoryPlanTest, RanksThatKeepAPartOfACheckpointCopyNone) {
  const Weights weights = Weights::WithoutMemory(TinyShape(), Device::kCpu, DType::kFloat32);
  configs::Config config = PlanRecipe();
  config.run.steps = 100;
  for (const auto& [parallel, zero, wire, copies] :
       {std::tuple("", 1, configs::GradientWire::kFloat32, true),
        {"dp=1", 1, configs::GradientWire::kFloat32, true},
        {"dp=2", 0, configs::GradientWire::kFloat32, true},
        {"dp=2", 1, configs::GradientWire::kFloat32, false},
        {"dp=2", 0, configs::GradientWire::kInt8, false},
        {"dp=2", 0, configs::GradientWire::kBFloat16, false}}) {
    config.run.parallel = parallel;
    config.run.zero = zero;
    config.run.gradient_wire = wire;
    EXPECT_EQ(CopiesCheckpoints(config), copies) << parallel << " " << zero;
    EXPECT_EQ(BytesOf(PlanLearner(config, weights), "checkpoint copy") > 0, copies)
        << parallel << " " << zero;
  }
}

TEST(MemoryPlanTest, RanksKeepAPartOfGradientsAndWeightsAndRoomsForLayers) {
  policy_model::ModelShape shape = TinyShape();
  shape.layers = 24;
  const Weights weights = Weights::WithoutMemory(shape, Device::kCpu, DType::kBFloat16);
  const int64_t n = weights.flat().elements(), layer = 65536;  // a layer, the head, the embedding
  ASSERT_EQ(n, 26 * layer);
  configs::Config config = PlanRecipe();
  config.algorithm.name = configs::AlgorithmName::kSft;
  config.run.parallel = "dp=2";
  const auto bytes = [&](int64_t zero, const std::string& kind) {
    config.run.zero = zero;
    return BytesOf(PlanLearner(config, weights), kind);
  };
  EXPECT_EQ(bytes(1, "gradients"), 4 * n);
  EXPECT_EQ(bytes(2, "gradients"), 4 * n / 2 + 4 * 4 * layer) << "its half, and four rooms";
  EXPECT_EQ(bytes(2, "weights"), 2 * n);
  EXPECT_EQ(bytes(3, "weights"), 2 * n / 2 + 2 * 4 * layer);
  EXPECT_EQ(bytes(3, "whole weights"), 2 * n) << "while a checkpoint is written";
  EXPECT_EQ(bytes(2, "whole weights"), 0);
  EXPECT_EQ(bytes(3, "moments"), 8 * n / 2);
}

TEST(MemoryPlanTest, TheSumIsSaidByKind) {
  MemoryPlan plan;
  plan.Add("weights", 2'000'000'000, "1.00 B parameters, bfloat16");
  plan.Add("nothing", 0, "");
  plan.Add("moments", 500'000'000, "two, int8");
  EXPECT_EQ(plan.total(), 2'500'000'000);
  EXPECT_EQ(plan.Line(), "weights 2.0 GB + moments 500 MB = 2.5 GB");
  EXPECT_EQ(plan.Text(),
            "weights                   2.0 GB  1.00 B parameters, bfloat16\n"
            "moments                   500 MB  two, int8\n"
            "in all                    2.5 GB\n");
}

TEST(MemoryPlanTest, ATeacherIsItsWeightsAndAForward) {
  TeachingRig rig;
  configs::Config config = PlanRecipe();
  const std::string folder = rig.Folder("t", 64, 8);
  const Weights student =
      Weights::WithoutMemory(rig.weights.shape(), Device::kCpu, DType::kFloat32);
  const MemoryPlan without = PlanLearner(config, student);
  config.distill.teachers = {"a=" + folder, "b=" + folder, "c=self", "http://h:1"};
  const MemoryPlan with = PlanLearner(config, student);
  const Weights teacher(TeachingRig::Shape(64, TeachingRig::Vocab()), Device::kCpu,
                        DType::kFloat32);
  EXPECT_EQ(BytesOf(with, "teacher"), static_cast<int64_t>(teacher.flat().bytes()))
      << "of two datasets it is one; a server's is elsewhere";
  EXPECT_GT(BytesOf(with, "scratch (teacher)"), 0);
  EXPECT_EQ(BytesOf(without, "teacher"), 0);
  EXPECT_GT(BytesOf(with, "reference"), 0) << "it teaches itself";
}

}  // namespace
}  // namespace plumb::learner
