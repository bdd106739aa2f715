#include "run/session/preference_data.h"

#include <algorithm>
#include <optional>
#include <span>

#include "common/base/error.h"
#include "replay/datasets/importer.h"
#include "run/session/answer_text.h"
#include "run/session/lessons/generated_texts.h"
#include "run/session/offline_source.h"
#include "run/session/overlong.h"
#include "run/session/row_counts.h"
#include "run/session/sampled_tokens.h"

namespace plumb::run {
namespace {

constexpr char kDataset[] = "pairs";
constexpr uint64_t kPiece = 1024;  // rows read at a time
constexpr uint64_t kScoredPairs = 0, kTrainedPairs = 1;

// Dataset "pairs" of the run's store, from the dataset of another store. Copied: a run's data never
// changes.
std::string CopyFromStore(const configs::DataConfig& data, replay::Store& store) {
  const StoredRows from = OpenStoredRows(data);
  uint64_t hash = replay::kNoRowsHash;
  for (uint64_t first = 0; first < from.rows; first += kPiece) {
    store.AppendPreferences(kDataset, first,
                            from.store->ReadPreferences(from.dataset, first, kPiece), hash);
  }
  store.SealPreferences(kDataset, from.rows, hash);
  return std::to_string(from.rows) + " rows of dataset '" + from.dataset + "' of " + data.train;
}

bool Learns(const Demonstration& d) {
  return std::find(d.loss_mask.begin(), d.loss_mask.end(), 1) != d.loss_mask.end();
}

// The same of generated pairs. A reward model and what is trained by it see others.
std::string Generate(const configs::Config& config, replay::Store& store) {
  const auto pairs = replay::TinyPairs(
      TinyTextsOf(config, config.preference.heldout),
      config.algorithm.name == configs::AlgorithmName::kRewardModel ? kScoredPairs : kTrainedPairs);
  uint64_t hash = replay::kNoRowsHash;
  for (size_t first = 0; first < pairs.size(); first += kPiece) {
    const size_t n = std::min<size_t>(kPiece, pairs.size() - first);
    store.AppendPreferences(kDataset, first, std::span(pairs).subspan(first, n), hash);
  }
  store.SealPreferences(kDataset, pairs.size(), hash);
  return std::to_string(pairs.size()) + " generated";
}

}  // namespace

std::optional<Demonstration> AnswerSequence(const Session& session, const PreferenceRecord& record,
                                            const std::vector<Message>& answer) {
  const auto& tokenizer = session.tokenizer();
  if (!record.prompt_tokens.empty())  // of a rollout nothing is tokenized again
    return SampledTokens(session.encoder(), record, &answer != &record.rejected);
  const bool text = !record.prompt_text.empty();
  if (!session.Renders(/*messages=*/!text)) {
    if (!text || answer.size() != 1) {
      throw Error(ErrorCode::kInvalidArgument,
                  text ? "the answer has several messages, which a chat template has to write"
                       : "the pairs are dialogues and " + NoTemplate(session.config().model.path),
                  "row " + std::to_string(record.row));
    }
    // The pair of a text is continued as it stands, begun as everywhere else.
    return Joined(session.encoder().Text(record.prompt_text),
                  session.encoder().Answer(answer[0].content));
  }
  std::vector<Message> prompt = record.prompt;
  if (text) prompt.push_back({.role = "user", .content = record.prompt_text});
  return AnswerTokens(tokenizer, *session.chat_template(), prompt, answer, record.extra_json,
                      "row " + std::to_string(record.row));
}

namespace {

// "1 row is ", "4 rows are ".
std::string RowsAre(int64_t rows) {
  return std::to_string(rows) + (rows == 1 ? " row is " : " rows are ");
}

// What a loss wants of the rows, and where the rows begin in the lists.
class Rows {
 public:
  Rows(const Session& session, bool labelled, int64_t longest, bool skip_untokenizable)
      : session_(session),
        labelled_(labelled),
        skip_untokenizable_(skip_untokenizable),
        overlong_(session.config().data.overlong, longest, "preference.max_tokens") {}

  void Add(const PreferenceRecord& record) {
    const bool pair = record.kind == PreferenceKind::kPair;
    if (!pair && !(labelled_ && record.kind == PreferenceKind::kLabelled)) {
      ++others_;
      judged_ += record.kind == PreferenceKind::kLabelled;
      return;
    }
    PreferencePair p{.dataset = record.dataset,
                     .row = record.row,
                     .margin = record.margin,
                     .has_margin = record.has_margin};
    for (const bool chosen : {true, false}) {
      if (!chosen && !pair) continue;
      std::optional<Demonstration> sequence;
      try {
        sequence = AnswerSequence(session_, record, chosen ? record.chosen : record.rejected);
      } catch (const Error& e) {
        if (!skip_untokenizable_ || e.code() != ErrorCode::kInvalidArgument) {
          ThrowUntokenizable(e, session_.config(), "row " + std::to_string(record.row), {},
                             [&](replay::ParsedRow& row) {
                               return row.record.prompt_text == record.prompt_text &&
                                      row.record.prompt == record.prompt &&
                                      row.record.chosen == record.chosen &&
                                      row.record.rejected == record.rejected;
                             });
        }
        ++untokenizable_;
        if (first_untokenizable.empty())
          first_untokenizable = "row " + std::to_string(record.row) + ": " + e.message();
        return;
      }
      if (!sequence || !Learns(*sequence)) {
        ++(sequence ? unlearned_ : unwritten_);
        return;
      }
      session_.PutTask(record.extra_json, "row " + std::to_string(record.row), *sequence);
      (chosen ? p.chosen : p.rejected) = std::move(*sequence);
    }
    Demonstration* both[] = {&p.chosen, &p.rejected};
    if (!overlong_.Fit(std::span<Demonstration* const>(both, pair ? 2 : 1),
                       "row " + std::to_string(record.row)))
      return;
    if (!labelled_) {
      pairs.push_back(std::move(p));
      return;
    }
    starts_.push_back(completions.size());
    const bool desirable = pair || record.desirable;
    completions.push_back({.dataset = p.dataset,
                           .row = p.row,
                           .completion = std::move(p.chosen),
                           .desirable = desirable});
    if (pair)
      completions.push_back({.dataset = p.dataset,
                             .row = p.row,
                             .completion = std::move(p.rejected),
                             .desirable = false});
  }

  // Rows of the file that came as prompts, which no store of pairs has.
  void AddPrompts(int64_t rows) {
    others_ += rows;
    prompts_ += rows;
  }

  void CountInto(RowCounts& counts) const {
    counts.Used(static_cast<int64_t>(rows()));
    counts.Dropped("overlong", overlong_.dropped());
    counts.Dropped(labelled_ ? "neither_pair_nor_judged" : "no_pair", others_);
    counts.Dropped("calls_tools", unwritten_);
    counts.Dropped("nothing_to_learn", unlearned_);
    counts.Dropped("untokenizable", untokenizable_);
  }
  size_t rows() const { return labelled_ ? starts_.size() : pairs.size(); }
  // The last `rows` rows, out of their list.
  std::vector<LabelledCompletion> TakeCompletions(size_t last_rows) {
    return TakeFrom(completions,
                    last_rows == 0 ? completions.size() : starts_[starts_.size() - last_rows]);
  }
  std::vector<PreferencePair> TakePairs(size_t last_rows) {
    return TakeFrom(pairs, pairs.size() - last_rows);
  }
  std::string LeftOut() const {
    return overlong_.Describe() + ", " + std::to_string(others_) +
           (labelled_ ? " that are neither pairs nor judged" : " that are no pairs") + " left out" +
           KtoWouldTake() + WhatAPairIs() +
           (unwritten_ == 0
                ? ""
                : ", " + std::to_string(unwritten_) +
                      " that call tools left out: the chat template does not write the calls") +
           (unlearned_ == 0 ? ""
                            : ", " + std::to_string(unlearned_) +
                                  " left out in which no message of an answer is to be learned") +
           (untokenizable_ == 0 ? ""
                                : ", " + std::to_string(untokenizable_) +
                                      " left out that the model's tokenizer does not take, the "
                                      "first: " +
                                      first_untokenizable);
  }
  // Where rows of another kind than the loss wants are there: who could use them.
  std::string KtoWouldTake() const {
    if (judged_ == 0) return "";
    return " (" + std::to_string(judged_) +
           " are judged completions: algorithm.name = \"dpo\" with preference.loss = \"kto\" " +
           "trains on them)";
  }

  std::string WhatAPairIs() const {
    const int64_t shown = others_ - judged_ - prompts_;
    if (prompts_ == 0 && shown == 0) return "";
    return " (" +
           (prompts_ == 0 ? "" : RowsAre(prompts_) + (prompts_ == 1 ? "a prompt" : "prompts")) +
           (prompts_ > 0 && shown > 0 ? ", " : "") +
           (shown == 0 ? ""
                       : RowsAre(shown) + (shown == 1 ? "a demonstration" : "demonstrations")) +
           "; a pair has prompt, chosen and rejected: where they have other names, --map "
           "chosen=COLUMN, in a recipe data.map = { chosen = \"COLUMN\" })";
  }

  std::vector<PreferencePair> pairs;
  std::vector<LabelledCompletion> completions;
  std::string first_untokenizable;

 private:
  const Session& session_;
  const bool labelled_, skip_untokenizable_;
  Overlong overlong_;
  std::vector<size_t> starts_;  // of each row, in `completions`
  int64_t others_ = 0, unwritten_ = 0, unlearned_ = 0, untokenizable_ = 0;
  int64_t judged_ = 0, prompts_ = 0;  // of the others; KTO could use the judged
};

}  // namespace

PreferenceData LoadPreferences(const Session& session, replay::Store& store,
                               bool skip_untokenizable) {
  const configs::Config& config = session.config();
  PreferenceData out{.notes = session.TextNotes()};
  RowCounts counts("pairs");
  int64_t prompts = 0;
  if (config.data.train == replay::kTinyTexts) {
    out.notes.push_back("pairs: " + Generate(config, store));
  } else if (IsStoreFolder(config.data.train)) {
    out.notes.push_back("pairs: " + CopyFromStore(config.data, store));
  } else {
    replay::ImportRequest request;
    request.files = {config.data.train};
    request.dataset = kDataset;
    request.rows.map = config.data.map;
    const replay::ImportReport report = replay::ImportFiles(store, request);
    for (const replay::FileLedger& ledger : report.files) {
      for (const auto& [why, n] : ledger.rejected) {
        counts.Read(n);
        counts.Dropped(why, n);
      }
      if (report.kind == replay::RowKind::kPrompts) prompts += ledger.used;
      out.notes.push_back(ledger.file + ": " + ledger.format + ", " + ledger.Describe());
      for (size_t i = 0; i < ledger.samples.size(); ++i)
        out.notes.push_back("  row " + std::to_string(i + 1) + ": " + ledger.samples[i]);
      for (const std::string& note : ledger.notes.Describe())
        out.notes.push_back("  note: " + note);
      for (const std::string& example : ledger.examples)
        out.notes.push_back("  rejected " + example);
      if (!ledger.examples.empty()) out.first_left_out = ledger.examples.front();
    }
  }
  out.identity = store.PreferenceIdentity(kDataset);
  const uint64_t stored = store.PreferenceCount(kDataset);
  const uint64_t wanted = config.data.limit > 0
                              ? std::min<uint64_t>(stored, static_cast<uint64_t>(config.data.limit))
                              : stored;
  const bool labelled = config.algorithm.name == configs::AlgorithmName::kDpo &&
                        config.preference.loss == configs::PreferenceLossKind::kKto;
  Rows rows(session, labelled,
            std::min(config.preference.max_tokens, session.shape().max_positions),
            skip_untokenizable);
  for (uint64_t first = 0; first < wanted; first += kPiece) {
    for (const PreferenceRecord& record :
         store.ReadPreferences(kDataset, first, std::min(kPiece, wanted - first)))
      rows.Add(record);
  }
  rows.AddPrompts(prompts);
  counts.Read(static_cast<int64_t>(wanted) + prompts);
  rows.CountInto(counts);
  out.rows = counts.counters();
  if (out.first_left_out.empty() && !rows.first_untokenizable.empty())
    out.first_left_out = config.data.train + ", " + rows.first_untokenizable;
  const size_t usable = rows.rows();
  const size_t heldout = HeldOutRows(config.preference.heldout, usable);
  if (usable <= heldout) {
    throw Error(ErrorCode::kInvalidArgument,
                "there are " + std::to_string(usable) +
                    (labelled ? " usable rows" : " usable pairs") +
                    (heldout == 0 ? ""
                                  : " and preference.heldout = " + std::to_string(heldout) +
                                        ": nothing is left to train on") +
                    "; " + rows.LeftOut(),
                config.data.train);
  }
  if (labelled) {
    out.completions_heldout = rows.TakeCompletions(heldout);
    out.completions = std::move(rows.completions);
    out.notes.push_back("completions: " + std::to_string(out.completions.size()) +
                        " to train on, " + std::to_string(out.completions_heldout.size()) +
                        " held out, " + rows.LeftOut());
  } else {
    out.heldout = rows.TakePairs(heldout);
    out.train = std::move(rows.pairs);
    out.notes.push_back("pairs: " + std::to_string(out.train.size()) + " to train on, " +
                        std::to_string(heldout) + " held out, " + rows.LeftOut());
  }
  return out;
}

}  // namespace plumb::run
