#include "run/roles/step_time.h"

#include <algorithm>
#include <cmath>

#include "actor/pages/kv_pages.h"
#include "configs/checks/distill_check.h"
#include "learner/algorithms/algorithm.h"
#include "learner/loop/memory_plan.h"
#include "learner/offline/preference_batch.h"
#include "learner/offline/preference_loss.h"
#include "policy_model/speed.h"
#include "run/roles/roles.h"

namespace plumb::run {
namespace {

using configs::AlgorithmName;
using configs::Config;
using policy_model::ModelShape;

double HeadParameters(const ModelShape& s) {
  return static_cast<double>(s.hidden * (s.scalar_head ? 1 : s.vocab));
}

// Of one update: masters and moments that come from the host's memory, and as many go back.
double LinkBytes(const Config& config, double trained) {
  if (!config.optimizer.offload) return 0;
  const learner::StateBytes state =
      learner::BytesOfState(static_cast<int64_t>(trained), 0, config.model.dtype, config.optimizer);
  return static_cast<double>(state.masters + state.moments);
}

// Of answers with keys and values: as many as the recipe allows and the budget has pages for, each
// promised those of its longest; of a group whole pages of the prompt are there once.
double RowsAtATime(const Config& config, const ModelShape& shape, const StepWork& work) {
  const double most =
      std::min(static_cast<double>(config.rollout.max_batch),
               static_cast<double>(work.groups) * static_cast<double>(work.answers));
  if (shape.window > 0 || shape.hybrid.count() > 0) return most;  // others give pages back
  const actor::EngineOptions engine = EngineOptionsOf(config, shape);
  const auto page = static_cast<double>(engine.page_tokens);
  const double pages = static_cast<double>(engine.kv_budget_mb) * (1 << 20) /
                       static_cast<double>(actor::KvPages::PageBytes(
                           shape, config.model.dtype, engine.page_tokens, engine.kv_format));
  const double shared = std::floor(work.prompt / page),
               own = std::ceil((work.prompt + work.answer) / page) - shared +
                     shared / static_cast<double>(work.answers);
  return std::clamp(std::floor(pages / own), 1.0, most);
}

double Bounded(double given, double most) { return given > 0 ? std::min(given, most) : most; }

}  // namespace

double LayerOperations(const ModelShape& s, double context) {
  const double products =
      static_cast<double>(policy_model::ParametersInProducts(s)) - HeadParameters(s);
  double seen = 0;
  for (int64_t l = 0; l < s.layers; ++l) {
    const auto near = static_cast<double>(s.window + s.gate_top_k);
    seen += s.slides(l) ? std::min(context, near) : context;
    if (!s.sees_table.empty() && s.sees_table[static_cast<size_t>(l)] != 0)
      seen += static_cast<double>(s.table.rows);
  }
  return 2 * products + 4 * static_cast<double>(s.heads * s.head_dim) * seen;
}

double HeadOperations(const ModelShape& shape) { return 2 * HeadParameters(shape); }

// Gradients are read for the norm and once more, moments and masters read and written, weights
// written, and read where they are the masters. Gradients in bfloat16 are joined from float32, once
// at least.
double UpdateBytes(const Config& config, double trained) {
  const learner::StateBytes state =
      learner::BytesOfState(static_cast<int64_t>(trained), 0, config.model.dtype, config.optimizer);
  const bool joined = config.optimizer.gradients == configs::Gradients::kBFloat16;
  return static_cast<double>((joined ? 8 : 2) * state.gradients +
                             2 * (state.moments + state.masters) +
                             (state.masters > 0 ? 1 : 2) * state.weights);
}

StepWork CountStep(const Config& config, const ModelShape& shape, const Lengths& lengths,
                   configs::Recompute recompute) {
  StepWork work;
  const bool offline = configs::IsOffline(config),
             sft = config.algorithm.name == AlgorithmName::kSft;
  const auto positions = static_cast<double>(shape.max_positions);
  double passes = 1, forwards = 0;  // over all tokens
  if (offline) {
    const bool compares = config.algorithm.name == AlgorithmName::kDpo &&
                          learner::UsesReference(learner::LossesOf(config.preference));
    forwards += compares ? 1 : 0;  // in a run's first pass over its pairs
    const double longest = std::min(
        static_cast<double>(sft ? config.sft.max_tokens : config.preference.max_tokens), positions);
    work.groups = sft ? config.sft.batch : config.preference.batch;
    work.answers = sft ? 1 : 2;
    work.prompt = Bounded(lengths.prompt, longest / 2);
    work.answer = Bounded(lengths.answer, longest - work.prompt);
  } else {
    work.groups = config.rollout.prompts_per_step;
    work.answers = config.rollout.samples_per_prompt;
    // Of what both have room in, the answer first: prompts are mostly shorter than they may be.
    work.answer =
        Bounded(lengths.answer,
                std::min(static_cast<double>(config.rollout.max_new_tokens), positions - 1));
    work.prompt = Bounded(
        lengths.prompt,
        std::min(static_cast<double>(config.data.max_prompt_tokens), positions - work.answer));
    passes = static_cast<double>(config.algorithm.epochs);
    const bool ahead = config.run.max_staleness > 0 || config.replay.groups_per_step > 0;
    forwards += config.algorithm.recompute_logprobs || ahead ? 1 : 0;
    forwards += learner::NeedsReference(config) ? 1 : 0;
    forwards += configs::Distills(config) ? 1 : 0;  // as if it were of the policy's size
  }
  const auto groups = static_cast<double>(work.groups), answers = static_cast<double>(work.answers);
  // The prompt of a group is laid down once in each micro-batch that has answers of it.
  const double group = work.prompt + answers * work.answer,
               budget = static_cast<double>(config.optimizer.micro_batch_tokens),
               in_one =
                   std::max(1.0, std::floor((budget - work.prompt) / std::max(1.0, work.answer))),
               parts = group <= budget ? 1 : std::ceil(answers / std::min(answers, in_one));
  work.trained_tokens = passes * groups * (parts * work.prompt + answers * work.answer);
  const double scored = groups * answers * work.answer, context = (work.prompt + work.answer) / 2,
               layer = LayerOperations(shape, context), head = HeadOperations(shape);
  const bool adapter = config.policy.adapter != configs::Adapter::kNone;
  const double backward = adapter ? 1 : 2;  // a base that is not trained has no gradient
  const double again = recompute == configs::Recompute::kLayer ? 1 : 0;
  const double all = groups * (parts * work.prompt + answers * work.answer);
  const bool critic = config.algorithm.name == AlgorithmName::kPpo &&
                      config.critic.mode != configs::CriticMode::kShared;
  const double models = critic ? 2 : 1;
  work.train_layers = models * work.trained_tokens * layer * (1 + backward + again);
  work.train_head = passes * scored * head * (1 + backward);
  if (critic) forwards += 1;  // its values before the update
  work.forward_layers = forwards * all * layer;
  work.forward_head = (forwards - (critic ? 1 : 0)) * scored * head;
  const double trained = adapter ? 0
                                 : static_cast<double>(policy_model::ParametersInProducts(shape)) +
                                       (shape.tied ? 0 : HeadParameters(shape)),
               updates = offline ? 1 : passes * static_cast<double>(config.algorithm.minibatches),
               element = static_cast<double>(ElementSize(config.model.dtype));
  work.update_bytes = models * updates * UpdateBytes(config, trained);
  work.link_bytes = models * updates * LinkBytes(config, trained);
  work.publish_bytes = offline ? 0 : trained * element;
  if (offline) return work;
  work.rows = static_cast<int64_t>(RowsAtATime(config, shape, work));
  work.prefill = groups * work.prompt * LayerOperations(shape, work.prompt / 2) + groups * head;
  const double drawn = groups * answers * work.answer;
  work.decode_layers = drawn * LayerOperations(shape, work.prompt + work.answer / 2);
  work.decode_head = drawn * head;
  // A step reads the weights once, and what each answer has seen, a group's prompt for all of its
  // answers at once; logits are written and read again to draw from.
  constexpr double kLogitPasses = 4;
  const double steps = drawn / static_cast<double>(work.rows),
               cached = 2 * static_cast<double>(shape.kv_width() * shape.layers) * element;
  work.decode_bytes =
      steps * static_cast<double>(policy_model::ParametersInProducts(shape)) * element;
  work.decode_row_bytes = drawn * ((work.prompt / answers + work.answer / 2) * cached +
                                   kLogitPasses * 4 * static_cast<double>(shape.vocab));
  work.decode_layer_steps = steps * static_cast<double>(shape.layers);
  return work;
}

StepTime TimeOf(const StepWork& work, const Speeds& speeds) {
  const auto over = [](double work_done, double speed) {
    return speed > 0 ? work_done / speed : 0;
  };
  StepTime time;
  const double drawing =
      over(work.decode_layers, speeds.decode_layers) + over(work.decode_head, speeds.decode_head);
  time.generate = over(work.prefill, speeds.forward_layers) +
                  std::max(drawing, over(work.decode_bytes, speeds.decode_bytes)) +
                  over(work.decode_row_bytes, speeds.decode_bytes) +
                  work.decode_layer_steps * speeds.decode_layer_s;
  time.train = over(work.train_layers, speeds.train_layers) +
               over(work.train_head, speeds.train_head) +
               over(work.forward_layers, speeds.forward_layers) +
               over(work.forward_head, speeds.forward_head) +
               std::max(over(work.update_bytes, speeds.update_bytes),
                        over(work.link_bytes, speeds.link_bytes));
  time.publish = over(work.publish_bytes, speeds.publish_bytes);
  return time;
}

}  // namespace plumb::run
