#include "run/preference_data.h"

#include <algorithm>

#include "common/error.h"
#include "replay/importer.h"

namespace plumb::run {
namespace {

constexpr char kDataset[] = "pairs";
constexpr uint64_t kPiece = 1024;  // rows read at a time

Demonstration Join(const std::vector<int32_t>& prompt, const std::vector<int32_t>& answer) {
  Demonstration out;
  out.tokens = prompt;
  out.tokens.insert(out.tokens.end(), answer.begin(), answer.end());
  out.loss_mask.assign(prompt.size(), 0);
  out.loss_mask.resize(out.tokens.size(), 1);
  return out;
}

// The answer as the chat template writes it behind the prompt, end token included; learned from its first token on.
Demonstration Sequence(const Session& session, const PreferenceRecord& record, const std::vector<Message>& answer) {
  const auto& tokenizer = session.tokenizer();
  if (!record.prompt_text.empty() || !session.chat_template()) {
    if (record.prompt_text.empty() || answer.size() != 1) {
      throw Error(ErrorCode::kInvalidArgument, "the pairs are dialogues and the model has no chat template",
                  "row " + std::to_string(record.row));
    }
    std::vector<int32_t> tokens = tokenizer.Encode(answer[0].content);
    if (!session.shape().eos_tokens.empty()) tokens.push_back(session.shape().eos_tokens[0]);
    return Join(tokenizer.Encode(record.prompt_text), tokens);
  }
  std::vector<Message> all = record.prompt;
  all.insert(all.end(), answer.begin(), answer.end());
  const std::string prompt = session.chat_template()->Render(record.prompt, true);
  const std::string whole = session.chat_template()->Render(all, false);
  if (!whole.starts_with(prompt)) {
    throw Error(ErrorCode::kUnsupported, "the chat template writes a prompt in another way once an answer follows: the answer "
                                         "cannot be told from it", "row " + std::to_string(record.row));
  }
  return Join(tokenizer.Encode(prompt), tokenizer.Encode(whole.substr(prompt.size())));
}

}  // namespace

PreferenceData LoadPreferences(const Session& session, replay::Store& store) {
  const configs::Config& config = session.config();
  PreferenceData out;
  replay::ImportRequest request;
  request.files = {config.data.train};
  request.dataset = kDataset;
  request.rows.map = config.data.map;
  const replay::ImportReport report = replay::ImportFiles(store, request);
  for (const replay::FileLedger& ledger : report.files) {
    out.notes.push_back(ledger.file + ": " + ledger.form + ", " + ledger.Describe());
    for (const std::string& example : ledger.examples) out.notes.push_back("  rejected " + example);
  }
  const uint64_t rows = store.PreferenceCount(kDataset);
  const uint64_t wanted = config.data.limit > 0 ? std::min<uint64_t>(rows, static_cast<uint64_t>(config.data.limit)) : rows;
  const int64_t longest = std::min(config.preference.max_tokens, session.shape().max_positions);
  int64_t long_pairs = 0, others = 0;
  for (uint64_t first = 0; first < wanted; first += kPiece) {
    for (const PreferenceRecord& record : store.ReadPreferences(kDataset, first, std::min(kPiece, wanted - first))) {
      if (record.kind != PreferenceKind::kPair) {
        ++others;
        continue;
      }
      PreferencePair pair{.dataset = record.dataset, .row = record.row, .chosen = Sequence(session, record, record.chosen),
                          .rejected = Sequence(session, record, record.rejected), .margin = record.margin,
                          .has_margin = record.has_margin};
      const size_t length = std::max(pair.chosen.tokens.size(), pair.rejected.tokens.size());
      if (static_cast<int64_t>(length) > longest) {
        if (config.data.overlong == "error") {
          throw Error(ErrorCode::kInvalidArgument, "a pair has " + std::to_string(length) + " tokens, more than " +
                                                       std::to_string(longest) + ": raise preference.max_tokens or set data.overlong",
                      "row " + std::to_string(record.row));
        }
        ++long_pairs;
        continue;
      }
      out.train.push_back(std::move(pair));
    }
  }
  const auto heldout = static_cast<size_t>(config.preference.heldout);
  if (out.train.size() <= heldout) {
    throw Error(ErrorCode::kInvalidArgument, "there are " + std::to_string(out.train.size()) + " usable pairs and preference.heldout = " +
                                                 std::to_string(heldout) + ": nothing is left to train on", config.data.train);
  }
  out.heldout.assign(std::make_move_iterator(out.train.end() - static_cast<std::ptrdiff_t>(heldout)),
                     std::make_move_iterator(out.train.end()));
  out.train.resize(out.train.size() - heldout);
  out.notes.push_back("pairs: " + std::to_string(out.train.size()) + " to train on, " + std::to_string(heldout) + " held out, " +
                      std::to_string(long_pairs) + " longer than " + std::to_string(longest) + " tokens and " +
                      std::to_string(others) + " that are no pairs left out");
  return out;
}

}  // namespace plumb::run
