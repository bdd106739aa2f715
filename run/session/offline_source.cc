#include "run/session/offline_source.h"

#include <algorithm>
#include <filesystem>

#include "common/base/error.h"
#include "common/base/place.h"
#include "replay/datasets/rows/row_source.h"

namespace plumb::run {
namespace {

// "pairs (40 pairs), train (3 prompts)".
std::string DatasetsOf(const replay::Store& store) {
  std::string out;
  const auto add = [&](const std::string& name, uint64_t rows, const char* of) {
    out += (out.empty() ? "" : ", ") + name + " (" + std::to_string(rows) + " " + of + ")";
  };
  for (const auto& [name, rows] : store.PreferenceDatasets()) {
    const auto first = store.ReadPreferences(name, 0, 1);
    const PreferenceKind kind = first.empty() ? PreferenceKind::kPair : first.front().kind;
    add(name, rows,
        kind == PreferenceKind::kPair       ? "pairs"
        : kind == PreferenceKind::kLabelled ? "judged completions"
                                            : "demonstrations");
  }
  for (const auto& [name, rows] : store.Datasets()) add(name, rows, "prompts");
  return out;
}

// The first file of rows in a folder, by name; "": none.
std::string FirstRowsIn(const std::string& folder) {
  std::error_code ignored;
  std::string first;
  for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
    const std::string path = entry.path().string();
    const bool rows = path.ends_with(".jsonl") || path.ends_with(".parquet");
    if (rows && (first.empty() || path < first)) first = path;
  }
  return first;
}

// The store whose folder is given as data; of another folder what to give instead.
std::unique_ptr<replay::Store> OpenDataStore(const std::string& folder) {
  replay::StoreOptions how;
  how.read_only = true;
  try {
    return replay::Store::Open(folder, how);
  } catch (const Error& e) {
    const Place place = PlaceOf(folder);
    const bool other = place == Place::kFolder || place == Place::kEmptyFolder;
    if (e.code() != ErrorCode::kNotFound || !other) throw;
    const std::string file = FirstRowsIn(folder);
    throw Error(e.code(),
                "is a folder and no store: give a file in it" +
                    (file.empty() ? std::string(" (it has no .jsonl and no .parquet)")
                                  : ", such as " + file),
                folder);
  }
}

}  // namespace

bool IsStoreFolder(const std::string& path) {
  return std::filesystem::is_directory(path) && !replay::IsSavedToDisk(path);
}

StoredRows OpenStoredRows(const configs::DataConfig& data) {
  StoredRows out{.store = OpenDataStore(data.train), .dataset = data.dataset};
  const auto datasets = out.store->PreferenceDatasets();
  if (out.dataset.empty() && datasets.size() == 1) out.dataset = datasets.begin()->first;
  if (!datasets.contains(out.dataset)) {
    const std::string has = DatasetsOf(*out.store);
    throw Error(
        ErrorCode::kInvalidArgument,
        (datasets.empty() ? std::string("the store has no dataset of pairs or demonstrations")
         : data.dataset.empty()
             ? std::string("the store has several datasets: name one in data.dataset")
             : "the store has no dataset of pairs or demonstrations '" + data.dataset +
                   "' (data.dataset)") +
            "; it has: " + (has.empty() ? "none" : has) +
            (datasets.empty() ? "; `plumb data import FILE --store DIR` writes one, "
                                "`plumb data mine --store " +
                                    data.train + " --into DIR` pairs of stored rollouts"
                              : ""),
        data.train);
  }
  out.rows = datasets.at(out.dataset);
  return out;
}

StoredRows OpenStoredPrompts(const std::string& folder, const std::string& wanted,
                             const std::string& role) {
  StoredRows out{.store = OpenDataStore(folder), .dataset = wanted};
  const auto datasets = out.store->Datasets();
  if (out.dataset.empty()) out.dataset = datasets.size() == 1 ? datasets.begin()->first : role;
  if (!datasets.contains(out.dataset)) {
    const std::string has = DatasetsOf(*out.store);
    throw Error(
        ErrorCode::kInvalidArgument,
        (datasets.empty() ? std::string("the store has no dataset of prompts")
         : wanted.empty() ? std::string("the store has several datasets of prompts, and "
                                        "none is called '") +
                                role + "'" + (role == "train" ? ": name one in data.dataset" : "")
                          : "the store has no dataset of prompts '" + wanted + "' (data.dataset)") +
            "; it has: " + (has.empty() ? "none" : has) +
            (datasets.empty() ? "; `plumb data import FILE --store DIR` makes one of a file "
                                "of prompts, and the file itself may be named, too"
                              : ""),
        folder);
  }
  out.rows = datasets.at(out.dataset);
  return out;
}

void ForEachFileRow(const configs::DataConfig& data, const std::string& file,
                    std::optional<replay::RowKind> as,
                    const std::function<bool(replay::ParsedRow&, const std::string&)>& use) {
  const auto source = replay::RowSource::Open(file);
  replay::RowParser parser(
      {.map = data.map, .form = {}, .convert_numbers = source->all_text(), .as = as});
  replay::SourceRow row;
  while (source->Next(row)) {
    if (row.blank || row.too_long || !row.problem.empty()) continue;
    replay::ParsedRow parsed;
    try {
      parser.Parse(row.text, parsed);
    } catch (const replay::RowProblem&) {
      continue;
    }
    if (!use(parsed, file + ":" + std::to_string(row.number))) return;
  }
}

void ThrowUntokenizable(const Error& refused, const configs::Config& config, const std::string& row,
                        std::optional<replay::RowKind> as,
                        const std::function<bool(replay::ParsedRow&)>& is) {
  std::string where;
  if (!IsStoreFolder(config.data.train)) {
    ForEachFileRow(config.data, config.data.train, as,
                   [&](replay::ParsedRow& parsed, const std::string& place) {
                     if (is(parsed)) where = place;
                     return where.empty();
                   });
  }
  if (where.empty()) where = config.data.train + ", " + row;
  throw Error(refused.code(),
              refused.message() +
                  (config.model.path.empty() ? std::string(kNewModelReads) + " in model.path" : ""),
              where);
}

size_t HeldOutRows(int64_t wanted, size_t usable) {
  constexpr size_t kHeldOut = 100;
  return wanted >= 0 ? static_cast<size_t>(wanted) : std::min(kHeldOut, usable / 10);
}

}  // namespace plumb::run
