// A whole model: decoding and the train step, in tokens a second and in processor time.
//
//   model_bench decode MODEL [--batch 32] [--prompt 32] [--new 64] ...
//   model_bench train  MODEL [--sequences 4] [--length 512] [--steps 3] [--adapter RANK]
//                            [--masters float32|none] [--moments float32|int8]
//                            [--gradients float32|bfloat16]
//     both: [--dtype bfloat16|float32] [--threads 2] [--rounds 3] [--device cpu|cuda]
//           [--exact 0|1] learner and engine compute alike (1 on a GPU, as run.exact is; 0 on the
//           CPU, where no run does)
//     decode: [--group 1] answers of each of --batch prompts, [--slots N] decoded together (all),
//             [--prefill 2048] prompt tokens a step, [--greedy 0|1] (1),
//             [--record 0|1] (1) steps on a GPU as CUDA graphs,
//             [--together N] steps enqueued before the host reads what they drew (2 on a GPU),
//             [--tp 1] processes that compute the model together, on a GPU each
// MODEL is a Hugging Face directory, or `tiny`: the demo's shape with drawn weights.
//
// Prints one JSON object: tokens, seconds and tokens_per_s of the median round, and over all timed
// rounds the processor seconds in user code and in the kernel and the page faults (they say more
// than the clock on a machine that others use). train adds the tokens a second of processor time,
// the operations of its products and attention scores (forward and backward) a second, those of one
// square product of random numbers measured in the same run, and the share of the one in the other;
// on a GPU both modes add the most of its memory that was in use between rounds, all that this
// process holds there. One round comes first untimed. A wrong result is
// not timed: on the CPU decoding must repeat its tokens in every round, and the train step's
// log-probs must be finite and below 0. decode is greedy, unless told, over random prompts, every
// sample runs to the limit; train is forward, a policy gradient's derivatives, backward and AdamW
// over packed sequences, of the whole model or of a LoRA on all its linear layers.
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "actor/engine.h"
#include "bench/bench_program.h"
#include "common/base/error.h"
#include "common/base/rng.h"
#include "configs/choices.h"
#include "kernels/device/device_memory.h"
#include "kernels/products/row_product.h"
#include "learner/ranks/rendezvous.h"
#include "learner/update/optimizer.h"
#include "learner/update/shares/model_share.h"
#include "learner/update/train_step.h"
#include "policy_model/layers/ops.h"
#include "policy_model/memory/weights.h"
#include "policy_model/speed.h"
#include "policy_model/transformer.h"

namespace plumb {
namespace {

struct Arguments {
  std::string mode, model, dtype = "bfloat16", device = "cpu";
  std::string masters = "float32", moments = "float32", gradients = "float32";
  int64_t batch = 32, prompt = 32, fresh = 64, sequences = 4, length = 512, steps = 3, rounds = 3,
          threads = 2, adapter = 0, group = 1, slots = 0, greedy = 1, record = 1, together = 0,
          prefill = 2048, tp = 1, exact = -1;
};

constexpr char kProgram[] = "model_bench";

[[noreturn]] void Fail(const std::string& why) { bench::Fail(kProgram, why); }

template <class E>
E Named(const char* option, const std::string& name) {
  const auto& names = configs::kNames<E>;
  const auto found = std::find(names.begin(), names.end(), name);
  if (found == names.end()) Fail(std::string(option) + " does not know " + name);
  return static_cast<E>(found - names.begin());
}

Arguments Parse(int argc, char** argv) {
  Arguments a;
  if (argc < 3)
    Fail(
        "usage: model_bench decode|train MODEL [--batch N] [--prompt N] [--new N] [--sequences N] "
        "[--length N] [--steps N] [--adapter RANK] [--masters float32|none] [--moments "
        "float32|int8] [--gradients float32|bfloat16] [--rounds N] [--threads N] [--dtype "
        "bfloat16|float32] [--device cpu|cuda]");
  a.mode = argv[1];
  a.model = argv[2];
  const std::pair<std::string_view, std::string*> words[] = {{"--dtype", &a.dtype},
                                                             {"--device", &a.device},
                                                             {"--masters", &a.masters},
                                                             {"--moments", &a.moments},
                                                             {"--gradients", &a.gradients}};
  bench::ReadOptions(kProgram, argc, argv, 3,
                     {{"--batch", &a.batch},
                      {"--prompt", &a.prompt},
                      {"--new", &a.fresh},
                      {"--sequences", &a.sequences},
                      {"--length", &a.length},
                      {"--steps", &a.steps},
                      {"--rounds", &a.rounds},
                      {"--threads", &a.threads},
                      {"--adapter", &a.adapter},
                      {"--group", &a.group},
                      {"--slots", &a.slots},
                      {"--greedy", &a.greedy, 0},
                      {"--record", &a.record, 0},
                      {"--prefill", &a.prefill},
                      {"--tp", &a.tp},
                      {"--together", &a.together},
                      {"--exact", &a.exact, 0}},
                     [&](std::string_view name, const char* value) {
                       for (const auto& [word, text] : words) {
                         if (word != name) continue;
                         *text = value;
                         return true;
                       }
                       return false;
                     });
  if (a.mode != "decode" && a.mode != "train") Fail("mode is decode or train");
  if (a.dtype != "bfloat16" && a.dtype != "float32") Fail("--dtype is bfloat16 or float32");
  if (a.tp > 1 && (a.mode != "decode" || a.adapter > 0))
    Fail("--tp is of decode, without adapters");
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

// Operations a second of the best of five square products of random numbers.
double ProductSpeed(const Stream& stream, DType dtype) {
  const int64_t n = stream.device().is_cpu() ? 1024 : 8192;
  std::vector<float> values(static_cast<size_t>(n));
  std::vector<std::byte> row(static_cast<size_t>(n) * ElementSize(dtype));
  policy_model::FlatBuffer x(stream, dtype, n * n), w(stream, dtype, n * n),
      y(stream, dtype, n * n);
  RandomStream random(3, 1);
  for (policy_model::FlatBuffer* each : {&x, &w}) {
    for (float& value : values) value = random.NextNormal();
    for (int64_t r = 0; r < n; ++r) {
      std::rotate(values.begin(), values.begin() + 7, values.end());
      policy_model::ConvertFloat(values, dtype, row.data());
      each->CopyFromHost(row, r * n);
    }
  }
  double best = 1e30;
  for (int i = 0; i < 6; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    policy_model::ops::Linear({.stream = stream, .dtype = dtype}, x.data(), w.data(), n, n, n,
                              /*accumulate=*/false, y.data());
    stream.Synchronize();
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    if (i > 0) best = std::min(best, seconds);
  }
  const auto size = static_cast<double>(n);
  return 2 * size * size * size / best;
}

// Of a token's forward and backward in sequences of `length`: products, and scores of attention.
double OperationsOfToken(const policy_model::ModelShape& s, int64_t length) {
  const auto products = static_cast<double>(policy_model::ParametersInProducts(s));
  return 6 * (products + static_cast<double>(s.layers * s.heads * s.head_dim * length));
}

// One untimed round, then `rounds` timed ones; prints the result unless `quiet`. `operations`: of a
// token; 0: not asked for.
void Measure(const Arguments& a, const Stream& stream, int64_t tokens, double operations,
             const std::function<void()>& round, bool quiet = false) {
  round();
  int64_t held = kernels::DeviceBytesInUse(stream.device());
  std::vector<double> seconds;
  const Usage before = Usage::Now();
  for (int64_t i = 0; i < a.rounds; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    round();
    seconds.push_back(
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    held = std::max(held, kernels::DeviceBytesInUse(stream.device()));
  }
  const Usage after = Usage::Now();
  if (quiet) return;
  std::sort(seconds.begin(), seconds.end());
  const double median = seconds[seconds.size() / 2];
  std::printf(
      "{\"bench\": \"%s\", \"dtype\": \"%s\", \"threads\": %lld, \"tokens\": %lld, \"seconds\": "
      "%.4f, "
      "\"tokens_per_s\": %.2f, \"user_s\": %.3f, \"system_s\": %.3f, \"page_faults\": %lld, "
      "\"rounds\": %lld, \"peak_mb\": %.1f",
      a.mode.c_str(), a.dtype.c_str(), static_cast<long long>(a.threads),
      static_cast<long long>(tokens), median, static_cast<double>(tokens) / median,
      after.user - before.user, after.system - before.system,
      static_cast<long long>(after.faults - before.faults), static_cast<long long>(a.rounds),
      after.peak_mb);
  if (a.tp > 1) std::printf(", \"tp\": %lld", static_cast<long long>(a.tp));
  if (stream.device().is_cuda())
    std::printf(", \"device_peak_mb\": %.1f", static_cast<double>(held) / 1e6);
  if (operations > 0) {
    const double product_speed =
        ProductSpeed(stream, a.dtype == "float32" ? DType::kFloat32 : DType::kBFloat16);
    const double processor = after.user + after.system - before.user - before.system,
                 rate = operations * static_cast<double>(tokens) / median;
    std::printf(
        ", \"tokens_per_processor_s\": %.2f, \"tflops\": %.3f, \"product_tflops\": %.3f, "
        "\"share_of_products\": %.3f",
        static_cast<double>(tokens * a.rounds) / std::max(processor, 1e-9), rate / 1e12,
        product_speed / 1e12, rate / product_speed);
  }
  std::printf("}\n");
}

std::vector<int32_t> RandomTokens(uint64_t key, int64_t count, int64_t vocab) {
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  for (size_t i = 0; i < tokens.size(); ++i) {
    tokens[i] = static_cast<int32_t>(RandomAt(1, key, 0, static_cast<uint32_t>(i)).x[0] %
                                     static_cast<uint64_t>(vocab));
  }
  return tokens;
}

// `share`: what the weights are of, where several processes compute the model.
void Decode(const Arguments& a, const policy_model::Weights& weights, DType dtype,
            const actor::EngineShare& share = {}) {
  actor::EngineOptions options;
  options.max_batch = static_cast<int32_t>(a.slots > 0 ? a.slots : a.batch * a.group);
  options.max_new_tokens = static_cast<int32_t>(a.fresh);
  options.sampling.temperature = a.greedy ? 0.0f : 1.0f;
  options.record_steps = a.record != 0;
  options.steps_together = static_cast<int32_t>(a.together);
  options.prefill_tokens = static_cast<int32_t>(a.prefill);
  if (weights.device().is_cuda()) {
    options.kv_budget_mb = 40'000;
    options.longest = static_cast<int32_t>(a.prompt + a.fresh);
  }
  actor::Engine engine(weights.shape(), weights.stream(), dtype, options, nullptr, share);
  const int64_t vocab = share.group ? share.vocab : weights.shape().vocab;
  std::vector<int32_t> first;
  Measure(
      a, weights.stream(), a.batch * a.group * a.fresh, 0,
      [&] {
        for (int64_t i = 0; i < a.batch; ++i) {
          actor::GenerateRequest r;
          r.id = static_cast<uint64_t>(i);
          r.prompt_key = static_cast<uint64_t>(i);
          r.num_samples = static_cast<int32_t>(a.group);
          r.tokens = RandomTokens(static_cast<uint64_t>(i) + 1, a.prompt, vocab);
          engine.Submit(std::move(r));
        }
        while (engine.Step(weights, 0)) {
        }
        std::vector<actor::GenerateResult> results = engine.TakeFinished();
        std::sort(results.begin(), results.end(),
                  [](const auto& x, const auto& y) { return x.id < y.id; });
        std::vector<int32_t> drawn;
        for (const auto& r : results)
          for (const auto& s : r.samples)
            drawn.insert(drawn.end(), s.tokens.begin(), s.tokens.end());
        if (static_cast<int64_t>(drawn.size()) != a.batch * a.group * a.fresh)
          Fail("decoding ended before its limit");
        if (first.empty()) first = drawn;
        // On a GPU a library may choose another product the next time.
        if (first != drawn && weights.device().is_cpu())
          Fail("decoding gave other tokens for the same prompts");
      },
      share.group && share.group->rank() > 0);
}

// Each of a.tp processes, on the GPU of its number: the whole model is there while its share is
// cut.
int DecodeTogether(const Arguments& a, DType dtype) {
  const std::filesystem::path folder =
      std::filesystem::temp_directory_path() / ("model_bench_" + std::to_string(getpid()));
  std::filesystem::create_directories(folder);
  std::vector<pid_t> children;
  for (int rank = 0; rank < static_cast<int>(a.tp); ++rank) {
    const pid_t child = fork();
    if (child > 0) {
      children.push_back(child);
      continue;
    }
    try {
      policy_model::SetThreads(static_cast<int>(a.threads));
      const auto ranks = learner::JoinInFolder(folder.string(), rank, static_cast<int>(a.tp),
                                               std::chrono::seconds(300));
      const OwnedStream stream(a.device == "cpu" ? Device(Device::kCpu) : Device::Cuda(rank));
      policy_model::Weights whole(
          a.model == "tiny" ? TinyShape() : policy_model::ReadModelConfig(a.model), stream, dtype);
      if (a.model == "tiny") whole.Initialise(1, 0.02);
      else whole.Load(a.model);
      learner::ModelShare share(*ranks, whole);
      share.Spread();
      Decode(a, share.weights(), dtype, {.group = &share, .vocab = whole.shape().vocab});
      std::fflush(stdout);
      std::_Exit(0);
    } catch (const std::exception& e) {
      std::fprintf(stderr, "model_bench: rank %d: %s\n", rank, e.what());
      std::_Exit(2);
    }
  }
  int code = 0;
  for (const pid_t child : children) {
    int status = 0;
    waitpid(child, &status, 0);
    if (status != 0) code = 2;
  }
  std::filesystem::remove_all(folder);
  return code;
}

void Train(const Arguments& a, policy_model::Weights& weights, DType dtype) {
  configs::OptimizerConfig config;
  config.learning_rate = 1e-6;
  config.masters = Named<configs::Masters>("--masters", a.masters);
  config.moments = Named<configs::Moments>("--moments", a.moments);
  config.gradients = Named<configs::Gradients>("--gradients", a.gradients);
  policy_model::Transformer transformer(weights.shape(), weights.stream(), dtype);
  learner::TrainStep step(transformer, a.sequences * a.length);
  learner::Optimizer optimizer(weights, config);
  step.UsePartsOf(weights, optimizer);
  std::vector<std::vector<int32_t>> tokens;
  const std::vector<uint8_t> mask(static_cast<size_t>(a.length), 1);
  std::vector<learner::SequenceView> views;
  for (int64_t s = 0; s < a.sequences; ++s) {
    tokens.push_back(RandomTokens(static_cast<uint64_t>(s) + 77, a.length, weights.shape().vocab));
  }
  for (const auto& t : tokens) views.push_back({.tokens = t, .mask = mask});
  const float scale = -1.0f / static_cast<float>(a.sequences * (a.length - 1));
  const double operations = OperationsOfToken(weights.shape(), a.length);
  Measure(a, weights.stream(), a.sequences * a.length * a.steps, operations, [&] {
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
    if (a.exact >= 0) {
      if (a.device == "cpu") kernels::SetExactOnCpu(a.exact > 0);
      else kernels::SetExactProducts(a.exact > 0);
    }
    if (a.tp > 1) return DecodeTogether(a, dtype);
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
