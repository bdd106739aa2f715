// plumb eval MODEL DATA: what a model is worth: right answers, a recipe's rewards, preference
// pairs, perplexity.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/output_path.h"
#include "common/base/place.h"
#include "common/base/wilson_interval.h"
#include "configs/config.h"
#include "replay/datasets/rows/arithmetic.h"
#include "replay/datasets/rows/dataset_import.h"
#include "run/commands/checked_numbers.h"
#include "run/commands/cli.h"
#include "run/commands/model_options.h"
#include "run/commands/spooled_input.h"
#include "run/models/answer_eval.h"
#include "run/models/eval_advice.h"
#include "run/models/line_file.h"
#include "run/models/pair_eval.h"
#include "run/models/perplexity_eval.h"
#include "run/report/count_progress.h"
#include "run/session/recipe/recipe_check.h"
#include "run/session/recipe/usual_truth.h"

namespace plumb::run {
namespace {

using OrderedJson = nlohmann::ordered_json;
constexpr char kArithmetic[] = "arithmetic";

struct EvalArguments {
  std::string model, dataset, answers_file, fallback = "none";
  std::string recipe, rewards, reference;
  std::vector<std::string> map, overrides, stop;
  std::optional<std::string> system, suffix;
  ModelOptions options;
  std::optional<int64_t> samples, limit, max_new_tokens, digits;
  int64_t batch_tokens = 4096;
  std::optional<double> temperature;
  std::optional<uint64_t> seed;
  double beta = 0.1;
  // How people call what `dataset` is a copy of.
  std::function<std::string(std::string)> named = [](std::string text) { return text; };
  bool json = false, raw = false, pairs = false, perplexity = false, overwrite = false;
};

// What is asked and how it is judged: the arguments, on top of a recipe where one is named.
struct Plan {
  configs::Config config;
  std::string success;
  std::vector<Prompt> prompts;
  std::string ledger, left_out;             // RowLedger::Describe, LeftOut
  std::map<std::string, int64_t> rejected;  // rows, by reason
  int64_t samples = 1, max_new_tokens = 256;
  double temperature = 0;
  uint64_t seed = 1;
  bool raw = false;
  bool judged = false;  // by a recipe's parts
};

// The recipe's parts; without one the rule that compares with the ground truth.
configs::Config ConfigOf(const EvalArguments& a) {
  const std::string& recipe = a.recipe.empty() ? a.rewards : a.recipe;
  if (recipe.empty()) {
    configs::Config config;
    configs::RewardPartConfig part;
    part.name = "correct";
    part.kind = "answer";
    part.args = {"fallback=" + a.fallback};
    config.reward.parts = {part};
    config.data.eval_prompts = 0;
    return config;
  }
  std::vector<std::string> overrides = a.overrides;
  // Nothing is trained: a file with nothing but [[reward.parts]] will do.
  overrides.insert(overrides.begin(), "data.train=arithmetic");
  const bool own_rows = !a.recipe.empty() && a.dataset.empty();
  const auto read_of = [=](const configs::Loaded& r) { return PartsAlone(r, own_rows); };
  configs::Config config = CheckedRecipe(recipe, overrides, read_of).config;
  if (config.reward.parts.empty())
    throw Error(ErrorCode::kInvalidArgument, "the recipe has no [[reward.parts]]", recipe);
  if (!a.recipe.empty()) return config;
  configs::Config parts;  // how prompts are dressed is the recipe's own business
  parts.reward = std::move(config.reward);
  parts.eval.success_part = config.eval.success_part;
  parts.data.eval_prompts = 0;
  return parts;
}

std::vector<Prompt> Sums(const EvalArguments& a, const Plan& plan, const ModelFolder& model) {
  replay::ArithmeticSets sets = replay::GenerateArithmetic(
      {.seed = plan.seed,
       .digits = a.digits.value_or(a.recipe.empty() ? 2 : plan.config.data.arithmetic_digits),
       .sft_examples = a.recipe.empty() ? 200 : plan.config.data.arithmetic_sft_examples,
       .eval_prompts = a.limit.value_or(0) > 0 ? *a.limit
                       : a.recipe.empty()      ? 200
                                               : plan.config.data.eval_prompts});
  for (Prompt& p : sets.eval) p.tokens = model.EncodePrompt(p, plan.raw);
  return std::move(sets.eval);
}

Plan PlanOf(const EvalArguments& a, configs::Config asked, const ModelFolder& model) {
  Plan plan;
  plan.config = std::move(asked);
  configs::Config& config = plan.config;
  const bool whole_recipe = !a.recipe.empty();
  plan.judged = whole_recipe || !a.rewards.empty();
  plan.success = config.eval.success_part;
  plan.samples = a.samples.value_or(whole_recipe ? config.eval.samples : 1);
  plan.max_new_tokens =
      a.max_new_tokens.value_or(whole_recipe ? config.rollout.max_new_tokens : 256);
  plan.temperature = a.temperature.value_or(plan.samples > 1 ? 1.0 : 0.0);
  plan.seed = a.seed.value_or(whole_recipe ? config.run.seed : 1);
  plan.raw = a.raw || !config.data.chat_template;
  const bool named = !a.dataset.empty();
  const std::string dataset = named ? a.dataset : config.data.eval;
  if (dataset.empty()) {
    throw Error(ErrorCode::kInvalidArgument,
                whole_recipe ? std::string("the recipe has no data.eval: name a file of prompts")
                             : "name a file of prompts, or \"arithmetic\"" +
                                   (PlaceOf(a.model) == Place::kRun ? OwnMeasure(a.model) : ""),
                "eval");
  }
  if (dataset == kArithmetic) {
    plan.prompts = Sums(a, plan, model);
    plan.ledger = "generated " + std::to_string(plan.prompts.size()) + " sums";
    return plan;
  }
  replay::ImportOptions options = replay::ImportOptionsOf(config.data, "eval");
  if (named) options.limit = options.skip = 0;  // a recipe's are for its own file
  if (a.limit) options.limit = *a.limit;
  if (a.system) options.system_prompt = *a.system;
  if (a.suffix) options.prompt_suffix = *a.suffix;
  const std::map<std::string, std::string> of_recipe = options.map;
  options.max_prompt_tokens = model.shape.max_positions - 1;
  options.max_prompt_bound = "the model has " + std::to_string(model.shape.max_positions);
  options.overlong = configs::OverlongPolicy::kDrop;
  options.tokenize = [&](const Prompt& p) { return model.EncodePrompt(p, plan.raw); };
  options.skip_untokenizable = true;
  std::string truths;  // where they are from
  replay::ImportedPrompts imported = WithColumnsOfRun(a.model, a.map, [&](const auto& map) {
    options.map = of_recipe;
    for (const auto& [part, column] : map) options.map[part] = column;
    return plan.judged ? replay::ImportPrompts(dataset, options)
                       : ImportWithTruths(dataset, options, truths);
  });
  plan.ledger = imported.ledger.Describe() + truths;
  plan.left_out = a.named(imported.ledger.LeftOut());
  plan.rejected = imported.ledger.rejected;
  plan.prompts = std::move(imported.prompts);
  return plan;
}

void PrintJson(const OrderedJson& out) {
  std::printf("%s\n", out.dump(1, ' ', false, OrderedJson::error_handler_t::replace).c_str());
}

OrderedJson JsonOf(const Estimate& e) {
  return {{"mean", e.mean}, {"standard_error", e.error}, {"interval_95", {e.low(), e.high()}}};
}

OrderedJson JsonOf(const EvalArguments& a, const Plan& plan, const AnswerTally& tally,
                   double seconds) {
  const auto [low, high] = WilsonInterval(tally.share(), static_cast<double>(tally.prompts));
  OrderedJson out = {{"model", a.model},
                     {"dataset", a.dataset.empty() ? plan.config.data.eval : a.dataset},
                     {"rows", plan.ledger},
                     {"left_out", plan.rejected},
                     {"prompts", tally.prompts},
                     {"samples", plan.samples},
                     {"answers", tally.answers},
                     {"correct", tally.correct},
                     {"pass_at_1", tally.share()},
                     {"interval_95", {low, high}},
                     {"standard_error", EstimateOf(tally.shares).error},
                     {"solved_prompts", tally.solved_prompts}};
  const std::vector<int64_t> counts = PassCounts(plan.samples);
  for (size_t k = 0; k < counts.size(); ++k) {
    const Estimate e = EstimateOf(tally.pass[k]);
    const auto [from, to] = WilsonInterval(e.mean, static_cast<double>(e.n));
    out["pass_at_k"][std::to_string(counts[k])] = {
        {"mean", e.mean}, {"standard_error", e.error}, {"interval_95", {from, to}}};
  }
  if (tally.votes) {
    const double n = static_cast<double>(tally.prompts);
    const double share = tally.prompts ? static_cast<double>(tally.voted_right) / n : 0;
    const auto [from, to] = WilsonInterval(share, n);
    out["majority"] = {{"share", share}, {"interval_95", {from, to}}, {"voted", tally.voted}};
  }
  out["reward"] = JsonOf(EstimateOf(tally.rewards));
  for (const PartTally& part : tally.parts) {
    OrderedJson row = {{"name", part.name}, {"weight", part.weight}};
    row.update(JsonOf(EstimateOf(part.prompts)));
    row["scored"] = part.scored;
    row["skipped"] = part.skipped;
    row["failed"] = part.failed;
    row["failures"] = part.failures;
    out["parts"].push_back(std::move(row));
  }
  out["without_answer"] = tally.unmarked;
  out["clipped"] = tally.clipped;
  out["aborted"] = tally.aborted;
  out["unscored"] = tally.unscored;
  out["unscored_reason"] = tally.why_aborted.empty() ? tally.why_unscored : tally.why_aborted;
  out["temperature"] = plan.temperature;
  out["tokens"] = tally.tokens;
  out["seconds"] = seconds;
  return out;
}

void PrintEstimate(const char* name, const Estimate& e) {
  std::printf("%s %.4f", name, e.mean);
  if (e.n > 1) std::printf(" +- %.4f (95 %%: %.4f to %.4f)", e.error, e.low(), e.high());
}

// `judge`: the part that says what is right.
void PrintText(const Plan& plan, const AnswerTally& tally, const std::string& judge,
               double seconds) {
  const auto number = [](int64_t v) { return static_cast<long long>(v); };
  const auto say_unmarked = [&] {
    if (tally.unmarked == 0) return;
    const bool asks_markers = !plan.judged && plan.config.reward.parts.front().args ==
                                                  std::vector<std::string>{"fallback=none"};
    std::printf("%lld of %lld answers mark nothing as the answer (<answer>, \\boxed, ####)%s\n",
                number(tally.unmarked), number(tally.answers),
                asks_markers ? "; --fallback last_number takes the last number there" : "");
  };
  // Where no answer could be right, that is the first thing to know of the number.
  const bool none_marked = tally.unmarked > 0 && tally.unmarked == tally.answers - tally.aborted;
  if (none_marked) say_unmarked();
  const auto [low, high] = WilsonInterval(tally.share(), static_cast<double>(tally.prompts));
  const std::string by = plan.judged ? " by '" + judge + "'" : "";
  std::printf("pass@1 %.4f (95 %%: %.4f to %.4f), %lld of %lld answers right%s, temperature %g\n",
              tally.share(), low, high, number(tally.correct), number(tally.answers), by.c_str(),
              plan.temperature);
  if (plan.samples > 1) {
    const std::vector<int64_t> counts = PassCounts(plan.samples);
    for (size_t k = 1; k < counts.size(); ++k) {
      // What lies in [0, 1] varies no more than a share does.
      const Estimate e = EstimateOf(tally.pass[k]);
      const auto [from, to] = WilsonInterval(e.mean, static_cast<double>(e.n));
      std::printf("pass@%lld %.4f (95 %%: %.4f to %.4f)\n", number(counts[k]), e.mean, from, to);
    }
    if (tally.votes) {
      const double n = static_cast<double>(tally.prompts),
                   share = static_cast<double>(tally.voted_right) / n;
      const auto [from, to] = WilsonInterval(share, n);
      std::printf("majority of %lld %.4f (95 %%: %.4f to %.4f)\n", number(plan.samples), share,
                  from, to);
    }
    std::printf("%lld of %lld prompts with at least one right answer of %lld\n",
                number(tally.solved_prompts), number(tally.prompts), number(plan.samples));
  }
  if (tally.parts.size() > 1) PrintEstimate("reward", EstimateOf(tally.rewards)), std::printf("\n");
  for (const PartTally& part : tally.parts) {
    if (!plan.judged && part.failed == 0) continue;  // pass@1 has said it
    if (part.scored > 0) {
      PrintEstimate(("  " + part.name).c_str(), EstimateOf(part.prompts));
      std::printf(" x %g", part.weight);
    } else {
      std::printf("  %s: no score", part.name.c_str());
    }
    if (part.skipped > 0) std::printf(", does not apply to %lld answers", number(part.skipped));
    if (part.failed > 0)
      std::printf(", failed on %lld, first: %s", number(part.failed), part.first_failure.c_str());
    std::printf("\n");
  }
  if (!none_marked) say_unmarked();
  if (tally.clipped > 0)
    std::printf("%lld answer%s cut at the limit\n", number(tally.clipped),
                tally.clipped == 1 ? "" : "s");
  if (tally.unscored > 0) {
    std::printf("%lld answers have no reward; one without a verdict counts as wrong",
                number(tally.unscored));
    if (tally.aborted > 0) {
      std::printf(", %lld (%.1f %%) of them were never generated: %s", number(tally.aborted),
                  100 * static_cast<double>(tally.aborted) / static_cast<double>(tally.answers),
                  tally.why_aborted.c_str());
    }
    std::printf("%s%s\n", tally.why_unscored.empty() ? "" : "; the first of the others: ",
                tally.why_unscored.c_str());
  }
  std::printf("%lld tokens in %.1f s, %.0f tokens/s\n", number(tally.tokens), seconds,
              static_cast<double>(tally.tokens) / std::max(1e-9, seconds));
}

// Rows that nobody answered are said last, where they are read: what was found is of the others.
int SayLeftOut(const std::string& left_out) {
  if (left_out.empty()) return 0;
  std::fprintf(stderr, "plumb: %s\n", left_out.c_str());
  return kExitFewerSteps;
}

// 10 where a part has nothing to say of any answer.
int CodeOf(const Plan& plan, const AnswerTally& tally) {
  int code = SayLeftOut(plan.left_out);
  for (const PartTally& part : tally.parts) {
    if (!part.failed_on_all()) continue;
    std::fprintf(stderr, "plumb: reward part '%s' failed on every answer; first: %s\n",
                 part.name.c_str(), part.first_failure.c_str());
    code = kExitRewardFailed;
  }
  return code;
}

int EvalAnswers(const EvalArguments& a) {
  configs::Config asked = ConfigOf(a);  // its mistakes before the model is read
  const ModelFolder model = LoadModel(a.model, a.options);
  const Plan plan = PlanOf(a, std::move(asked), model);
  std::string rows = a.dataset.empty() ? plan.config.data.eval : a.dataset;
  rows += ": " + plan.ledger;
  if (!plan.judged && PlaceOf(a.model) == Place::kRun)  // which trained by rewards of its own
    rows += "; judged by the rule \"answer\"" + OtherMeasure(a.model);
  if (!a.json) std::fprintf(stderr, "%s\n", rows.c_str());
  std::vector<std::string> end_tokens;
  for (const int32_t id : model.shape.eos_tokens)
    end_tokens.push_back(model.tokenizer->Decode(std::span(&id, 1)));
  AnswerEval eval(plan.config.reward, plan.success, *model.tokenizer, plan.samples, end_tokens);
  std::vector<std::string> stop = a.stop;
  if (!a.recipe.empty() && stop.empty()) stop = plan.config.rollout.stop;
  Answering answering(
      model, {.samples = plan.samples,
              .max_new_tokens = plan.max_new_tokens,
              .sampling = {.temperature = static_cast<float>(plan.temperature), .seed = plan.seed},
              .stop = stop,
              .purpose = Purpose::kEval});
  LineFile file(a.answers_file);
  AnswerEval::Each each;
  if (file) each = [&file](const OrderedJson& line) { file.Write(line); };
  std::vector<TrajectoryGroup> waiting;
  const auto score = [&] { eval.Add(std::exchange(waiting, {}), each); };
  const auto begin = std::chrono::steady_clock::now();
  bool whole = true;
  {
    CountProgress progress(static_cast<int64_t>(plan.prompts.size()), "prompts",
                           isatty(STDERR_FILENO) != 0, stderr);
    whole = answering.Run(
        plan.prompts,
        [&](size_t prompt, actor::GenerateResult& result) {
          if (StopRequested()) return;  // nobody waits for scores any more
          TrajectoryGroup group;
          group.lease.lease_id = prompt;
          group.lease.purpose = Purpose::kEval;
          group.lease.num_samples = static_cast<int32_t>(plan.samples);
          group.lease.prompt = plan.prompts[prompt];
          for (const auto& sample : result.samples)
            group.trajectories.push_back(
                AsTrajectory(plan.prompts[prompt], sample, *model.tokenizer));
          waiting.push_back(std::move(group));
          if (waiting.size() >= eval.together()) score();
        },
        [&] {
          char share[48];
          std::snprintf(share, sizeof share, "right so far %.3f", eval.tally().share());
          progress.Show(answering.ended(), eval.tally().prompts > 0 ? share : "",
                        answering.share());
          return StopRequested().load();
        });
    if (whole && !waiting.empty()) score();
  }
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  const AnswerTally& tally = eval.tally();
  if (!whole) {
    std::fprintf(stderr, "plumb: stopped after %lld of %zu prompts\n",
                 static_cast<long long>(tally.prompts), plan.prompts.size());
    return kExitFewerSteps;
  }
  if (tally.answers > 0 && tally.aborted == tally.answers) {
    throw Error(answering.counters().nonfinite_samples > 0 ? ErrorCode::kNonFinite
                                                           : ErrorCode::kInvalidArgument,
                "not one answer was generated: " + tally.why_aborted, a.model);
  }
  if (a.json) PrintJson(JsonOf(a, plan, tally, seconds));
  else PrintText(plan, tally, eval.success_part(), seconds);
  std::fflush(stdout);
  return CodeOf(plan, tally);
}

int EvalPairs(const EvalArguments& a) {
  CountProgress* shown = nullptr;
  std::optional<CountProgress> progress;
  const auto show = [&](int64_t done, int64_t all) {
    if (!shown) shown = &progress.emplace(all, "sequences", isatty(STDERR_FILENO) != 0, stderr);
    shown->Show(done);
    return !StopRequested().load();
  };
  const PairEvalReport report = WithColumnsOfRun(a.model, a.map, [&](const auto& map) {
    return EvaluatePairs({.model = a.model,
                          .pairs = a.dataset,
                          .reference = a.reference,
                          .beta = a.beta,
                          .map = map,
                          .limit = a.limit.value_or(0),
                          .batch_tokens = a.batch_tokens,
                          .options = a.options},
                         show);
  });
  progress.reset();
  if (!a.json) {
    for (const std::string& note : report.notes) std::fprintf(stderr, "%s\n", note.c_str());
  }
  if (report.stopped) {
    std::fprintf(stderr, "plumb: stopped: not all pairs have a value\n");
    return kExitFewerSteps;
  }
  LineFile file(a.answers_file);
  const std::string left_out = a.named(report.left_out);
  for (const PairValues& pair : report.pairs) file.Write(report.Line(pair));
  OrderedJson out = {{"model", a.model}, {"dataset", a.dataset}};
  if (report.reference) out["reference"] = a.reference;
  out.update(report.Json());
  if (a.json) PrintJson(out);
  else std::fputs(report.Text().c_str(), stdout);
  std::fflush(stdout);
  return SayLeftOut(left_out);
}

int EvalPerplexity(const EvalArguments& a) {
  const ModelFolder model = LoadModel(a.model, a.options);
  RefuseTaskTokens(model);
  std::optional<CountProgress> progress;
  const auto show = [&](int64_t done, int64_t all) {
    if (!progress) progress.emplace(all, "rows", isatty(STDERR_FILENO) != 0, stderr);
    progress->Show(done);
    return !StopRequested().load();
  };
  const PerplexityReport report = WithColumnsOfRun(a.model, a.map, [&](const auto& map) {
    return EvaluatePerplexity(model,
                              {.file = a.dataset,
                               .map = map,
                               .limit = a.limit.value_or(0),
                               .raw = a.raw,
                               .batch_tokens = a.batch_tokens},
                              show);
  });
  progress.reset();
  if (!a.json) std::fprintf(stderr, "%s: %s\n", a.dataset.c_str(), report.ledger.c_str());
  if (report.stopped) {
    std::fprintf(stderr, "plumb: stopped: not all rows are scored\n");
    return kExitFewerSteps;
  }
  LineFile file(a.answers_file);
  for (const PerplexityRow& row : report.rows) {
    file.Write(
        {{"row", row.row}, {"nats", row.nats}, {"tokens", row.tokens}, {"bytes", row.bytes}});
  }
  OrderedJson out = {{"model", a.model}, {"dataset", a.dataset}};
  out.update(report.Json());
  if (a.json) PrintJson(out);
  else std::fputs(report.Text().c_str(), stdout);
  std::fflush(stdout);
  if (report.first_left_out.empty()) return 0;
  return SayLeftOut("rows were left out (" + a.named(report.ledger) + ", and " +
                    std::to_string(report.left_out) +
                    " that cannot be scored), the first: " + a.named(report.first_left_out));
}

// Options that the evaluation which was asked for does not look at are mistakes, not silence.
void RefuseInVain(const CLI::App& eval, const EvalArguments& a) {
  const bool answers = !a.pairs && !a.perplexity, judged = !a.recipe.empty() || !a.rewards.empty();
  const bool sums = a.dataset == kArithmetic || a.dataset.empty();
  constexpr char kAnswers[] = "is for evaluations of answers, without --pairs and --perplexity";
  struct Rule {
    const char* option;
    bool taken;
    const char* why;
  };
  const Rule rules[] = {
      {"--reference", a.pairs, "is for --pairs"},
      {"--beta", !a.reference.empty(), "is for --pairs with --reference"},
      {"--batch-tokens", !answers, "is for --pairs and --perplexity"},
      {"--set", judged, "is for --recipe and --rewards"},
      {"--fallback", answers && !judged, "is for answers without --recipe and --rewards"},
      {"--digits", answers && sums, "is for generated sums (\"arithmetic\")"},
      {"--map", a.dataset != kArithmetic, "is for files: generated sums have no columns"},
      {"--system", answers && a.dataset != kArithmetic, "is for prompts of a file"},
      {"--suffix", answers && a.dataset != kArithmetic, "is for prompts of a file"},
      {"--raw", !a.pairs, "is for prompts and texts, without --pairs"},
      {"--samples", answers, kAnswers},
      {"--temperature", answers, kAnswers},
      {"--max-new-tokens", answers, kAnswers},
      {"--stop", answers, kAnswers},
      {"--seed", answers, kAnswers},
      {"--overwrite", !a.answers_file.empty(), "is for --out FILE"}};
  for (const Rule& rule : rules) {
    if (!rule.taken && eval.count(rule.option) > 0)
      throw Error(ErrorCode::kInvalidArgument, rule.why, rule.option);
  }
}

int Eval(const EvalArguments& a) {
  const bool judged = !a.recipe.empty() || !a.rewards.empty();
  const auto refuse = [](const char* where, const char* why) {
    throw Error(ErrorCode::kInvalidArgument, why, where);
  };
  if (!a.recipe.empty() && !a.rewards.empty())
    refuse("--rewards", "takes a recipe's reward parts alone, --recipe also how it asks: name one");
  if (static_cast<int>(a.pairs) + static_cast<int>(a.perplexity) + static_cast<int>(judged) > 1)
    refuse("eval",
           "--pairs, --perplexity and --recipe or --rewards are three evaluations: name one");
  if ((a.pairs || a.perplexity) && a.dataset.empty()) refuse("eval", "name a file");
  if (a.pairs) return EvalPairs(a);
  if (a.perplexity) return EvalPerplexity(a);
  return EvalAnswers(a);
}

}  // namespace

void AddEvalCommand(CLI::App& app, CliResult& result) {
  auto a = std::make_shared<EvalArguments>();
  CLI::App* eval = app.add_subcommand(
      "eval", "What a model is worth: right answers, rewards, preference pairs, perplexity");
  eval->add_option("model", a->model, "a model folder, an adapter's, or a run's")->required();
  eval->add_option("dataset", a->dataset,
                   "file of prompts in any form that `data import` reads, -: standard input, "
                   "or \"arithmetic\"; "
                   "with --recipe its data.eval by default");
  eval->add_option(
      "--recipe", a->recipe,
      "judge by this recipe's reward parts, and ask as it does: system prompt, suffix, "
      "columns, max_new_tokens, stop");
  eval->add_option("--rewards", a->rewards,
                   "judge by this recipe's reward parts, and nothing else");
  eval->add_option("--set", a->overrides, "section.key=value of the recipe, any number of times")
      ->allow_extra_args(false);
  eval->add_flag("--pairs", a->pairs,
                 "preference pairs: how often the chosen answer has the higher log-prob, or the "
                 "higher score of a reward model");
  eval->add_option("--reference", a->reference,
                   "of --pairs: DPO's implicit reward against this model");
  eval->add_option("--beta", a->beta, "of that reward (0.1)")->check(NumberAbove(0));
  eval->add_flag(
      "--perplexity", a->perplexity,
      "of texts (rows of \"text\", or a .txt or .md file), or of demonstrations' answers");
  eval->add_option("--samples", a->samples, "answers a prompt (1): pass@k, and a majority vote")
      ->check(WholeNumber(1, 1024));
  eval->add_option("--limit", a->limit, "first rows only; 0: all (arithmetic: 200)")
      ->check(WholeNumber(0));
  eval->add_option("--temperature", a->temperature,
                   "default: 0 (greedy) for one sample, 1 for several")
      ->check(NumberFrom(0, 100));
  eval->add_option("--max-new-tokens", a->max_new_tokens, "limit of an answer (256)")
      ->check(WholeNumber(1, 1 << 20));
  eval->add_option("--stop", a->stop, "end an answer at this text; any number of times")
      ->allow_extra_args(false);
  eval->add_option("--system", a->system, "system message of every prompt");
  eval->add_option("--suffix", a->suffix, "appended to every prompt");
  eval->add_option("--map", a->map,
                   "part=column,..., e.g. prompt=task,answer=solution; any number of times")
      ->allow_extra_args(false);
  eval->add_option("--fallback", a->fallback, "answer without a marker: none | last_number")
      ->check(OneOf({"none", "last_number"}));
  eval->add_option("--out,--answers", a->answers_file,
                   "write every answer (pair, row) to this JSONL file");
  eval->add_flag("--overwrite", a->overwrite, "replace the file of --out that is there");
  eval->add_option("--seed", a->seed,
                   "of sampling, and of generated sums (a recipe's run.seed: its held-out ones)")
      ->check(WholeNumber(0, std::numeric_limits<uint64_t>::max()));
  eval->add_option("--digits", a->digits, "of generated sums")->check(WholeNumber(1, 9));
  eval->add_option("--batch-tokens", a->batch_tokens, "of --pairs, --perplexity: tokens a forward")
      ->check(WholeNumber(1, 1 << 20));
  eval->add_flag("--raw", a->raw, "no chat template for text prompts");
  eval->add_flag("--json", a->json, "one JSON object");
  AddModelOptions(eval, a->options);
  eval->footer(
      "Exit code 7: rows were left out, the first is named. 10: a reward part failed on every "
      "answer.");
  eval->callback([a, eval, &result] {
    RefuseInVain(*eval, *a);
    if (!a->answers_file.empty()) {
      CheckOutput(a->answers_file, {a->dataset}, "--out");
      CheckNothingIsLost(a->answers_file, a->overwrite, "--out");
    }
    const SpooledInput input(a->dataset);
    a->named = [&](std::string text) { return input.Named(std::move(text)); };
    input.Read([&](const std::string& file) {
      a->dataset = file;
      result.exit_code = Eval(*a);
    });
  });
}

}  // namespace plumb::run
