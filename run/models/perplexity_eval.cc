#include "run/models/perplexity_eval.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <optional>

#include "common/base/error.h"
#include "common/base/file.h"
#include "learner/offline/offline_objective.h"
#include "learner/update/train_step.h"
#include "policy_model/transformer.h"
#include "replay/datasets/rows/dataset_import.h"
#include "run/session/answer_text.h"

namespace plumb::run {
namespace {

constexpr size_t kMaxTextBytes = size_t{256} << 20;

struct Piece {
  size_t row;
  Demonstration tokens;
};

std::vector<replay::TextDemonstration> ReadTexts(const PerplexityOptions& options,
                                                 PerplexityReport& report) {
  if (options.file.ends_with(".txt") || options.file.ends_with(".md")) {
    report.ledger = "one text";
    std::vector<replay::TextDemonstration> one(1);
    one[0].completion = RealFileSystem().ReadFile(options.file, kMaxTextBytes);
    return one;
  }
  auto imported = replay::ImportDemonstrations(
      options.file, {.dataset = "perplexity", .map = options.map, .limit = options.limit});
  report.ledger = imported.ledger.Describe();
  if (!imported.ledger.examples.empty()) report.first_left_out = imported.ledger.examples.front();
  return std::move(imported.demonstrations);
}

// As training has it: the answer behind the prompt, of which the answer counts.
std::optional<Demonstration> Encode(const ModelFolder& model, const replay::TextDemonstration& text,
                                    bool raw, const std::string& where) {
  std::vector<Message> prompt = text.messages;
  if (model.chat_template && !(raw && prompt.empty())) {
    if (prompt.empty()) prompt.push_back({.role = "user", .content = text.prompt});
    const Message answer{
        .role = "assistant", .content = text.completion, .fields_json = text.fields_json};
    return AnswerTokens(*model.tokenizer, *model.chat_template, prompt, std::span(&answer, 1),
                        text.columns_json, where);
  }
  Prompt asked;
  asked.text = text.messages.empty() ? text.prompt : "";
  asked.messages = text.messages;
  return Joined(model.EncodePrompt(asked, raw), model.encoder().Answer(text.completion));
}

// A text in pieces of at most `most` tokens, each of which is scored but for its first.
std::vector<Demonstration> Pieces(const std::vector<int32_t>& tokens, size_t most) {
  std::vector<Demonstration> out;
  for (size_t begin = 0; begin < tokens.size(); begin += most) {
    const size_t end = std::min(begin + most, tokens.size());
    Demonstration d;
    d.tokens.assign(tokens.begin() + static_cast<ptrdiff_t>(begin),
                    tokens.begin() + static_cast<ptrdiff_t>(end));
    d.loss_mask.assign(d.tokens.size(), 1);
    d.loss_mask[0] = 0;
    out.push_back(std::move(d));
  }
  return out;
}

class TextScorer {
 public:
  TextScorer(const ModelFolder& model, int64_t batch_tokens, std::vector<PerplexityRow>& rows)
      : model_(model),
        transformer_(model.shape, model.stream, model.dtype),
        train_(transformer_, batch_tokens),
        rows_(rows) {}

  void Score(std::span<const Piece> pieces) {
    std::vector<learner::SequenceView> views;
    for (const Piece& piece : pieces) views.push_back(learner::ViewOf(piece.tokens));
    const auto logprobs = train_.Score(*model_.weights, views, 1.0f);
    for (size_t i = 0; i < pieces.size(); ++i) {
      PerplexityRow& row = rows_[pieces[i].row];
      for (const float v : logprobs[i]) {
        if (std::isnan(v)) {
          throw Error(ErrorCode::kNonFinite, "a log-prob is not a number",
                      model_.path + ", row " + std::to_string(row.row));
        }
        row.nats -= static_cast<double>(v);
        ++row.tokens;
      }
      const Demonstration& d = pieces[i].tokens;
      for (size_t t = 1; t < d.tokens.size(); ++t) {
        // How an end token is spelled says nothing about the text.
        if (d.loss_mask[t] != 0 && !model_.tokenizer->IsSpecial(d.tokens[t]))
          row.bytes += static_cast<int64_t>(model_.tokenizer->TokenBytes(d.tokens[t]).size());
      }
    }
  }

 private:
  const ModelFolder& model_;
  policy_model::Transformer transformer_;
  learner::TrainStep train_;
  std::vector<PerplexityRow>& rows_;
};

}  // namespace

Estimate PerplexityReport::NatsPerToken() const {
  std::vector<double> sums, sizes;
  for (const PerplexityRow& row : rows) {
    sums.push_back(row.nats);
    sizes.push_back(static_cast<double>(row.tokens));
  }
  return RatioOf(sums, sizes);
}

double PerplexityReport::BitsPerByte() const {
  double nats = 0;
  int64_t bytes = 0;
  for (const PerplexityRow& row : rows) nats += row.nats, bytes += row.bytes;
  return nats / std::log(2.0) / static_cast<double>(bytes);
}

nlohmann::ordered_json PerplexityReport::Json() const {
  const Estimate e = NatsPerToken();
  int64_t tokens = 0;
  for (const PerplexityRow& row : rows) tokens += row.tokens;
  return {{"rows", rows.size()},
          {"ledger", ledger},
          {"tokens", tokens},
          {"nats_per_token", e.mean},
          {"standard_error", e.error},
          {"perplexity", std::exp(e.mean)},
          {"interval_95", {std::exp(e.low()), std::exp(e.high())}},
          {"bits_per_byte", BitsPerByte()},
          {"cut", cut},
          {"left_out", left_out}};
}

std::string PerplexityReport::Text() const {
  const Estimate e = NatsPerToken();
  char text[400];
  std::snprintf(text, sizeof text, "perplexity %.4f", std::exp(e.mean));
  std::string out = text;
  if (e.n > 1) {
    std::snprintf(text, sizeof text, " (95 %%: %.4f to %.4f)", std::exp(e.low()),
                  std::exp(e.high()));
    out += text;
  }
  int64_t tokens = 0;
  for (const PerplexityRow& row : rows) tokens += row.tokens;
  std::snprintf(text, sizeof text, ", %.4f nats a token, %.4f bits a byte; %lld tokens of %zu %s\n",
                e.mean, BitsPerByte(), static_cast<long long>(tokens), rows.size(),
                rows.size() == 1 ? "row" : "rows");
  out += text;
  if (cut > 0)
    out += std::to_string(cut) + " texts are longer than the context and were cut into pieces\n";
  if (left_out > 0) {
    out += std::to_string(left_out) +
           " rows left out: longer than the context, with calls that the chat template does not "
           "write, or not taken by the tokenizer\n";
  }
  return out;
}

PerplexityReport EvaluatePerplexity(
    const ModelFolder& model, const PerplexityOptions& options,
    const std::function<bool(int64_t done, int64_t all)>& progress) {
  PerplexityReport report;
  const auto texts = ReadTexts(options, report);
  const auto most = static_cast<size_t>(model.shape.max_positions);
  std::vector<Piece> pieces;
  for (size_t i = 0; i < texts.size(); ++i) {
    const replay::TextDemonstration& text = texts[i];
    const auto row = static_cast<int64_t>(i);
    const std::string where = "row " + std::to_string(i + 1);
    std::vector<Demonstration> parts;
    std::string why =
        "longer than the context, or with calls that the chat template does not write";
    try {
      if (text.messages.empty() && text.prompt.empty()) {
        parts = Pieces(model.EncodeText(text.completion), most);
        report.cut += parts.size() > 1;
      } else if (auto one = Encode(model, text, options.raw, where);
                 one && one->tokens.size() <= most) {
        parts.push_back(std::move(*one));
      }
    } catch (const Error& e) {
      if (e.code() != ErrorCode::kInvalidArgument) throw;
      why = e.message();
    }
    if (parts.empty()) {
      ++report.left_out;
      if (report.first_left_out.empty())
        report.first_left_out = options.file + ", " + where + ": " + why;
      continue;
    }
    report.rows.push_back({.row = row});
    for (Demonstration& part : parts)
      pieces.push_back({.row = report.rows.size() - 1, .tokens = std::move(part)});
  }
  TextScorer scorer(model, options.batch_tokens, report.rows);
  const auto all = static_cast<int64_t>(report.rows.size());
  constexpr size_t kAtOnce = 64;
  for (size_t begin = 0; begin < pieces.size(); begin += kAtOnce) {
    if (!progress(static_cast<int64_t>(pieces[begin].row), all)) {
      report.stopped = true;
      return report;
    }
    scorer.Score(std::span(pieces).subspan(begin, std::min(kAtOnce, pieces.size() - begin)));
  }
  std::erase_if(report.rows, [](const PerplexityRow& row) { return row.tokens == 0; });
  if (report.rows.empty()) {
    throw Error(ErrorCode::kInvalidArgument,
                "no row has a token to score: " + report.ledger +
                    (report.first_left_out.empty() ? "" : "; " + report.first_left_out),
                options.file);
  }
  return report;
}

}  // namespace plumb::run
