// plumb score MODEL FILE: log-prob of every token of given texts, by the learner's packed forward.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "common/base/error.h"
#include "common/base/json/strict_json.h"
#include "learner/loop/finite.h"
#include "policy_model/packing.h"
#include "policy_model/transformer.h"
#include "replay/datasets/rows/line_reader.h"
#include "run/commands/cli.h"
#include "run/session/model_folder.h"

namespace plumb::run {
namespace {

using OrderedJson = nlohmann::ordered_json;

struct ScoreArguments {
  std::string model, file;
  ModelOptions options;
  int64_t batch_tokens = 4096;
  double temperature = 1.0;
};

struct Row {
  int64_t line = 0;
  std::vector<int32_t> tokens;
  std::string error;  // why it has no scores; empty: it has
};

Row ReadRow(const ModelFolder& model, const std::string& text, const replay::LineReader& reader) {
  Row row{.line = reader.line_number(), .tokens = {}, .error = {}};
  if (reader.too_long()) {
    row.error = "the line is longer than 16 MiB";
    return row;
  }
  try {
    const nlohmann::ordered_json json = ParseStrictJson(text);
    const bool has_text = json.is_object() && json.contains("text"),
               has_tokens = json.is_object() && json.contains("tokens");
    if (has_text == has_tokens) {
      row.error = "needs exactly one of \"text\" and \"tokens\"";
    } else if (has_text) {
      if (!json["text"].is_string()) row.error = "\"text\" is no string";
      else row.tokens = model.EncodeText(json["text"].get<std::string>());
    } else {
      for (const auto& id :
           json["tokens"].is_array() ? json["tokens"] : nlohmann::ordered_json::array()) {
        if (!id.is_number_integer() || id.get<int64_t>() < 0 ||
            id.get<int64_t>() >= model.shape.vocab) {
          row.error = "\"tokens\" has " + id.dump() + ", no id of this model's " +
                      std::to_string(model.shape.vocab);
          break;
        }
        row.tokens.push_back(id.get<int32_t>());
        const auto& unused = model.shape.unused_tokens;
        if (std::binary_search(unused.begin(), unused.end(), row.tokens.back())) {
          row.error = "\"tokens\" has " + id.dump() +
                      ", a row of the model that its tokenizer has no token for";
          break;
        }
      }
    }
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
        ++rejected_;
        line["error"] = row.error;
      } else {
        double sum = 0;
        // the first token has nothing before it
        OrderedJson values = OrderedJson::array({nullptr});
        for (size_t i = 1; i < row.tokens.size(); ++i, ++next) {
          values.push_back(logprob[next]);
          sum += static_cast<double>(logprob[next]);
        }
        const auto scored = static_cast<double>(row.tokens.size() - 1);
        line["tokens"] = row.tokens;
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
  int64_t rejected() const { return rejected_; }
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
  int64_t used_ = 0, count_ = 0, rejected_ = 0;
  double total_ = 0, tokens_ = 0;
};

int Score(const ScoreArguments& arguments) {
  replay::LineReader reader(arguments.file);
  const ModelFolder model = LoadModel(arguments.model, arguments.options);
  Scoring scoring(model, arguments);
  for (std::string text; !StopRequested() && reader.Next(text);) {
    if (!reader.too_long() && text.find_first_not_of(" \t") == std::string::npos) continue;
    scoring.Add(ReadRow(model, text, reader));
  }
  scoring.Flush();
  std::fprintf(stderr, "%lld rows, %.0f tokens scored, mean %.4f nats a token\n",
               static_cast<long long>(scoring.count()), scoring.tokens(), scoring.mean());
  if (StopRequested()) {
    std::fprintf(stderr, "plumb: stopped: the rest of %s is not scored\n", arguments.file.c_str());
    return kExitFewerSteps;
  }
  if (scoring.count() == 0)
    throw Error(ErrorCode::kInvalidArgument, "there are no rows", arguments.file);
  if (scoring.rejected() > 0) {
    throw Error(ErrorCode::kInvalidArgument,
                std::to_string(scoring.rejected()) + " of " + std::to_string(scoring.count()) +
                    " rows could not be scored; their lines say why under \"error\"",
                arguments.file);
  }
  return 0;
}

}  // namespace

void AddScoreCommand(CLI::App& app, CliResult& result) {
  auto a = std::make_shared<ScoreArguments>();
  CLI::App* score = app.add_subcommand("score", "Log-prob of every token of given texts");
  score->add_option("model", a->model, "a model folder, or a run's")->required();
  score->add_option("file", a->file, "JSONL (also .gz) of {\"text\": ...} or {\"tokens\": [...]}")
      ->required();
  score->add_option("--batch-tokens", a->batch_tokens, "tokens a forward")
      ->check(CLI::Range(1, 1 << 20));
  score->add_option("--temperature", a->temperature, "of the distribution")
      ->check(CLI::Range(0.01, 100.0));
  score->add_option("--dtype", a->options.dtype, "auto | float32 | bfloat16");
  score->add_option("--device", a->options.device, "cpu | cuda | cuda:N");
  score->add_option("--bos", a->options.bos, "auto | yes | no: begin token in front of text");
  score->add_option("--threads", a->options.threads, "0: one a core")
      ->check(CLI::NonNegativeNumber);
  score->callback([a, &result] { result.exit_code = Score(*a); });
}

}  // namespace plumb::run
