// The prompts and demonstrations of a run: rows of a dataset file as
// replay/datasets/rows/row_source.h and replay/datasets/rows/row_parser.h read them, dressed with a
// system prompt and a suffix, tokenized, cut to length, with a ledger of every row.
//
// Any form and container that `plumb data import` knows. A preference pair gives its prompt, a
// dialogue that ends with an answer the turns before it; a
// conversation gives a demonstration for each turn of the assistant, but for turns whose `weight`
// is 0 or whose `train` is false. `map` names other columns. All other columns reach the reward
// function as Prompt::extra_json.
// Invariant: read = used + the sum of rejected. Nothing is repaired silently.
// Thread safety: pure functions of the file. Errors: kNotFound, kIo, kCorruption (gzip);
// kInvalidArgument for a file without a usable row, or without the columns (lists those it has).
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "common/record/preference.h"
#include "common/record/trajectory.h"
#include "configs/config.h"
#include "replay/datasets/rows/row_notes.h"

namespace plumb::replay {

struct SourceRow;

struct TextDemonstration {
  std::string prompt;             // used as it is, when `messages` is empty
  std::vector<Message> messages;  // else: the turns before the completion
  std::string completion;
  // what else the answer's message says (common/record/trajectory.h)
  std::string fields_json;
  std::string columns_json;  // the row's other columns, of which the chat template sees some
  uint64_t row = 0;          // number among the used rows: turns of one conversation share it
  // Bytes [begin, end) of the completion that an environment said, ascending: not learned.
  std::vector<std::pair<size_t, size_t>> said = {};
  bool operator==(const TextDemonstration&) const = default;
};

struct ImportOptions {
  std::string dataset = "train";  // Prompt::dataset
  std::map<std::string, std::string> map;
  // first message of every prompt; a text prompt becomes a user message
  std::string system_prompt;
  std::string prompt_suffix;      // appended to the text or to the last user message
  int64_t limit = 0;              // used rows; 0: all
  int64_t skip = 0;               // usable rows passed over first
  int64_t max_prompt_tokens = 0;  // 0: not checked; else `tokenize` is needed
  std::string
      max_prompt_bound;  // where that number comes from; empty: "data.max_prompt_tokens is N"
  configs::OverlongPolicy overlong =
      configs::OverlongPolicy::kDrop;  // kLeft, kRight: that end of the tokens is cut off
  // Renders and encodes; its result becomes Prompt::tokens. Empty: tokens stay empty.
  std::function<std::vector<int32_t>(const Prompt&)> tokenize;
  // What `tokenize` refuses as kInvalidArgument (a character that the vocabulary lacks, messages
  // that the chat template does not take) costs its row, "untokenizable"; else it ends the import.
  bool skip_untokenizable = false;
  size_t max_line_bytes = size_t{16} << 20;
};

// The options of `data` that concern an import of its `train` or `eval` file.
ImportOptions ImportOptionsOf(const configs::DataConfig& data, const std::string& dataset);

struct RowLedger {
  int64_t read = 0;  // rows (blank lines are none)
  int64_t used = 0;
  int64_t skipped = 0;    // usable rows passed over at the start; not in `read`
  int64_t truncated = 0;  // of the used ones, under overlong = left | right
  // of the used ones: their own system message gave way to `system_prompt`
  int64_t system_replaced = 0;
  std::map<std::string, int64_t> rejected;  // by reason: bad_utf8, bad_json, ...
  std::vector<std::string> examples;        // "file:line: reason: detail" of the first kMaxExamples
  std::vector<std::string> samples;  // the first kSamples used rows, as they were read, for people
  RowNotes notes;                    // of used rows
  std::string format;                // FormName of the first usable row
  static constexpr size_t kMaxExamples = 20, kSamples = 3;
  void Reject(const RowProblem& problem, const std::string& where);
  void RequireUsed(const std::string& path) const;  // throws where no row was, saying why
  int64_t TotalRejected() const;
  std::string Describe() const;  // one line: "read 100 = used 97 + 2 bad_json + 1 overlong"
  // "3 of 100 rows were left out (2 bad_json, 1 overlong), the first: file:7: bad_json: why";
  // empty: none was.
  std::string LeftOut() const;
  // For people, a line each: form and sums of `file`, the first rows, what was passed over, what
  // was rejected.
  std::vector<std::string> Notes(const std::string& file) const;
};

// RowProblem for a row that its source could not give.
void CheckReadable(const SourceRow& row, size_t max_bytes);

struct ImportedPrompts {
  std::vector<Prompt> prompts;
  RowLedger ledger;
};
ImportedPrompts ImportPrompts(const std::string& path, const ImportOptions& options);
// The same of prompts that are kept elsewhere (a store): read(i) for i < rows, in order. `path`:
// where, for messages.
ImportedPrompts TakePrompts(const std::string& path, const ImportOptions& options, uint64_t rows,
                            const std::function<Prompt(uint64_t)>& read);

struct ImportedDemonstrations {
  // a conversation gives one for each assistant turn
  std::vector<TextDemonstration> demonstrations;
  RowLedger ledger;
};
ImportedDemonstrations ImportDemonstrations(const std::string& path, const ImportOptions& options);
// The same of one row that a store holds; empty: no turn of it is to be learned. kInvalidArgument
// for a row that `options` cannot dress. REQUIRES: record.kind is kDemonstration.
std::vector<TextDemonstration> DemonstrationsOf(PreferenceRecord record,
                                                const ImportOptions& options);

}  // namespace plumb::replay
