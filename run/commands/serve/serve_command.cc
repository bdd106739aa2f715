// plumb serve MODEL: a model that others ask over HTTP, in OpenAI's form.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <thread>

#include "common/base/error.h"
#include "run/board/board_server.h"
#include "run/commands/checked_numbers.h"
#include "run/commands/cli.h"
#include "run/commands/model_options.h"
#include "run/serve/api_server.h"

namespace plumb::run {
namespace {

constexpr std::chrono::milliseconds kNap{100};

struct ServeArguments {
  std::string model, name, key_env;
  std::vector<std::string> adapters;
  ModelOptions options;
  BatchOptions batch;
  ApiOptions api;
  int64_t grace_s = 30, body_mb = 8;
  bool each_alone = false;  // no prompt takes pages of another
};

std::string KeyOf(const std::string& variable) {
  if (variable.empty()) return "";
  const char* key = std::getenv(variable.c_str());
  if (key != nullptr && *key != '\0') return key;
  throw Error(ErrorCode::kInvalidArgument,
              "the environment has no " + variable + ", or it is empty: the API key stands in it",
              "--api-key-env");
}

// False: answers were cut off.
bool Serve(ServeArguments a) {
  a.api.key = KeyOf(a.key_env);
  a.api.max_body = static_cast<size_t>(a.body_mb) << 20;
  std::vector<std::pair<std::string, std::string>> adapters;
  for (const std::string& adapter : a.adapters) adapters.push_back(ReadAdapterOption(adapter));
  ServedModels models(a.model, a.options, a.name);
  for (const auto& [name, folder] : adapters) models.AddAdapter(name, folder);
  const Sampling sampling = ResolveSampling({}, ReadSamplingDefaults(models.folder().base));
  if (!sampling.said.empty()) std::fprintf(stderr, "%s\n", sampling.said.c_str());
  a.batch.sampling = sampling.options;
  a.batch.threads = a.options.threads;
  a.batch.share_prefixes = !a.each_alone;
  BatchEngine engine(models, a.batch);
  ApiServer server(models, engine, a.api);
  NowBusy(Busy::kInOrder);
  std::string names;
  for (const ServedModel& model : models.models()) names += " " + model.name;
  std::printf("serve: %s answers for%s (Ctrl-C ends it)\n", server.url().c_str(), names.c_str());
  if (!IsLoopback(a.api.host)) {
    std::printf("serve: whoever reaches this address %s\n",
                a.api.key.empty() ? "can ask this model: --api-key-env keeps others out"
                                  : "and has the key can ask this model; the key travels in clear");
  }
  std::fflush(stdout);
  while (!StopRequested() && engine.Failure().empty()) std::this_thread::sleep_for(kNap);
  if (const std::string failure = engine.Failure(); !failure.empty())
    throw Error(ErrorCode::kUnavailable, failure, "serve");
  const bool whole = server.Drain(std::chrono::seconds(a.grace_s));
  std::fprintf(stderr, "plumb: %s\n",
               whole ? "stopped: what was being answered has ended"
                     : "stopped: answers that had not ended within --grace were cut off");
  return whole;
}

}  // namespace

void AddServeCommand(CLI::App& app, CliResult& result) {
  auto a = std::make_shared<ServeArguments>();
  a->api.port = 8000;
  CLI::App* serve =
      app.add_subcommand("serve", "Answer over HTTP, in OpenAI's form: completions, chat, streams");
  serve->add_option("model", a->model, "a model folder, an adapter's, or a run's, e.g. runs/demo")
      ->required();
  serve->add_option("--model-name", a->name, "what clients call it (default: the folder's name)");
  serve
      ->add_option("--adapter", a->adapters,
                   "NAME=FOLDER: an adapter on this model, asked for by its name; any number of "
                   "times")
      ->allow_extra_args(false);
  serve
      ->add_option("--host", a->api.host,
                   "address to listen on; others than loopback are open to whoever reaches them")
      ->capture_default_str();
  serve->add_option("--port", a->api.port, "0 takes a free one")
      ->check(WholeNumber(0, 65535))
      ->capture_default_str();
  serve
      ->add_option("--name", a->api.names,
                   "a name that clients may call this machine by, besides its addresses")
      ->allow_extra_args(false);
  serve->add_option("--api-key-env", a->key_env,
                    "environment variable with a key that every request but /health has to show");
  serve->add_option("--max-batch", a->batch.max_batch, "answers drawn together, of each model")
      ->check(WholeNumber(1, 4096))
      ->capture_default_str();
  serve
      ->add_option("--max-requests", a->batch.max_requests,
                   "requests answered or waiting; one more gets 429")
      ->check(WholeNumber(1, 4096))
      ->capture_default_str();
  serve->add_option("--max-new-tokens", a->batch.max_new_tokens, "most tokens of an answer")
      ->check(WholeNumber(1, 1 << 20))
      ->capture_default_str();
  serve->add_option("--max-body-mb", a->body_mb, "MiB of a request at most; a larger one gets 413")
      ->check(WholeNumber(1, 1024))
      ->capture_default_str();
  serve->add_option("--kv-mb", a->batch.kv_mb, "MiB for keys and values, of each model")
      ->check(WholeNumber(1, 1 << 20))
      ->capture_default_str();
  serve->add_flag(
      "--no-shared-prefixes", a->each_alone,
      "compute every prompt anew: how fast an answer begins tells no client what others "
      "have asked");
  serve
      ->add_option("--grace", a->grace_s,
                   "seconds that running answers have once Ctrl-C or SIGTERM came")
      ->check(WholeNumber(0, 86400))
      ->capture_default_str();
  AddModelOptions(serve, a->options);
  serve->footer("Exit code 7: answers were cut off when it was stopped.");
  serve->callback([a, &result] {
    if (!Serve(*a)) result.exit_code = kExitFewerSteps;
  });
}

}  // namespace plumb::run
