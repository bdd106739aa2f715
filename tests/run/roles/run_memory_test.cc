// run/roles/run_memory.h: what a run takes is known before, said, refused where it does not fit,
// and what memory has to do with it changes no number of a run.
#include "run/roles/run_memory.h"

#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <new>
#include <thread>

#include "common/base/error.h"
#include "tests/run/toy_run.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run::testing {
namespace {

using configs::Config;
using configs::Recompute;
using plumb::testing::TempFolder;

policy_model::ModelShape Shape() {
  return {.family = "llama",
          .layers = 28,
          .hidden = 256,
          .heads = 4,
          .kv_heads = 2,
          .head_dim = 64,
          .ffn = 1024,
          .vocab = 1000,
          .max_positions = 512,
          .tied = true,
          .eos_tokens = {2}};
}

Config Recipe() {
  Config config;
  config.model.dtype = DType::kBFloat16;
  config.rollout.kv_budget_mb = 8;
  config.rollout.max_batch = 4;
  config.checkpoint.background = false;
  return config;
}

int64_t BytesOf(const RunMemory& memory, const std::string& kind) {
  for (const learner::MemoryItem& item : memory.plan.items) {
    if (item.kind == kind) return item.bytes;
  }
  return 0;
}

// What is thrown, or fails.
template <class F>
std::string Refusal(const F& f, ErrorCode code) {
  try {
    f();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), code) << e.what();
    return e.what();
  }
  ADD_FAILURE() << "nothing was refused";
  return "";
}

TEST(RunMemoryTest, AutoComputesLayersAgainOnlyWhereTheRestDoesNotFit) {
  const RunMemory roomy = PlanRun(Recipe(), Shape(), Device::kCpu, int64_t{1} << 40);
  EXPECT_EQ(roomy.recompute, Recompute::kNone);
  EXPECT_TRUE(roomy.fits());
  EXPECT_NO_THROW(roomy.Check());
  const int64_t tight = roomy.plan.total() - BytesOf(roomy, "activations") / 2;
  const RunMemory again = PlanRun(Recipe(), Shape(), Device::kCpu, tight);
  EXPECT_EQ(again.recompute, Recompute::kLayer);
  EXPECT_TRUE(again.fits());
  EXPECT_TRUE(Has(again.Line(), "computes each layer again")) << again.Line();
  Config fixed = Recipe();
  fixed.optimizer.recompute = Recompute::kNone;
  EXPECT_FALSE(PlanRun(fixed, Shape(), Device::kCpu, tight).fits());
}

// The copy of a checkpoint is counted, and given up before anything that costs more.
TEST(RunMemoryTest, ACheckpointIsCopiedWhereThereIsRoom) {
  Config config = Recipe();
  const RunMemory without = PlanRun(config, Shape(), Device::kCpu, 0);
  config.checkpoint.background = true;
  config.run.steps = 100;
  config.run.checkpoint_every = 10;
  const RunMemory with = PlanRun(config, Shape(), Device::kCpu, 0);
  EXPECT_FALSE(with.waits_for_checkpoints);
  EXPECT_EQ(BytesOf(with, "checkpoint copy"),
            BytesOf(with, "weights") + BytesOf(with, "masters") + BytesOf(with, "moments"));
  EXPECT_EQ(with.plan.total(), without.plan.total() + BytesOf(with, "checkpoint copy"));
  const RunMemory tight = PlanRun(config, Shape(), Device::kCpu, with.plan.total() - 1);
  EXPECT_TRUE(tight.waits_for_checkpoints);
  EXPECT_EQ(tight.recompute, Recompute::kNone);
  EXPECT_EQ(tight.plan.total(), without.plan.total());
  EXPECT_TRUE(Has(tight.Line(), "the run waits while one is written")) << tight.Line();
  const RunMemory card = PlanRun(config, Shape(), Device::Cuda(0), 0);
  EXPECT_EQ(BytesOf(card, "checkpoint copy"), 0) << "that is the host's memory";
  config.run.checkpoint_every = 100;
  EXPECT_EQ(BytesOf(PlanRun(config, Shape(), Device::kCpu, 0), "checkpoint copy"), 0)
      << "that of the end is waited for";
}

TEST(RunMemoryTest, ARefusalSaysTheSumByKindAndWhatToChange) {
  const RunMemory memory = PlanRun(Recipe(), Shape(), Device::kCpu, 100'000'000);
  const std::string said = Refusal([&] { memory.Check(); }, ErrorCode::kInvalidArgument);
  for (const char* piece :
       {"does not fit the memory of this machine", "100 MB are free", "weights ", "masters ",
        "gradients ", "moments ", "activations ", "keys and values ",
        "optimizer.moments = \"int8\" (", "optimizer.masters = \"none\" (",
        "policy.adapter = \"lora\" (", "optimizer.micro_batch_tokens = 2048 (", "run.memory_gb"})
    EXPECT_TRUE(Has(said, piece)) << piece << " is missing in: " << said;
  EXPECT_FALSE(Has(said, "recompute = \"layer\"")) << "it was chosen already: " << said;
  // What it advises makes the plan smaller by what it says.
  Config less = Recipe();
  less.optimizer.recompute = Recompute::kLayer;
  less.optimizer.moments = configs::Moments::kInt8;
  EXPECT_LT(PlanRun(less, Shape(), Device::kCpu, 0).plan.total(), memory.plan.total());
}

TEST(RunMemoryTest, RolesThatShareWeightsHaveThemOnce) {
  Config config = Recipe();
  const RunMemory shared = PlanRun(config, Shape(), Device::kCpu, 0);
  EXPECT_EQ(BytesOf(shared, "weights of actors"), 0);
  config.run.roles = configs::Roles::kProcesses;
  config.run.actors = 3;
  const RunMemory apart = PlanRun(config, Shape(), Device::kCpu, 0);
  EXPECT_EQ(BytesOf(apart, "weights of actors"), 3 * BytesOf(apart, "weights"));
  EXPECT_EQ(BytesOf(apart, "keys and values"), 3 * BytesOf(shared, "keys and values"));
  EXPECT_EQ(BytesOf(apart, "hand-over"), BytesOf(apart, "weights"));
  EXPECT_GT(BytesOf(apart, "programs"), 0);
  config.algorithm.name = configs::AlgorithmName::kSft;
  EXPECT_EQ(BytesOf(PlanRun(config, Shape(), Device::kCpu, 0), "keys and values"), 0)
      << "nobody generates";
}

// Each device has what computes there; a hand-over between GPUs has a copy on the learner's.
TEST(RunMemoryTest, ActorsOnAnotherDeviceAreAPlanOfTheirOwn) {
  Config config = Recipe();
  config.run.device = "cuda";
  const RunMemory together = PlanRun(config, Shape(), Device::Cuda(0), 0);
  EXPECT_FALSE(PlanActors(config, Shape(), 1, 0));
  config.rollout.device = "cuda:1";
  const RunMemory learner = PlanRun(config, Shape(), Device::Cuda(0), 0);
  const auto actors = PlanActors(config, Shape(), 1, 0);
  ASSERT_TRUE(actors);
  EXPECT_EQ(actors->device, Device::Cuda(1));
  EXPECT_EQ(BytesOf(learner, "keys and values"), 0);
  EXPECT_EQ(BytesOf(*actors, "keys and values"), BytesOf(together, "keys and values"));
  EXPECT_EQ(BytesOf(*actors, "weights of actors"), BytesOf(learner, "weights"));
  EXPECT_EQ(BytesOf(learner, "hand-over"), BytesOf(learner, "weights"));
  EXPECT_EQ(BytesOf(*actors, "masters"), 0);
  EXPECT_FALSE(PlanActors(config, Shape(), 1, 1'000'000)->fits());
  config.rollout.device = "cpu";
  EXPECT_EQ(BytesOf(PlanRun(config, Shape(), Device::Cuda(0), 0), "hand-over"), 0)
      << "through the host's memory";

  // A GPU for each of two processes that share the model.
  config.run.roles = configs::Roles::kProcesses;
  config.rollout.device = "cuda";
  config.rollout.tp = 2;
  const auto shared = PlanActors(config, Shape(), 1, 0);
  ASSERT_TRUE(shared);
  const auto kv = static_cast<double>(BytesOf(*actors, "keys and values"));
  EXPECT_NEAR(static_cast<double>(BytesOf(*shared, "keys and values")), kv, 0.05 * kv)
      << "the budget is of each; pages are smaller";
  EXPECT_LT(BytesOf(*shared, "weights of actors"), BytesOf(learner, "weights") * 6 / 10);
  EXPECT_EQ(BytesOf(*shared, "weights to share out"), 2 * BytesOf(learner, "weights"));
}

TEST(RunMemoryTest, ACardIsPlannedForWithoutOne) {
  Config config = Recipe();
  const RunMemory card = PlanRun(config, Shape(), Device::Cuda(0), 0);
  EXPECT_TRUE(card.fits()) << "not known";
  EXPECT_EQ(BytesOf(card, "hand-over"), 0) << "that is the host's memory";
  EXPECT_TRUE(Has(card.smaller, "optimizer.gradients = \"bfloat16\"")) << card.smaller;
  const int64_t moments = BytesOf(card, "moments"), gradients = BytesOf(card, "gradients");
  config.optimizer.moments = configs::Moments::kInt8;
  config.optimizer.gradients = configs::Gradients::kBFloat16;
  const RunMemory less = PlanRun(config, Shape(), Device::Cuda(0), 0);
  EXPECT_LT(BytesOf(less, "moments"), moments / 3);
  EXPECT_LT(BytesOf(less, "gradients"), gradients);
}

// What a card holds besides what is asked for, and logits where there is room for them.
TEST(RunMemoryTest, OnAGpuTheDriversPartAndKeptLogitsArePlanned) {
  Config config = Recipe();
  EXPECT_EQ(BytesOf(PlanRun(config, Shape(), Device::kCpu, int64_t{1} << 40), "CUDA"), 0);
  config.run.device = "cuda";
  const RunMemory unknown = PlanRun(config, Shape(), Device::Cuda(0), 0);
  EXPECT_GT(BytesOf(unknown, "CUDA"), 4e8);
  EXPECT_EQ(BytesOf(unknown, "logits"), 0);
  const RunMemory roomy = PlanRun(config, Shape(), Device::Cuda(0), int64_t{1} << 40);
  const int64_t logits = BytesOf(roomy, "logits");
  EXPECT_GT(logits, 4 * Shape().vocab);
  EXPECT_EQ(roomy.plan.total(), unknown.plan.total() + logits);
  // No plan is too large for them: they are left out first.
  const RunMemory tight =
      PlanRun(config, Shape(), Device::Cuda(0), unknown.plan.total() + 4 * logits - 1);
  EXPECT_EQ(BytesOf(tight, "logits"), 0);
  EXPECT_TRUE(tight.fits());
}

TEST(RunMemoryTest, Float16IsPlannedWithItsOperands) {
  Config config = Recipe();
  const int64_t scratch = BytesOf(PlanRun(config, Shape(), Device::kCpu, 0), "scratch");
  config.model.products = configs::Products::kFp16;
  const RunMemory memory = PlanRun(config, Shape(), Device::kCpu, 0);
  EXPECT_GT(BytesOf(memory, "scratch"), scratch);
  EXPECT_TRUE(Has(memory.smaller, "policy.adapter")) << memory.smaller;
}

// Products in FP8 are of a whole model: no adapter is advised, and what it would take is not asked.
TEST(RunMemoryTest, FP8IsPlannedWithWhatGoesWithIt) {
  Config config = Recipe();
  EXPECT_TRUE(Has(PlanRun(config, Shape(), Device::kCpu, 0).smaller, "policy.adapter"));
  const int64_t scratch = BytesOf(PlanRun(config, Shape(), Device::kCpu, 0), "scratch");
  config.model.products = configs::Products::kFp8;
  const RunMemory memory = PlanRun(config, Shape(), Device::kCpu, 0);
  EXPECT_FALSE(Has(memory.smaller, "policy.adapter")) << memory.smaller;
  EXPECT_GT(BytesOf(memory, "scratch"), scratch);
}

// Moments and masters beside a card; what the host has no room for is refused, too.
TEST(RunMemoryTest, StateInTheHostsMemoryIsAPlanOfItsOwn) {
  Config config = Recipe();
  config.run.device = "cuda";
  const RunMemory there = PlanRun(config, Shape(), Device::Cuda(0), 0);
  EXPECT_TRUE(there.host.items.empty());
  EXPECT_TRUE(Has(there.smaller, "optimizer.offload = true (")) << there.smaller;
  EXPECT_FALSE(Has(PlanRun(Recipe(), Shape(), Device::kCpu, 0).smaller, "offload"));
  config.optimizer.offload = true;
  RunMemory memory = PlanRun(config, Shape(), Device::Cuda(0), 0);
  EXPECT_EQ(memory.host.total(), BytesOf(there, "masters") + BytesOf(there, "moments"));
  EXPECT_EQ(memory.plan.total(),
            there.plan.total() - memory.host.total() + BytesOf(memory, "offload rooms"));
  EXPECT_GT(BytesOf(memory, "offload rooms"), 0);
  memory.host_free = memory.host.total();
  EXPECT_TRUE(Has(memory.Line(), "; in the host's memory masters ")) << memory.Line();
  EXPECT_NO_THROW(memory.Check());
  memory.host_free = memory.host.total() - 1;
  EXPECT_FALSE(memory.fits());
  const std::string said = Refusal([&] { memory.Check(); }, ErrorCode::kInvalidArgument);
  for (const char* piece : {"optimizer.offload does not fit", "masters ", "moments ",
                            "optimizer.moments = \"int8\"", "leave optimizer.offload out"})
    EXPECT_TRUE(Has(said, piece)) << piece << " is missing in: " << said;
  const TempFolder temp;
  const std::vector<std::string> line = TrainLine(temp / "run", 2, {});
  std::vector<std::string> plan = {"plan", line[1]};
  plan.insert(plan.end(), line.begin() + 6, line.end());
  for (const char* more : {"run.device=cuda", "optimizer.offload=true"})
    plan.insert(plan.end(), {"--set", more});
  plan.insert(plan.end(), {"--gpu", "h200"});
  const CliOutput printed = RunPlumb(plan);
  EXPECT_EQ(printed.code, 0) << printed.err;
  for (const char* piece : {"in the host's memory\n", "moments  ", "offload rooms  "})
    EXPECT_TRUE(Has(printed.out, piece)) << piece << ": " << printed.out;
}

// Qwen2.5-7B, whole, on a card of 80 GB: four sequences of 1,024 tokens at a time.
TEST(RunMemoryTest, ASevenBillionModelFitsACard) {
  policy_model::ModelShape shape;
  shape.layers = 28;
  shape.hidden = 3584;
  shape.heads = 28;
  shape.kv_heads = 4;
  shape.head_dim = 128;
  shape.ffn = 18944;
  shape.vocab = 152064;
  shape.max_positions = 4096;
  shape.tied = false;
  Config config;
  config.algorithm.name = configs::AlgorithmName::kSft;
  config.model.dtype = DType::kBFloat16;
  config.sft.batch = 4;
  config.sft.max_tokens = 1024;
  config.optimizer.micro_batch_tokens = 4096;
  config.optimizer.recompute = Recompute::kNone;
  constexpr int64_t kCard = 80'000'000'000;
  EXPECT_FALSE(PlanRun(config, shape, Device::Cuda(0), kCard).fits()) << "16 bytes a parameter";
  config.optimizer.masters = configs::Masters::kNone;
  config.optimizer.moments = configs::Moments::kInt8;
  config.optimizer.gradients = configs::Gradients::kBFloat16;
  const RunMemory memory = PlanRun(config, shape, Device::Cuda(0), kCard);
  EXPECT_TRUE(memory.fits()) << memory.plan.Text();
}

TEST(RunMemoryTest, WhereMemoryEndsAllTheSameThePlanStandsBesideIt) {
  const RunMemory memory = PlanRun(Recipe(), Shape(), Device::kCpu, int64_t{1} << 40);
  const std::string said =
      Refusal([&] { WithPlan(memory, []() -> int { throw std::bad_alloc(); }); }, ErrorCode::kIo);
  for (const char* piece : {"the memory of this machine is used up", "was planned to take up to",
                            "weights ", "What makes it smaller: ", "--resume"})
    EXPECT_TRUE(Has(said, piece)) << piece << " is missing in: " << said;
  EXPECT_EQ(Refusal([&] { WithPlan(memory, [] { throw Error(ErrorCode::kConflict, "x"); }); },
                    ErrorCode::kConflict),
            "x");
  EXPECT_EQ(WithPlan(memory, [] { return 7; }), 7);
}

TEST(RunMemoryTest, TheVerbSaysItAndARunIsRefusedBeforeItBegins) {
  const TempFolder temp;
  const std::vector<std::string> line = TrainLine(temp / "run", 2, {});
  std::vector<std::string> plan = {"plan", line[1]};
  plan.insert(plan.end(), line.begin() + 6, line.end());
  const CliOutput said = RunPlumb(plan);
  EXPECT_EQ(said.code, 0) << said.err;
  for (const char* piece : {"weights", "activations", "keys and values", "in all", "free",
                            "recompute             none, chosen by the plan"})
    EXPECT_TRUE(Has(said.out, piece)) << piece << ": " << said.out;
  plan.insert(plan.end(), {"--set", "run.memory_gb=0.000001"});
  const CliOutput small = RunPlumb(plan);
  EXPECT_EQ(small.code, 2);
  EXPECT_TRUE(Has(small.out, "in all")) << "the table all the same";
  EXPECT_TRUE(Has(small.err, "does not fit the memory of this machine")) << small.err;

  for (const char* roles : {"local", "processes"}) {
    const CliOutput refused =
        Train(temp / "run", 2,
              {"--set", "run.memory_gb=0.000001", "--set", std::string("run.roles=") + roles});
    EXPECT_EQ(refused.code, 2) << roles;
    EXPECT_TRUE(Has(refused.err, "does not fit")) << refused.err;
    EXPECT_FALSE(RealFileSystem().Exists(temp / "run/checkpoints")) << "nothing was begun";
  }
  const CliOutput run = Train(temp / "run", 1, {});
  EXPECT_EQ(run.code, 0) << run.err;
  EXPECT_TRUE(Has(Read(temp / "run/logs/train.log"), "memory: at most weights "));
}

// Recompute: the same bits. Small state: the same in one process, in several, and after a resume.
TEST(RunMemoryTest, NoNumberHangsOnHowMemoryIsKept) {
  const TempFolder temp;
  ASSERT_EQ(Train(temp / "kept", 3, {"--set", "optimizer.recompute=none"}).code, 0);
  ASSERT_EQ(Train(temp / "again", 3, {"--set", "optimizer.recompute=layer"}).code, 0);
  ExpectSameRun(temp / "kept", temp / "again");

  const std::vector<std::string> small = {
      "--set", "model.dtype=bfloat16",        "--set", "optimizer.masters=none",
      "--set", "optimizer.moments=int8",      "--set", "optimizer.lr_schedule=constant",
      "--set", "optimizer.warmup_fraction=0", "--set", "checkpoint.optimizer=always"};
  const CliOutput whole = Train(temp / "small", 4, small);
  ASSERT_EQ(whole.code, 0) << whole.err;
  std::vector<std::string> apart = small;
  apart.insert(apart.end(), {"--set", "run.roles=processes"});
  ASSERT_EQ(TrainInProgram(temp / "apart", 4, apart), 0) << Read(temp / "apart.out");
  ExpectSameRun(temp / "small", temp / "apart");
  ASSERT_EQ(Train(temp / "parts", 2, small).code, 0);
  const CliOutput resumed = RunPlumb(
      {"train", temp / "parts/config.toml", "--out", temp / "parts", "--resume", "--steps", "4"});
  ASSERT_EQ(resumed.code, 0) << resumed.err;
  ExpectSameRun(temp / "small", temp / "parts");
  const CliOutput other =
      RunPlumb({"train", temp / "parts/config.toml", "--out", temp / "parts", "--resume", "--steps",
                "5", "--set", "optimizer.moments=float32"});
  EXPECT_EQ(other.code, 2);
  EXPECT_TRUE(Has(other.err, "optimizer.moments")) << other.err;
}

// The largest RssAnon of the program that `child` becomes, asked until it ends; its exit code in
// `code`. Before it becomes that, it is a copy of this test.
int64_t PeakOf(pid_t child, int* code) {
  int64_t peak = 0;
  int status = 0;
  while (waitpid(child, &status, WNOHANG) == 0) {
    const std::string of = "/proc/" + std::to_string(child);
    std::error_code gone;
    const bool program = std::filesystem::read_symlink(of + "/exe", gone).filename() == "plumb";
    std::ifstream in(of + "/status");
    for (std::string line; program && std::getline(in, line);) {
      if (line.starts_with("RssAnon:"))
        peak = std::max(peak, int64_t{1024} * std::atol(line.c_str() + 8));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  *code = WIFEXITED(status) ? WEXITSTATUS(status) : 128;
  return peak;
}

// What the system gave the program at the most, beside what was planned.
TEST(RunMemoryTest, ThePlanIsWhatIsMeasured) {
  const TempFolder temp;
  const std::string rates = temp / "rates.json";  // measuring them would take memory
  RealFileSystem().WriteFileAtomic(
      rates, R"({"train": 1e11, "forward": 1e11, "decode": 1e11, "memory": 1e10})");
  for (const char* recompute : {"none", "layer"}) {
    const std::string out = temp / recompute;
    const std::vector<std::string> more = {
        "--set", "run.threads=2",
        "--set", "model.layers=8",
        "--set", "model.hidden=384",
        "--set", "model.heads=6",
        "--set", "model.kv_heads=6",
        "--set", "model.ffn=1536",
        "--set", "model.max_positions=64",
        "--set", "optimizer.micro_batch_tokens=1024",
        "--set", "sft.batch=128",
        "--set", "sft.steps=1",
        "--set", "rollout.max_batch=8",
        "--set", "data.eval=",
        "--set", std::string("optimizer.recompute=") + recompute};
    std::vector<std::string> line = TrainLine(out, 1, more);
    std::vector<std::string> plan = {"plan", line[1]};
    plan.insert(plan.end(), line.begin() + 6, line.end());
    plan.insert(plan.end(), {"--rates", rates});
    int code = 0;
    const int64_t program = PeakOf(StartProgram(plan, out), &code);
    ASSERT_EQ(code, 0) << Read(out + ".out");
    const int64_t peak = PeakOf(StartProgram(line, out), &code) - program;
    ASSERT_EQ(code, 0) << Read(out + ".out");
    Config config = configs::LoadRecipe(out + "/config.toml").config;
    const auto session = Session::WithoutRun(config);
    const int64_t planned = PlanRun(config, session->shape(), Device::kCpu, 0).plan.total();
    std::printf("recompute %s: planned %.1f MB, measured %.1f MB besides the program's %.1f\n",
                recompute, static_cast<double>(planned) / 1e6, static_cast<double>(peak) / 1e6,
                static_cast<double>(program) / 1e6);
    std::fflush(stdout);  // a process that is begun has a copy of what was not written
    EXPECT_NEAR(static_cast<double>(peak) / static_cast<double>(planned), 1.0, 0.15) << recompute;
  }
}

}  // namespace
}  // namespace plumb::run::testing
