// plumb launch slurm|kubernetes|ray RECIPE: what that scheduler needs to start the run, on standard
// output.
#include <algorithm>
#include <cctype>
#include <cstdio>
#include <filesystem>
#include <memory>

#include "common/base/error.h"
#include "run/commands/checked_numbers.h"
#include "run/commands/cluster/cluster_commands.h"
#include "run/commands/cluster/launch_scripts.h"
#include "run/roles/cluster/cluster_keys.h"
#include "run/roles/cluster/role_files.h"
#include "run/session/recipe/recipe_check.h"

namespace plumb::run {
namespace {

struct LaunchArguments {
  std::string recipe, keys, out, plumb = "plumb", image;
  std::vector<std::string> overrides;
  int64_t nodes = 0, actors = 0, rewards = 1, cpus = 4, gpus = 0, port = 7777;
  bool insecure = false;
};

// Of a recipe's file: what schedulers take as a name.
std::string JobName(const std::string& recipe) {
  std::string name;
  for (const char c : std::filesystem::path(recipe).stem().string())
    name.push_back(std::isalnum(static_cast<unsigned char>(c))
                       ? static_cast<char>(std::tolower(static_cast<unsigned char>(c)))
                       : '-');
  while (!name.empty() && name.front() == '-') name.erase(0, 1);
  name = name.substr(0, 40);
  while (!name.empty() && name.back() == '-') name.pop_back();
  return name.empty() ? "plumb" : name;
}

LaunchJob JobOf(const LaunchArguments& a, const std::string& scheduler) {
  if (a.keys.empty() && !a.insecure) {
    throw Error(
        ErrorCode::kInvalidArgument,
        "roles of other machines join with keys: make them with `plumb keys generate keys/` "
        "and say --keys keys; on a network where everybody is trusted --insecure goes "
        "without",
        "launch " + scheduler);
  }
  LaunchJob job{.name = JobName(a.recipe),
                .recipe = a.recipe,
                .recipe_text = {},
                .digest = {},
                .overrides = a.overrides,
                .rewards = a.rewards,
                .cpus = a.cpus,
                .gpus = a.gpus,
                .port = static_cast<int>(a.port),
                .keys = a.keys,
                .out = a.out,
                .plumb = a.plumb,
                .image = a.image};
  const bool kubernetes = scheduler == "kubernetes";
  if (kubernetes && job.image.empty()) {
    throw Error(ErrorCode::kInvalidArgument, "needs --image: a container image with Plumb in it",
                "launch kubernetes");
  }
  if (kubernetes && !a.keys.empty()) job.keys = "/keys";  // where the secret is seen
  if (job.out.empty()) job.out = kubernetes ? "/run/plumb" : "runs/" + job.name;
  job.overrides.insert(job.overrides.end(),
                       {"run.roles=cluster", "run.listen=tcp://0.0.0.0:" + std::to_string(a.port)});
  if (!job.keys.empty()) job.overrides.push_back("run.keys=" + job.keys);
  // Its files are the head's, which may be another machine.
  configs::Config config = LoadAndSayPaths(a.recipe, job.overrides).config;
  job.actors = a.actors > 0 ? a.actors : config.run.actors;
  job.nodes = a.nodes > 0 ? a.nodes : 1 + job.actors + job.rewards;
  if (a.nodes > 0 && a.actors == 0) job.actors = std::max<int64_t>(1, a.nodes - 1 - job.rewards);
  job.digest = RecipeDigest(config);
  config.run.out = job.out;
  if (scheduler == "ray") config.run.keys.clear();  // each role has a folder of its own
  job.recipe_text = configs::ToToml(config);
  return job;
}

}  // namespace

void AddLaunchCommand(CLI::App& app) {
  CLI::App* launch =
      app.add_subcommand("launch", "Write what a scheduler needs to run a recipe on many machines")
          ->require_subcommand(1);
  struct Scheduler {
    const char *name, *what;
    std::string (*write)(const LaunchJob&);
  };
  static constexpr Scheduler kSchedulers[] = {
      {"slurm", "An sbatch script", SlurmScript},
      {"kubernetes", "Manifests: a JobSet, a headless service, recipe and run folder",
       KubernetesManifests},
      {"ray", "A driver in Python for `ray start --head` clusters", RayDriver}};
  for (const Scheduler& scheduler : kSchedulers) {
    auto a = std::make_shared<LaunchArguments>();
    CLI::App* verb = launch->add_subcommand(scheduler.name, scheduler.what);
    verb->add_option("recipe", a->recipe, "TOML file")->required();
    verb->add_option("--nodes", a->nodes,
                     "machines; without --actors all that is left of them has an actor")
        ->check(WholeNumber(1, 100'000));
    verb->add_option("--actors", a->actors, "generating roles (default: run.actors)")
        ->check(WholeNumber(1, 4096));
    verb->add_option("--reward-workers", a->rewards,
                     "scoring roles; 0: the head scores (default 1)")
        ->check(WholeNumber(0, 4096));
    verb->add_option("--cpus", a->cpus, "processors of a role (default 4)")
        ->check(WholeNumber(1, 4096));
    verb->add_option("--gpus", a->gpus, "GPUs of the head and of each actor (default 0)")
        ->check(WholeNumber(0, 64));
    verb->add_option("--port", a->port, "first of the head's five ports (default 7777)")
        ->check(WholeNumber(1, 65531));
    verb->add_option("--keys", a->keys, "folder of `plumb keys generate FOLDER/`");
    verb->add_flag("--insecure", a->insecure, "roles join without keys and unencrypted");
    verb->add_option("--out", a->out, "run folder at the head");
    verb->add_option("--plumb", a->plumb, "the program on each machine (default: plumb)");
    verb->add_option("--image", a->image, "kubernetes: a container image with Plumb in it");
    verb->add_option("--set", a->overrides, "section.key=value, any number of times")
        ->allow_extra_args(false);
    verb->callback(
        [a, scheduler] { std::fputs(scheduler.write(JobOf(*a, scheduler.name)).c_str(), stdout); });
  }
}

}  // namespace plumb::run
