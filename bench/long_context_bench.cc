// A model with a window at the length of long contexts: what training on one sequence and answering
// behind it take, in processor time and memory.
//
//   long_context_bench train|decode [--tokens 65536] [--window 512] [--gate-top-k 0] [--layers 2]
//                                   [--hidden 128] [--new 64] [--threads 1]
//                                   [--kv-heads 2] [--kv-rank 0]
//
// Rotary base 50,000; drawn weights, 4 heads, with --kv-rank latent attention of that rank, 256
// tokens in the vocabulary. train: forward and backward of one sequence. decode: a prompt of that
// length, then --new greedy tokens by the engine. Prints one JSON object: processor seconds in user
// code of the step, or of the prompt and of each new token, bytes of keys and values a token, and
// the peak of resident memory above what the process had before it. A wrong result is not timed:
// log-probs have to be below 0 and gradients finite, and decoding has to reach its limit.
#include <sys/resource.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "actor/engine.h"
#include "bench/bench_program.h"
#include "common/base/error.h"
#include "common/base/rng.h"
#include "policy_model/memory/weights.h"
#include "policy_model/transformer.h"

namespace plumb {
namespace {

struct Arguments {
  bool train = true;
  int64_t tokens = 65536, window = 512, gate = 0, layers = 2, hidden = 128, fresh = 64, threads = 1,
          kv_heads = 2, kv_rank = 0;
};

constexpr char kProgram[] = "long_context_bench";

[[noreturn]] void Fail(const std::string& why) { bench::Fail(kProgram, why); }

Arguments Parse(int argc, char** argv) {
  Arguments a;
  const std::string_view mode = argc > 1 ? argv[1] : "";
  if (mode != "train" && mode != "decode")
    Fail("usage: long_context_bench train|decode [--tokens N] [--window N] [--gate-top-k N] ...");
  a.train = mode == "train";
  bench::ReadOptions(kProgram, argc, argv, 2,
                     {{"--tokens", &a.tokens, 0},
                      {"--window", &a.window, 0},
                      {"--gate-top-k", &a.gate, 0},
                      {"--layers", &a.layers, 0},
                      {"--hidden", &a.hidden, 0},
                      {"--new", &a.fresh, 0},
                      {"--threads", &a.threads, 0},
                      {"--kv-heads", &a.kv_heads, 0},
                      {"--kv-rank", &a.kv_rank, 0}});
  return a;
}

struct Usage {
  double user = 0, peak_mb = 0;
  static Usage Now() {
    rusage r{};
    getrusage(RUSAGE_SELF, &r);
    return {static_cast<double>(r.ru_utime.tv_sec) + 1e-6 * static_cast<double>(r.ru_utime.tv_usec),
            static_cast<double>(r.ru_maxrss) / 1e3 * 1.024};
  }
};

policy_model::ModelShape ShapeOf(const Arguments& a) {
  policy_model::ModelShape s;
  s.family = "plumb";
  s.layers = a.layers;
  s.hidden = a.hidden;
  s.heads = 4;
  s.kv_heads = a.kv_heads;
  s.head_dim = a.hidden / 4;
  s.ffn = 3 * a.hidden;
  s.vocab = 256;
  s.max_positions = a.tokens + a.fresh;
  s.rope_theta = 50000;
  s.window = a.window;
  s.gate_top_k = a.gate;
  if (a.kv_rank > 0) {
    s.kv_heads = s.heads;
    s.latent = {.kv_rank = a.kv_rank, .nope = s.head_dim, .rope = 16, .value = s.head_dim};
    s.head_dim = s.latent.head();
  }
  return s;
}

std::vector<int32_t> RandomTokens(int64_t count) {
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  RandomStream random(1, 2);
  for (int32_t& t : tokens) t = static_cast<int32_t>(random.NextBelow(256));
  return tokens;
}

void Train(const Arguments& a, const policy_model::Weights& weights) {
  policy_model::Transformer model(weights.shape(), Device::kCpu, DType::kFloat32);
  policy_model::FlatBuffer grad(Device::kCpu, DType::kFloat32, weights.flat().elements());
  const auto tokens = RandomTokens(a.tokens);
  policy_model::PackedBatch batch;
  batch.Clear();
  batch.Append(tokens, std::vector<uint8_t>(tokens.size(), 1));
  std::vector<float> logprob(batch.rows.size());
  const std::vector<float> g(logprob.size(), -1.0f / static_cast<float>(logprob.size()));
  const Usage before = Usage::Now();
  model.Forward(weights, batch, {.entropy = false}, true, logprob, {});
  model.Backward(weights, batch, g, {}, grad);
  const Usage after = Usage::Now();
  for (const float x : logprob) {
    if (!(x < 0)) Fail("a log-prob is not below 0");
  }
  for (int64_t i = 0; i < grad.elements(); ++i) {
    if (!std::isfinite(grad.f32()[i])) Fail("a gradient is not finite");
  }
  std::printf("{\"mode\": \"train\", \"tokens\": %lld, \"user_s\": %.3f, \"peak_mb\": %.1f}\n",
              static_cast<long long>(a.tokens), after.user - before.user,
              after.peak_mb - before.peak_mb);
}

void Decode(const Arguments& a, const policy_model::Weights& weights) {
  const Usage before = Usage::Now();
  actor::EngineOptions options;
  options.max_batch = 1;
  options.max_new_tokens = static_cast<int32_t>(a.fresh);
  options.sampling.temperature = 0;
  actor::Engine engine(weights.shape(), Device::kCpu, DType::kFloat32, options);
  actor::GenerateRequest request;
  request.tokens = RandomTokens(a.tokens);
  engine.Submit(std::move(request));
  std::vector<double> ends;  // of steps
  do {
    ends.push_back(Usage::Now().user);
  } while (engine.Step(weights, 0));
  const auto results = engine.TakeFinished();
  const auto fresh = static_cast<size_t>(a.fresh);
  if (results.size() != 1 || results[0].samples[0].tokens.size() != fresh)
    Fail("decoding ended before its limit");
  // The last steps gave a token each, those before them went through the prompt.
  const double prompt_end = ends[ends.size() - fresh],
               each = (ends.back() - prompt_end) / static_cast<double>(fresh - 1);
  std::printf(
      "{\"mode\": \"decode\", \"tokens\": %lld, \"prompt_user_s\": %.3f, \"token_user_ms\": %.3f, "
      "\"kv_bytes_a_token\": %.1f, \"peak_mb\": %.1f}\n",
      static_cast<long long>(a.tokens), prompt_end - before.user, 1e3 * each,
      static_cast<double>(engine.counters().most_kv_bytes) /
          static_cast<double>(a.tokens + a.fresh),
      Usage::Now().peak_mb - before.peak_mb);
}

}  // namespace
}  // namespace plumb

int main(int argc, char** argv) {
  using namespace plumb;
  const Arguments a = Parse(argc, argv);
  try {
    policy_model::SetThreads(static_cast<int>(a.threads));
    policy_model::Weights weights(ShapeOf(a), Device::kCpu, DType::kFloat32);
    weights.Initialise(1, 0.02);
    if (a.train) Train(a, weights);
    else Decode(a, weights);
  } catch (const Error& e) {
    Fail(e.what());
  }
  return 0;
}
