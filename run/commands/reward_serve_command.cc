// plumb reward serve RECIPE: its parts as a ZeroMQ worker that any run, or any program, may ask
// (reward/doors/zmq_worker.h). plumb keys generate PATH: a CURVE key pair for such a worker or its
// client.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <thread>

#include "common/base/log.h"
#include "common/net/curve_keys.h"
#include "configs/config.h"
#include "reward/doors/reward_server.h"
#include "reward/models/model_part.h"
#include "reward/models/reward_model.h"
#include "reward/scorer.h"
#include "run/commands/checked_numbers.h"
#include "run/commands/cli.h"
#include "run/roles/cluster/cluster_keys.h"
#include "run/session/model_folder.h"
#include "run/session/recipe/recipe_check.h"

namespace plumb::run {
namespace {

struct ServeArguments {
  std::string recipe, bind, key, allowed;
  std::vector<std::string> overrides, parts;
  int64_t workers = 1;
};

std::string Line(const std::map<std::string, uint64_t>& counters) {
  std::string line;
  for (const auto& [name, value] : counters)
    line += (line.empty() ? "" : ", ") + name + " " + std::to_string(value);
  return line;
}

int Serve(const ServeArguments& a) {
  if (a.key.empty() != a.allowed.empty()) {
    throw Error(
        ErrorCode::kInvalidArgument,
        "--key and --allowed belong together: the worker's key, and the list of its clients'",
        "reward serve");
  }
  std::vector<std::string> overrides = a.overrides;
  // no prompts are read: [[reward.parts]] alone will do
  overrides.insert(overrides.begin(), "data.train=arithmetic");
  const configs::Config config = LoadAndSayPaths(a.recipe, overrides).config;
  std::vector<reward::ServedPart> parts;
  std::string names;
  // tokenizer and chat template of the model parts, without weights
  std::unique_ptr<ModelFolder> model;
  reward::HostOptions host;
  for (configs::RewardPartConfig part : config.reward.parts) {
    if (part.name.empty()) part.name = part.kind;
    names += (names.empty() ? "" : ", ") + part.name;
    if (!a.parts.empty() && std::find(a.parts.begin(), a.parts.end(), part.name) == a.parts.end())
      continue;
    if ((part.kind == "reward_model" || part.kind == "perplexity") && !model) {
      reward::ReadModelPart(part, "a model to score with");
      model = std::make_unique<ModelFolder>(LoadVocabulary(part.path, "auto"));
      host = reward::WithModelParts(*model->tokenizer);
    }
    parts.push_back(
        {reward::MakeFunction(part, config.reward.allow_unsandboxed, host), part.weight});
  }
  if (parts.empty() || (!a.parts.empty() && parts.size() < a.parts.size())) {
    throw Error(ErrorCode::kNotFound,
                "--part names something that the recipe does not have; its parts: " + names,
                a.recipe);
  }
  FrameServerOptions options{.workers = static_cast<int>(a.workers)};
  if (!a.key.empty()) options.curve = {ReadCurveKeys(a.key), a.allowed};
  reward::TokenReader reader;
  if (model) {
    reader.vocabulary = host.vocabulary;
    reader.encode = [&model](const Prompt& prompt, const std::string& completion) {
      std::vector<int32_t> tokens = model->EncodePrompt(prompt, /*raw=*/false);
      const std::vector<int32_t> answer = model->tokenizer->Encode(completion);
      tokens.insert(tokens.end(), answer.begin(), answer.end());
      return tokens;
    };
  }
  reward::RewardServer server(std::move(parts), a.bind, options, std::move(reader));
  std::printf("serving %s at %s, %s\n", a.recipe.c_str(), server.endpoint().c_str(),
              server.digest().c_str());
  if (!options.curve.empty())
    std::printf("its public key: %s\n", options.curve.own.public_key.c_str());
  std::fflush(stdout);
  auto said = std::chrono::steady_clock::now();
  NowBusy(Busy::kInOrder);
  while (!StopRequested()) {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    if (std::chrono::steady_clock::now() - said < std::chrono::seconds(60)) continue;
    said = std::chrono::steady_clock::now();
    LogInfo(Line(server.counters()));
  }
  std::printf("stopped: %s\n", Line(server.counters()).c_str());
  return 0;
}

}  // namespace

void AddRewardServeCommand(CLI::App& app, CliResult& result) {
  CLI::App* reward = nullptr;
  for (CLI::App* verb : app.get_subcommands([](CLI::App*) { return true; })) {
    if (verb->get_name() == "reward") reward = verb;
  }
  if (reward == nullptr)
    reward = app.add_subcommand("reward", "Reward functions outside a run")->require_subcommand(1);
  auto a = std::make_shared<ServeArguments>();
  CLI::App* serve = reward->add_subcommand(
      "serve", "A recipe's reward parts as a ZeroMQ worker for kind = \"zmq\"");
  serve->add_option("recipe", a->recipe, "TOML file with [[reward.parts]]")->required();
  serve
      ->add_option("--bind", a->bind,
                   "tcp://127.0.0.1:PORT or ipc:///path; with keys any tcp://ADDRESS:PORT")
      ->required();
  serve->add_option("--part", a->parts, "serve this part only, any number of times")
      ->allow_extra_args(false);
  serve->add_option("--workers", a->workers, "requests scored at once")
      ->check(WholeNumber(1, 1024));
  serve->add_option("--key", a->key, "this worker's .key file (plumb keys generate)");
  serve->add_option("--allowed", a->allowed,
                    "public keys that may ask, one a line; read anew when it changes");
  serve->add_option("--set", a->overrides, "section.key=value, any number of times")
      ->allow_extra_args(false);
  serve->callback([a, &result] { result.exit_code = Serve(*a); });

  CLI::App* keys =
      app.add_subcommand("keys", "CURVE keys that guard sockets")->require_subcommand(1);
  auto path = std::make_shared<std::string>();
  CLI::App* generate = keys->add_subcommand(
      "generate",
      "Write PATH.key (secret, for this side) and PATH.pub (for the other); in a folder, FOLDER/, "
      "those of a cluster: a pair for the head and for each kind of role, and the lists of who may "
      "join");
  generate->add_option("path", *path, "without ending; or a folder, with a / at its end")
      ->required();
  generate->callback([path] {
    if (path->ends_with("/") || std::filesystem::is_directory(*path)) {
      const std::string folder = path->substr(0, path->find_last_not_of('/') + 1);
      WriteClusterKeys(folder);
      std::printf(
          "%s: head.key stays with the head (run.keys); a machine with actors gets head.pub and "
          "actor.key, one with reward workers head.pub and reward.key (--keys). actor.allowed and "
          "reward.allowed at the head say who may join\n",
          folder.c_str());
      return;
    }
    const CurveKeys made = GenerateCurveKeys();
    WriteCurveKeys(*path, made);
    std::printf("%s.key stays here; %s.pub goes to the other side: %s\n", path->c_str(),
                path->c_str(), made.public_key.c_str());
  });
}

}  // namespace plumb::run
