#include "run/roles/speed_probe.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <vector>

#include "actor/engine.h"
#include "common/base/error.h"
#include "common/base/json/strict_json.h"
#include "common/base/rng.h"
#include "common/base/size_text.h"
#include "kernels/device/device_memory.h"
#include "learner/loop/memory_plan.h"
#include "learner/update/optimizer.h"
#include "learner/update/train_step.h"
#include "policy_model/memory/threads.h"
#include "policy_model/speed.h"
#include "policy_model/transformer.h"
#include "run/roles/planning/gpu_probe.h"
#include "run/roles/roles.h"

namespace plumb::run {
namespace {

using configs::Config;
using policy_model::ModelShape;
using policy_model::Weights;
using SteadyClock = std::chrono::steady_clock;

constexpr int64_t kMostVocabulary = 16'384;
constexpr double kMostParameters = 60e6;  // of the model with two layers: 1 GB with its state
constexpr int64_t kTokens = 1024;         // of a pass that is timed
// Operations of a pass that is timed: models of some 20 million numbers in products take shorter
// passes, a slow machine fewer of them.
constexpr double kPassOperations = 20e9;
constexpr int64_t kFewestTokens = 128;
// Others on the machine make a pass slower, never faster: of several, the fastest counts.
constexpr size_t kMostRounds = 25;
constexpr size_t kMaxFileBytes = 1 << 16;

// Of this program on one H200 (docs/benchmarks.md, "Training steps on a GPU", "Generation with
// attention on tensor cores"). Training without its updates reached 43, 51 and 59 % of the card's
// published products at widths of 896, 1,536 and 3,584: norms and activations take a time beside
// products that falls with the width. Steps of generation: their products, their reads, and what
// each layer takes whatever it computes.
constexpr double kTrainSlope = 720, kTrainLimit = 1.5;  // 1 / share = limit + slope / width
constexpr double kDecodeShare = 0.45, kDecodeMemoryShare = 0.62, kDecodeLayerSeconds = 55e-6;
constexpr double kUpdateShare = 0.85, kMemoryShare = 0.6;
// Of PCIe, with pieces coming and going at once (learner/update/offload/state_stream.h).
constexpr double kLinkShare = 0.7;
// Of a CPU's best square product, what a layer with its norms and scores reaches.
constexpr double kLayerShare = 0.6;

constexpr std::array kCards = {
    Card{.name = "a100", .memory_gb = 80, .products = 312e12, .memory = 2.0e12, .link = 32e9},
    Card{.name = "h100", .memory_gb = 80, .products = 989e12, .memory = 3.35e12, .link = 64e9},
    Card{.name = "h200", .memory_gb = 141, .products = 989e12, .memory = 4.8e12, .link = 64e9},
    Card{.name = "l40s", .memory_gb = 48, .products = 362e12, .memory = 0.864e12, .link = 32e9},
    Card{.name = "4090", .memory_gb = 24, .products = 165e12, .memory = 1.008e12, .link = 32e9}};

// Of several measurements of one kind.
struct Timing {
  double best = 0, median = 0;  // seconds
};

template <class F>
double SecondsOf(const F& work) {
  const auto begin = SteadyClock::now();
  work();
  return std::chrono::duration<double>(SteadyClock::now() - begin).count();
}

Timing Summary(std::vector<double> seconds) {
  if (seconds.empty()) return {};
  std::sort(seconds.begin(), seconds.end());
  return {.best = seconds.front(), .median = seconds[seconds.size() / 2]};
}

// Twice at least, and then until `until` or kMostRounds.
template <class F>
Timing Repeated(SteadyClock::time_point until, const F& work) {
  std::vector<double> seconds;
  while (seconds.size() < 2 || (seconds.size() < kMostRounds && SteadyClock::now() < until))
    seconds.push_back(SecondsOf(work));
  return Summary(std::move(seconds));
}

ModelShape Shallow(ModelShape shape, int64_t layers) {
  shape.layers = layers;
  shape.vocab = std::min(shape.vocab, kMostVocabulary);
  const auto cut = [&](std::vector<uint8_t>& of_layers) {
    if (static_cast<int64_t>(of_layers.size()) > layers)
      of_layers.resize(static_cast<size_t>(layers));
  };
  cut(shape.sliding);
  cut(shape.layer_norms);
  cut(shape.rotated);
  shape.bos_token = shape.pad_token = -1;
  shape.eos_tokens.clear();  // every answer runs to its limit
  shape.unused_tokens.clear();
  return shape;
}

std::vector<int32_t> RandomTokens(uint64_t key, int64_t count, int64_t vocab) {
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  for (size_t i = 0; i < tokens.size(); ++i)
    tokens[i] = static_cast<int32_t>(RandomAt(1, key, 0, static_cast<uint32_t>(i)).x[0] %
                                     static_cast<uint64_t>(vocab));
  return tokens;
}

// Seconds of a model with one or two layers.
struct Seconds {
  Timing train, forward, decode;  // of all tokens, of a step of all rows
  Timing update, digest;
};

struct Sizes {
  int64_t sequences = 1, length = 0, rows = 1, prompt = 1, fresh = 16;
};

Seconds TimeModel(const Config& config, const ModelShape& shape, const Stream& stream,
                  const Sizes& sizes, double budget_s) {
  // Where each kind ends, in shares of what there is.
  const auto begin = SteadyClock::now();
  const auto at = [&](double share) {
    return begin + std::chrono::duration_cast<SteadyClock::duration>(
                       std::chrono::duration<double>(share * budget_s));
  };
  const DType type = config.model.dtype;
  Weights weights(shape, stream, type);
  weights.Initialise(1, 0.02);
  policy_model::Transformer transformer(shape, stream, type);
  if (config.policy.adapter == configs::Adapter::kNone)
    transformer.UseProducts(config.model.products);
  learner::TrainStep step(transformer, sizes.sequences * sizes.length);
  learner::Optimizer optimizer(weights, config.optimizer);
  step.UsePartsOf(weights, optimizer);
  std::vector<std::vector<int32_t>> tokens;
  std::vector<learner::SequenceView> views;
  const std::vector<uint8_t> mask(static_cast<size_t>(sizes.length), 1);
  for (int64_t s = 0; s < sizes.sequences; ++s)
    tokens.push_back(RandomTokens(static_cast<uint64_t>(s), sizes.length, shape.vocab));
  for (const auto& t : tokens) views.push_back({.tokens = t, .mask = mask});
  Seconds out;
  const auto train = [&] {
    step.Accumulate(
        weights, views, 1.0f,
        [](const learner::ScoredToken&) { return learner::TrainStep::Gradient{.logprob = 1e-6f}; },
        optimizer.gradients());
    stream.Synchronize();
  };
  train();
  out.train = Repeated(at(0.45), train);
  out.forward = Repeated(at(0.6), [&] { step.Score(weights, views, 1.0f); });
  out.update = Repeated(at(0.67), [&] { optimizer.Update(1e-9, 1.0); });
  out.digest = Repeated(at(0.7), [&] { weights.ComputeDigest(); });
  if (configs::IsOffline(config)) return out;
  actor::Engine engine(shape, stream, type,
                       {.max_batch = static_cast<int32_t>(sizes.rows),
                        .page_tokens = static_cast<int32_t>(config.rollout.page_tokens),
                        .prefill_tokens = static_cast<int32_t>(config.rollout.prefill_tokens),
                        .max_new_tokens = static_cast<int32_t>(sizes.fresh),
                        .steps_together = 1});
  actor::GenerateRequest request;
  request.tokens = RandomTokens(99, sizes.prompt, shape.vocab);
  request.num_samples = static_cast<int32_t>(sizes.rows);
  engine.Submit(std::move(request));
  std::vector<double> steps;
  for (bool more = true; more;) {
    const uint64_t drawn = engine.counters().generated_tokens,
                   filled = engine.counters().prefill_tokens;
    const double seconds = SecondsOf([&] { more = engine.Step(weights, 0); });
    const bool whole =
        engine.counters().generated_tokens - drawn == static_cast<uint64_t>(sizes.rows);
    if (more && whole && engine.counters().prefill_tokens == filled) steps.push_back(seconds);
    if (steps.size() >= 2 && SteadyClock::now() > at(1)) break;
  }
  engine.TakeFinished();
  out.decode = Summary(std::move(steps));
  return out;
}

// `why`: the model itself is not tried.
Speeds OfProducts(const Stream& stream, DType type, const char* why) {
  const double best = policy_model::MeasureProductSpeed(stream, type), layers = best * kLayerShare;
  char text[160];
  std::snprintf(
      text, sizeof text,
      "this machine's products, %.0f GFLOP/s, of which layers are taken to reach %.0f %%; "
      "the model's own %s",
      best / 1e9, 100 * kLayerShare, why);
  return {.source = text,
          .train_layers = layers,
          .train_head = layers,
          .forward_layers = layers,
          .forward_head = layers,
          .decode_layers = layers,
          .decode_head = layers};
}

}  // namespace

Speeds ProductSpeeds(const Stream& stream, DType type) {
  return OfProducts(stream, type, "layers were not tried");
}

namespace {

// Operations a second of what makes the difference, or of all where that is lost in the noise.
double Rate(double operations, double one, double two) {
  return operations / std::max(two - one, 0.2 * two);
}

}  // namespace

std::string BusyText(double fastest, double middling, double ratio) {
  if (ratio < kBusy) return "";
  char text[240];
  std::snprintf(text, sizeof text,
                "; the machine is busy: passes of training, heads included, came to %.3g to %.3g "
                "GFLOP/s, of which the fastest counts; a run beside others takes longer",
                middling / 1e9, fastest / 1e9);
  return text;
}

Speeds MeasureSpeeds(const Config& config, const ModelShape& shape, const Stream& stream,
                     const Lengths& lengths, double most_seconds) {
  const auto begin = SteadyClock::now();
  const double budget = std::min(most_seconds, kMostSeconds);
  policy_model::UseThreads(ThreadSharesOf(config).learner);
  const ModelShape one = Shallow(shape, 1), two = Shallow(shape, 2);
  const StepWork work = CountStep(config, shape, lengths, configs::Recompute::kNone);
  // Of layers of several kinds no two stand for all: then products alone are measured, too.
  if (stream.device().is_cuda()) {
    const auto speeds =
        ProbeGpu(config, shape, stream, lengths, kernels::DeviceBytesFree(stream.device()));
    return speeds ? *speeds : OfProducts(stream, config.model.dtype, "could not be tried");
  }
  const bool mixed = shape.hybrid.count() > 0 || !shape.experts.dense.empty();
  if (mixed) return OfProducts(stream, config.model.dtype, "are of several kinds");
  if (static_cast<double>(policy_model::ParametersInProducts(two)) > kMostParameters)
    return OfProducts(stream, config.model.dtype, "are too large to be tried");
  Sizes sizes;
  const auto pass_tokens =
      std::clamp(static_cast<int64_t>(kPassOperations / 6 /
                                      static_cast<double>(policy_model::ParametersInProducts(two))),
                 kFewestTokens, kTokens);
  sizes.length = std::clamp<int64_t>(std::llround(work.prompt + work.answer), 2,
                                     std::min(pass_tokens, shape.max_positions));
  sizes.sequences = std::max<int64_t>(1, pass_tokens / sizes.length);
  sizes.rows = std::max<int64_t>(1, work.rows);
  sizes.fresh = std::min<int64_t>(12, shape.max_positions / 2);
  sizes.prompt = std::clamp<int64_t>(std::llround(work.prompt + work.answer / 2), 1,
                                     std::min(pass_tokens, shape.max_positions - sizes.fresh));
  const Seconds first = TimeModel(config, one, stream, sizes, budget * 0.45),
                second = TimeModel(config, two, stream, sizes, budget * 0.55);
  // Of the shallow models, counted as the step is.
  const auto tokens = static_cast<double>(sizes.sequences * sizes.length);
  const auto products = [](const ModelShape& s) {
    return 2 * static_cast<double>(policy_model::ParametersInProducts(s));
  };
  const double seen = 4 * static_cast<double>(shape.heads * shape.head_dim);
  const double layer = products(two) - products(one),
               trained = tokens * (layer + seen * static_cast<double>(sizes.length) / 2),
               head = 2 * static_cast<double>(one.hidden * (one.scalar_head ? 1 : one.vocab));
  Speeds speeds;
  const auto rest = [](double first_s, double layer_s) {
    return std::max(first_s - layer_s, 0.05 * first_s);
  };
  speeds.train_layers = Rate(3 * trained, first.train.best, second.train.best);
  speeds.train_head = 3 * tokens * head / rest(first.train.best, 3 * trained / speeds.train_layers);
  speeds.forward_layers = Rate(trained, first.forward.best, second.forward.best);
  speeds.forward_head = tokens * head / rest(first.forward.best, trained / speeds.forward_layers);
  const double parameters = static_cast<double>(policy_model::ParametersInProducts(two));
  speeds.update_bytes = UpdateBytes(config, parameters) / second.update.best;
  speeds.publish_bytes =
      parameters * static_cast<double>(ElementSize(config.model.dtype)) / second.digest.best;
  if (second.decode.best > 0) {
    const auto rows = static_cast<double>(sizes.rows);
    const double drawn = rows * (layer + seen * static_cast<double>(sizes.prompt));
    speeds.decode_layers = Rate(drawn, first.decode.best, second.decode.best);
    speeds.decode_head = rows * head / rest(first.decode.best, drawn / speeds.decode_layers);
  }
  char text[120];
  std::snprintf(text, sizeof text, "measured here in %.1f s: layers %.3g GFLOP/s in training",
                std::chrono::duration<double>(SteadyClock::now() - begin).count(),
                speeds.train_layers / 1e9);
  speeds.source = text;
  if (speeds.decode_layers > 0) {
    std::snprintf(text, sizeof text, ", %.3g in generation", speeds.decode_layers / 1e9);
    speeds.source += text;
  }
  const double best = first.train.best + second.train.best,
               middling = first.train.median + second.train.median,
               both = 3 * (3 * trained + 2 * tokens * head);  // of one layer and of two, with heads
  speeds.middling = middling / best;
  speeds.source += BusyText(both / best, both / middling, speeds.middling);
  return speeds;
}

const Card& FindCard(const std::string& name) {
  std::string known;
  for (const Card& card : kCards) {
    if (name == card.name) return card;
    known += (known.empty() ? "" : ", ") + std::string(card.name);
  }
  throw Error(ErrorCode::kInvalidArgument,
              "'" + name + "' is no card whose speeds are known here (" + known +
                  "): name one of them, or give speeds in a file (--rates)",
              "--gpu");
}

Speeds SpeedsOf(const Card& card, const configs::ModelConfig& model, const ModelShape& shape) {
  const double head = card.products / (model.dtype == DType::kFloat32 ? 2 : 1),  // TF32
      layers = model.products == configs::Products::kFp16 ? card.products : head,
               share = 1 / (kTrainLimit + kTrainSlope / static_cast<double>(shape.hidden));
  char text[240];
  std::snprintf(text, sizeof text,
                "%s, published: %.0f TFLOP/s, %s/s; reached in training at this width %.0f %%, in "
                "generation %.0f %%, of memory %.0f %% (docs/benchmarks.md)",
                card.name, layers / 1e12, SizeText(static_cast<int64_t>(card.memory)).c_str(),
                100 * share, 100 * kDecodeShare, 100 * kDecodeMemoryShare);
  return {.source = text,
          .train_layers = share * layers,
          .train_head = share * head,
          .forward_layers = share * layers,
          .forward_head = share * head,
          .decode_layers = kDecodeShare * head,
          .decode_head = kDecodeShare * head,
          .decode_bytes = kDecodeMemoryShare * card.memory,
          .decode_layer_s = kDecodeLayerSeconds,
          .update_bytes = kUpdateShare * card.memory,
          .publish_bytes = kMemoryShare * card.memory,
          .link_bytes = kLinkShare * card.link};
}

Speeds ReadSpeeds(const std::string& path) {
  const auto json = ReadStrictJson(path, kMaxFileBytes);
  const auto refuse = [&](const std::string& why) {
    throw Error(ErrorCode::kInvalidArgument,
                why +
                    ": {\"train\": operations a second, \"forward\": ..., \"decode\": ..., "
                    "\"memory\": bytes a second}, and \"link\" for optimizer.offload",
                path);
  };
  if (!json.is_object()) refuse("is no object");
  const auto number = [&](const char* key) {
    const auto found = json.find(key);
    if (found == json.end() || !found->is_number() || !(found->get<double>() > 0))
      refuse("'" + std::string(key) + "' is not a number above 0");
    return found->get<double>();
  };
  const double train = number("train"), forward = number("forward"), decode = number("decode"),
               memory = number("memory");
  const double link = json.contains("link") ? number("link") : 0;
  if (json.size() != (json.contains("link") ? 5u : 4u)) refuse("holds other keys");
  return {.source = "of " + path,
          .train_layers = train,
          .train_head = train,
          .forward_layers = forward,
          .forward_head = forward,
          .decode_layers = decode,
          .decode_head = decode,
          .decode_bytes = memory,
          .update_bytes = memory,
          .publish_bytes = memory,
          .link_bytes = link};
}

}  // namespace plumb::run
