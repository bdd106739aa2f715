// plumb data mine | rescore: what lies in a store of rollouts becomes preference data, and gets new
// scores.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>

#include "common/text/tokenizer/tokenizer.h"
#include "configs/config.h"
#include "replay/datasets/pair_miner.h"
#include "reward/models/reward_model.h"
#include "run/commands/checked_numbers.h"
#include "run/commands/cli.h"
#include "run/session/fresh_folder.h"
#include "run/session/recipe/recipe_check.h"
#include "run/session/rescoring.h"
#include "run/session/stored/run_store.h"

namespace plumb::run {
namespace {

struct MineArguments {
  std::string store, into;
  replay::MineOptions options;
};

struct RescoreArguments {
  std::string store, recipe;
  std::vector<std::string> overrides;
  bool eval = false;
};

bool SamePlace(const std::string& a, const std::string& b) {
  std::error_code ignored;
  return std::filesystem::weakly_canonical(a, ignored) ==
         std::filesystem::weakly_canonical(b, ignored);
}

void Mine(const MineArguments& a) {
  NowBusy(Busy::kNothingToKeep, "no dataset was made; the same command begins anew");
  FreshFolder fresh(a.into);
  const auto into = replay::Store::Open(a.into);
  std::unique_ptr<replay::Store> from;
  if (!SamePlace(a.store, a.into)) {
    replay::StoreOptions how;
    how.read_only = true;
    from = replay::Store::Open(a.store, how);
  }
  const replay::MineReport report = replay::MinePairs(from ? *from : *into, *into, a.options);
  fresh.Keep();
  for (const std::string& line : report.Describe()) std::printf("%s\n", line.c_str());
  std::printf("dataset '%s' of %s: %lld pairs%s\n", a.options.dataset.c_str(), a.into.c_str(),
              static_cast<long long>(report.pairs),
              report.unchanged ? ", the same as before: nothing changed" : "");
}

// The one that the answers were sampled with, where a part scores by a model: the recipe's, or that
// of the run that the store belongs to. nullptr: no part asks for it.
std::unique_ptr<Tokenizer> NeededTokenizer(const configs::Loaded& recipe,
                                           const std::string& store) {
  const auto& parts = recipe.config.reward.parts;
  if (std::none_of(parts.begin(), parts.end(), [](const configs::RewardPartConfig& part) {
        return part.kind == "reward_model" || part.kind == "perplexity";
      }))
    return nullptr;
  const bool names_model =
      std::any_of(recipe.origins.begin(), recipe.origins.end(), [](const auto& origin) {
        return origin.first.starts_with("model.") && origin.second != "default";
      });
  configs::ModelConfig model = recipe.config.model;
  if (!names_model) {
    std::error_code ignored;
    const std::string run =
        (std::filesystem::weakly_canonical(store, ignored).parent_path() / "config.toml").string();
    if (!std::filesystem::exists(run, ignored)) {
      throw Error(ErrorCode::kInvalidArgument,
                  "a part scores by a model and has to know the tokenizer of the answers: name the "
                  "model that was trained in [model] of the recipe, or --set model.path=FOLDER (" +
                      run + " does not exist)",
                  store);
    }
    model = configs::LoadRecipe(run).config.model;
  }
  return model.path.empty() ? Tokenizer::BuiltIn(NameOf(model.vocabulary))
                            : Tokenizer::Load(model.path);
}

void Rescore(const RescoreArguments& a, CliResult& result) {
  std::vector<std::string> overrides = a.overrides;
  // No prompts are read: [[reward.parts]] alone will do.
  overrides.insert(overrides.begin(), "data.train=arithmetic");
  const configs::Loaded recipe = LoadAndSayPaths(a.recipe, overrides);
  const configs::Config& config = recipe.config;
  const std::unique_ptr<Tokenizer> tokenizer = NeededTokenizer(recipe, a.store);
  replay::StoreOptions how;
  how.create = false;
  const auto store = replay::Store::Open(a.store, how);
  NowBusy(Busy::kNothingToKeep, "the same command goes on from here");
  reward::GroupScorer scorer(
      config.reward, tokenizer ? reward::WithModelParts(*tokenizer) : reward::HostOptions());
  const RescoreReport report =
      RescoreStore(*store, scorer, config.reward, a.eval ? Purpose::kEval : Purpose::kTrain,
                   [] { return StopRequested().load(); });
  for (const std::string& line : report.Describe()) std::printf("%s\n", line.c_str());
  if (report.stopped) std::fprintf(stderr, "plumb: stopped; the same command goes on from here\n");
  if (report.failed > 0)
    std::fprintf(stderr, "plumb: the same command tries the failed groups again\n");
  if (report.stopped || report.failed > 0) result.exit_code = kExitFewerSteps;
}

}  // namespace

void AddReplayCommands(CLI::App& data, CliResult& result) {
  auto m = std::make_shared<MineArguments>();
  CLI::App* mine = data.add_subcommand(
      "mine", "Preference pairs from stored rollouts: best against worst of each group");
  mine->add_option("--store", m->store, "store of a run, e.g. runs/demo/store; only read")
      ->required();
  mine->add_option("--into", m->into,
                   "store that gets the pairs; made when it is not there, may be the same")
      ->required();
  mine->add_option("--dataset", m->options.dataset, "name of the pairs there")
      ->capture_default_str();
  mine->add_option("--margin", m->options.margin, "rewards of a pair differ by at least so much")
      ->check(NumberFrom(0));
  mine->add_option("--per-group", m->options.per_group, "pairs of one group at most")
      ->check(WholeNumber(1))
      ->capture_default_str();
  mine->add_option("--score", m->options.score,
                   "beginning of the name of a rescoring, instead of the stored rewards");
  mine->add_flag("--keep-margin", m->options.keep_margin,
                 "pairs carry their difference in reward, which DPO then asks for");
  mine->add_option("--end-token", m->options.end_tokens,
                   "text of an end token that the answers carry, where it is an unusual one");
  mine->callback([m] {
    m->store = StoreFolderOf(m->store);
    Mine(*m);
  });

  auto r = std::make_shared<RescoreArguments>();
  CLI::App* rescore = data.add_subcommand(
      "rescore", "Scores stored rollouts again with a recipe's reward; the old scores stay");
  rescore
      ->add_option(
          "recipe", r->recipe,
          "recipe, of which [reward] is used ([[reward.parts]] alone will do); [model] for "
          "parts that score by a model, else that of the store's run")
      ->required();
  rescore->add_option("--store", r->store, "store of a run that is not running")->required();
  rescore->add_option("--set", r->overrides, "a.b=c: other options of the recipe");
  rescore->add_flag("--eval", r->eval, "evaluation groups instead of training groups");
  rescore->callback([r, &result] {
    r->store = StoreFolderOf(r->store);
    Rescore(*r, result);
  });
}

}  // namespace plumb::run
