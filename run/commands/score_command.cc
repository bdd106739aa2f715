// plumb score MODEL FILE: log-prob of every token of given texts, or of answers behind their
// prompts, by the learner's packed forward.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iterator>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "common/base/error.h"
#include "common/base/json/strict_json.h"
#include "learner/loop/finite.h"
#include "policy_model/packing.h"
#include "policy_model/transformer.h"
#include "replay/datasets/rows/row_parser.h"
#include "replay/datasets/rows/row_source.h"
#include "run/commands/checked_numbers.h"
#include "run/commands/cli.h"
#include "run/commands/model_options.h"
#include "run/commands/spooled_input.h"
#include "run/session/answer_text.h"
#include "run/session/model_folder.h"
#include "run/session/sampled_tokens.h"

namespace plumb::run {
namespace {

using OrderedJson = nlohmann::ordered_json;

struct ScoreArguments {
  std::string model, file, answer;
  ModelOptions options;
  int64_t batch_tokens = 4096;
  double temperature = 1.0;
};

struct Row {
  int64_t line = 0;
  std::vector<int32_t> tokens;
  size_t answer_from = 1;  // the tokens from here on are summed: of a text all but the first
  std::string error;       // why it has no scores; empty: it has
};

// The ids of {"tokens": [...]}; what is wrong with them goes into `error`.
void ReadIds(const ModelFolder& model, const OrderedJson& list, Row& row) {
  const auto& unused = model.shape.unused_tokens;
  for (const auto& id : list.is_array() ? list : OrderedJson::array()) {
    if (!id.is_number_integer() || id.get<int64_t>() < 0 ||
        id.get<int64_t>() >= model.shape.vocab) {
      row.error = "\"tokens\" has " + id.dump() + ", no id of this model's " +
                  std::to_string(model.shape.vocab);
      return;
    }
    row.tokens.push_back(id.get<int32_t>());
    if (std::binary_search(unused.begin(), unused.end(), row.tokens.back())) {
      row.error = "\"tokens\" has " + id.dump() +
                  ", a row of the model that its tokenizer has no token for";
      return;
    }
  }
}

// Of a dialogue the last answer is scored, behind all that stands before it.
void KeepLastAnswer(PreferenceRecord& record) {
  auto& answer = record.chosen;
  std::move(answer.begin(), answer.end() - 1, std::back_inserter(record.prompt));
  answer.erase(answer.begin(), answer.end() - 1);
}

// A row of a dataset: an answer behind its prompt, as a run would train on it.
void ReadAnswer(const ModelFolder& model, const ScoreArguments& arguments, bool all_text,
                const std::string& text, Row& row) {
  // One parser a row: rows of a file need not have one form.
  replay::ParsedRow parsed =
      replay::RowParser({.map = {}, .form = {}, .convert_numbers = all_text}).Parse(text);
  PreferenceRecord& record = parsed.record;
  const replay::RowKind kind = replay::KindOf(parsed.form);
  if (kind == replay::RowKind::kPrompts) {
    row.error = "has a prompt and no answer to score (\"completion\", \"messages\", ...)";
    return;
  }
  const bool pair = record.kind == PreferenceKind::kPair;
  if (pair && arguments.answer.empty()) {
    row.error = "is a pair: say which answer is scored, --answer chosen or --answer rejected";
    return;
  }
  const bool chosen = !pair || arguments.answer == "chosen";
  const PromptEncoder encoder = model.encoder();
  std::optional<Demonstration> sequence;
  if (!record.prompt_tokens.empty()) {
    sequence = SampledTokens(encoder, record, chosen);
  } else {
    if (!chosen) std::swap(record.chosen, record.rejected);
    if (record.prompt_text.empty() && record.prompt.empty()) {  // {"text": ...} in any other form
      row.tokens = encoder.Text(record.chosen.front().content);
      return;
    }
    KeepLastAnswer(record);
    if (record.prompt_text.empty()) {
      if (!model.chat_template) {
        row.error = "is a dialogue, and the model has no chat template";
        return;
      }
      sequence = AnswerTokens(encoder.tokenizer, *model.chat_template, record.prompt, record.chosen,
                              record.extra_json, "");
    } else {
      sequence =
          Joined(encoder.Text(record.prompt_text), encoder.Answer(record.chosen.front().content));
    }
  }
  if (!sequence) {
    row.error = "calls tools, and the chat template does not write the calls";
    return;
  }
  row.tokens = std::move(sequence->tokens);
  row.answer_from =
      static_cast<size_t>(std::find(sequence->loss_mask.begin(), sequence->loss_mask.end(), 1) -
                          sequence->loss_mask.begin());
}

Row ReadRow(const ModelFolder& model, const ScoreArguments& arguments, bool all_text,
            const replay::SourceRow& source) {
  Row row{.line = source.number};
  const std::string text(source.text);
  try {
    if (source.too_long) {
      row.error = "the line is longer than 16 MiB";
    } else if (!source.problem.empty()) {
      row.error = source.problem;
    } else {
      const OrderedJson json = ParseStrictJson(text);
      const auto has = [&](const char* key) { return json.is_object() && json.contains(key); };
      const bool other = has("completion") || has("messages") || has("conversations") ||
                         has("chosen") || has("output");
      if (has("tokens") && has("text")) {
        row.error = "needs exactly one of \"text\" and \"tokens\"";
      } else if (has("tokens")) {
        ReadIds(model, json["tokens"], row);
      } else if (has("text") && !other) {
        if (!json["text"].is_string()) row.error = "\"text\" is no string";
        else row.tokens = model.EncodeText(json["text"].get<std::string>());
      } else {
        std::string padded = text;
        padded.reserve(text.size() + replay::RowSource::kPadding);
        ReadAnswer(model, arguments, all_text, padded, row);
      }
    }
  } catch (const replay::RowProblem& problem) {
    row.error = problem.reason == "missing_column"
                    ? "needs \"text\", \"tokens\", \"prompt\" and \"completion\", or \"messages\""
                    : problem.detail;
  } catch (const Error& e) {
    row.error = e.message();
  }
  if (row.error.empty() && row.tokens.empty()) row.error = "no tokens";
  if (row.error.empty() && static_cast<int64_t>(row.tokens.size()) > model.shape.max_positions) {
    row.error = std::to_string(row.tokens.size()) + " tokens, but the model has " +
                std::to_string(model.shape.max_positions) + " positions";
  }
  if (!row.error.empty()) row.tokens.clear();
  return row;
}

// Rows that could not be scored, by why.
class Refusals {
 public:
  // True: nobody has been told of this reason yet.
  bool Add(const std::string& error, int64_t line) {
    ++count_;
    const auto [at, is_new] = reasons_.try_emplace(error, Reason{line, 0});
    ++at->second.rows;
    return is_new;
  }
  int64_t count() const { return count_; }
  // Of reasons that several rows share.
  void Print() const {
    for (const auto& [error, reason] : reasons_) {
      if (reason.rows > 1)
        std::fprintf(stderr, "%lld rows, the first in line %lld: %s\n",
                     static_cast<long long>(reason.rows), static_cast<long long>(reason.line),
                     error.c_str());
    }
  }

 private:
  struct Reason {
    int64_t line = 0, rows = 0;
  };
  std::map<std::string, Reason> reasons_;
  int64_t count_ = 0;
};

class Scoring {
 public:
  Scoring(const ModelFolder& model, const ScoreArguments& arguments)
      : model_(model),
        arguments_(arguments),
        transformer_(model.shape, model.stream, model.dtype) {}

  void Add(Row row) {
    if (used_ > 0 && used_ + static_cast<int64_t>(row.tokens.size()) > arguments_.batch_tokens)
      Flush();
    used_ += static_cast<int64_t>(row.tokens.size());
    rows_.push_back(std::move(row));
  }

  // Scores what has gathered and prints it in the order of the file.
  void Flush() {
    policy_model::PackedBatch batch;
    batch.Clear();
    for (const Row& row : rows_) {
      if (row.tokens.size() > 1)
        batch.Append(row.tokens, std::vector<uint8_t>(row.tokens.size(), 1));
    }
    std::vector<float> logprob(batch.rows.size());
    if (!logprob.empty()) {
      transformer_.Forward(
          *model_.weights, batch,
          {.temperature = static_cast<float>(arguments_.temperature), .entropy = false},
          /*keep=*/false, logprob, {});
      CheckFinite(logprob);
    }
    size_t next = 0;
    for (const Row& row : rows_) {
      OrderedJson line = {{"line", row.line}};
      if (!row.error.empty()) {
        if (!refusals_.Add(row.error, row.line)) continue;  // said with a count at the end
        line["error"] = row.error;
      } else {
        const size_t from = std::max<size_t>(row.answer_from, 1);
        double sum = 0;
        // the first token has nothing before it
        OrderedJson values = OrderedJson::array({nullptr});
        for (size_t i = 1; i < row.tokens.size(); ++i, ++next) {
          values.push_back(logprob[next]);
          if (i >= from) sum += static_cast<double>(logprob[next]);
        }
        const auto scored = static_cast<double>(row.tokens.size() - from);
        line["tokens"] = row.tokens;
        if (row.answer_from > 1) line["answer_from"] = row.answer_from;
        line["logprobs"] = std::move(values);
        line["sum"] = sum;
        line["mean"] = scored > 0 ? OrderedJson(sum / scored) : OrderedJson(nullptr);
        total_ += sum;
        tokens_ += scored;
      }
      std::printf("%s\n", line.dump(-1, ' ', false, OrderedJson::error_handler_t::replace).c_str());
    }
    if (std::fflush(stdout) != 0)
      throw Error(ErrorCode::kIo, "cannot write the scores", "standard output");
    count_ += static_cast<int64_t>(rows_.size());
    rows_.clear();
    used_ = 0;
  }

  int64_t count() const { return count_; }
  const Refusals& refusals() const { return refusals_; }
  double mean() const { return tokens_ > 0 ? total_ / tokens_ : 0; }
  double tokens() const { return tokens_; }

 private:
  // What is no number must not leave as a score. An impossible token's -inf is one, as long as the
  // weights are numbers.
  void CheckFinite(const std::vector<float>& logprob) const {
    if (std::all_of(logprob.begin(), logprob.end(), [](float v) { return std::isfinite(v); }))
      return;
    if (const auto where = learner::FirstNonFinite(*model_.weights)) {
      throw Error(
          ErrorCode::kNonFinite,
          "the weights hold a value that is not finite, in " + *where + ": they score nothing",
          model_.path);
    }
    if (std::none_of(logprob.begin(), logprob.end(), [](float v) { return std::isnan(v); })) return;
    throw Error(ErrorCode::kNonFinite,
                "the log-probs are not finite although the weights are: the products overflow" +
                    std::string(model_.dtype == DType::kFloat32 ? "" : "; try --dtype float32"),
                model_.path);
  }

  const ModelFolder& model_;
  const ScoreArguments& arguments_;
  policy_model::Transformer transformer_;
  std::vector<Row> rows_;
  Refusals refusals_;
  int64_t used_ = 0, count_ = 0;
  double total_ = 0, tokens_ = 0;
};

int Score(const ScoreArguments& arguments) {
  if (!arguments.answer.empty() && arguments.answer != "chosen" && arguments.answer != "rejected") {
    throw Error(ErrorCode::kInvalidArgument,
                "is \"" + arguments.answer + "\": use chosen or rejected", "--answer");
  }
  const SpooledInput input(arguments.file);
  const std::string name = arguments.file == "-" ? "standard input" : arguments.file;
  std::unique_ptr<replay::RowSource> source;
  input.Read([&](const std::string& file) { source = replay::RowSource::Open(file); });
  const ModelFolder model = LoadModel(arguments.model, arguments.options);
  RefuseTaskTokens(model);
  Scoring scoring(model, arguments);
  for (replay::SourceRow row; !StopRequested() && source->Next(row);) {
    if (!row.blank) scoring.Add(ReadRow(model, arguments, source->all_text(), row));
  }
  scoring.Flush();
  scoring.refusals().Print();
  std::fprintf(stderr, "%lld rows, %.0f tokens scored, mean %.4f nats a token\n",
               static_cast<long long>(scoring.count()), scoring.tokens(), scoring.mean());
  if (StopRequested()) {
    std::fprintf(stderr, "plumb: stopped: the rest of %s is not scored\n", name.c_str());
    return kExitFewerSteps;
  }
  if (scoring.count() == 0) throw Error(ErrorCode::kInvalidArgument, "there are no rows", name);
  if (const int64_t refused = scoring.refusals().count(); refused > 0) {
    throw Error(ErrorCode::kInvalidArgument,
                std::to_string(refused) + " of " + std::to_string(scoring.count()) +
                    " rows could not be scored; the first line of each reason says why under "
                    "\"error\"",
                name);
  }
  return 0;
}

}  // namespace

void AddScoreCommand(CLI::App& app, CliResult& result) {
  auto a = std::make_shared<ScoreArguments>();
  CLI::App* score = app.add_subcommand("score", "Log-prob of every token of given texts");
  score->add_option("model", a->model, "a model folder, an adapter's, or a run's")->required();
  score
      ->add_option(
          "file", a->file,
          "rows of {\"text\": ...}, {\"tokens\": [...]}, or of prompts and answers as `data "
          "import` reads them, of which the answer counts; -: standard input")
      ->required();
  score->add_option("--answer", a->answer, "chosen | rejected: of pairs");
  score->add_option("--batch-tokens", a->batch_tokens, "tokens a forward")
      ->check(WholeNumber(1, 1 << 20));
  score->add_option("--temperature", a->temperature, "of the distribution")
      ->check(NumberFrom(0.01, 100));
  AddModelOptions(score, a->options);
  score->callback([a, &result] { result.exit_code = Score(*a); });
}

}  // namespace plumb::run
