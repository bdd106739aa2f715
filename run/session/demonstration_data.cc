#include "run/session/demonstration_data.h"

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <span>
#include <utility>

#include "common/base/error.h"
#include "common/base/hash/sha256.h"
#include "replay/datasets/rows/dataset_import.h"
#include "run/session/answer_text.h"
#include "run/session/generated_sums.h"
#include "run/session/lessons/generated_texts.h"
#include "run/session/offline_source.h"
#include "run/session/overlong.h"
#include "run/session/row_counts.h"

namespace plumb::run {
namespace {

using Texts = std::vector<replay::TextDemonstration>;

// What is learned of demonstrations, and how many were left out.
class Encoder {
 public:
  Encoder(const Session& session, int64_t longest, const char* raise)
      : session_(session), overlong_(session.config().data.overlong, longest, raise) {}

  std::vector<Demonstration> Encode(const Texts& texts) {
    std::vector<Demonstration> out;
    for (const auto& text : texts) {
      if (auto d = Fitting(text, "demonstration " + std::to_string(&text - texts.data() + 1)))
        out.push_back(std::move(*d));
    }
    return out;
  }
  // Empty: left out and counted.
  std::optional<Demonstration> Fitting(const replay::TextDemonstration& text,
                                       const std::string& where) {
    std::optional<Demonstration> d = EncodeOne(text, where);
    if (!d) {
      ++unwritten_;
      return d;
    }
    session_.PutTask(text.columns_json, where, *d);
    Demonstration* one[] = {&*d};
    if (!overlong_.Fit(one, where)) d.reset();
    return d;
  }
  void CountInto(RowCounts& counts) const {
    counts.Dropped("overlong", overlong_.dropped());
    counts.Dropped("calls_tools", unwritten_);
  }
  std::string LeftOut() const {
    return overlong_.Describe() + (unwritten_ == 0 ? ""
                                                   : ", " + std::to_string(unwritten_) +
                                                         " that call tools left out: the chat " +
                                                         "template does not write the calls");
  }

 private:
  // Through the chat template, as a rollout asks and as the template writes an answer; where none
  // renders it, and where nothing is asked, the text as it stands with an end token.
  std::optional<Demonstration> EncodeOne(const replay::TextDemonstration& text,
                                         const std::string& where) {
    const bool asked = !text.messages.empty() || !text.prompt.empty();
    if (asked && session_.Renders(/*messages=*/!text.messages.empty())) {
      std::vector<Message> prompt = text.messages;
      if (prompt.empty()) prompt.push_back({.role = "user", .content = text.prompt});
      const Message answer{
          .role = "assistant", .content = text.completion, .fields_json = text.fields_json};
      return AnswerTokens(session_.tokenizer(), *session_.chat_template(), prompt,
                          std::span(&answer, 1), text.columns_json, where);
    }
    Prompt prompt;
    prompt.text = text.messages.empty() ? text.prompt : "";
    prompt.messages = text.messages;
    const bool raw = !session_.config().data.chat_template;
    if (!text.said.empty()) return Conversation(prompt, text);
    return Joined(asked ? session_.encoder().Encode(prompt, raw) : session_.encoder().Text(""),
                  session_.encoder().Answer(text.completion));
  }

  // What an environment says is encoded by itself, as it is while answers are generated.
  Demonstration Conversation(const Prompt& prompt, const replay::TextDemonstration& text) {
    Demonstration out =
        Joined(session_.encoder().Encode(prompt, !session_.config().data.chat_template), {});
    const std::string_view all = text.completion;
    const auto add = [&](const std::vector<int32_t>& tokens, uint8_t learned) {
      out.tokens.insert(out.tokens.end(), tokens.begin(), tokens.end());
      out.loss_mask.resize(out.tokens.size(), learned);
    };
    size_t at = 0;
    for (const auto& [begin, end] : text.said) {
      add(session_.tokenizer().Encode(all.substr(at, begin - at)), 1);
      add(session_.tokenizer().Encode(all.substr(begin, end - begin)), 0);
      at = end;
    }
    add(session_.encoder().Answer(std::string(all.substr(at))), 1);
    return out;
  }

  const Session& session_;
  Overlong overlong_;
  int64_t unwritten_ = 0;
};

Texts FromFile(const configs::DataConfig& data, const std::string& file,
               std::vector<std::string>& notes, RowCounts& counts) {
  auto imported = replay::ImportDemonstrations(file, replay::ImportOptionsOf(data, "sft"));
  for (const std::string& note : imported.ledger.Notes(file)) notes.push_back(note);
  for (const auto& [why, n] : imported.ledger.rejected) {
    counts.Read(n);
    counts.Dropped(why, n);
  }
  return std::move(imported.demonstrations);
}

// Rows of a store's dataset; of other kinds than demonstrations they are counted.
Texts FromStore(const configs::DataConfig& data, std::vector<std::string>& notes,
                RowCounts& counts) {
  constexpr uint64_t kPiece = 1024;  // rows read at a time
  const StoredRows from = OpenStoredRows(data);
  const replay::ImportOptions options = replay::ImportOptionsOf(data, "sft");
  Texts out;
  int64_t used = 0, others = 0, unlearned = 0;
  for (uint64_t first = 0; first < from.rows; first += kPiece) {
    for (PreferenceRecord& record : from.store->ReadPreferences(from.dataset, first, kPiece)) {
      if (data.limit > 0 && used == data.limit) break;
      if (record.kind != PreferenceKind::kDemonstration) {
        ++others;
        continue;
      }
      Texts turns = replay::DemonstrationsOf(std::move(record), options);
      ++(turns.empty() ? unlearned : used);
      std::move(turns.begin(), turns.end(), std::back_inserter(out));
    }
  }
  counts.Read(others + unlearned);
  counts.Dropped("no_demonstration", others);
  counts.Dropped("nothing_to_learn", unlearned);
  notes.push_back("demonstrations: " + std::to_string(used) + " rows of dataset '" + from.dataset +
                  "' of " + data.train + ", " + std::to_string(others) + " that are none left out" +
                  (unlearned == 0
                       ? ""
                       : ", " + std::to_string(unlearned) + " in which no turn is to be learned"));
  return out;
}

std::string Identity(std::span<const Demonstration> train, std::span<const Demonstration> heldout) {
  Sha256 hash;
  for (const auto list : {train, heldout}) {
    for (const Demonstration& d : list) {
      hash.Update(std::as_bytes(std::span(d.tokens)));
      hash.Update(std::as_bytes(std::span(d.loss_mask)));
    }
  }
  return std::to_string(train.size()) + "+" + std::to_string(heldout.size()) + ":" +
         hash.HexDigest().substr(0, 32);
}

// A row that stands twice may be held out and trained on: then the held-out loss would measure what
// was learned by heart. How many were taken out of what is trained on.
int64_t LeaveOutHeldOut(DemonstrationData& data) {
  std::set<std::vector<int32_t>> heldout;
  for (const Demonstration& d : data.heldout) heldout.insert(d.tokens);
  // The sources stay beside their rows.
  std::vector<std::string> sources;
  for (size_t i = 0; i < data.sources.size(); ++i) {
    if (!heldout.contains(data.train[i].tokens)) sources.push_back(std::move(data.sources[i]));
  }
  data.sources = std::move(sources);
  return static_cast<int64_t>(std::erase_if(
      data.train, [&](const Demonstration& d) { return heldout.contains(d.tokens); }));
}

// What a row says of where it comes from.
std::string SourceOf(const replay::TextDemonstration& text) {
  if (text.columns_json.empty()) return "";
  const auto columns = nlohmann::json::parse(text.columns_json, nullptr, false);
  if (!columns.is_object() || !columns.contains("source") || !columns["source"].is_string())
    return "";
  return columns["source"].get<std::string>();
}

std::string EqualToHeldOut(int64_t n) {
  return n == 0 ? "" : ", " + std::to_string(n) + " equal to a held-out one left out";
}

}  // namespace

DemonstrationData LoadDemonstrations(const Session& session) {
  DemonstrationData data;
  const auto& config = session.config();
  const bool warm_start = config.sft.steps > 0;
  if (!warm_start && config.distill.student_share >= 1) return data;
  RowCounts counts("sft");
  Texts train, heldout;
  if (config.sft.data.empty()) {
    if (config.data.train != kArithmetic) {
      throw Error(ErrorCode::kInvalidArgument,
                  std::string(warm_start ? "sft.steps > 0" : "distill.student_share < 1") +
                      " needs sft.data (a file of demonstrations) unless data.train is "
                      "\"arithmetic\"",
                  "sft.data");
    }
    replay::ArithmeticSets sets = GeneratedSums(config);
    train = std::move(sets.sft);
    heldout = std::move(sets.sft_eval);
  } else {
    train = FromFile(config.data, config.sft.data, data.notes, counts);
    // Every 20th row is held out, at most 200: enough to see the loss go flat.
    Texts kept;
    for (size_t i = 0; i < train.size(); ++i) {
      auto& list = i % 20 == 19 && heldout.size() < 200 ? heldout : kept;
      list.push_back(std::move(train[i]));
    }
    train = std::move(kept);
  }
  // What a row gave, each.
  counts.Read(static_cast<int64_t>(train.size() + heldout.size()));
  Encoder encoder(session, session.shape().max_positions, "model.max_positions");
  data.train = encoder.Encode(train);
  data.heldout = encoder.Encode(heldout);
  const int64_t equal = LeaveOutHeldOut(data);
  counts.Dropped("equal_to_heldout", equal);
  counts.Used(static_cast<int64_t>(data.train.size() + data.heldout.size()));
  encoder.CountInto(counts);
  data.rows = counts.counters();
  data.notes.push_back((warm_start ? "warm start: " : "the data's answers: ") +
                       std::to_string(data.train.size()) + " demonstrations, " +
                       std::to_string(data.heldout.size()) + " held out, " + encoder.LeftOut() +
                       EqualToHeldOut(equal));
  return data;
}

DemonstrationData LoadSftData(const Session& session) {
  const configs::Config& config = session.config();
  const std::string& source = config.data.train;
  DemonstrationData data{.notes = session.TextNotes()};
  RowCounts counts("demonstrations");
  Texts texts;
  if (source == kArithmetic) {
    configs::Config all = config;
    all.data.limit = 0;  // of the prompts there
    texts = GeneratedSums(all).sft;
    if (config.data.limit > 0 && std::ssize(texts) > config.data.limit)
      texts.resize(static_cast<size_t>(config.data.limit));
    for (size_t i = 0; i < texts.size(); ++i) texts[i].row = i;
  } else if (source == replay::kTinyTexts) {
    texts = replay::TinyDemonstrations(TinyTextsOf(config, config.sft.heldout));
  } else if (IsStoreFolder(source)) {
    texts = FromStore(config.data, data.notes, counts);
  } else {
    texts = FromFile(config.data, source, data.notes, counts);
  }
  Encoder encoder(session, std::min(config.sft.max_tokens, session.shape().max_positions),
                  config.sft.max_tokens <= session.shape().max_positions ? "sft.max_tokens"
                                                                         : "model.max_positions");
  std::vector<uint64_t> rows;  // of each demonstration
  const replay::ImportOptions dress = replay::ImportOptionsOf(config.data, "sft");
  for (const auto& text : texts) {
    const std::string row = "row " + std::to_string(text.row + 1);
    std::optional<Demonstration> d;
    try {
      d = encoder.Fitting(text, row);
    } catch (const Error& e) {
      if (e.code() != ErrorCode::kInvalidArgument || source == kArithmetic || !e.where().empty())
        throw;
      ThrowUntokenizable(
          e, config, row, replay::RowKind::kDemonstrations, [&](replay::ParsedRow& parsed) {
            parsed.record.row = text.row;
            const auto turns = replay::DemonstrationsOf(std::move(parsed.record), dress);
            return std::find(turns.begin(), turns.end(), text) != turns.end();
          });
    }
    if (d) {
      data.train.push_back(std::move(*d));
      data.sources.push_back(SourceOf(text));
      rows.push_back(text.row);
    }
  }
  counts.Read(static_cast<int64_t>(texts.size()));  // what a row gave, each
  encoder.CountInto(counts);
  std::vector<size_t> begins;  // of the usable rows, in data.train
  for (size_t i = 0; i < rows.size(); ++i) {
    if (i == 0 || rows[i] != rows[i - 1]) begins.push_back(i);
  }
  const size_t heldout = HeldOutRows(config.sft.heldout, begins.size());
  if (begins.size() <= heldout) {
    throw Error(ErrorCode::kInvalidArgument,
                "there are " + std::to_string(begins.size()) + " usable rows and sft.heldout = " +
                    std::to_string(heldout) + ": nothing is left to train on; " + encoder.LeftOut(),
                source);
  }
  if (heldout > 0) data.heldout = TakeFrom(data.train, begins[begins.size() - heldout]);
  data.sources.resize(data.train.size());
  const int64_t equal = LeaveOutHeldOut(data);
  if (data.train.empty()) {
    throw Error(ErrorCode::kInvalidArgument,
                "all " + std::to_string(equal) +
                    " demonstrations to train on are equal to a held-out one: nothing is left "
                    "(sft.heldout = 0 holds none out)",
                source);
  }
  counts.Dropped("equal_to_heldout", equal);
  counts.Used(static_cast<int64_t>(data.train.size() + data.heldout.size()));
  data.rows = counts.counters();
  data.identity = Identity(data.train, data.heldout);
  data.notes.push_back("demonstrations: " + std::to_string(data.train.size()) + " to train on, " +
                       std::to_string(data.heldout.size()) + " held out (" +
                       std::to_string(heldout) + " rows), " + encoder.LeftOut() +
                       EqualToHeldOut(equal));
  return data;
}

}  // namespace plumb::run
