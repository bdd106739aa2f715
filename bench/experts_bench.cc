// A layer of experts beside a dense one of equal active width, in tokens a processor second, or on
// a GPU in tokens a second.
//
//   experts_bench [--experts 16] [--per-token 2] [--hidden 512] [--width 512] [--tokens 2048]
//                 [--rounds 5] [--threads 1] [--bits 32] [--gpus 0]
//
// The dense feed-forward part has per-token x width; both run forward alone, and forward and
// backward with all gradients, which are added to what is there or ("written"), as in an update's
// first backward, written; turn by turn in each round, in float32 or, with --bits 16, bfloat16.
// --gpus 1: on the first GPU, by the clock from an idle stream to an idle stream (so with all waits
// and launches), eight passes a measurement. Prints one JSON object: medians, and the layer's share
// of the dense one's speed. A wrong result is not timed: both outputs have to be finite.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <vector>

#include "bench/bench_program.h"
#include "common/base/rng.h"
#include "policy_model/layers/experts_stage.h"
#include "policy_model/memory/pass_parts.h"
#include "policy_model/memory/torch_stream.h"
#include "policy_model/transformer.h"

namespace plumb::policy_model {
namespace {

using bench::Median;
using bench::ProcessorSeconds;

struct Arguments {
  int64_t experts = 16, per_token = 2, hidden = 512, width = 512, tokens = 2048, rounds = 5,
          threads = 1, bits = 32, gpus = 0;
};

constexpr char kProgram[] = "experts_bench";

[[noreturn]] void Fail(const std::string& why) { bench::Fail(kProgram, why); }

Arguments Parse(int argc, char** argv) {
  Arguments a;
  bench::ReadOptions(kProgram, argc, argv, 1,
                     {{"--experts", &a.experts},
                      {"--per-token", &a.per_token},
                      {"--hidden", &a.hidden},
                      {"--width", &a.width},
                      {"--tokens", &a.tokens},
                      {"--rounds", &a.rounds},
                      {"--threads", &a.threads},
                      {"--bits", &a.bits},
                      {"--gpus", &a.gpus}});
  return a;
}

// Gradients of which nothing is there before a pass.
class Written : public PassParts {
 public:
  Written(const Weights& weights, FlatBuffer& grad) : weights_(weights), grad_(grad) {}
  void Begin(Way) override {}
  void Enter(Way, int64_t) override {}
  void Leave(Way, int64_t) override {}
  void End(Way) override {}
  const void* Weight(int64_t offset) const override { return weights_.flat().at(offset); }
  float* Gradient(int64_t offset) const override { return grad_.f32() + offset; }
  bool TakeEmpty(int64_t, int64_t) const override { return true; }

 private:
  const Weights& weights_;
  FlatBuffer& grad_;
};

enum class Kind { kForward, kAdded, kWritten };

// One layer's feed-forward part with drawn weights and inputs.
class Layer {
 public:
  Layer(const ModelShape& shape, int64_t tokens, const Stream& stream, DType dtype)
      : weights_(shape, stream, dtype),
        grad_(stream, DType::kFloat32, weights_.flat().elements()),
        tokens_(tokens),
        in_(stream, dtype, tokens * shape.hidden),
        out_(stream, dtype, tokens * shape.hidden),
        d_(stream, dtype, tokens * shape.hidden),
        saved_(stream),
        scratch_(stream) {
    weights_.Initialise(1, 0.02);
    RandomStream random(2, 2);
    for (FlatBuffer* to : {&in_, &d_}) {
      std::vector<float> drawn(static_cast<size_t>(to->elements()));
      for (float& x : drawn) x = random.NextNormal();
      std::vector<std::byte> bytes(to->bytes());
      ConvertFloat(drawn, dtype, bytes.data());
      to->CopyFromHost(bytes);
    }
    const LayerSpec& spec = weights_.table().plan().layers[0];
    const LayerSlices& at = weights_.table().layer(0);
    if (spec.experts.there()) {
      routing_.load.emplace_back();
      stage_ = std::make_unique<ExpertsStage>(shape.hidden, spec, at, 0, 0);
    } else {
      stage_ = std::make_unique<FfnStage>(shape.hidden, spec, at);
    }
  }

  // Seconds of one pass: of the processor, or of the clock where a GPU computes.
  double Run(Kind kind) {
    const bool on_cpu = weights_.device().is_cpu();
    const OnStream here(weights_.stream());
    const auto now = [&] {
      if (on_cpu) return ProcessorSeconds();
      weights_.stream().Synchronize();
      return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch())
          .count();
    };
    const int passes = on_cpu ? 1 : 8;
    const double begin = now();
    for (int i = 0; i < passes; ++i) Pass(kind);
    const double seconds = (now() - begin) / passes;
    std::vector<std::byte> bytes(out_.bytes());
    out_.CopyToHost(bytes);
    std::vector<float> out(static_cast<size_t>(out_.elements()));
    ConvertToFloat(bytes.data(), weights_.dtype(), out);
    for (const float x : out) {
      if (!std::isfinite(x)) Fail("a result is not finite");
    }
    return seconds;
  }

 private:
  void Pass(Kind kind) {
    const bool backward = kind != Kind::kForward;
    if (!routing_.load.empty())
      routing_.Begin({}, tokens_, weights_.shape().experts.per_token, weights_.device().is_cpu(),
                     nullptr);
    AttentionShape attention;
    attention.tokens = tokens_;
    PackedPass pass{{{.stream = weights_.stream(), .dtype = weights_.dtype()},
                     weights_,
                     {},
                     std::nullopt,
                     routing_.load.empty() ? nullptr : &routing_},
                    attention,
                    nullptr,
                    backward,
                    saved_,
                    scratch_};
    if (kind == Kind::kWritten) pass.parts = &written_;
    saved_.Begin();
    scratch_.Begin();
    stage_->PlanForward(pass);
    if (backward) stage_->PlanBackward(pass);
    saved_.Commit();
    scratch_.Commit();
    stage_->Forward(pass, in_.data(), false, out_.data());
    if (backward) {
      pass.grad = grad_;
      stage_->Backward(pass, d_.data(), in_.data(), false, out_.data());
    }
  }

  Weights weights_;
  FlatBuffer grad_;
  const Written written_{weights_, grad_};
  const int64_t tokens_;
  FlatBuffer in_, out_, d_;
  Routing routing_;
  std::unique_ptr<Stage> stage_;
  Arena saved_, scratch_;
};

}  // namespace

int Bench(int argc, char** argv) {
  const Arguments a = Parse(argc, argv);
  SetThreads(static_cast<int>(a.threads));
  ModelShape shape = {.family = "plumb",
                      .layers = 1,
                      .hidden = a.hidden,
                      .heads = 1,
                      .kv_heads = 1,
                      .head_dim = 64,
                      .ffn = a.per_token * a.width,
                      .vocab = 8,
                      .max_positions = 8};
  if (a.bits != 16 && a.bits != 32) Fail("--bits is 16 or 32");
  const DType dtype = a.bits == 16 ? DType::kBFloat16 : DType::kFloat32;
  const OwnedStream stream(a.gpus > 0 ? Device::Cuda(0) : Device(Device::kCpu));
  Layer dense(shape, a.tokens, stream, dtype);
  shape.experts = {.count = a.experts, .widths = {a.width}, .per_token = a.per_token};
  Layer experts(shape, a.tokens, stream, dtype);
  constexpr Kind kKinds[] = {Kind::kForward, Kind::kAdded, Kind::kWritten};
  std::vector<double> seconds[6];  // of each kind: experts, dense
  for (int64_t round = 0; round <= a.rounds; ++round) {
    for (size_t k = 0; k < std::size(kKinds); ++k) {
      const double e = experts.Run(kKinds[k]), d = dense.Run(kKinds[k]);
      if (round == 0) continue;  // memory is taken
      seconds[2 * k].push_back(e);
      seconds[2 * k + 1].push_back(d);
    }
  }
  const auto rate = [&](int which) {
    return static_cast<double>(a.tokens) / Median(seconds[which]);
  };
  std::printf(
      "{\"experts_forward\": %.0f, \"dense_forward\": %.0f, \"experts_train\": %.0f, "
      "\"dense_train\": %.0f, \"experts_train_written\": %.0f, \"dense_train_written\": %.0f, "
      "\"share_forward\": %.3f, \"share_train\": %.3f, \"share_train_written\": %.3f}\n",
      rate(0), rate(1), rate(2), rate(3), rate(4), rate(5), rate(0) / rate(1), rate(2) / rate(3),
      rate(4) / rate(5));
  return 0;
}

}  // namespace plumb::policy_model

int main(int argc, char** argv) { return plumb::policy_model::Bench(argc, argv); }
