#include "run/commands/plan/plan_command.h"

#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>
#include <vector>

#include "common/base/error.h"
#include "common/base/size_text.h"
#include "configs/checks/actor_device.h"
#include "configs/parallel.h"
#include "kernels/device/device_memory.h"
#include "run/commands/checked_numbers.h"
#include "run/roles/cluster/ring_model.h"
#include "run/roles/observer.h"
#include "run/roles/roles.h"
#include "run/roles/run_memory.h"
#include "run/roles/speed_probe.h"
#include "run/roles/thread_count.h"
#include "run/roles/time_plan.h"
#include "run/session/recipe/recipe_check.h"
#include "run/session/recipe/row_check.h"
#include "run/session/session.h"
#include "run/session/stages/stage_plan.h"

namespace plumb::run {
namespace {

struct PlanArguments {
  std::string recipe, gpu, rates, from;
  int64_t nodes = 0, actors = 0, rewards = 1, learners = 1;
  double network = 1.25;
  Lengths lengths;
  std::vector<std::string> overrides;
  bool json = false, no_time = false;
};

// Seconds of a step by phase, null where nothing is known of the device.
nlohmann::ordered_json TimeJson(const configs::Config& config, const Session& session,
                                const RunMemory& memory, const std::optional<Speeds>& speeds,
                                const Lengths& lengths) {
  if (!speeds) return nullptr;
  const StepTime time =
      TimeOf(CountStep(config, session.shape(), lengths, memory.recompute), *speeds);
  nlohmann::ordered_json out = {{"generate_s", time.generate},
                                {"train_s", time.train},
                                {"publish_s", time.publish},
                                {"step_s", time.total()},
                                {"median_over_best", speeds->middling},
                                {"speeds", speeds->source}};
  const auto best =
      FastestThatFits(config, session.shape(), memory.device, memory.free, *speeds, lengths);
  out["fastest"] = nullptr;
  if (best)
    out["fastest"] = {
        {"options", best->options}, {"bytes", best->bytes}, {"step_s", best->seconds}};
  return out;
}

nlohmann::ordered_json MemoryJson(const RunMemory& memory) {
  nlohmann::ordered_json out = {{"device", DeviceName(memory.device)},
                                {"items", nlohmann::ordered_json::array()}};
  for (const learner::MemoryItem& item : memory.plan.items)
    out["items"].push_back({{"kind", item.kind}, {"bytes", item.bytes}, {"what", item.what}});
  out["total"] = memory.plan.total();
  out["free"] = memory.free > 0 ? nlohmann::ordered_json(memory.free) : nullptr;
  out["fits"] = memory.fits();
  if (memory.host.items.empty()) return out;
  auto& host = out["host"] = {{"items", nlohmann::ordered_json::array()}};
  for (const learner::MemoryItem& item : memory.host.items)
    host["items"].push_back({{"kind", item.kind}, {"bytes", item.bytes}, {"what", item.what}});
  host["total"] = memory.host.total();
  host["free"] =
      memory.host_free > 0 ? nlohmann::ordered_json(memory.host_free) : nlohmann::ordered_json();
  return out;
}

std::string FreeText(const RunMemory& memory) {
  return "free                  " +
         (memory.free > 0 ? SizeText(memory.free)
                          : "not known: " + DeviceName(memory.device) +
                                " is not here; --set run.memory_gb=80 compares with a card") +
         "\n";
}

nlohmann::ordered_json PlanJson(const RunMemory& memory, bool automatic,
                                nlohmann::ordered_json time) {
  nlohmann::ordered_json out = MemoryJson(memory);
  out["recompute"] = {{"value", configs::NameOf(memory.recompute)}, {"automatic", automatic}};
  out["smaller_with"] = memory.smaller;
  out["time"] = std::move(time);
  return out;
}

// The speeds that were asked for; else those of this machine, where it is what the recipe runs on.
std::optional<Speeds> KnownSpeeds(const configs::Config& config, const Session& session,
                                  const RunMemory& memory, const Card* card,
                                  const PlanArguments& arguments) {
  if (!arguments.rates.empty()) return ReadSpeeds(arguments.rates);
  if (card != nullptr) return SpeedsOf(*card, config.model, session.shape());
  if (memory.device.is_cpu())
    return MeasureSpeeds(config, session.shape(), Device::kCpu, arguments.lengths);
  if (kernels::DeviceBytesFree(memory.device) == 0) return std::nullopt;  // it is not here
  const OwnedStream stream(memory.device);
  return MeasureSpeeds(config, session.shape(), stream, arguments.lengths);
}

// How long a step would take on several machines, by what a finished run measured on one.
void PlanRing(const PlanArguments& arguments, const configs::Config& config,
              const Session& session) {
  // What it measured is of the recipe that it ran.
  const configs::Config measured = configs::LoadRecipe(RunFolder{arguments.from}.config()).config;
  const bool processes = measured.run.roles == configs::Roles::kProcesses;
  RingRates rates =
      ReadRingRates(arguments.from, arguments.from, processes ? measured.run.actors : 1);
  rates.sync = config.run.schedule == configs::Schedule::kSync;
  // A recipe with another batch has as much more, or less, to do.
  const auto answers = [](const configs::Config& c) {
    return static_cast<double>(c.rollout.prompts_per_step * c.rollout.samples_per_prompt);
  };
  const double scale = answers(config) / answers(measured);
  for (double* each : {&rates.tokens, &rates.reward_s, &rates.train_s}) *each *= scale;
  rates.groups = static_cast<double>(config.rollout.prompts_per_step);
  rates.group_bytes *= static_cast<double>(config.rollout.samples_per_prompt) /
                       static_cast<double>(measured.rollout.samples_per_prompt);
  rates.network_bytes_per_s = arguments.network * 1e9;
  rates.relay = config.run.relay;
  const policy_model::Weights weights =
      PlannedWeights(config, session.shape(), Stream(Device::kCpu));
  for (const auto& set : weights.sets())
    rates.weight_bytes += set->trained ? static_cast<double>(set->flat.bytes()) : 0;
  std::vector<Ring> rings;
  if (arguments.actors > 0 || arguments.nodes == 0) {
    rings.push_back({.actors = std::max<int64_t>(1, arguments.actors),
                     .rewards = arguments.rewards,
                     .learners = arguments.learners});
  }
  if (arguments.nodes > 0) rings.push_back(BestRing(rates, arguments.nodes, arguments.rewards));
  for (const int64_t machines : {8, 64, 1024})
    rings.push_back(BestRing(rates, machines, std::max(arguments.rewards, machines / 8)));
  if (!arguments.json) {
    std::fputs(RingText(rates, rings).c_str(), stdout);
    return;
  }
  nlohmann::ordered_json out = {{"measured_step_s", rates.measured_step_s},
                                {"rings", nlohmann::ordered_json::array()}};
  for (const Ring& ring : rings) {
    const RingTime time = PredictStep(rates, ring);
    nlohmann::ordered_json stages;
    for (size_t i = 0; i < time.stage.size(); ++i) stages[RingTime::kStages[i]] = time.stage[i];
    out["rings"].push_back({{"learners", ring.learners},
                            {"actors", ring.actors},
                            {"reward_workers", ring.rewards},
                            {"step_s", time.step},
                            {"stages_s", stages},
                            {"bottleneck", RingTime::kStages[time.bottleneck]},
                            {"idle_actors", time.idle_actors}});
  }
  std::printf("%s\n", out.dump(1).c_str());
}

void Note(const std::string& text) { std::fprintf(stderr, "plumb: note: %s\n", text.c_str()); }

// What the reward parts need of the machine that trains, which may be another.
void NoteSurroundings(const configs::Config& config) {
  if (!config.run.stages.empty() || !PartProblems(config.reward, Surroundings::kIgnored).empty())
    return;
  for (const std::string& problem : PartProblems(config.reward, Surroundings::kNeeded))
    Note("a run on this machine is refused: " + problem);
}

// What one recipe would take, without a run.
struct OnePlan {
  RunMemory memory;
  std::optional<RunMemory> actors;  // where they have another device
  void Check() const {
    memory.Check();
    if (actors) actors->Check();
  }
  std::string text;             // for people
  nlohmann::ordered_json json;  // where that was asked for
};

OnePlan PlanOne(configs::Config config, const PlanArguments& arguments) {
  const Card* card = arguments.gpu.empty() ? nullptr : &FindCard(arguments.gpu);
  NoteSurroundings(config);
  if (card != nullptr) {
    config.run.device = "cuda";
    if (config.run.memory_gb == 0) config.run.memory_gb = card->memory_gb;
  }
  const std::optional<Device> device = ParseDevice(config.run.device);
  if (!device)
    throw Error(ErrorCode::kInvalidArgument, "is no device: cpu, cuda, cuda:1", "run.device");
  const auto session = Session::WithoutRun(config);
  const RunMemory memory = PlanRun(config, session->shape(), *device, FreeMemory(config, *device));
  const int64_t ranks = configs::ReadParallel(config.run.parallel).ranks();
  const std::optional<RunMemory> actors = PlanActors(
      config, session->shape(), ranks, FreeMemory(config, configs::ActorDevice(config, ranks)));
  if (memory.fits() && (!actors || actors->fits())) {  // or that is what a run says first
    if (const std::string unread = CheckRows(*session); !unread.empty()) Note(unread);
  }
  const bool automatic = config.optimizer.recompute == configs::Recompute::kAuto;
  if (device->is_cpu()) {
    if (const std::string many = TooManyThreads(config, ProcessorsAllowed()); !many.empty())
      std::fprintf(stderr, "plumb: warning: %s\n", many.c_str());
  }
  std::optional<Speeds> speeds;
  if (!arguments.no_time) speeds = KnownSpeeds(config, *session, memory, card, arguments);
  if (arguments.json) {
    auto json =
        PlanJson(memory, automatic, TimeJson(config, *session, memory, speeds, arguments.lengths));
    if (actors) json["actors"] = MemoryJson(*actors);
    return {memory, actors, "", std::move(json)};
  }
  std::string text = memory.plan.Text();
  if (automatic)
    text += "recompute             " + configs::NameOf(memory.recompute) + ", chosen by the plan\n";
  text += FreeText(memory);
  if (!memory.host.items.empty()) {
    text += "in the host's memory\n" + memory.host.Text();
    if (memory.host_free > 0) text += "free                  " + SizeText(memory.host_free) + "\n";
  }
  if (!memory.smaller.empty()) text += "smaller with          " + memory.smaller + "\n";
  if (actors) {
    text +=
        "actors on " + DeviceName(actors->device) + "\n" + actors->plan.Text() + FreeText(*actors);
  }
  if (speeds) text += TimeText(config, session->shape(), memory, *speeds, arguments.lengths);
  else if (!arguments.no_time)
    text += "time a step           not known of " + DeviceName(memory.device) +
            ": name the card (--gpu), or give speeds (--rates)\n";
  return {memory, actors, text, nullptr};
}

OnePlan PlanStage(const std::vector<Stage>& stages, size_t which, const PlanArguments& arguments) {
  try {
    return PlanOne(WithFirstModel(stages, which), arguments);
  } catch (const Error& error) {  // as training says it
    throw Error(error.code(), StageName(stages, which) + ": " + error.what());
  }
}

// The stages of a recipe one after the other, each with a model like the one that the first begins
// with: those that they will have are not there yet.
void PlanEachStage(const configs::Loaded& recipe, const PlanArguments& arguments) {
  const std::vector<Stage> stages = PlanStages(recipe, "RUN");
  nlohmann::ordered_json all = nlohmann::ordered_json::array();
  std::vector<OnePlan> plans;
  for (size_t i = 0; i < stages.size(); ++i) {
    OnePlan plan = PlanStage(stages, i, arguments);
    if (arguments.json) {
      plan.json["stage"] = stages[i].name;
      all.push_back(std::move(plan.json));
    } else {
      std::printf("%s%s\n%s", i == 0 ? "" : "\n", StageName(stages, i).c_str(), plan.text.c_str());
    }
    plans.push_back(std::move(plan));
  }
  if (arguments.json)
    std::printf("%s\n", nlohmann::ordered_json{{"stages", std::move(all)}}.dump(1).c_str());
  for (const OnePlan& plan : plans) plan.Check();
}

void Plan(const PlanArguments& arguments) {
  const configs::Loaded recipe = CheckedRecipe(arguments.recipe, arguments.overrides, nullptr,
                                               nullptr, Surroundings::kIgnored);
  if (!recipe.config.run.stages.empty()) return PlanEachStage(recipe, arguments);
  if (!arguments.from.empty())
    return PlanRing(arguments, recipe.config, *Session::WithoutRun(recipe.config));
  if (arguments.nodes > 0) {
    throw Error(ErrorCode::kInvalidArgument,
                "needs --from RUN, a finished run of this recipe on a machine of the kind: what it "
                "measured is what several are planned with",
                "plan --nodes");
  }
  const OnePlan plan = PlanOne(recipe.config, arguments);
  if (arguments.json) std::printf("%s\n", plan.json.dump(1).c_str());
  else std::fputs(plan.text.c_str(), stdout);
  plan.Check();
}

}  // namespace

void AddPlanCommand(CLI::App& app) {
  auto plan = std::make_shared<PlanArguments>();
  CLI::App* planned = app.add_subcommand("plan",
                                         "What a recipe's run would take of memory, by kind, "
                                         "whether that fits, and of time, by phase");
  planned
      ->add_option("recipe", plan->recipe,
                   "TOML file; its rows are read as a run reads them, its model's weights "
                   "are not")
      ->required();
  planned->add_option("--set", plan->overrides, "section.key=value, any number of times")
      ->allow_extra_args(false);
  planned->add_flag("--json", plan->json, "one JSON object, in bytes and seconds");
  planned->add_option("--gpu", plan->gpu,
                      "plan for this card, which need not be here: a100, h100, h200, l40s, 4090");
  planned
      ->add_option("--rates", plan->rates,
                   "JSON with the speeds to plan with: \"train\", \"forward\", \"decode\" in "
                   "operations a second, \"memory\" in bytes a second")
      ->excludes("--gpu");
  planned
      ->add_option("--prompt-tokens", plan->lengths.prompt,
                   "of the mean prompt (default: the longest that the recipe allows)")
      ->check(WholeNumber(1));
  planned
      ->add_option("--answer-tokens", plan->lengths.answer,
                   "of the mean answer (default: the longest that the recipe allows)")
      ->check(WholeNumber(1));
  planned->add_option("--from", plan->from,
                      "folder of a finished run: a step's time on several machines by what it "
                      "measured, and what holds up 8, 64 and 1,024 of them (docs/cluster.md)");
  planned
      ->add_option("--nodes", plan->nodes,
                   "with --from: machines, or GPUs, that learner and actors share as is best")
      ->check(WholeNumber(2, 1'000'000));
  planned->add_option("--actors", plan->actors, "with --from: so many, on a machine each")
      ->check(WholeNumber(1, 1'000'000));
  planned->add_option("--learners", plan->learners, "with --from and --actors: ranks (default 1)")
      ->check(WholeNumber(1, 1'000'000));
  planned->add_option("--reward-workers", plan->rewards, "with --from (default 1)")
      ->check(WholeNumber(1, 1'000'000));
  planned
      ->add_option("--network", plan->network,
                   "with --from: GB/s of the head's network (default 1.25, which is 10 Gbit/s)")
      ->check(NumberAbove(0));
  planned->add_flag("--no-time", plan->no_time,
                    "memory only: nothing is measured, no time is said");
  planned->footer("Exit code 2: it does not fit.");
  planned->callback([plan] { Plan(*plan); });
}

}  // namespace plumb::run
