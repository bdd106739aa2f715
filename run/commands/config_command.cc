// plumb config show: a recipe's options, as wide as the terminal. plumb config new: a first recipe
// for a model and data.
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/nearest.h"
#include "common/base/output_path.h"
#include "common/base/place.h"
#include "common/base/program_call.h"
#include "configs/config.h"
#include "configs/foreign_names.h"
#include "configs/paths.h"
#include "configs/recipe_text.h"
#include "run/commands/cli.h"
#include "run/commands/model_options.h"
#include "run/commands/stages/train_stages.h"
#include "run/session/recipe/recipe_check.h"
#include "run/session/recipe_proposal.h"
#include "run/session/run_folder.h"

namespace plumb::run {
namespace {

struct ShowArguments {
  std::string recipe, only;
  std::vector<std::string> overrides;
  bool toml = false, changed = false;
};

struct NewArguments {
  std::string algorithm = "grpo", model, data, out = "-";
  std::vector<std::string> map, rewards;
};

// What COLUMNS says, else the terminal; 80 where there is none.
size_t OutputWidth() {
  constexpr size_t kDefault = 80;
  if (const char* columns = std::getenv("COLUMNS")) {
    const long width = std::strtol(columns, nullptr, 10);
    if (width > 0) return static_cast<size_t>(width);
  }
  winsize size{};
  if (isatty(STDOUT_FILENO) != 0 && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
    return size.ws_col;
  return kDefault;
}

void Show(const ShowArguments& a) {
  // Of a recipe for another machine the files may lie there.
  const auto no_files = [](const configs::Loaded&) {
    configs::Config none;
    none.data.train = "arithmetic";
    return none;
  };
  const std::string of_run = RunFolder{a.recipe}.config();
  const std::string recipe = RealFileSystem().Exists(of_run) ? of_run : a.recipe;
  const configs::Loaded loaded =
      CheckedRecipe(recipe, a.overrides, no_files, nullptr, Surroundings::kIgnored);
  for (const std::string& missing : configs::MissingFiles(loaded.config, recipe))
    std::fprintf(stderr, "note: %s\n", missing.c_str());
  if (a.toml) {
    if (!a.only.empty() || a.changed)
      throw Error(ErrorCode::kInvalidArgument,
                  "--toml is the whole recipe: leave the section and --changed out");
    std::fputs(configs::ToToml(loaded.config).c_str(), stdout);
    return;
  }
  const std::string list =
      configs::List(loaded, {.width = OutputWidth(), .only = a.only, .changed = a.changed});
  std::fputs(list.empty() ? "nothing differs from the defaults\n" : list.c_str(), stdout);
  if (!loaded.config.run.stages.empty()) {
    std::printf("\nstages, each by itself: %s config show RECIPE\n%s", ProgramCall().c_str(),
                ListOfStages(PlanStages(loaded, "RUN")).c_str());
  }
}

void New(const NewArguments& a) {
  const auto algorithm = configs::FromName<configs::AlgorithmName>(a.algorithm);
  if (!algorithm) {
    const auto& names = configs::kNames<configs::AlgorithmName>;
    std::string lower = a.algorithm;
    for (char& c : lower) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    if (lower == "rm" || lower == "reward") {
      throw Error(ErrorCode::kInvalidArgument,
                  "is \"" + a.algorithm + "\": that is reward_model here", "--algorithm");
    }
    if (const std::string loss = configs::ForeignAlgorithm(lower); !loss.empty()) {
      throw Error(ErrorCode::kInvalidArgument,
                  "is \"" + a.algorithm + "\", a loss on preferences: that is " + loss +
                      "; begin with --algorithm dpo",
                  "--algorithm");
    }
    const std::string meant =
        DidYouMean(lower, std::vector<std::string>(names.begin(), names.end()));
    throw Error(ErrorCode::kInvalidArgument,
                "is \"" + a.algorithm + "\"" + (meant.empty() ? ";" : meant) + " it is one of " +
                    configs::ListOfNames<configs::AlgorithmName>(),
                "--algorithm");
  }
  const bool to_file = a.out != "-";
  CheckOutput(a.out, {a.data}, "--out");
  FileSystem& files = RealFileSystem();
  if (to_file && files.Exists(a.out))
    throw Error(ErrorCode::kConflict, "is there already: choose another --out", a.out);
  for (const std::string& path : {a.model, a.data}) {
    if (path.empty() || path == "arithmetic" || files.Exists(path)) continue;
    throw Error(ErrorCode::kNotFound, "is not there (names on a hub are not fetched)", path);
  }
  if (!a.map.empty() && a.data == "arithmetic")
    throw Error(ErrorCode::kInvalidArgument, "is for rows of a file, not for generated sums",
                "--map");
  configs::Config kind;
  kind.algorithm.name = *algorithm;
  if (!a.rewards.empty() && configs::IsOffline(kind)) {
    throw Error(ErrorCode::kInvalidArgument,
                configs::NameOf(*algorithm) +
                    " learns from rows and scores no answers: leave it "
                    "out, or take another --algorithm, e.g. grpo",
                "--reward");
  }
  const RecipeProposal recipe = ProposeRecipe({.algorithm = *algorithm,
                                               .model = a.model,
                                               .data = a.data,
                                               .rewards = a.rewards,
                                               .map = ReadMap(a.map),
                                               .recipe = to_file ? a.out : ""});
  for (const std::string& note : recipe.notes) std::fprintf(stderr, "note: %s\n", note.c_str());
  if (!to_file) {
    std::fputs(recipe.text.c_str(), stdout);
    return;
  }
  files.WriteFileAtomic(a.out, recipe.text);
  std::printf("%s\ntry:    %s train %s --steps 2\n", a.out.c_str(), ProgramCall().c_str(),
              a.out.c_str());
}

}  // namespace

void AddConfigCommand(CLI::App& app, CliResult&) {
  CLI::App* config = app.add_subcommand("config", "Look at recipes, begin one");
  config->require_subcommand(1);

  auto show = std::make_shared<ShowArguments>();
  CLI::App* shown = config->add_subcommand("show", "Options with value, origin, unit and advice");
  shown->add_option("recipe", show->recipe, "TOML file, or the folder of a run")->required();
  shown->add_option("section", show->only,
                    "only options that begin so, e.g. optimizer, rollout.max or learning_rate");
  shown->add_option("--set", show->overrides, "section.key=value")->allow_extra_args(false);
  shown->add_flag("--changed", show->changed, "only what differs from the defaults");
  shown->add_flag("--toml", show->toml, "the resolved recipe as TOML instead");
  shown->callback([show] { Show(*show); });

  auto made = std::make_shared<NewArguments>();
  CLI::App* fresh = config->add_subcommand(
      "new", "A recipe with comments that runs as it is, for a model and data");
  fresh->add_option("--algorithm", made->algorithm,
                    configs::ListOfNames<configs::AlgorithmName>(" | ") + " (default: grpo)");
  fresh->add_option("--model", made->model, "model folder (default: a new small model of sums)");
  fresh
      ->add_option("--data", made->data,
                   "file of prompts, pairs or demonstrations, or \"arithmetic\"")
      ->required();
  fresh
      ->add_option(
          "--map", made->map,
          "columns of other names: part=column,..., e.g. prompt=task,answer=solution (data.map); "
          "any number of times")
      ->allow_extra_args(false);
  fresh
      ->add_option("--reward", made->rewards,
                   "a reward function of yours, FILE.py or FILE.py:FUNCTION, as TRL, verl or "
                   "OpenRLHF take it; any number of times")
      ->allow_extra_args(false);
  fresh->add_option("--out", made->out, "file that does not exist yet (default: -, the terminal)");
  fresh->callback([made] { New(*made); });
}

}  // namespace plumb::run
