// plumb generate MODEL: answers of a model folder, through the same engine as a run's actors.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "actor/engine.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include "replay/datasets/rows/row_parser.h"
#include "reward/part/reward.h"
#include "run/commands/cli.h"
#include "run/commands/spooled_input.h"
#include "run/session/model_folder.h"

namespace plumb::run {
namespace {

struct GenerateArguments {
  std::string model, system;
  std::vector<std::string> prompts, messages, stop;
  ModelOptions options;
  int64_t max_new_tokens = 256;
  double temperature = 1.0, top_p = 1.0, min_p = 0.0;
  int64_t top_k = 0, samples = 1;
  uint64_t seed = 0;
  bool raw = false, greedy = false, json = false, special = false;
};

const char* FinishName(FinishReason finish) {
  return finish == FinishReason::kStop     ? "stop"
         : finish == FinishReason::kLength ? "length"
                                           : "aborted";
}

// A conversation: a list of messages, or an object as a dataset has it (messages or prompt; tools,
// chat_template_kwargs).
Prompt ReadConversation(const std::string& path) {
  constexpr size_t kMaxBytes = size_t{16} << 20;
  std::string text =
      path == "-" ? TextOfStandardInput() : RealFileSystem().ReadFile(path, kMaxBytes);
  const auto json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  replay::RowParserOptions options{
      .map = {}, .form = {}, .convert_numbers = false, .as = replay::RowKind::kPrompts};
  if (json.is_array()) text = "{\"messages\":" + text + "}";
  if (json.is_array() || json.contains("messages")) options.map["prompt"] = "messages";
  text.append(64, ' ');  // the parser looks ahead
  try {
    return replay::RowParser(options).Parse(text).prompt;
  } catch (const replay::RowProblem& problem) {
    throw Error(ErrorCode::kInvalidArgument, problem.detail + " (" + problem.reason + ")", path);
  }
}

std::vector<int32_t> Encode(const ModelFolder& model, const GenerateArguments& arguments,
                            const std::string& text, Prompt prompt) {
  if (!prompt.messages.empty() && (arguments.raw || !arguments.system.empty())) {
    throw Error(ErrorCode::kInvalidArgument,
                "a conversation goes through the chat template as it is",
                arguments.raw ? "--raw" : "--system");
  }
  const bool given = !prompt.messages.empty() || !prompt.text.empty();
  if (!given && arguments.system.empty()) prompt.text = text;
  if (!given && !arguments.system.empty()) {
    if (arguments.raw || !model.chat_template) {
      throw Error(ErrorCode::kInvalidArgument,
                  arguments.raw ? "--system and --raw exclude each other"
                                : "this model has no chat template to put a system message into",
                  "--system");
    }
    prompt.messages = {{.role = "system", .content = arguments.system},
                       {.role = "user", .content = text}};
  }
  std::vector<int32_t> tokens = model.EncodePrompt(prompt, arguments.raw);
  if (tokens.empty())
    throw Error(ErrorCode::kInvalidArgument, "the prompt has no tokens", "--prompt");
  if (static_cast<int64_t>(tokens.size()) >= model.shape.max_positions) {
    throw Error(ErrorCode::kInvalidArgument,
                "the prompt has " + std::to_string(tokens.size()) + " tokens, the model " +
                    std::to_string(model.shape.max_positions) + " positions",
                "--prompt");
  }
  return tokens;
}

int Generate(GenerateArguments arguments) {
  for (std::string& prompt : arguments.prompts) {
    if (prompt == "-") prompt = TextOfStandardInput();
  }
  std::vector<Prompt> conversations(
      arguments.prompts.size());  // empty ones: the text of --prompt is asked
  for (const std::string& path : arguments.messages) {
    conversations.push_back(ReadConversation(path));
    arguments.prompts.push_back(reward::PromptText(conversations.back()));
  }
  if (conversations.empty())
    throw Error(ErrorCode::kInvalidArgument,
                "nothing is asked: give --prompt TEXT or --messages FILE", "generate");
  const ModelFolder model = LoadModel(arguments.model, arguments.options);
  const actor::EngineOptions options{
      .max_batch = static_cast<int32_t>(std::clamp<int64_t>(
          arguments.samples * static_cast<int64_t>(arguments.prompts.size()), 1, 256)),
      .max_new_tokens = static_cast<int32_t>(arguments.max_new_tokens),
      .sampling = {.temperature =
                       arguments.greedy ? 0.0f : static_cast<float>(arguments.temperature),
                   .top_k = static_cast<int32_t>(arguments.top_k),
                   .top_p = static_cast<float>(arguments.top_p),
                   .min_p = static_cast<float>(arguments.min_p),
                   .seed = arguments.seed},
      .stop = arguments.stop,
      .eos = model.shape.eos_tokens};
  actor::Engine engine(model.shape, model.stream, model.dtype, options, model.tokenizer.get());
  for (size_t i = 0; i < arguments.prompts.size(); ++i) {
    std::vector<int32_t> tokens = Encode(model, arguments, arguments.prompts[i], conversations[i]);
    const int64_t room = model.shape.max_positions - static_cast<int64_t>(tokens.size());
    engine.Submit({.id = i,
                   .tokens = std::move(tokens),
                   .num_samples = static_cast<int32_t>(arguments.samples),
                   .prompt_key = actor::RandomAddress(Purpose::kTrain, i),
                   .limit = static_cast<int32_t>(std::min(arguments.max_new_tokens, room))});
  }
  const auto begin = std::chrono::steady_clock::now();
  std::vector<actor::GenerateResult> results;
  while (!StopRequested() && engine.Step(*model.weights, 0)) {
    for (auto& result : engine.TakeFinished()) results.push_back(std::move(result));
  }
  for (auto& result : engine.TakeFinished()) results.push_back(std::move(result));
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  std::sort(results.begin(), results.end(),
            [](const auto& a, const auto& b) { return a.id < b.id; });

  const bool many = arguments.prompts.size() * static_cast<size_t>(arguments.samples) > 1;
  std::string aborted;
  for (const auto& result : results) {
    for (const auto& sample : result.samples) {
      const std::string text =
          model.tokenizer->Decode(sample.tokens, /*skip_special=*/!arguments.special);
      if (sample.finish == FinishReason::kAborted) aborted = sample.reason;
      if (arguments.json) {
        nlohmann::ordered_json line = {{"prompt", arguments.prompts[result.id]},
                                       {"sample", sample.sample},
                                       {"completion", text},
                                       {"finish", FinishName(sample.finish)},
                                       {"tokens", sample.tokens},
                                       {"logprobs", sample.logprobs}};
        if (!sample.reason.empty()) line["reason"] = sample.reason;
        std::printf(
            "%s\n",
            line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace).c_str());
        continue;
      }
      if (many) {
        std::printf("--- prompt %llu, sample %u: %zu tokens, %s\n",
                    static_cast<unsigned long long>(result.id + 1), sample.sample + 1,
                    sample.tokens.size(), FinishName(sample.finish));
      }
      std::printf("%s\n", text.c_str());
    }
  }
  std::fflush(stdout);
  const auto& counters = engine.counters();
  if (isatty(STDERR_FILENO)) {
    std::fprintf(stderr, "%llu tokens in %.2f s, %.0f tokens/s\n",
                 static_cast<unsigned long long>(counters.generated_tokens), seconds,
                 static_cast<double>(counters.generated_tokens) / std::max(1e-9, seconds));
  }
  if (StopRequested()) {
    std::fprintf(stderr, "plumb: stopped: answers that had not ended are not shown\n");
    return kExitFewerSteps;
  }
  if (counters.nonfinite_samples > 0) throw Error(ErrorCode::kNonFinite, aborted, arguments.model);
  if (!aborted.empty()) throw Error(ErrorCode::kInvalidArgument, aborted, arguments.model);
  return 0;
}

}  // namespace

void AddGenerateCommand(CLI::App& app, CliResult& result) {
  auto a = std::make_shared<GenerateArguments>();
  CLI::App* generate = app.add_subcommand("generate", "Answers of a model folder");
  generate->add_option("model", a->model, "a model folder, or a run's, e.g. runs/demo")->required();
  generate->add_option("--prompt", a->prompts, "text; any number of times; - reads standard input")
      ->allow_extra_args(false);
  generate
      ->add_option("--messages", a->messages,
                   "JSON file with a conversation: a list of messages, or {messages, tools, "
                   "chat_template_kwargs}; "
                   "any number of times; - reads standard input")
      ->allow_extra_args(false);
  generate->add_option("--system", a->system, "system message, for models with a chat template");
  generate->add_flag("--raw", a->raw, "no chat template: continue the text as it stands");
  generate->add_option("--samples", a->samples, "answers a prompt")->check(CLI::Range(1, 4096));
  generate->add_option("--max-new-tokens", a->max_new_tokens, "limit of an answer (256)")
      ->check(CLI::Range(1, 1 << 20));
  generate
      ->add_option("--temperature", a->temperature, "1: the model's own distribution; 0: greedy")
      ->check(CLI::Range(0.0, 100.0));
  generate->add_flag("--greedy", a->greedy, "the likeliest token every time");
  generate->add_option("--top-p", a->top_p, "smallest set with this mass; 1: off")
      ->check(CLI::Range(0.0, 1.0));
  generate->add_option("--top-k", a->top_k, "the k likeliest; 0: off")
      ->check(CLI::NonNegativeNumber);
  generate->add_option("--min-p", a->min_p, "at least this share of the likeliest; 0: off")
      ->check(CLI::Range(0.0, 1.0));
  generate->add_option("--seed", a->seed, "same seed, same answers");
  generate->add_option("--stop", a->stop, "end an answer at this text; any number of times")
      ->allow_extra_args(false);
  generate->add_flag("--special", a->special, "print special tokens, too");
  generate->add_flag("--json", a->json, "a JSON object an answer, with tokens and log-probs");
  generate->add_option("--dtype", a->options.dtype, "auto | float32 | bfloat16");
  generate->add_option("--device", a->options.device, "cpu | cuda | cuda:N");
  generate->add_option("--bos", a->options.bos,
                       "auto | yes | no: begin token in front of raw text");
  generate->add_option("--threads", a->options.threads, "0: one a core")
      ->check(CLI::NonNegativeNumber);
  generate->callback([a, &result] { result.exit_code = Generate(*a); });
}

}  // namespace plumb::run
