// A whole model: decoding and the train step, in tokens a second and in processor time.
//
//   model_bench decode MODEL [--batch 32] [--prompt 32] [--new 64] ...
//   model_bench train  MODEL [--sequences 4] [--length 512] [--steps 3] [--adapter RANK] ...
//     both: [--dtype bfloat16|float32] [--threads 2] [--rounds 3] [--device cpu|cuda]
//     decode: [--group 1] answers of each of --batch prompts, [--slots N] decoded together (all),
//             [--prefill 2048] prompt tokens a step, [--greedy 0|1] (1),
//             [--record 0|1] (1) steps on a GPU as CUDA graphs
// MODEL is a Hugging Face directory, or `tiny`: the demo's shape with drawn weights.
//
// Prints one JSON object: tokens, seconds and tokens_per_s of the median round, and over all timed
// rounds the processor seconds in user code and in the kernel and the page faults (they say more
// than the clock on a machine that others use). One round comes first untimed. A wrong result is
// not timed: on the CPU decoding must repeat its tokens in every round, and the train step's
// log-probs must be finite and below 0. decode is greedy, unless told, over random prompts, every
// sample runs to the limit; train is forward, a policy gradient's derivatives, backward and AdamW
// over packed sequences, of the whole model or of a LoRA on all its linear layers.
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "actor/engine.h"
#include "common/base/error.h"
#include "common/base/rng.h"
#include "learner/update/optimizer.h"
#include "learner/update/train_step.h"
#include "policy_model/memory/weights.h"
#include "policy_model/transformer.h"

namespace plumb {
namespace {

struct Arguments {
  std::string mode, model, dtype = "bfloat16", device = "cpu";
  int64_t batch = 32, prompt = 32, fresh = 64, sequences = 4, length = 512, steps = 3, rounds = 3,
          threads = 2, adapter = 0, group = 1, slots = 0, greedy = 1, record = 1, prefill = 2048;
};

[[noreturn]] void Fail(const std::string& why) {
  std::fprintf(stderr, "model_bench: %s\n", why.c_str());
  std::exit(2);
}

Arguments Parse(int argc, char** argv) {
  Arguments a;
  if (argc < 3)
    Fail(
        "usage: model_bench decode|train MODEL [--batch N] [--prompt N] [--new N] [--sequences N] "
        "[--length N] [--steps N] [--adapter RANK] [--rounds N] [--threads N] [--dtype "
        "bfloat16|float32]");
  a.mode = argv[1];
  a.model = argv[2];
  for (int i = 3; i + 1 < argc; i += 2) {
    const std::string_view name = argv[i];
    if (name == "--dtype") {
      a.dtype = argv[i + 1];
      continue;
    }
    if (name == "--device") {
      a.device = argv[i + 1];
      continue;
    }
    const std::pair<std::string_view, int64_t*> numbers[] = {
        {"--batch", &a.batch},         {"--prompt", &a.prompt},   {"--new", &a.fresh},
        {"--sequences", &a.sequences}, {"--length", &a.length},   {"--steps", &a.steps},
        {"--rounds", &a.rounds},       {"--threads", &a.threads}, {"--adapter", &a.adapter},
        {"--group", &a.group},         {"--slots", &a.slots},     {"--greedy", &a.greedy},
        {"--record", &a.record},       {"--prefill", &a.prefill}};
    const auto* found = std::find_if(std::begin(numbers), std::end(numbers),
                                     [&](const auto& n) { return n.first == name; });
    if (found == std::end(numbers)) Fail("no option " + std::string(name));
    char* end = nullptr;
    *found->second = std::strtoll(argv[i + 1], &end, 10);
    const int64_t least = name == "--greedy" || name == "--record" ? 0 : 1;
    if (*end != 0 || *found->second < least)
      Fail(std::string(name) + " takes a number from " + std::to_string(least) + " on");
  }
  if (argc % 2 == 0) Fail("the last option has no value");
  if (a.mode != "decode" && a.mode != "train") Fail("mode is decode or train");
  if (a.dtype != "bfloat16" && a.dtype != "float32") Fail("--dtype is bfloat16 or float32");
  return a;
}

policy_model::ModelShape TinyShape() {
  policy_model::ModelShape s;
  s.layers = 4;
  s.hidden = 128;
  s.heads = 4;
  s.kv_heads = 4;
  s.head_dim = 32;
  s.ffn = 384;
  s.vocab = 26;
  s.max_positions = 128;
  s.tied = true;
  return s;
}

// Processor time and page faults of this process since it started.
struct Usage {
  double user = 0, system = 0;
  int64_t faults = 0;
  double peak_mb = 0;  // of resident memory
  static Usage Now() {
    rusage r;
    getrusage(RUSAGE_SELF, &r);
    const auto seconds = [](const timeval& t) {
      return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
    };
    return {seconds(r.ru_utime), seconds(r.ru_stime), r.ru_minflt,
            static_cast<double>(r.ru_maxrss) / 1024};
  }
};

// One untimed round, then `rounds` timed ones; prints the result.
void Measure(const Arguments& a, int64_t tokens, const std::function<void()>& round) {
  round();
  std::vector<double> seconds;
  const Usage before = Usage::Now();
  for (int64_t i = 0; i < a.rounds; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    round();
    seconds.push_back(
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  const Usage after = Usage::Now();
  std::sort(seconds.begin(), seconds.end());
  const double median = seconds[seconds.size() / 2];
  std::printf(
      "{\"bench\": \"%s\", \"dtype\": \"%s\", \"threads\": %lld, \"tokens\": %lld, \"seconds\": "
      "%.4f, "
      "\"tokens_per_s\": %.2f, \"user_s\": %.3f, \"system_s\": %.3f, \"page_faults\": %lld, "
      "\"rounds\": %lld, \"peak_mb\": %.1f}\n",
      a.mode.c_str(), a.dtype.c_str(), static_cast<long long>(a.threads),
      static_cast<long long>(tokens), median, static_cast<double>(tokens) / median,
      after.user - before.user, after.system - before.system,
      static_cast<long long>(after.faults - before.faults), static_cast<long long>(a.rounds),
      after.peak_mb);
}

std::vector<int32_t> RandomTokens(uint64_t key, int64_t count, int64_t vocab) {
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  for (size_t i = 0; i < tokens.size(); ++i) {
    tokens[i] = static_cast<int32_t>(RandomAt(1, key, 0, static_cast<uint32_t>(i)).x[0] %
                                     static_cast<uint64_t>(vocab));
  }
  return tokens;
}

void Decode(const Arguments& a, const policy_model::Weights& weights, DType dtype) {
  actor::EngineOptions options;
  options.max_batch = static_cast<int32_t>(a.slots > 0 ? a.slots : a.batch * a.group);
  options.max_new_tokens = static_cast<int32_t>(a.fresh);
  options.sampling.temperature = a.greedy ? 0.0f : 1.0f;
  options.record_steps = a.record != 0;
  options.prefill_tokens = static_cast<int32_t>(a.prefill);
  if (weights.device().is_cuda()) {
    options.kv_budget_mb = 40'000;
    options.longest = static_cast<int32_t>(a.prompt + a.fresh);
  }
  actor::Engine engine(weights.shape(), weights.stream(), dtype, options);
  std::vector<int32_t> first;
  Measure(a, a.batch * a.group * a.fresh, [&] {
    for (int64_t i = 0; i < a.batch; ++i) {
      actor::GenerateRequest r;
      r.id = static_cast<uint64_t>(i);
      r.prompt_key = static_cast<uint64_t>(i);
      r.num_samples = static_cast<int32_t>(a.group);
      r.tokens = RandomTokens(static_cast<uint64_t>(i) + 1, a.prompt, weights.shape().vocab);
      engine.Submit(std::move(r));
    }
    while (engine.Step(weights, 0)) {
    }
    std::vector<actor::GenerateResult> results = engine.TakeFinished();
    std::sort(results.begin(), results.end(),
              [](const auto& x, const auto& y) { return x.id < y.id; });
    std::vector<int32_t> drawn;
    for (const auto& r : results)
      for (const auto& s : r.samples) drawn.insert(drawn.end(), s.tokens.begin(), s.tokens.end());
    if (static_cast<int64_t>(drawn.size()) != a.batch * a.group * a.fresh)
      Fail("decoding ended before its limit");
    if (first.empty()) first = drawn;
    // On a GPU a library may choose another product the next time.
    if (first != drawn && weights.device().is_cpu())
      Fail("decoding gave other tokens for the same prompts");
  });
}

void Train(const Arguments& a, policy_model::Weights& weights, DType dtype) {
  configs::OptimizerConfig config;
  config.learning_rate = 1e-6;
  policy_model::Transformer transformer(weights.shape(), weights.stream(), dtype);
  learner::TrainStep step(transformer, a.sequences * a.length);
  learner::Optimizer optimizer(weights, config);
  std::vector<std::vector<int32_t>> tokens;
  const std::vector<uint8_t> mask(static_cast<size_t>(a.length), 1);
  std::vector<learner::SequenceView> views;
  for (int64_t s = 0; s < a.sequences; ++s) {
    tokens.push_back(RandomTokens(static_cast<uint64_t>(s) + 77, a.length, weights.shape().vocab));
  }
  for (const auto& t : tokens) views.push_back({.tokens = t, .mask = mask});
  const float scale = -1.0f / static_cast<float>(a.sequences * (a.length - 1));
  Measure(a, a.sequences * a.length * a.steps, [&] {
    for (int64_t i = 0; i < a.steps; ++i) {
      optimizer.ZeroGrad();
      double loss = 0;
      step.Accumulate(
          weights, views, 1.0f,
          [&](const learner::ScoredToken& t) {
            if (!(t.logprob < 0)) Fail("a log-prob is not below 0");
            loss += static_cast<double>(scale * t.logprob);
            return learner::TrainStep::Gradient{.logprob = scale};
          },
          optimizer.gradients());
      const learner::UpdateResult update = optimizer.Update(config.learning_rate, loss);
      if (!update.applied) Fail("the update was skipped: " + update.why_skipped);
    }
  });
}

}  // namespace
}  // namespace plumb

int main(int argc, char** argv) {
  using namespace plumb;
  const Arguments a = Parse(argc, argv);
  try {
    policy_model::SetThreads(static_cast<int>(a.threads));
    const DType dtype = a.dtype == "float32" ? DType::kFloat32 : DType::kBFloat16;
    if (a.device != "cpu" && a.device != "cuda") Fail("--device is cpu or cuda");
    const OwnedStream stream(a.device == "cpu" ? Device::kCpu : Device::Cuda(0));
    policy_model::Weights weights(
        a.model == "tiny" ? TinyShape() : policy_model::ReadModelConfig(a.model), stream, dtype);
    if (a.model == "tiny") weights.Initialise(1, 0.02);
    else weights.Load(a.model);
    if (a.adapter > 0) weights.AddAdapter({.rank = a.adapter, .alpha = 16}, 1);
    if (a.mode == "decode") Decode(a, weights, dtype);
    else Train(a, weights, dtype);
  } catch (const Error& e) {
    Fail(e.what());
  }
  return 0;
}
