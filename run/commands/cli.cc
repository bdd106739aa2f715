#include "run/commands/cli.h"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>

#include "common/base/log.h"
#include "common/base/nearest.h"
#include "common/base/output_path.h"
#include "common/base/program_call.h"
#include "common/text/columns.h"
#include "configs/foreign_names.h"
#include "configs/option_names.h"
#include "environment/doors/environment_host.h"
#include "learner/algorithms/scoreless.h"
#include "learner/ranks/rank_mesh.h"
#include "policy_model/memory/out_of_memory.h"
#include "reward/doors/plugin_host.h"
#include "run/commands/cluster/cluster_commands.h"
#include "run/commands/environment/env_command.h"
#include "run/commands/plan/plan_command.h"
#include "run/commands/training/role_process.h"
#include "run/session/recipe/map_advice.h"

namespace plumb::run {

int ExitCodeOf(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument:
    case ErrorCode::kConflict: return 2;
    case ErrorCode::kNotFound: return 3;
    case ErrorCode::kCorruption: return 4;
    case ErrorCode::kIo:
    case ErrorCode::kNoSpace: return 5;
    case ErrorCode::kDeadline:
    case ErrorCode::kUnavailable: return 6;
    case ErrorCode::kNonFinite: return 8;
    case ErrorCode::kUnsupported: return 9;
  }
  return 1;
}

int ExitCodeOf(const Error& error) {
  if (dynamic_cast<const learner::RewardFailed*>(&error) != nullptr) return kExitRewardFailed;
  if (dynamic_cast<const learner::RankLost*>(&error) != nullptr) return kExitRankLost;
  return ExitCodeOf(error.code());
}

namespace {

// The innermost verb that was given, and its name with those around it.
std::pair<const CLI::App*, std::string> GivenVerb(const CLI::App& root) {
  const CLI::App* at = &root;
  std::string verb = "plumb";
  while (!at->get_subcommands().empty()) {
    at = at->get_subcommands().front();
    verb += " " + at->get_name();
  }
  return {at, verb};
}

// Where a verb is due, a word in front is one, however many options of its own follow.
bool IsMisspeltVerb(const CLI::App& root) {
  const std::vector<std::string> left = root.remaining(/*recurse=*/true);
  return !left.empty() && !left.front().starts_with("-") &&
         !GivenVerb(root).first->get_subcommands([](const CLI::App*) { return true; }).empty();
}

// What stands for a value in an example: of an option or a place by its name.
std::string ExampleValue(const std::string& verb, const std::string& name) {
  if (verb == "import" && name == "store") return "mystore";  // a new one
  if (verb == "convert")
    return name == "from" ? "model.gguf" : name == "folder" ? "models/mine" : "";
  constexpr std::pair<std::string_view, std::string_view> kValues[] = {
      {"bind", "tcp://127.0.0.1:5555"},
      {"data", "prompts.jsonl"},
      {"dataset", "prompts.jsonl"},
      {"file", "rows.jsonl"},
      {"files", "prompts.jsonl"},
      {"folder", "runs/demo"},
      {"into", "runs/pairs"},
      {"model", "runs/demo"},
      {"out", "rows.jsonl"},
      {"path", "keys/learner"},
      {"recipe", "configs/arithmetic_grpo.toml"},
      {"run", "runs/demo"},
      {"SHELL", "bash"},
      {"store", "runs/demo/store"},
      {"to", "copy"}};
  for (const auto& [known, value] : kValues) {
    if (name == known) return std::string(value);
  }
  return "";
}

// What other programs call what ours does by another verb; "": none.
std::string VerbOfOtherName(const std::string& name) {
  const auto trains = [](const char* what, const char* algorithm) {
    return std::string("it is `train RECIPE` with algorithm.name = \"") + algorithm + "\"" + what;
  };
  if (name == "sft") return trains(", e.g. configs/toy_sft.toml", "sft");
  if (name == "dpo") return trains(", e.g. configs/toy_dpo.toml", "dpo");
  if (name == "grpo") return trains(", e.g. configs/arithmetic_grpo.toml", "grpo");
  if (name == "ppo") return trains("", "ppo");
  if (name == "export")
    return "rows of a store are written by `data export`, a model in another form by `convert`";
  if (name == "resume" || name == "continue") return "a run goes on by `train --resume --out RUN`";
  if (name == "merge" || name == "merge-lora" || name == "merge_lora")
    return "an adapter and its base become a model by `convert ADAPTER FOLDER`";
  if (name == "init" || name == "new") return "a first recipe is written by `config new`";
  if (name == "reward_model" || name == "rm") return trains("", "reward_model");
  if (name == "infer" || name == "inference" || name == "predict")
    return "answers are drawn by `generate MODEL --prompt TEXT`";
  return "";
}

// What a verb lacks: which part, what it is, and a call that has all. "" where `error` is another.
std::string WhatIsMissing(const CLI::App& verb, const std::string& call, const std::string& error) {
  std::string missing, words, options;
  for (const CLI::Option* option : verb.get_options()) {
    const std::string name = option->get_single_name();
    const bool place = option->get_positional();
    const std::string value = ExampleValue(verb.get_name(), name);
    if (option->get_required() && error == option->get_name() + " is required") {
      const std::string& what = option->get_description();
      missing = (place ? name : "--" + name) + " is missing (" +
                what.substr(0, std::min(what.find_first_of(";:"), what.find(", e.g."))) + ")";
    }
    if (place && !value.empty()) words += " " + value;
    else if (option->get_required()) options += " --" + name + " " + value;
  }
  if (verb.get_name() == "generate" && verb.get_option_no_throw("--prompt") != nullptr)
    options += " --prompt \"12+34=\"";
  return missing.empty() ? "" : missing + ", e.g. `" + call + words + options + "`";
}

// "--learning-rate" as a recipe would have it.
std::string OptionName(const std::string& flag) {
  std::string name = flag.substr(2);
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

// "--lr", "--learning-rate": the options of a recipe that have this name.
std::vector<std::string> OptionsOfRecipe(const std::string& flag) {
  return configs::OptionsNamed(OptionName(flag));
}

// Of a verb's own `options`: the one that `name` is the beginning of, or else is nearly.
std::string MeantOption(const std::string& name, const std::vector<std::string>& options) {
  constexpr size_t kFewest = 5;  // "--top" of several is none of them
  std::string begun;
  for (const std::string& option : options) {
    if (name.size() < kFewest || !option.starts_with(name)) continue;
    if (!begun.empty()) return "";
    begun = option;
  }
  return begun.empty() ? NearestName(name, options, std::max<size_t>(2, name.size() / 3)) : begun;
}

// What CLI11 could not read, said with the verb it was given to, and what was probably meant.
void ExplainUsage(const CLI::App& root, const CLI::ParseError& error) {
  const auto [at, verb] = GivenVerb(root);
  std::vector<std::string> verbs, options;
  const auto listed = [](const CLI::App* sub) { return !sub->get_group().empty(); };
  for (const CLI::App* sub : at->get_subcommands(listed)) verbs.push_back(sub->get_name());
  for (const CLI::Option* option : at->get_options()) {
    for (const std::string& name : option->get_lnames()) options.push_back("--" + name);
  }
  const std::vector<std::string> left = root.remaining(/*recurse=*/true);
  if (!left.empty() && left.front() == "version" && at == &root) {
    std::fprintf(stderr, "plumb: error: no verb 'version': it is %s --version\n",
                 ProgramCall().c_str());
    return;
  }
  const auto option = std::find_if(left.begin(), left.end(),
                                   [](const std::string& word) { return word.starts_with("-"); });
  std::string what = error.what();
  if (option != left.end() && !IsMisspeltVerb(root)) {
    const std::string name = option->substr(0, option->find('='));
    // as trl's own command line has them
    const bool recipe = name.starts_with("--") && at->get_option_no_throw("--set") != nullptr;
    std::vector<std::string> of_recipe =
        recipe ? OptionsOfRecipe(name) : std::vector<std::string>();
    // "epochs" here are passes over the answers of one step; who types it mostly means the rows.
    const std::string elsewhere =
        !recipe ? ""
                : configs::ForeignKey(name == "--epochs" ? "num_train_epochs" : OptionName(name));
    std::string meant;
    if (of_recipe == std::vector<std::string>{"run.out"}) meant = "--out";
    else if (of_recipe.empty() && elsewhere.empty()) meant = MeantOption(name, options);
    what = "unknown option " + name + (meant.empty() ? "" : ", did you mean " + meant + "?");
    if (meant.empty() && !elsewhere.empty()) {
      what += ": here " + elsewhere;
    } else if (meant.empty() && recipe) {
      what += "; an option of the recipe is given by --set ";
      if (of_recipe.empty()) what += "SECTION." + name.substr(2) + "=VALUE";
      for (size_t i = 0; i < of_recipe.size(); ++i)
        what += (i == 0 ? "" : " or ") + of_recipe[i] + "=VALUE";
    }
  } else if (!verbs.empty() && !left.empty()) {
    what = "no verb '" + left.front() + "'";
    const std::string other = at == &root ? VerbOfOtherName(left.front()) : "";
    if (!other.empty()) {
      what += ": " + other;
    } else if (const std::string meant = DidYouMean(left.front(), verbs);
               !meant.empty() || at == &root) {
      what += meant;
    } else {  // `plumb model runs/demo`
      what += "; a verb stands there:";
      for (const std::string& name : verbs) what += " " + name;
      what += ", e.g. `" + ProgramCall() + verb.substr(std::strlen("plumb")) + " " + verbs.front() +
              " " + left.front() + "`";
    }
  } else if (!verbs.empty()) {
    what = "a verb is missing:";
    for (const std::string& name : verbs) what += " " + name;
  } else if (!left.empty()) {
    what = "one argument too many: '" + left.front() + "'";
    if (at->get_option_no_throw("--prompt") != nullptr)
      what += "; a prompt stands behind --prompt: --prompt '" + left.front() + "'";
    if (at->get_option_no_throw("--resume") != nullptr && at->count("--resume") > 0)
      what += "; a run's folder stands behind --out: --resume --out " + left.front();
    else if (verb == "plumb config new")
      what += "; rows stand behind --data: --data " + left.front();
    // as Hydra takes it
    const size_t equals = left.front().find('=');
    if (equals < left.front().size() && left.front().find('.') < equals &&
        at->get_option_no_throw("--set") != nullptr)
      what += "; an option of the recipe stands behind --set: --set " + left.front();
  }
  constexpr std::string_view kValueOfFlag = " was given a disallowed flag override";
  if (what.ends_with(kValueOfFlag))
    what = "--" + what.substr(0, what.size() - kValueOfFlag.size()) + " takes no value";
  const std::string call = ProgramCall() + verb.substr(std::strlen("plumb"));
  if (const std::string missing = WhatIsMissing(*at, call, what); !missing.empty()) what = missing;
  std::fprintf(stderr, "%s: error: %s\n%s --help says what it takes.\n", verb.c_str(), what.c_str(),
               call.c_str());
}

// `plumb help store list` is `plumb store list --help`.
std::vector<char*> HelpAsked(int argc, char** argv) {
  static char help[] = "--help";
  std::vector<char*> words(argv, argv + argc);
  if (argc < 2 || std::strcmp(argv[1], "help") != 0) return words;
  words.erase(words.begin() + 1);
  words.push_back(help);
  return words;
}

// A flag is there or not: --greedy=3 is a mistake.
void RefuseValuesOfFlags(CLI::App& app) {
  for (CLI::Option* option : app.get_options()) {
    if (option->get_items_expected_max() == 0) option->disable_flag_override();
  }
  for (CLI::App* verb : app.get_subcommands([](CLI::App*) { return true; }))
    RefuseValuesOfFlags(*verb);
}

}  // namespace

int RunCli(int argc, char** argv) {
  // The host process of reward code is this program too; nothing else of it may be set up there.
  if (argc > 1 && std::strcmp(argv[1], "reward-host") == 0)
    return reward::RewardHostMain(argc - 1, argv + 1);
  if (argc > 1 && std::strcmp(argv[1], "environment-host") == 0)
    return environment::EnvironmentHostMain(argc - 1, argv + 1);

  CalledAs(argc > 0 ? argv[0] : "");
  HandleInterrupts();
  signal(SIGPIPE, SIG_IGN);  // a reader that left, and
  signal(SIGXFSZ, SIG_IGN);  // a limit on the size of files, are errors of a write

  std::vector<char*> words = HelpAsked(argc, argv);
  CLI::App app{"Plumb aligns language models with reinforcement learning, in one native program."};
  app.require_subcommand(1);
  app.footer(
      "Exit codes: 0 done, 1 internal, 2 invalid input, 3 not found, 4 corrupted data, 5 disk, 6 "
      "peer or deadline,\n"
      "7 stopped before its end, fewer steps than asked, below eval.bar, or rows left out that "
      "were "
      "to be answered,\n"
      "8 not finite, 9 not supported by this build, 10 a reward part failed on every sample, or no "
      "answer of a whole run or of three steps in a "
      "row got a score or came through its environment,\n"
      "11 of a learner of several ranks: another rank was lost, or computes something else.");
  CliResult result;
  AddTrainCommand(app, result);
  AddRoleProcessCommand(app, result);
  AddPlanCommand(app);
  AddDataCommand(app, result);
  AddConfigCommand(app, result);
  AddStoreCommand(app, result);
  AddReportCommand(app, result);
  AddBoardCommand(app, result);
  AddWatchCommand(app, result);
  AddDoctorCommand(app, result);
  AddGenerateCommand(app, result);
  AddChatCommand(app, result);
  AddServeCommand(app, result);
  AddModelCommand(app, result);
  AddConvertCommand(app, result);
  AddEvalCommand(app, result);
  AddScoreCommand(app, result);
  AddRewardServeCommand(app, result);  // behind whoever else adds the verb "reward"
  AddRewardTestCommand(app, result);
  AddEnvCommand(app, result);
  AddRoleCommand(app, result);
  AddLaunchCommand(app);
  RefuseValuesOfFlags(app);
  // Before a verb runs, and after `--version`.
  app.parse_complete_callback([&app] {
    if (!app.got_subcommand("doctor")) CheckProcessor();
  });
  try {
    try {
      app.parse(static_cast<int>(words.size()), words.data());
    } catch (...) {
      policy_model::RethrowOutOfMemory(Device::kCpu);  // what no role's edge has said better
    }
  } catch (const CLI::ParseError& e) {
    // --help; of a verb that there is not, which one was meant
    if (e.get_exit_code() == 0 && !IsMisspeltVerb(app)) return app.exit(e);
    ExplainUsage(app, e);
    return ExitCodeOf(ErrorCode::kInvalidArgument);
  } catch (const Error& e) {
    // one of several processes on a terminal: the line says which
    if (app.got_subcommand("role-process") || app.got_subcommand("role")) {
      LogError(AsCalled(MapAdviceBySet(e.what())));
    } else {
      // the run's log; the terminal gets it once
      LogInfo(std::string("ended by an error: ") + e.what());
      const CLI::App* verb = GivenVerb(app).first;
      const bool by_set = verb->get_option_no_throw("--map") == nullptr &&
                          verb->get_option_no_throw("--set") != nullptr;
      const std::string what = by_set ? MapAdviceBySet(e.what()) : e.what();
      std::fprintf(stderr, "plumb: error: %s\n", PrintableLines(AsCalled(what)).c_str());
    }
    return ExitCodeOf(e);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "plumb: internal error: %s\n", e.what());
    return 1;
  }
  errno = 0;  // that of an earlier write is long gone
  if (std::fflush(stdout) != 0 || std::ferror(stdout)) {
    std::fprintf(stderr, "plumb: error: cannot write to standard output: %s\n",
                 OutputProblem(errno).c_str());
    if (result.exit_code == 0) return ExitCodeOf(ErrorCode::kIo);
  }
  return result.exit_code;
}

}  // namespace plumb::run
