// plumb generate MODEL: answers of a model folder, through the same engine as a run's actors.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/output_path.h"
#include "common/text/tokenizer/text_stream.h"
#include "common/text/unicode.h"
#include "replay/datasets/rows/dataset_import.h"
#include "replay/datasets/rows/row_parser.h"
#include "reward/part/reward.h"
#include "run/commands/checked_numbers.h"
#include "run/commands/cli.h"
#include "run/commands/model_options.h"
#include "run/commands/spooled_input.h"
#include "run/models/answering.h"
#include "run/report/count_progress.h"
#include "run/session/interrupt.h"

namespace plumb::run {
namespace {

using OrderedJson = nlohmann::ordered_json;
using SteadyClock = std::chrono::steady_clock;

struct GenerateArguments {
  std::string model, system, prompts_file, out;
  std::vector<std::string> prompts, messages, map;
  ModelOptions options;
  SamplingArguments sampling;
  int64_t samples = 1, limit = 0;
  bool raw = false, json = false, special = false, stream = false, overwrite = false;
};

// A conversation: a list of messages, or an object as a dataset has it (messages or prompt; tools,
// chat_template_kwargs).
Prompt ReadConversation(const std::string& path) {
  constexpr size_t kMaxBytes = size_t{16} << 20;
  std::string text =
      path == "-" ? TextOfStandardInput() : RealFileSystem().ReadFile(path, kMaxBytes);
  if (text.find_first_not_of(" \t\r\n") == std::string::npos)
    throw Error(ErrorCode::kInvalidArgument, "the file is empty", path);
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

// `from`: the option or file that it came from, for messages.
void Encode(const ModelFolder& model, const GenerateArguments& a, const std::string& from,
            Prompt& prompt) {
  if (!prompt.messages.empty() && (a.raw || !a.system.empty())) {
    throw Error(ErrorCode::kInvalidArgument,
                "a conversation goes through the chat template as it is",
                a.raw ? "--raw" : "--system");
  }
  if (prompt.messages.empty() && !a.system.empty()) {
    if (a.raw || !model.chat_template) {
      throw Error(ErrorCode::kInvalidArgument,
                  a.raw ? "--system and --raw exclude each other"
                        : "this model has no chat template to put a system message into",
                  "--system");
    }
    prompt.messages = {{.role = "system", .content = a.system},
                       {.role = "user", .content = std::move(prompt.text)}};
    prompt.text.clear();
  }
  try {
    prompt.tokens = model.EncodePrompt(prompt, a.raw);
  } catch (const Error& e) {  // what the vocabulary lacks, what the chat template refuses
    throw Error(e.code(), e.message(), from + (e.where().empty() ? "" : " (" + e.where() + ")"));
  }
  if (prompt.tokens.empty())
    throw Error(ErrorCode::kInvalidArgument, "the prompt has no tokens", from);
  if (static_cast<int64_t>(prompt.tokens.size()) >= model.shape.max_positions) {
    throw Error(ErrorCode::kInvalidArgument,
                "the prompt has " + std::to_string(prompt.tokens.size()) + " tokens, the model " +
                    std::to_string(model.shape.max_positions) + " positions",
                from);
  }
}

// What --prompt and --messages ask, in that order.
std::vector<Prompt> AskedFor(const ModelFolder& model, const GenerateArguments& a) {
  std::vector<Prompt> prompts;
  const auto add = [&](Prompt prompt, const std::string& from) {
    prompt.row = prompts.size();
    Encode(model, a, from, prompt);
    prompts.push_back(std::move(prompt));
  };
  for (const std::string& text : a.prompts) {
    Prompt prompt;
    prompt.text = text == "-" ? TextOfStandardInput() : text;
    add(std::move(prompt), "--prompt");
  }
  for (const std::string& path : a.messages) add(ReadConversation(path), path);
  return prompts;
}

struct FileRows {
  std::vector<Prompt> prompts;
  std::string left_out;  // RowLedger::LeftOut
};

FileRows FromFile(const ModelFolder& model, const GenerateArguments& a) {
  if (!a.system.empty() && (a.raw || !model.chat_template)) {
    throw Error(ErrorCode::kInvalidArgument,
                a.raw ? "--system and --raw exclude each other"
                      : "this model has no chat template to put a system message into",
                "--system");
  }
  replay::ImportOptions options{.dataset = "prompts",
                                .map = {},
                                .system_prompt = a.system,
                                .limit = a.limit,
                                .max_prompt_tokens = model.shape.max_positions - 1};
  options.max_prompt_bound = "the model has " + std::to_string(model.shape.max_positions);
  options.tokenize = [&](const Prompt& p) { return model.EncodePrompt(p, a.raw); };
  options.skip_untokenizable = true;
  replay::ImportedPrompts imported;
  const SpooledInput input(a.prompts_file);
  input.Read([&](const std::string& file) {
    imported = WithColumnsOfRun(a.model, a.map, [&](const auto& map) {
      options.map = map;
      return replay::ImportPrompts(file, options);
    });
  });
  std::fprintf(stderr, "%s: %s\n", a.prompts_file.c_str(), imported.ledger.Describe().c_str());
  for (const std::string& example : imported.ledger.examples)
    std::fprintf(stderr, "  left out %s\n", input.Named(example).c_str());
  return {std::move(imported.prompts), input.Named(imported.ledger.LeftOut())};
}

// Answers as they are shown: text, or a JSON object a line.
class Answers {
 public:
  Answers(const ModelFolder& model, const GenerateArguments& a) : model_(model), a_(a) {}

  // Of --prompt and --messages.
  void Show(const Prompt& prompt, const actor::GenerateResult& result, bool many) {
    for (const auto& sample : result.samples) {
      Note(sample);
      if (a_.json) {
        Line({{"prompt", reward::PromptText(prompt)}}, sample, /*tokens=*/true);
        continue;
      }
      std::string text = Text(sample);
      RepairUtf8(text);
      if (a_.out.empty() && isatty(STDOUT_FILENO) != 0) text = ForTerminal(text);
      if (many) {
        Write("--- prompt " + std::to_string(result.id + 1) + ", sample " +
              std::to_string(sample.sample + 1) + ": " + std::to_string(sample.tokens.size()) +
              " tokens, " + FinishName(sample.finish) + "\n");
      }
      Write(text + "\n");
    }
  }

  // Of --prompts.
  void ShowRow(const Prompt& prompt, const actor::GenerateResult& result) {
    for (const auto& sample : result.samples) {
      Note(sample);
      OrderedJson line = {{"row", prompt.row}};
      line["prompt"] = prompt.messages.empty() ? OrderedJson(prompt.text)
                                               : OrderedJson::parse(reward::PromptText(prompt));
      if (!prompt.ground_truth.empty()) line["ground_truth"] = prompt.ground_truth;
      Line(std::move(line), sample, a_.json);
    }
    // a row that was answered stays, whatever ends the verb; nobody answers for a reader that left
    if (a_.out.empty()) FlushOutput();
    ++rows_;
  }

  int64_t empty() const { return empty_; }  // that ended with their first token
  int64_t rows() const { return rows_; }    // of --prompts, that are shown
  const std::string& why_aborted() const { return why_aborted_; }

  void Note(const actor::GeneratedSample& sample) {
    if (sample.finish == FinishReason::kStop && Text(sample).empty()) ++empty_;
    if (sample.finish == FinishReason::kAborted) why_aborted_ = sample.reason;
  }

 private:
  std::string Text(const actor::GeneratedSample& sample) const {
    return model_.tokenizer->Decode(sample.tokens, /*skip_special=*/!a_.special);
  }
  void Line(OrderedJson line, const actor::GeneratedSample& sample, bool tokens) {
    line["sample"] = sample.sample;
    line["completion"] = Text(sample);
    line["finish"] = FinishName(sample.finish);
    if (tokens) {
      line["tokens"] = sample.tokens;
      line["logprobs"] = sample.logprobs;
    }
    if (!sample.reason.empty()) line["reason"] = sample.reason;
    Write(line.dump(-1, ' ', false, OrderedJson::error_handler_t::replace) + "\n");
  }
  // A verb that is stopped before its first answer leaves no file, and one that is there as it was.
  void Write(const std::string& text) {
    if (a_.out.empty()) {
      std::fwrite(text.data(), 1, text.size(), stdout);
      return;
    }
    if (!file_) file_ = RealFileSystem().OpenAppend(a_.out, /*truncate=*/true);
    file_->Append(text);
  }

  const ModelFolder& model_;
  const GenerateArguments& a_;
  std::unique_ptr<AppendFile> file_;
  std::string why_aborted_;
  int64_t rows_ = 0, empty_ = 0;
};

// One answer on a terminal, shown while it is drawn.
void ShowWhileDrawn(Answering& answering, const ModelFolder& model, const GenerateArguments& a,
                    std::span<const Prompt> prompts, Answers& answers) {
  TextStream stream(*model.tokenizer, /*skip_special=*/!a.special);
  const bool terminal = isatty(STDOUT_FILENO) != 0;
  const auto show = [terminal](const std::string& piece) {
    const std::string text = terminal ? ForTerminal(piece) : piece;
    std::fwrite(text.data(), 1, text.size(), stdout);
    FlushOutput();
  };
  answering.Run(
      prompts,
      [&](size_t, actor::GenerateResult& result) {
        for (const auto& sample : result.samples) answers.Note(sample);
      },
      [] { return StopRequested().load(); },
      [&](const actor::DrawnToken& token) { show(stream.Add(token.token)); });
  show(stream.End() + "\n");
}

// For whoever stops the verb.
std::string HowFar(const GenerateArguments& a, const Answers& answers, size_t prompts) {
  return std::to_string(answers.rows()) + " of " + std::to_string(prompts) +
         " prompts are answered" + (a.out.empty() || answers.rows() == 0 ? "" : ", in " + a.out);
}

// Rows in their order, each as soon as those before it have ended; false: stopped.
bool ShowRows(Answering& answering, const GenerateArguments& a, std::span<const Prompt> prompts,
              Answers& answers) {
  const auto begin = SteadyClock::now();
  CountProgress progress(static_cast<int64_t>(prompts.size()), "prompts",
                         isatty(STDERR_FILENO) != 0, stderr);
  return answering.Run(
      prompts,
      [&](size_t prompt, actor::GenerateResult& result) {
        answers.ShowRow(prompts[prompt], result);
      },
      [&] {
        const double seconds = std::chrono::duration<double>(SteadyClock::now() - begin).count();
        char speed[48];
        std::snprintf(
            speed, sizeof speed, "%.0f tokens/s",
            static_cast<double>(answering.counters().generated_tokens) / std::max(1e-9, seconds));
        progress.Show(answering.ended(), speed, answering.share());
        // Answers that wait for an earlier one's are not lost with a step that takes long.
        if (answering.ended() > answers.rows()) NowBusy(Busy::kInOrder);
        else NowBusy(Busy::kNothingToKeep, HowFar(a, answers, prompts.size()));
        return StopRequested().load();
      });
}

int Generate(const GenerateArguments& a) {
  const bool file = !a.prompts_file.empty();
  if (file != (a.prompts.empty() && a.messages.empty())) {
    throw Error(ErrorCode::kInvalidArgument,
                file ? "--prompts FILE asks what the file holds: leave --prompt and --messages out"
                     : "nothing is asked: give --prompt TEXT, --messages FILE or --prompts FILE",
                "generate");
  }
  if (!file && (a.limit > 0 || !a.map.empty())) {
    throw Error(ErrorCode::kInvalidArgument, "is for --prompts FILE",
                a.limit > 0 ? "--limit" : "--map");
  }
  if (!a.out.empty()) {
    std::vector<std::string> inputs = a.messages;
    if (file) inputs.push_back(a.prompts_file);
    CheckOutput(a.out, inputs, "--out");
    CheckNothingIsLost(a.out, a.overwrite, "--out");
  } else if (a.overwrite) {
    throw Error(ErrorCode::kInvalidArgument, "is for --out FILE", "--overwrite");
  }
  const ModelFolder model = LoadModel(a.model, a.options);
  const FileRows rows = file ? FromFile(model, a) : FileRows{AskedFor(model, a), ""};
  const std::vector<Prompt>& prompts = rows.prompts;
  const Sampling sampling = ResolveSampling(a.sampling, ReadSamplingDefaults(model.base));
  if (!sampling.said.empty()) std::fprintf(stderr, "%s\n", sampling.said.c_str());
  const auto all = a.samples * static_cast<int64_t>(prompts.size());
  constexpr int64_t kFirstOnCpu = 32;
  Answering answering(model,
                      {.samples = a.samples,
                       .max_new_tokens = a.sampling.max_new_tokens,
                       .max_batch = std::clamp<int64_t>(all, 1, 256),
                       .first_batch = file && model.stream.device().is_cpu() ? kFirstOnCpu : 0,
                       .sampling = sampling.options,
                       .stop = a.sampling.stop,
                       .purpose = Purpose::kTrain});
  const bool terminal = a.out.empty() && isatty(STDOUT_FILENO) != 0;
  Answers answers(model, a);
  const auto begin = SteadyClock::now();
  bool whole = true;
  if (file) {
    whole = ShowRows(answering, a, prompts, answers);
  } else if (all == 1 && !a.json && (a.stream || terminal)) {
    ShowWhileDrawn(answering, model, a, prompts, answers);
  } else {
    std::vector<actor::GenerateResult> results;
    whole = answering.Run(
        prompts,
        [&](size_t, actor::GenerateResult& result) { results.push_back(std::move(result)); },
        [] { return StopRequested().load(); });
    std::sort(results.begin(), results.end(),
              [](const auto& x, const auto& y) { return x.id < y.id; });
    for (const auto& result : results) answers.Show(prompts[result.id], result, all > 1);
  }
  std::fflush(stdout);
  // an empty line says less than that
  if (answers.empty() > 0 && all == 1) std::fputs("(ended at once)\n", stderr);
  else if (answers.empty() > 0)
    std::fprintf(stderr, "(%lld of %lld answers ended at once)\n",
                 static_cast<long long>(answers.empty()), static_cast<long long>(all));
  const double seconds = std::chrono::duration<double>(SteadyClock::now() - begin).count();
  const auto& counters = answering.counters();
  if (isatty(STDERR_FILENO)) {
    std::fprintf(stderr, "%llu tokens in %.2f s, %.0f tokens/s\n",
                 static_cast<unsigned long long>(counters.generated_tokens), seconds,
                 static_cast<double>(counters.generated_tokens) / std::max(1e-9, seconds));
  }
  if (StopRequested()) {
    const std::string what = file    ? HowFar(a, answers, prompts.size())
                             : whole ? "the answer ends here"
                                     : "answers that had not ended are not shown";
    std::fprintf(stderr, "plumb: stopped: %s\n", what.c_str());
    return kExitFewerSteps;
  }
  const std::string& aborted = answers.why_aborted();
  if (counters.nonfinite_samples > 0) throw Error(ErrorCode::kNonFinite, aborted, a.model);
  if (!aborted.empty()) throw Error(ErrorCode::kInvalidArgument, aborted, a.model);
  if (rows.left_out.empty()) return 0;
  std::fprintf(stderr, "plumb: %s\n", rows.left_out.c_str());
  return kExitFewerSteps;
}

}  // namespace

void AddGenerateCommand(CLI::App& app, CliResult& result) {
  auto a = std::make_shared<GenerateArguments>();
  CLI::App* generate = app.add_subcommand("generate", "Answers of a model folder");
  generate
      ->add_option("model", a->model, "a model folder, an adapter's, or a run's, e.g. runs/demo")
      ->required();
  generate->add_option("--prompt", a->prompts, "text; any number of times; - reads standard input")
      ->allow_extra_args(false);
  generate
      ->add_option("--messages", a->messages,
                   "JSON file with a conversation: a list of messages, or {messages, tools, "
                   "chat_template_kwargs}; "
                   "any number of times; - reads standard input")
      ->allow_extra_args(false);
  generate->add_option("--prompts", a->prompts_file,
                       "a file of prompts in any form that `data import` reads; answers are "
                       "a JSON object a line");
  generate->add_option("--out", a->out, "write the answers to this file");
  generate->add_flag("--overwrite", a->overwrite, "replace the file of --out that is there");
  generate
      ->add_option("--map", a->map,
                   "of --prompts: part=column,..., e.g. prompt=task; any number of times")
      ->allow_extra_args(false);
  generate->add_option("--limit", a->limit, "of --prompts: first rows only; 0: all")
      ->check(WholeNumber(0));
  generate->add_option("--system", a->system, "system message, for models with a chat template");
  generate->add_flag("--raw", a->raw, "no chat template: continue the text as it stands");
  generate->add_option("--samples", a->samples, "answers a prompt")->check(WholeNumber(1, 4096));
  AddSamplingOptions(generate, a->sampling);
  generate->add_flag("--special", a->special, "print special tokens, too");
  generate->add_flag("--json", a->json, "a JSON object an answer, with tokens and log-probs");
  generate->add_flag("--stream", a->stream,
                     "show a single answer while it is drawn, as on a terminal");
  AddModelOptions(generate, a->options);
  generate->footer("Exit code 7: rows of --prompts were left out, the first is named.");
  generate->callback([a, &result] { result.exit_code = Generate(*a); });
}

}  // namespace plumb::run
