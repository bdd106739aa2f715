// One stored record as a row of a dataset file, the way back from
// replay/datasets/rows/row_parser.h.
//
// A record may be written in several ways of one form; the candidates come in order of preference,
// and the exporter takes the first that the importer reads as the same record.
// Thread safety: pure functions. Errors: kCorruption for extra columns that are no JSON object.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/record/preference.h"
#include "common/record/trajectory.h"

namespace plumb::replay {

enum class ExportForm : uint8_t { kTrl, kVerl };
const char* FormName(ExportForm form);
std::optional<ExportForm> ExportFormOfName(std::string_view name);

// What had to change or was left behind, by name: how often.
using ExportNotes = std::map<std::string, int64_t>;

struct ExportCandidate {
  std::string text;  // one JSON object
  ExportNotes notes;
};

// prompts: TRL {prompt, ground_truth, ...columns}; verl {data_source, prompt, ability,
// reward_model, extra_info}, or the columns themselves where the row came from verl.
// extra_info.plumb ({"prompt": "text" | "messages", "weight"?, "index"?}) says that Plumb wrote the
// row: an import then takes the other columns out of extra_info and a text prompt as the text it
// was.
// `truth`: TRL: how the ground truth's column is called where it can be; "": ground_truth.
std::vector<ExportCandidate> Candidates(const Prompt& prompt, ExportForm form,
                                        const std::string& truth = "");
// The column that the prompt has kept its ground truth in, under a name that is read as one
// (numbers, worked solutions); "": none. One dataset is written with one column.
std::string TruthColumn(const Prompt& prompt);
// pairs {prompt, chosen, rejected, margin, ...columns} or whole dialogues; labelled {prompt,
// completion, label}; demonstrations {prompt, completion} | {text} | verl: {messages}. Empty: the
// record has tokens only. `tokens`: those of the record stand under plumb_tokens
// (replay/datasets/rows/row_parser.h).
std::vector<ExportCandidate> Candidates(const PreferenceRecord& record, ExportForm form,
                                        bool tokens);
// TRL: {prompt, completion, reward, ...}, one row per answer; the completion is a list of messages
// where the prompt is one, else a text. verl: the prompt's row with `responses` and `scores`, what
// its main_generation writes and its main_eval reads. Answers without the end token that was
// sampled (replay/datasets/rows/end_token.h; `end_tokens`: other texts of it). `tokens`: TRL's rows
// have what was sampled under plumb_tokens, but for answers with tokens of an environment.
std::vector<ExportCandidate> RolloutRows(const TrajectoryGroup& group, ExportForm form,
                                         const std::vector<std::string>& end_tokens, bool tokens);

}  // namespace plumb::replay
