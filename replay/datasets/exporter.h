// A dataset or the rollouts of a store as a dataset file: `plumb data export`.
//
// Every record ends in the ledger: read = written + left out by reason. Each row is read back by
// the importer's own parser before it is written; `same` counts those that give the very record
// again (of rollouts: a demonstration with prompt, answer, tokens and ids of that answer; in verl's
// form the prompt), the rest is named by its column. The file appears whole or not at all
// (replay/datasets/line_writer.h). Memory: 1,024 records; for Parquet all.
// Thread safety: pure function of the store, which may be open for reading only. Errors: those of
// Store and LineWriter; kNotFound for a dataset or rollouts that are not there,
// kInvalidArgument for a name that two tables have or rows of another kind.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "common/base/file.h"
#include "replay/datasets/export_row.h"
#include "replay/store/store.h"

namespace plumb::replay {

// kAuto: the dataset of that name, whichever table has it. A dataset that is no prompts' has rows
// of one kind: pairs (kPreferences), judged completions (kLabelled) or demonstrations.
enum class ExportRows : uint8_t {
  kAuto,
  kPrompts,
  kPreferences,
  kLabelled,
  kDemonstrations,
  kRollouts
};
const char* RowsName(ExportRows rows);
std::string RowsNames(const std::string& between);  // all
std::optional<ExportRows> ExportRowsOfName(std::string_view name);

struct ExportRequest {
  // of rollouts: those of prompts of this dataset; empty: all
  std::string dataset = "train";
  ExportRows rows = ExportRows::kAuto;
  // of rollouts: answers of training, or the held-out ones of evaluations; never both in one file
  Purpose purpose = Purpose::kTrain;
  ExportForm form = ExportForm::kTrl;
  // replaced; gzip when it ends in .gz, Parquet when in .parquet
  // (replay/datasets/rows/parquet_writer.h)
  std::string out;
  // other texts of an end token than replay/datasets/rows/end_token.h knows
  std::vector<std::string> end_tokens;
  bool tokens = true;  // rows of sampled answers have their tokens along, under plumb_tokens
  FileSystem* files = nullptr;  // the real one
  // Called every 1,024 records with the part that is done; false: stop, and leave no file.
  std::function<bool(double part, int64_t rows)> progress;
};

struct ExportReport {
  ExportRows rows = ExportRows::kPrompts;
  // records: prompts, preferences, or groups with their answers
  int64_t read = 0;
  int64_t written = 0;  // of them
  int64_t lines = 0;
  std::map<std::string, int64_t> left_out;
  int64_t other_purpose = 0;  // groups of the purpose that was not asked for; not among the read
  ExportNotes notes;
  // lines that importing the file gives back as they are
  int64_t same = 0;
  std::vector<std::string> examples;  // of those that it does not
  uint64_t bytes = 0;
  bool stopped = false;
  std::string Describe() const;  // "read 100 = written 97 + 3 only_tokens"
};

// How many groups of the other purpose there are, and how they are got. REQUIRES: of rollouts.
std::string OtherPurpose(const ExportReport& report, const ExportRequest& request);

ExportReport ExportDataset(const Store& store, const ExportRequest& request);

}  // namespace plumb::replay
