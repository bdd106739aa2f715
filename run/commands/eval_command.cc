// plumb eval MODEL DATASET: pass@1 of a model folder on prompts with known answers, by the rule
// that rewards use.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "actor/engine.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include "replay/datasets/rows/arithmetic.h"
#include "replay/datasets/rows/dataset_import.h"
#include "reward/scorer.h"
#include "run/commands/cli.h"
#include "run/commands/spooled_input.h"
#include "run/session/model_folder.h"

namespace plumb::run {
namespace {

constexpr char kArithmetic[] = "arithmetic";
constexpr size_t kPromptsInFlight = 512;  // more wait here, not in the engine

struct EvalArguments {
  std::string model, dataset, system, suffix, answers_file, fallback = "none";
  std::vector<std::string> map;
  ModelOptions options;
  int64_t samples = 1, limit = 0, max_new_tokens = 256, digits = 2, sft_examples = 200;
  double temperature = -1;  // < 0: 0 for one sample, 1 for several
  uint64_t seed = 1;
  bool json = false, raw = false;
};

std::vector<Prompt> Prompts(const EvalArguments& a, const ModelFolder& model, std::string& ledger) {
  if (a.dataset == kArithmetic) {
    replay::ArithmeticSets sets =
        replay::GenerateArithmetic({.seed = a.seed,
                                    .digits = a.digits,
                                    .sft_examples = a.sft_examples,
                                    .eval_prompts = a.limit > 0 ? a.limit : 200});
    for (Prompt& p : sets.eval) p.tokens = model.EncodePrompt(p, a.raw);
    ledger = "generated " + std::to_string(sets.eval.size()) + " sums";
    return std::move(sets.eval);
  }
  replay::ImportOptions options{.dataset = "eval",
                                .map = {},
                                .system_prompt = a.system,
                                .prompt_suffix = a.suffix,
                                .limit = a.limit,
                                .max_prompt_tokens = model.shape.max_positions - 1};
  for (const std::string& pair : a.map) {
    const size_t equals = pair.find('=');
    if (equals == std::string::npos)
      throw Error(ErrorCode::kInvalidArgument, "is \"" + pair + "\": write name=column", "--map");
    options.map[pair.substr(0, equals)] = pair.substr(equals + 1);
  }
  options.tokenize = [&](const Prompt& p) { return model.EncodePrompt(p, a.raw); };
  replay::ImportedPrompts imported;
  SpooledInput(a.dataset).Read(
      [&](const std::string& file) { imported = replay::ImportPrompts(file, options); });
  ledger = imported.ledger.Describe();
  if (std::none_of(imported.prompts.begin(), imported.prompts.end(),
                   [](const Prompt& p) { return !p.ground_truth.empty(); })) {
    throw Error(ErrorCode::kInvalidArgument,
                "no row has a ground truth: name its column with --map answer=COLUMN", a.dataset);
  }
  return std::move(imported.prompts);
}

Trajectory AsTrajectory(const Prompt& prompt, const actor::GeneratedSample& sample,
                        const Tokenizer& tokenizer) {
  Trajectory t;
  t.sample = sample.sample;
  t.tokens = prompt.tokens;
  t.tokens.insert(t.tokens.end(), sample.tokens.begin(), sample.tokens.end());
  const auto begin = static_cast<int32_t>(prompt.tokens.size()),
             end = static_cast<int32_t>(t.tokens.size());
  t.segments = {{.origin = Origin::kPrompt, .begin = 0, .end = begin},
                {.origin = Origin::kPolicy, .begin = begin, .end = end}};
  t.finish = sample.finish;
  t.unscored_reason = sample.reason;
  t.completion = tokenizer.Decode(sample.tokens);
  return t;
}

struct Tally {
  int64_t answers = 0, correct = 0, clipped = 0, unscored = 0, aborted = 0, tokens = 0,
          solved_prompts = 0;
  std::string why_unscored, why_aborted;  // of the first of each
  double share() const {
    return answers ? static_cast<double>(correct) / static_cast<double>(answers) : 0;
  }
};

// The rule is asked for what was generated; the rest gets no score and keeps the engine's reason.
std::vector<reward::PartScore> ScoresOf(reward::RewardFunction& rule,
                                        const TrajectoryGroup& group) {
  TrajectoryGroup generated = group;
  std::erase_if(generated.trajectories,
                [](const Trajectory& t) { return t.finish == FinishReason::kAborted; });
  std::vector<reward::PartScore> given;
  if (!generated.trajectories.empty())
    given = rule.Score(generated, After(std::chrono::seconds(10)));
  std::vector<reward::PartScore> scores;
  size_t next = 0;
  for (const Trajectory& t : group.trajectories) {
    scores.push_back(t.finish == FinishReason::kAborted
                         ? reward::PartScore::Failed(reward::Failure::kReported, t.unscored_reason)
                         : given.at(next++));
  }
  return scores;
}

// Wilson's interval at 95 %. Answers to one prompt are not independent: n is the number of prompts.
std::pair<double, double> Interval(double p, double n) {
  if (n <= 0) return {0, 1};
  constexpr double z = 1.959964;
  const double centre = (p + z * z / (2 * n)) / (1 + z * z / n);
  const double half = z * std::sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n);
  return {std::max(0.0, centre - half), std::min(1.0, centre + half)};
}

int Eval(EvalArguments a) {
  if (a.temperature < 0) a.temperature = a.samples > 1 ? 1.0 : 0.0;
  const ModelFolder model = LoadModel(a.model, a.options);
  std::string ledger;
  const std::vector<Prompt> prompts = Prompts(a, model, ledger);
  if (!a.json) std::fprintf(stderr, "%s: %s\n", a.dataset.c_str(), ledger.c_str());

  configs::RewardPartConfig part;
  part.name = "correct";
  part.kind = "answer";
  part.args = {"fallback=" + a.fallback};
  const auto rule = reward::MakeFunction(part, /*allow_unsandboxed=*/false);

  const actor::EngineOptions options{
      .max_new_tokens = static_cast<int32_t>(a.max_new_tokens),
      .sampling = {.temperature = static_cast<float>(a.temperature), .seed = a.seed},
      .stop = {},
      .eos = model.shape.eos_tokens};
  actor::Engine engine(model.shape, model.stream, model.dtype, options, model.tokenizer.get());
  std::unique_ptr<AppendFile> answers_file;
  if (!a.answers_file.empty())
    answers_file = RealFileSystem().OpenAppend(a.answers_file, /*truncate=*/true);

  Tally tally;
  size_t submitted = 0, finished = 0;
  const auto begin = std::chrono::steady_clock::now();
  while (finished < prompts.size() && !StopRequested()) {
    for (; submitted < prompts.size() && submitted - finished < kPromptsInFlight; ++submitted) {
      const Prompt& p = prompts[submitted];
      const int64_t room = model.shape.max_positions - static_cast<int64_t>(p.tokens.size());
      engine.Submit(
          {.id = submitted,
           .tokens = p.tokens,
           .num_samples = static_cast<int32_t>(a.samples),
           .prompt_key = actor::RandomAddress(Purpose::kEval, p.row),
           .limit = static_cast<int32_t>(std::clamp<int64_t>(room, 1, a.max_new_tokens))});
    }
    engine.Step(*model.weights, 0);
    for (const actor::GenerateResult& result : engine.TakeFinished()) {
      ++finished;
      TrajectoryGroup group;
      group.lease.purpose = Purpose::kEval;
      group.lease.num_samples = static_cast<int32_t>(a.samples);
      group.lease.prompt = prompts[result.id];
      for (const auto& sample : result.samples)
        group.trajectories.push_back(AsTrajectory(prompts[result.id], sample, *model.tokenizer));
      const auto scores = ScoresOf(*rule, group);
      bool solved = false;
      for (size_t i = 0; i < scores.size(); ++i) {
        const Trajectory& t = group.trajectories[i];
        const bool aborted = t.finish == FinishReason::kAborted,
                   scored = scores[i].scored() && !scores[i].skipped;
        const bool right = scored && scores[i].value >= 0.5;
        std::string& first = aborted ? tally.why_aborted : tally.why_unscored;
        if (!scored && first.empty())
          first = scores[i].skipped ? "the rule does not apply" : scores[i].reason;
        ++tally.answers;
        tally.correct += right;
        tally.clipped += t.finish == FinishReason::kLength;
        tally.aborted += aborted;
        tally.unscored += !scored;
        tally.tokens += t.completion_length();
        solved |= right;
        if (answers_file) {
          nlohmann::ordered_json line = {{"row", prompts[result.id].row},
                                         {"sample", t.sample},
                                         {"completion", t.completion},
                                         {"ground_truth", prompts[result.id].ground_truth},
                                         {"correct", right}};
          if (!scored) line["unscored_reason"] = scores[i].reason;
          answers_file->Append(
              line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n");
        }
      }
      tally.solved_prompts += solved;
    }
  }
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  if (StopRequested()) {
    std::fprintf(stderr, "plumb: stopped after %zu of %zu prompts\n", finished, prompts.size());
    return kExitFewerSteps;
  }
  if (tally.answers > 0 && tally.aborted == tally.answers) {
    throw Error(engine.counters().nonfinite_samples > 0 ? ErrorCode::kNonFinite
                                                        : ErrorCode::kInvalidArgument,
                "not one answer was generated: " + tally.why_aborted, a.model);
  }
  const auto [low, high] = Interval(tally.share(), static_cast<double>(prompts.size()));
  if (a.json) {
    const nlohmann::ordered_json out = {
        {"model", a.model},
        {"dataset", a.dataset},
        {"rows", ledger},
        {"prompts", prompts.size()},
        {"samples", a.samples},
        {"answers", tally.answers},
        {"correct", tally.correct},
        {"pass_at_1", tally.share()},
        {"interval_95", {low, high}},
        {"solved_prompts", tally.solved_prompts},
        {"clipped", tally.clipped},
        {"aborted", tally.aborted},
        {"unscored", tally.unscored},
        {"unscored_reason", tally.why_aborted.empty() ? tally.why_unscored : tally.why_aborted},
        {"temperature", a.temperature},
        {"tokens", tally.tokens},
        {"seconds", seconds}};
    std::printf("%s\n",
                out.dump(1, ' ', false, nlohmann::ordered_json::error_handler_t::replace).c_str());
  } else {
    std::printf("pass@1 %.4f (95 %%: %.4f to %.4f), %lld of %lld answers right, temperature %g\n",
                tally.share(), low, high, static_cast<long long>(tally.correct),
                static_cast<long long>(tally.answers), a.temperature);
    if (a.samples > 1) {
      std::printf("%lld of %zu prompts with at least one right answer of %lld\n",
                  static_cast<long long>(tally.solved_prompts), prompts.size(),
                  static_cast<long long>(a.samples));
    }
    if (tally.clipped > 0)
      std::printf("%lld answers cut at the limit\n", static_cast<long long>(tally.clipped));
    if (tally.unscored > 0) {
      std::printf("%lld answers have no score and count as wrong",
                  static_cast<long long>(tally.unscored));
      if (tally.aborted > 0) {
        std::printf(", %lld (%.1f %%) of them were never generated: %s",
                    static_cast<long long>(tally.aborted),
                    100 * static_cast<double>(tally.aborted) / static_cast<double>(tally.answers),
                    tally.why_aborted.c_str());
      }
      std::printf("%s%s\n", tally.why_unscored.empty() ? "" : "; the first of the rule: ",
                  tally.why_unscored.c_str());
    }
    std::printf("%lld tokens in %.1f s, %.0f tokens/s\n", static_cast<long long>(tally.tokens),
                seconds, static_cast<double>(tally.tokens) / std::max(1e-9, seconds));
  }
  return 0;
}

}  // namespace

void AddEvalCommand(CLI::App& app, CliResult& result) {
  auto a = std::make_shared<EvalArguments>();
  CLI::App* eval = app.add_subcommand("eval", "pass@1 on prompts with known answers");
  eval->add_option("model", a->model, "a model folder, or a run's")->required();
  eval->add_option(
          "dataset", a->dataset,
          "prompts and answers as `data import` reads them, or \"arithmetic\"; -: standard input")
      ->required();
  eval->add_option("--samples", a->samples, "answers a prompt")->check(CLI::Range(1, 1024));
  eval->add_option("--limit", a->limit, "first rows only; 0: all (arithmetic: 200)")
      ->check(CLI::NonNegativeNumber);
  eval->add_option("--temperature", a->temperature,
                   "default: 0 (greedy) for one sample, 1 for several")
      ->check(CLI::Range(0.0, 100.0));
  eval->add_option("--max-new-tokens", a->max_new_tokens, "limit of an answer (256)")
      ->check(CLI::Range(1, 1 << 20));
  eval->add_option("--system", a->system, "system message of every prompt");
  eval->add_option("--suffix", a->suffix, "appended to every prompt");
  eval->add_option("--map", a->map, "prompt=COLUMN or answer=COLUMN; any number of times")
      ->allow_extra_args(false);
  eval->add_option("--fallback", a->fallback, "answer without a marker: none | last_number")
      ->check(CLI::IsMember({"none", "last_number"}));
  eval->add_option("--answers", a->answers_file, "write every answer to this JSONL file");
  eval->add_option("--seed", a->seed,
                   "of sampling, and of generated sums (a recipe's run.seed: its held-out ones)");
  eval->add_option("--digits", a->digits, "of generated sums")->check(CLI::Range(1, 9));
  eval->add_flag("--raw", a->raw, "no chat template for text prompts");
  eval->add_flag("--json", a->json, "one JSON object");
  eval->add_option("--dtype", a->options.dtype, "auto | float32 | bfloat16");
  eval->add_option("--device", a->options.device, "cpu | cuda | cuda:N");
  eval->add_option("--bos", a->options.bos, "auto | yes | no: begin token in front of raw text");
  eval->add_option("--threads", a->options.threads, "0: one a core")->check(CLI::NonNegativeNumber);
  eval->callback([a, &result] { result.exit_code = Eval(*a); });
}

}  // namespace plumb::run
