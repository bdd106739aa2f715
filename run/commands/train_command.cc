// plumb train RECIPE: prepares the run folder, then all roles here or one process a role under the
// supervisor, or the head of a cluster.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <optional>
#include <utility>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/place.h"
#include "common/base/program_call.h"
#include "configs/batch_ramp.h"
#include "configs/checks/actor_device.h"
#include "configs/parallel.h"
#include "configs/paths.h"
#include "kernels/device/process_gpu.h"
#include "learner/ranks/rendezvous.h"
#include "learner/update/checkpoint_size.h"
#include "learner/update/schedule.h"
#include "run/commands/checked_numbers.h"
#include "run/commands/cli.h"
#include "run/commands/stages/train_stages.h"
#include "run/commands/training/role_process.h"
#include "run/commands/training/run_end.h"
#include "run/report/line_wrap.h"
#include "run/roles/cluster/head.h"
#include "run/roles/learner_ports.h"
#include "run/roles/observer.h"
#include "run/roles/rank_start.h"
#include "run/roles/roles.h"
#include "run/roles/run_memory.h"
#include "run/roles/sharing/actor_ranks.h"
#include "run/roles/socket_folder.h"
#include "run/roles/supervisor.h"
#include "run/roles/thread_count.h"
#include "run/session/interrupt.h"
#include "run/session/newest_checkpoint.h"
#include "run/session/recipe/recipe_check.h"
#include "run/session/recipe/usual_folder.h"
#include "run/session/run_folder.h"
#include "run/session/session.h"

namespace plumb::run {
namespace {

struct TrainArguments {
  std::string recipe, out, roles;
  std::vector<std::string> overrides;
  int64_t steps = -1;
  bool resume = false, newest = false, overwrite = false, quiet = false, insecure = false;
  std::string course;  // of a stage of a run that goes on: that run's folder
};

// " (the first step 8 prompts, all from step 21 on)"; empty: every batch is whole.
std::string Ramp(const configs::Config& config) {
  if (config.optimizer.ramp_steps == 0) return "";
  const int64_t steps = config.run.steps;
  if (steps > 0 && config.optimizer.ramp_steps >= steps) {
    const configs::BatchRamp batches = configs::TrainBatches(config);
    return " (the first step " + std::to_string(batches.Of(0)) + ", the last " +
           std::to_string(batches.Of(steps - 1)) +
           ": optimizer.ramp_steps = " + std::to_string(config.optimizer.ramp_steps) +
           " reaches to the end)";
  }
  return " (the first step " + std::to_string(configs::TrainBatches(config).Of(0)) +
         (configs::IsOffline(config) ? " rows" : " prompts") + ", all from step " +
         std::to_string(config.optimizer.ramp_steps + 1) + " on)";
}

std::string Counted(int64_t n, const char* what) {
  return std::to_string(n) + " " + what + (n == 1 ? "" : "s");
}

// What comes before the steps of a run that begins: --steps makes it no shorter.
std::string WarmStart(const configs::Config& config, bool begins) {
  if (!begins || config.sft.steps == 0) return "";
  return "warm start of " + (config.sft.patience > 0 ? "at most " : std::string()) +
         Counted(config.sft.steps, "update") + " (sft.steps), then ";
}

// The one vocabulary of batch sizes, resolved: prompts x samples = trajectories a step, in updates
// of so many, packed into so many tokens.
std::string BatchSizes(const configs::Config& config) {
  const int64_t prompts = config.rollout.prompts_per_step,
                samples = config.rollout.samples_per_prompt;
  const int64_t trajectories = prompts * samples, minibatches = config.algorithm.minibatches,
                epochs = config.algorithm.epochs;
  return Counted(config.run.steps, "step") + " of " + Counted(prompts, "prompt") + " x " +
         Counted(samples, "answer") + " = " + std::to_string(trajectories) + " trajectories" +
         Ramp(config) + "; " + Counted(epochs, "epoch") + " of " +
         (minibatches == 1 ? "1 minibatch"
                           : std::to_string(minibatches) + " minibatches of " +
                                 (trajectories % minibatches == 0 ? "" : "about ") +
                                 std::to_string(trajectories / minibatches)) +
         "; at most " + std::to_string(config.optimizer.micro_batch_tokens) +
         " tokens a micro-batch; " + configs::NameOf(config.model.dtype) + ", roles " +
         NameOf(config.run.roles);
}

void SayBegin(const RunFolder& folder, const std::string& sizes) {
  std::printf("run folder %s\n%s\n", folder.path.c_str(), FitLine(sizes, stdout).c_str());
  std::fflush(stdout);
}

int TrainInProcesses(const Session& session, const TrainArguments& arguments) {
  const auto& config = session.config();
  const int64_t ranks = configs::ReadParallel(config.run.parallel).ranks();
  PlanRun(session).Check();
  if (!configs::IsOffline(config)) CheckActors(session, static_cast<int>(ranks));
  const SocketFolder sockets;
  std::vector<RoleProcess> roles;
  const auto add = [&](const std::string& role, int64_t index, bool decides) {
    std::vector<std::string> line = {"role-process", "--run",    session.folder().path, "--role",
                                     role,           "--index",  std::to_string(index), "--sockets",
                                     sockets.path(), "--called", ProgramCall()};
    if (arguments.quiet) line.push_back("--quiet");
    std::vector<std::string> again = line;
    again.push_back("--resume");
    // The rows of the data were shown, and another process draws the last line now.
    if (role == "replay" && !arguments.quiet) again.push_back("--quiet");
    if (arguments.resume) line.push_back("--resume");
    if (arguments.newest) line.push_back("--newest");  // not again: it has checkpoints of its own
    const bool numbered = role != "replay" && (role != "learner" || index > 0);
    roles.push_back({.name = numbered ? role + "-" + std::to_string(index) : role,
                     .arguments = line,
                     .again = again,
                     .decides = decides});
    if (role != "learner" || ranks == 1) return;
    for (auto* arguments_of : {&roles.back().arguments, &roles.back().again})
      arguments_of->insert(arguments_of->end(), {"--ranks", std::to_string(ranks)});
    roles.back().group = role;
    roles.back().lost_code = kExitRankLost;
  };
  // Of an actor that several processes are: the others, and what all of them need to know.
  const auto add_actor = [&](int64_t index) {
    const int64_t together = config.rollout.tp;
    for (int64_t rank = 0; rank < together; ++rank) {
      add("actor", index, false);
      if (together == 1) return;
      RoleProcess& process = roles.back();
      for (auto* arguments_of : {&process.arguments, &process.again}) {
        arguments_of->insert(arguments_of->end(),
                             {"--ranks", std::to_string(together), "--rank", std::to_string(rank)});
      }
      process.group = "actor-" + std::to_string(index);
      process.lost_code = kExitRankLost;
      if (rank > 0) process.name += "-" + std::to_string(rank);
    }
  };
  if (!configs::IsOffline(config)) {
    add("replay", 0, false);
    for (int64_t i = 0; i < config.run.reward_workers; ++i) add("reward", i, false);
    for (int64_t i = 0; i < config.run.actors; ++i) add_actor(i);
  }
  for (int64_t i = 0; i < ranks; ++i) add("learner", i, /*decides=*/i == 0);
  Supervisor supervisor(std::filesystem::read_symlink("/proc/self/exe").string(), std::move(roles),
                        session.folder().path + "/pids.json");
  NowBusy(Busy::kSupervising);
  const int code = supervisor.Run(StopRequested(), &StopAtOnce());
  if (supervisor.stopped_before_it_began()) SayStopped();
  if (!arguments.quiet && supervisor.restarts() > 0) {
    std::printf("roles started again: %lld\n", static_cast<long long>(supervisor.restarts()));
  }
  return code;
}

double RateAt(const configs::Config& config, int64_t step) {
  return learner::LearningRate(learner::LrOptionsOf(config), step);
}

// What a resumed run does otherwise from here on: said, and in the log for later.
void SayChanges(const PreparedRun& run, const configs::Config& now, bool quiet) {
  std::vector<std::string> lines;
  configs::Config then = now;  // as far as the learning rate hangs on it
  for (const configs::OptionChange& c : run.changes()) {
    const double number = std::strtod(c.before.c_str(), nullptr);
    if (c.key == "run.steps") then.run.steps = std::strtoll(c.before.c_str(), nullptr, 10);
    if (c.key == "optimizer.learning_rate") then.optimizer.learning_rate = number;
    if (c.key == "optimizer.warmup_fraction") then.optimizer.warmup_fraction = number;
    if (c.key == "optimizer.min_lr_fraction") then.optimizer.min_lr_fraction = number;
    if (c.key == "optimizer.decay_fraction") then.optimizer.decay_fraction = number;
    if (c.key == "optimizer.lr_schedule") {
      const std::string name = c.before.substr(1, c.before.size() - 2);  // in quotes
      then.optimizer.lr_schedule =
          configs::FromName<configs::LrSchedule>(name).value_or(now.optimizer.lr_schedule);
    }
    lines.push_back("from step " + std::to_string(run.next_step()) + " on: " + c.key + " = " +
                    c.now + " (so far " + c.before + ")");
  }
  const double before = RateAt(then, run.next_step()), after = RateAt(now, run.next_step());
  if (before != after) {
    char text[120];
    std::snprintf(text, sizeof text,
                  "learning rate of step %lld: %g, not %g as the options so far made it",
                  static_cast<long long>(run.next_step()), after, before);
    lines.emplace_back(text);
  }
  for (const std::string& line : lines) {
    LogInfo(line);
    if (!quiet) std::printf("%s\n", line.c_str());
  }
  std::fflush(stdout);
}

int TrainIn(const PreparedRun& run, const configs::Config& config, const TrainArguments& arguments,
            const RunOptions& options);

// A rank that is not the first: rank 0 says where the run is.
int TrainAsRank(learner::Ranks& ranks, RunOptions options) {
  NowBusy(Busy::kInOrder);
  return AsRank(&ranks, [&] {
    const std::string folder = ranks.Share("");
    options.resume = ranks.Share("") == "resume";
    const auto session = Session::Open(folder);
    SetUpLogging("learner", ranks.rank(),
                 session->folder().logs() + "/learner-" + std::to_string(ranks.rank()) + ".log");
    RunLearnerRank(*session, options);
    return 0;
  });
}

int Train(const TrainArguments& arguments);

// Of a recipe with run.stages. What --steps, --roles and --set say stands in the recipe by now.
int TrainAllStages(configs::Loaded recipe, const TrainArguments& arguments) {
  if (RanksOf(recipe.config)) {
    throw Error(
        ErrorCode::kUnsupported,
        "the ranks of a learner that others start (RANK, WORLD_SIZE) train one recipe: start "
        "each of the stages by itself, or leave the ranks to run.parallel",
        "run.stages");
  }
  return TrainStages({.recipe = arguments.recipe,
                      .loaded = std::move(recipe),
                      .out = arguments.out,
                      .resume = arguments.resume,
                      .overwrite = arguments.overwrite,
                      .quiet = arguments.quiet},
                     [&](const Stage& stage, bool resume) {
                       TrainArguments own;
                       own.recipe = stage.recipe;
                       own.out = stage.folder;
                       own.overrides = stage.overrides;
                       own.resume = resume;
                       own.newest = resume && arguments.newest;
                       if (arguments.resume)
                         own.course = std::filesystem::path(stage.folder).parent_path().string();
                       own.quiet = arguments.quiet;
                       return Train(own);
                     });
}

int Train(const TrainArguments& arguments) {
  if (arguments.resume && arguments.overwrite) {
    throw Error(ErrorCode::kInvalidArgument,
                "--resume goes on with the run that --overwrite replaces: give one of them",
                "plumb train");
  }
  // `train --resume RUN` is what people type first.
  if (arguments.resume && arguments.out.empty() && PlaceOf(arguments.recipe) == Place::kRun) {
    TrainArguments own = arguments;
    own.out = std::exchange(own.recipe, "");
    return Train(own);
  }
  if (arguments.recipe.empty()) {
    if (!arguments.resume || arguments.out.empty()) {
      throw Error(ErrorCode::kInvalidArgument,
                  "a recipe is missing: `plumb train RECIPE`, e.g. configs/arithmetic_grpo.toml; "
                  "or `plumb train --resume --out RUN`, which goes on with the run's own");
    }
    TrainArguments own = arguments;
    own.recipe = RunFolder{arguments.out}.config();
    if (!std::filesystem::exists(own.recipe)) {
      throw Error(ErrorCode::kNotFound,
                  "there is no run in this folder to go on with (it has no config.toml)",
                  arguments.out);
    }
    return Train(own);
  }
  std::vector<std::string> overrides = arguments.overrides;
  if (arguments.steps >= 0) overrides.push_back("run.steps=" + std::to_string(arguments.steps));
  if (!arguments.roles.empty()) overrides.push_back("run.roles=\"" + arguments.roles + "\"");
  const auto find_files = [&](configs::Config& c) {
    if (arguments.resume) {
      configs::FindWhereRunBegan(c, !arguments.out.empty() ? arguments.out
                                    : !c.run.out.empty()   ? c.run.out
                                                           : UsualRunFolder(arguments.recipe));
    }
    if (!arguments.course.empty()) configs::FindWhereRunBegan(c, arguments.course);
  };
  configs::Loaded recipe = CheckedRecipe(arguments.recipe, overrides, nullptr, find_files);
  if (!recipe.config.run.stages.empty()) return TrainAllStages(std::move(recipe), arguments);
  configs::Config config = std::move(recipe.config);
  if (!arguments.out.empty()) config.run.out = arguments.out;
  if (const std::string many = TooManyThreads(config, ProcessorsAllowed()); !many.empty())
    std::fprintf(stderr, "plumb: warning: %s\n", many.c_str());
  const auto environment = RanksOf(config);
  std::unique_ptr<learner::Ranks> ranks;
  RunOptions options = OptionsOf(arguments.resume, arguments.newest, arguments.quiet);
  if (environment) {
    try {
      ranks = learner::JoinByEnvironment(*environment, StallTime(config), Stopped);
    } catch (const learner::JoinStopped&) {
      return SayStopped();
    }
    CheckSameRecipe(*ranks, config);
    options.ranks = ranks.get();
    options.ranks_here = environment->local_size;
    kernels::UseGpu(environment->local_rank);
    // Whoever starts the ranks again means the run that they began.
    options.resume = options.resume || environment->restarts > 0;
    if (!ranks->first()) return TrainAsRank(*ranks, options);
  }
  PreparedRun run = AsRank(ranks.get(), [&] {
    return PrepareRun(config, arguments.recipe, options.resume, arguments.overwrite,
                      arguments.newest);
  });
  if (!ranks && run.Finished(config)) {
    const std::string out = run.folder().path;
    if (arguments.quiet) return 0;
    std::printf(
        "this run is finished: %lld of %lld steps are done\nmodel:  %s\nreport: %s\ngo on:  %s "
        "train --resume --out %s --steps %lld\n",
        static_cast<long long>(run.next_step()), static_cast<long long>(config.run.steps),
        run.folder().model().c_str(), run.folder().report().c_str(), ProgramCall().c_str(),
        out.c_str(), static_cast<long long>(2 * config.run.steps));
    return 0;
  }
  int code = 0;
  try {
    code = AsRank(ranks.get(), [&] {
      if (ranks) {
        ranks->Share(std::filesystem::absolute(run.folder().path).string());
        ranks->Share(options.resume ? "resume" : "anew");
      }
      return TrainIn(run, config, arguments, options);
    });
  } catch (const Error& error) {
    run.UndoIfNothingTrained(ExitCodeOf(error.code()));
    throw;
  }
  run.UndoIfNothingTrained(code);  // processes: the role that failed has said why
  return code;
}

int TrainIn(const PreparedRun& run, const configs::Config& config, const TrainArguments& arguments,
            const RunOptions& options) {
  const RunFolder& folder = run.folder();
  NowBusy(Busy::kNothingToKeep, kNothingTrained);
  MarkWhenStopped(folder.path);
  const auto session = Session::Open(folder.path);
  SetUpLogging("train", -1, folder.logs() + "/train.log");
  if (run.resumed()) SayChanges(run, config, arguments.quiet);
  if (configs::IsOffline(config)) {
    if (!arguments.quiet) {
      const bool sft = config.algorithm.name == configs::AlgorithmName::kSft;
      SayBegin(folder, Counted(config.run.steps, "step") + " of " +
                           Counted(sft ? config.sft.batch : config.preference.batch,
                                   sft ? "demonstration" : "pair") +
                           Ramp(config) + "; at most " +
                           std::to_string(config.optimizer.micro_batch_tokens) +
                           " tokens a micro-batch; " + configs::NameOf(config.model.dtype));
    }
    if (config.run.roles == configs::Roles::kProcesses)
      return TrainInProcesses(*session, arguments);
    return Conclude(*session, RunOfflineTraining(*session, options), arguments.quiet);
  }
  if (!arguments.quiet) SayBegin(folder, WarmStart(config, !run.resumed()) + BatchSizes(config));
  if (config.run.roles == configs::Roles::kProcesses) return TrainInProcesses(*session, arguments);
  if (config.run.roles == configs::Roles::kCluster) {
    return Conclude(*session, RunClusterHead(*session, options, arguments.insecure),
                    arguments.quiet);
  }
  return Conclude(*session, RunLocal(*session, options), arguments.quiet);
}

}  // namespace

void AddTrainCommand(CLI::App& app, CliResult& result) {
  auto arguments = std::make_shared<TrainArguments>();
  CLI::App* train =
      app.add_subcommand("train", "Run a recipe: warm start, rollouts, rewards, updates");
  train->add_option(
      "recipe", arguments->recipe,
      "TOML file, e.g. configs/arithmetic_grpo.toml; with --resume a run's folder, or "
      "--out RUN alone: the run's own");
  train->add_option("--out", arguments->out, "run folder (default: runs/<recipe name>)");
  train->add_option("--steps", arguments->steps, "train steps, instead of run.steps")
      ->check(WholeNumber(0));
  train->add_option("--roles", arguments->roles,
                    "local | processes | cluster, instead of run.roles");
  train->add_option("--set", arguments->overrides, "section.key=value, any number of times")
      ->allow_extra_args(false);
  train->add_flag("--resume", arguments->resume,
                  "go on from the newest checkpoint of the run folder");
  train
      ->add_flag("--newest", arguments->newest,
                 "with --resume: from the newest checkpoint of all, also one without the "
                 "optimizer's state (checkpoint.optimizer_every); the run is then another than one "
                 "that had never ended")
      ->needs("--resume");
  train->add_flag("--overwrite", arguments->overwrite,
                  "replace an older run in the run folder, once the new one trains");
  train->add_flag("--insecure", arguments->insecure,
                  "cluster: roles of other machines join without keys and unencrypted");
  train->add_flag("--quiet", arguments->quiet, "no progress");
  train->callback([arguments, &result] { result.exit_code = Train(*arguments); });
}

}  // namespace plumb::run
