#include "run/roles/planning/gpu_probe.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <vector>

#include "actor/engine.h"
#include "common/base/rng.h"
#include "learner/update/optimizer.h"
#include "learner/update/train_step.h"
#include "policy_model/memory/out_of_memory.h"
#include "policy_model/memory/threads.h"
#include "policy_model/speed.h"
#include "policy_model/transformer.h"
#include "run/roles/roles.h"

namespace plumb::run {
namespace {

using configs::Config;
using policy_model::ModelShape;
using policy_model::Weights;
using SteadyClock = std::chrono::steady_clock;

constexpr int64_t kMostLayers = 8, kMostLayerParameters = 600'000'000;
constexpr int64_t kMostHeadParameters = 250'000'000;
constexpr int64_t kMostTokens = 16'384;  // of a micro-batch
constexpr double kSecondsEach = 0.5;     // of passes of one kind
constexpr size_t kFewest = 3, kMost = 12;
constexpr int64_t kMostDrawn = 512, kMostDrawnOfLarge = 128;  // tokens of an answer
constexpr int64_t kLarge = 2'000'000'000;                     // parameters
constexpr uint64_t kFirstSteps = 8;  // of generation: code is loaded, steps are recorded
constexpr int64_t kDrawnWeights = int64_t{1} << 20;

ModelShape WithLayers(ModelShape shape, int64_t layers) {
  shape.layers = layers;
  shape.vocab = std::min(shape.vocab, std::max<int64_t>(1024, kMostHeadParameters / shape.hidden));
  for (std::vector<uint8_t>* each : {&shape.sliding, &shape.layer_norms, &shape.rotated}) {
    if (std::ssize(*each) > layers) each->resize(static_cast<size_t>(layers));
  }
  shape.bos_token = shape.pad_token = -1;
  shape.eos_tokens.clear();  // every answer runs to its limit
  shape.unused_tokens.clear();
  return shape;
}

// Numbers of a trained model's size: of zeros a card computes faster.
void Draw(Weights& weights) {
  RandomStream random(1, 3);
  std::vector<float> drawn(static_cast<size_t>(kDrawnWeights));
  for (float& x : drawn) x = 0.02f * static_cast<float>(random.NextNormal());
  for (const auto& set : weights.sets()) {
    std::vector<std::byte> bytes(drawn.size() * ElementSize(set->flat.dtype()));
    policy_model::ConvertFloat(drawn, set->flat.dtype(), bytes.data());
    for (int64_t at = 0; at < set->flat.elements(); at += kDrawnWeights) {
      const int64_t n = std::min(kDrawnWeights, set->flat.elements() - at);
      set->flat.CopyFromHost(
          std::span(bytes).first(static_cast<size_t>(n) * ElementSize(set->flat.dtype())), at);
    }
  }
}

std::vector<int32_t> Tokens(uint64_t key, int64_t count, int64_t vocab) {
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  for (size_t i = 0; i < tokens.size(); ++i)
    tokens[i] = static_cast<int32_t>(RandomAt(1, key, 0, static_cast<uint32_t>(i)).x[0] %
                                     static_cast<uint64_t>(vocab));
  return tokens;
}

double SecondsSince(SteadyClock::time_point begin) {
  return std::chrono::duration<double>(SteadyClock::now() - begin).count();
}

// The middling of several, behind one that loads code and chooses algorithms.
template <class F>
double Middling(const F& work) {
  work();
  std::vector<double> seconds;
  for (const auto begin = SteadyClock::now();
       seconds.size() < kFewest ||
       (seconds.size() < kMost && SecondsSince(begin) < kSecondsEach);) {
    const auto one = SteadyClock::now();
    work();
    seconds.push_back(SecondsSince(one));
  }
  std::sort(seconds.begin(), seconds.end());
  return seconds[seconds.size() / 2];
}

// A micro-batch as the recipe packs them: groups, and of one more what there is room for.
struct Batch {
  std::vector<std::vector<int32_t>> tokens;
  std::vector<std::vector<uint8_t>> masks;
  std::vector<learner::SequenceView> views;
  double computed = 0, scored = 0;  // tokens
};

Batch Fill(const StepWork& work, int64_t budget, int64_t vocab) {
  Batch batch;
  const auto prompt = std::max<int64_t>(1, std::llround(work.prompt)),
             answer = std::max<int64_t>(1, std::llround(work.answer));
  int64_t left = budget;
  for (uint64_t group = 0; group == 0 || left >= prompt + answer; ++group) {
    const std::vector<int32_t> begin = Tokens(2 * group, prompt, vocab);
    left -= prompt;
    batch.computed += static_cast<double>(prompt);
    for (int64_t k = 0; k < work.answers && (left >= answer || batch.tokens.empty()); ++k) {
      std::vector<int32_t>& sequence = batch.tokens.emplace_back(begin);
      const auto more = Tokens(2 * group + 1 + (static_cast<uint64_t>(k) << 32), answer, vocab);
      sequence.insert(sequence.end(), more.begin(), more.end());
      std::vector<uint8_t>& mask = batch.masks.emplace_back(sequence.size(), uint8_t{1});
      std::fill_n(mask.begin(), prompt, uint8_t{0});
      left -= answer;
      batch.computed += static_cast<double>(answer);
      batch.scored += static_cast<double>(answer);
    }
  }
  for (size_t i = 0; i < batch.tokens.size(); ++i)
    batch.views.push_back({batch.tokens[i], batch.masks[i]});
  return batch;
}

struct Seconds {
  double train = 0, forward = 0, update = 0, digest = 0;
};

Seconds TimeTraining(const Config& config, const ModelShape& shape, const Stream& stream,
                     const Batch& batch, int64_t budget) {
  Weights weights(shape, stream, config.model.dtype);
  Draw(weights);
  policy_model::Transformer transformer(shape, stream, config.model.dtype);
  if (config.policy.adapter == configs::Adapter::kNone)
    transformer.UseProducts(config.model.products);
  learner::TrainStep step(transformer, budget);
  configs::OptimizerConfig options = config.optimizer;
  options.offload = false;
  learner::Optimizer optimizer(weights, options);
  step.UsePartsOf(weights, optimizer);
  Seconds out;
  out.train = Middling([&] {
    optimizer.ZeroGrad();
    step.Accumulate(
        weights, batch.views, 1.0f,
        [](const learner::ScoredToken&) { return learner::TrainStep::Gradient{.logprob = 1e-6f}; },
        optimizer.gradients());
    stream.Synchronize();
  });
  out.forward = Middling([&] { step.Score(weights, batch.views, 1.0f); });
  out.update = Middling([&] {
    optimizer.Update(1e-9, 1.0);
    stream.Synchronize();
  });
  out.digest = Middling([&] { weights.ComputeDigest(); });
  return out;
}

// Of a step that draws one token for each of so many rows, at the mean length of a run's answers.
double TimeStep(const Config& config, const ModelShape& shape, const Stream& stream,
                const StepWork& work) {
  Weights weights(shape, stream, config.model.dtype);
  Draw(weights);
  const int64_t most =
      policy_model::ParametersInProducts(shape) > kLarge ? kMostDrawnOfLarge : kMostDrawn;
  const auto answer = std::max<int64_t>(1, std::llround(work.answer)),
             fresh = std::min(answer, most);
  // Of long answers the part that is not drawn here stands in the prompt, which nobody shares then;
  // of a shared one each answer has its part to read.
  const bool whole = fresh == answer;
  const double before = whole ? work.prompt
                              : static_cast<double>(answer - fresh) / 2 +
                                    work.prompt / static_cast<double>(work.answers);
  actor::EngineOptions options = EngineOptionsOf(config, shape);
  options.max_batch = static_cast<int32_t>(work.rows);
  options.max_new_tokens = static_cast<int32_t>(fresh);
  options.stop.clear();
  options.eos.clear();
  options.turns = false;
  options.record_experts = false;
  options.tasks = options.task_tokens = 0;
  actor::Engine engine(shape, stream, config.model.dtype, options);
  const int64_t each = whole ? std::min(work.answers, work.rows) : 1;
  for (int64_t begun = 0; begun < work.rows; begun += each) {
    actor::GenerateRequest request;
    request.id = static_cast<uint64_t>(begun);
    request.tokens = Tokens(7 + static_cast<uint64_t>(begun),
                            std::max<int64_t>(1, std::llround(before)), shape.vocab);
    request.num_samples = static_cast<int32_t>(std::min(each, work.rows - begun));
    engine.Submit(std::move(request));
  }
  double seconds = 0, tokens = 0;
  uint64_t steps = 0;
  for (bool more = true; more;) {
    const uint64_t drawn = engine.counters().generated_tokens,
                   filled = engine.counters().prefill_tokens;
    const auto begin = SteadyClock::now();
    more = engine.Step(weights, 0);
    const double took = SecondsSince(begin);
    const uint64_t now = engine.counters().generated_tokens - drawn;
    const bool all = now > 0 && now % static_cast<uint64_t>(work.rows) == 0 &&
                     engine.counters().prefill_tokens == filled;
    if (!all || ++steps <= kFirstSteps) continue;
    seconds += took;
    tokens += static_cast<double>(now);
  }
  engine.TakeFinished();
  return tokens > 0 ? seconds / tokens * static_cast<double>(work.rows) : 0;
}

}  // namespace

std::optional<Speeds> ProbeGpu(const Config& config, const ModelShape& shape, const Stream& stream,
                               const Lengths& lengths, int64_t free) {
  const auto begin = SteadyClock::now();
  const bool mixed = shape.hybrid.count() > 0 || !shape.experts.dense.empty();
  if (mixed || shape.layers < 2) return std::nullopt;
  policy_model::UseThreads(ThreadSharesOf(config).learner);
  const StepWork work = CountStep(config, shape, lengths, configs::Recompute::kNone);
  const int64_t layer = policy_model::ParametersInProducts(WithLayers(shape, 2)) -
                        policy_model::ParametersInProducts(WithLayers(shape, 1)),
                many = std::clamp(kMostLayerParameters / std::max<int64_t>(1, layer), int64_t{2},
                                  std::min(kMostLayers, shape.layers)),
                few = many / 2;
  const ModelShape first = WithLayers(shape, few), second = WithLayers(shape, many);
  const int64_t budget = std::min(config.optimizer.micro_batch_tokens, kMostTokens);
  const Batch batch = Fill(work, budget, second.vocab);
  Speeds speeds;
  try {
    const Seconds a = TimeTraining(config, first, stream, batch, budget),
                  b = TimeTraining(config, second, stream, batch, budget);
    const double context = (work.prompt + work.answer) / 2,
                 more = LayerOperations(second, context) - LayerOperations(first, context),
                 below = LayerOperations(first, context), head = HeadOperations(second);
    // Operations a second of the layers between the two, and of the head in what is left of the
    // first.
    const auto rates = [&](double of_first, double of_second, double times, double& layers,
                           double& of_head) {
      const double worth = 0.1 * of_second * static_cast<double>(many - few) /
                           static_cast<double>(many);  // less is noise
      layers = times * batch.computed * more / std::max(of_second - of_first, worth);
      of_head = times * batch.scored * head /
                std::max(of_first - times * batch.computed * below / layers, 0.02 * of_first);
    };
    rates(a.train, b.train, 3, speeds.train_layers, speeds.train_head);
    rates(a.forward, b.forward, 1, speeds.forward_layers, speeds.forward_head);
    const auto parameters = static_cast<double>(policy_model::ParametersInProducts(second));
    speeds.update_bytes = UpdateBytes(config, parameters) / b.update;
    speeds.publish_bytes =
        parameters * static_cast<double>(ElementSize(config.model.dtype)) / b.digest;
    if (work.rows > 0) {
      // Weights and keys of all layers, twice for what else a step takes, and as much left free.
      const auto whole =
          static_cast<int64_t>(2 * (static_cast<double>(policy_model::ParametersInProducts(shape)) *
                                        static_cast<double>(ElementSize(config.model.dtype)) +
                                    1e6 * static_cast<double>(config.rollout.kv_budget_mb)));
      const ModelShape drawn = whole < free ? WithLayers(shape, shape.layers) : second;
      const double step = TimeStep(config, drawn, stream, work);
      const double operations =
          static_cast<double>(work.rows) *
          (LayerOperations(drawn, work.prompt + work.answer / 2) + HeadOperations(drawn));
      if (step > 0) speeds.decode_layers = speeds.decode_head = operations / step;
    }
  } catch (const policy_model::OutOfMemory&) {
    return std::nullopt;
  }
  char text[200];
  std::snprintf(text, sizeof text,
                "measured here in %.1f s, %lld of %lld layers: %.4g TFLOP/s in training",
                SecondsSince(begin), static_cast<long long>(many),
                static_cast<long long>(shape.layers), speeds.train_layers / 1e12);
  speeds.source = text;
  if (speeds.decode_layers > 0) {
    std::snprintf(text, sizeof text, ", %.4g in generation, %lld answers at a time",
                  speeds.decode_layers / 1e12, static_cast<long long>(work.rows));
    speeds.source += text;
  }
  return speeds;
}

}  // namespace plumb::run
