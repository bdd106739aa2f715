#include "replay/datasets/importer.h"

#include <algorithm>
#include <array>
#include <exception>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <utility>

#include <nlohmann/json.hpp>

#include "common/base/crash_point.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/hash/crc32c.h"
#include "common/base/text.h"
#include "common/record/json_text.h"
#include "common/text/unicode.h"
#include "replay/datasets/import_writer.h"
#include "replay/datasets/rows/line_reader.h"
#include "replay/datasets/rows/row_source.h"

namespace plumb::replay {
namespace {

using Json = nlohmann::json;
constexpr int64_t kLookRows = 4096;  // rows between two calls of `progress`
constexpr size_t kCommitBytes = size_t{64} << 20, kRejectBytes = size_t{1} << 20;
constexpr size_t kBatchBytes = size_t{32} << 10;  // large rows go one by one

// Open addressing over 64-bit fingerprints; 0 stands for an empty slot.
class FingerprintSet {
 public:
  bool Insert(uint64_t value) {  // false: was there
    if (value == 0) value = 1;
    if (2 * (count_ + 1) > slots_.size()) Grow();
    for (size_t at = Home(value);; at = (at + 1) & (slots_.size() - 1)) {
      if (slots_[at] == value) return false;
      if (slots_[at] != 0) continue;
      slots_[at] = value;
      ++count_;
      return true;
    }
  }
  // A slot is where no cache expects it: ask for it some work before Insert.
  void Prefetch(uint64_t value) const {
    if (!slots_.empty()) __builtin_prefetch(&slots_[Home(value)], /*write=*/1);
  }

 private:
  size_t Home(uint64_t value) const {
    return (value * 0x9E3779B97F4A7C15u >> 20) & (slots_.size() - 1);
  }
  void Grow() {
    std::vector<uint64_t> old(std::max<size_t>(1024, 2 * slots_.size()), 0);
    std::swap(old, slots_);
    count_ = 0;
    for (const uint64_t value : old) {
      if (value != 0) Insert(value);
    }
  }
  std::vector<uint64_t> slots_;
  size_t count_ = 0;
};

Json ToJson(const RowNotes& notes) {
  Json out = Json::object();
  for (const auto& [what, entry] : notes.entries)
    out[what] = {{"rows", entry.rows}, {"first", entry.first}};
  return out;
}

Json ToJson(const FileLedger& l) {
  return {{"file", l.file},         {"container", l.container}, {"form", l.format},
          {"read", l.read},         {"used", l.used},           {"rejected", l.rejected},
          {"examples", l.examples}, {"samples", l.samples},     {"notes", ToJson(l.notes)}};
}

FileLedger LedgerOf(const Json& j) {
  FileLedger l;
  l.file = j.at("file"), l.container = j.at("container"), l.format = j.at("form"),
  l.read = j.at("read"), l.used = j.at("used");
  l.rejected = j.at("rejected").get<std::map<std::string, int64_t>>();
  l.examples = j.at("examples").get<std::vector<std::string>>();
  l.samples = j.at("samples").get<std::vector<std::string>>();
  const Json notes = j.value("notes", Json::object());
  for (const auto& [what, entry] : notes.items())
    l.notes.entries[what] = {entry.at("rows").get<int64_t>(), entry.at("first").get<std::string>()};
  return l;
}

// What an import is: another file or option makes another one, and that begins at the beginning.
std::string Signature(const ImportRequest& request) {
  Json j = {{"hash", "xxh3"},
            {"map", request.rows.map},
            {"form", request.rows.form ? FormName(*request.rows.form) : ""},
            {"convert", request.rows.convert_numbers},
            {"max_row_bytes", request.max_row_bytes},
            {"max_tokens", request.max_tokens},
            {"overlong", request.overlong},
            {"rejects", request.rejects},
            {"files", Json::array()}};
  for (const std::string& file : request.files) {
    std::error_code ignored;
    const auto size = std::filesystem::file_size(file, ignored);
    const auto changed = std::filesystem::last_write_time(file, ignored).time_since_epoch().count();
    std::string head(size_t{1} << 16, '\0');
    std::ifstream in(file, std::ios::binary);
    in.read(head.data(), static_cast<std::streamsize>(head.size()));
    head.resize(static_cast<size_t>(std::max<std::streamsize>(in.gcount(), 0)));
    j["files"].push_back({{"name", file},
                          {"size", ignored ? 0 : size},
                          {"changed", changed},
                          {"head", Crc32c(head)}});
  }
  return DumpJson(j);
}

// The rejected rows, durable before a mark speaks of them.
class Rejects {
 public:
  Rejects(std::string path, FileSystem& files) : path_(std::move(path)), files_(files) {}

  // Whether all is there that a mark speaks of.
  bool Reaches(uint64_t bytes) const {
    return path_.empty() || (files_.Exists(path_) && files_.FileSize(path_) >= bytes);
  }
  void Begin() {
    if (path_.empty()) return;
    file_ = files_.OpenAppend(path_, /*truncate=*/true);
    const std::string folder = std::filesystem::path(path_).parent_path().string();
    files_.SyncDirectory(folder.empty() ? "." : folder);
  }
  // REQUIRES: Reaches(keep). Rows after the mark come again.
  void Continue(uint64_t keep) {
    if (path_.empty()) return;
    std::error_code failed;
    std::filesystem::resize_file(path_, keep, failed);
    if (failed) ThrowFileError(failed.value(), "cannot cut back to the last mark", path_);
    bytes_ = keep;
    file_ = files_.OpenAppend(path_);
  }
  bool wanted() const { return !path_.empty(); }
  void Add(const std::string& file, int64_t line, const std::string& text,
           const RowProblem& problem) {
    if (!file_) return;
    Json j = {
        {"file", file}, {"line", line}, {"reason", problem.reason}, {"detail", problem.detail}};
    if (IsUtf8(text)) {
      j["row"] = text;
    } else {
      j["row_hex"] = Hex(std::as_bytes(std::span(text)));
    }
    pending_ += DumpJson(j) + "\n";
    if (pending_.size() > kRejectBytes) Flush();
  }
  void Sync() {
    if (!file_) return;
    Flush();
    if (bytes_ > synced_) file_->Sync();
    synced_ = bytes_;
  }
  uint64_t bytes() const { return bytes_; }

 private:
  void Flush() {
    if (pending_.empty()) return;
    file_->Append(pending_);
    bytes_ += pending_.size();
    pending_.clear();
  }

  const std::string path_;
  FileSystem& files_;
  std::unique_ptr<AppendFile> file_;
  std::string pending_;
  uint64_t bytes_ = 0, synced_ = 0;
};

class Import {
 public:
  Import(Store& store, const ImportRequest& request)
      : store_(store),
        request_(request),
        signature_(Signature(request)),
        rejects_(request.rejects,
                 request.file_system != nullptr ? *request.file_system : RealFileSystem()) {}

  ImportReport Run() {
    if (request_.files.empty()) throw Error(ErrorCode::kInvalidArgument, "no file to import");
    if (request_.overlong != "drop" && request_.overlong != "error") {
      throw Error(
          ErrorCode::kInvalidArgument,
          "the policy for overlong rows is '" + request_.overlong + "'; it must be error or drop");
    }
    if (request_.max_tokens > 0 && !request_.count_tokens) {
      throw Error(ErrorCode::kInvalidArgument,
                  "the length of rows cannot be checked without a tokenizer");
    }
    const int64_t skip = TakeUp();
    for (size_t i = report_.files.size() - (skip > 0 ? 1 : 0); i < request_.files.size(); ++i) {
      if (!ReadFile(i, i + 1 == report_.files.size() ? skip : 0)) {
        report_.stopped = true;
        return report_;
      }
    }
    rejects_.Sync();
    report_.unchanged = !writer_->Seal();
    report_.rows = writer_->rows();
    return report_;
  }

 private:
  // Goes on with an unfinished import of the same files; returns how many rows of the last file in
  // the ledger were read.
  int64_t TakeUp() {
    for (const auto table : {ImportWriter::Table::kPrompts, ImportWriter::Table::kPreferences}) {
      ImportWriter writer(&store_, request_.dataset, table);
      const auto text = writer.Mark();
      if (!text || writer.sealed()) continue;
      const Json mark = Json::parse(*text, nullptr, false);
      if (!mark.is_object() || mark.value("signature", Json()) != signature_) continue;
      try {
        // Somebody took the file of rejects away: from the beginning, so that it is whole.
        if (!rejects_.Reaches(mark.at("rejects").get<uint64_t>())) continue;
        return Continue(mark, table);
      } catch (const Json::exception& e) {
        throw Error(ErrorCode::kCorruption,
                    std::string("the mark of its unfinished import is malformed: ") + e.what(),
                    request_.dataset);
      }
    }
    rejects_.Begin();
    return 0;
  }

  int64_t Continue(const Json& mark, ImportWriter::Table table) {
    for (const Json& ledger : mark.at("files")) report_.files.push_back(LedgerOf(ledger));
    kind_ = static_cast<RowKind>(mark.at("kind").get<int>());
    writer_ = std::make_unique<ImportWriter>(&store_, request_.dataset, table);
    writer_->Continue(mark.at("rows"), mark.at("hash"),
                      [this](uint64_t fingerprint) { seen_.Insert(fingerprint); });
    report_.continued_at = writer_->rows();
    rejects_.Continue(mark.at("rejects").get<uint64_t>());
    return mark.at("taken");
  }

  // The first usable row decides which table the dataset lives in.
  void Settle(RowForm form, const std::string& file) {
    if (kind_ && *kind_ != KindOf(form)) {
      throw Error(ErrorCode::kInvalidArgument,
                  std::string("holds ") + KindName(KindOf(form)) + ", the files before it " +
                      KindName(*kind_) + ": import them under two names (--dataset)",
                  file);
    }
    if (writer_) return;
    kind_ = KindOf(form);
    writer_ = std::make_unique<ImportWriter>(&store_, request_.dataset,
                                             *kind_ == RowKind::kPrompts
                                                 ? ImportWriter::Table::kPrompts
                                                 : ImportWriter::Table::kPreferences);
    writer_->Begin();
  }

  // Of a batch: what became of a row so far.
  struct Pending {
    int64_t number = 0;
    std::string text;  // as it stands in the file, where rejected rows are wanted
    ParsedRow parsed;
    std::optional<RowProblem> problem;
    uint64_t fingerprint = 0;
  };

  void Understand(const SourceRow& row, RowParser& parser) {
    Pending& pending = batch_[in_batch_++];
    pending.number = row.number;
    pending.problem.reset();
    if (rejects_.wanted()) pending.text = row.text;
    try {
      CheckReadable(row, request_.max_row_bytes);
      parser.Parse(row.text, pending.parsed);
    } catch (RowProblem& problem) {
      pending.problem = std::move(problem);
    }
  }

  void Stage(size_t slot, FileLedger& ledger) {
    Pending& row = batch_[slot];
    if (ledger.format.empty()) {
      ledger.format = FormName(row.parsed.form);
      Settle(row.parsed.form, ledger.file);
    }
    if (request_.max_tokens > 0) {
      const int64_t tokens = CountTokens(row.parsed);
      const std::string text =
          std::to_string(tokens) + " tokens, the bound is " + std::to_string(request_.max_tokens);
      if (tokens > request_.max_tokens && request_.overlong == "error")
        throw Error(ErrorCode::kInvalidArgument, text, Where(ledger, row.number));
      if (tokens > request_.max_tokens) throw RowProblem{"overlong", text};
    }
    const bool prompt = KindOf(row.parsed.form) == RowKind::kPrompts;
    row.fingerprint =
        prompt ? writer_->Stage(slot, row.parsed.prompt) : writer_->Stage(slot, row.parsed.record);
    seen_.Prefetch(row.fingerprint);
  }

  int64_t CountTokens(const ParsedRow& row) const {
    try {
      return request_.count_tokens(row);
    } catch (const Error& e) {  // what the vocabulary lacks, what the chat template refuses
      if (e.code() != ErrorCode::kInvalidArgument) throw;
      throw RowProblem{"untokenizable", e.message()};
    }
  }

  // The rows that were understood, in their order.
  void UseBatch(FileLedger& ledger) {
    for (size_t slot = 0; slot < in_batch_; ++slot) {
      if (batch_[slot].problem) continue;
      try {
        Stage(slot, ledger);
      } catch (RowProblem& problem) {
        batch_[slot].problem = std::move(problem);
      }
    }
    for (size_t slot = 0; slot < in_batch_; ++slot) {
      Pending& row = batch_[slot];
      ++ledger.read;
      if (!row.problem && !seen_.Insert(row.fingerprint))
        row.problem = RowProblem{"duplicate", "says the same as an earlier row"};
      if (row.problem) {
        Reject(row, ledger);
        continue;
      }
      if (!row.parsed.notes.empty()) ledger.notes.Add(row.parsed.notes, Where(ledger, row.number));
      if (ledger.samples.size() < RowLedger::kSamples)
        ledger.samples.push_back(ShownRow(row.parsed));
      writer_->Add(slot);
      ++ledger.used;
    }
    in_batch_ = 0;
  }

  void Reject(const Pending& row, FileLedger& ledger) {
    ledger.Reject(*row.problem, Where(ledger, row.number));
    rejects_.Add(ledger.file, row.number, row.text, *row.problem);
  }

  static std::string Where(const FileLedger& ledger, int64_t number) {
    return ledger.file + ":" + std::to_string(number);
  }

  // False: `progress` asked to stop.
  bool ReadFile(size_t index, int64_t skip) {
    const std::string& file = request_.files[index];
    auto source = RowSource::Open(file, request_.max_row_bytes);
    RowParserOptions rows = request_.rows;
    rows.convert_numbers |= source->all_text();
    RowParser parser(std::move(rows));
    if (skip == 0) {
      FileLedger& begun = report_.files.emplace_back();
      begun.file = file, begun.container = source->container();
    }
    FileLedger& ledger = report_.files.back();
    if (const auto form = FormOfName(ledger.format)) parser.SetForm(*form);
    SourceRow row;
    int64_t taken = 0, since_commit = 0;
    for (; taken < skip && source->Next(row); ++taken) {
    }
    for (bool more = true; more;) {
      // A batch ends where a mark or a look is due, and before there is a writer it is one row.
      const int64_t until_due = std::min(std::max<int64_t>(request_.commit_rows - since_commit, 1),
                                         kLookRows - since_commit % kLookRows);
      const int64_t most = writer_ ? std::min<int64_t>(until_due, ImportWriter::kSlots) : 1;
      int64_t rows = 0;
      std::exception_ptr failure;  // of the file; the rows before it count
      try {
        for (size_t bytes = 0; rows < most && bytes < kBatchBytes && (more = source->Next(row));
             ++rows) {
          bytes += row.text.size();
          if (!row.blank) Understand(row, parser);
        }
      } catch (const Error&) {
        failure = std::current_exception();
      }
      UseBatch(ledger);
      if (failure) std::rethrow_exception(failure);
      taken += rows;
      if (!writer_ || rows == 0) continue;
      since_commit += rows;
      const bool mark =
          since_commit >= request_.commit_rows || writer_->pending_bytes() >= kCommitBytes;
      const bool look = request_.progress && (mark || since_commit % kLookRows == 0);
      const bool stop = look && !request_.progress(file, source->Progress(), ledger.read);
      if (mark || stop) {
        since_commit = 0;
        Commit(taken);
      }
      if (stop) return false;
    }
    if (ledger.used == 0) rejects_.Sync();
    ledger.RequireUsed(file);
    if (const std::string column = parser.NeverThere(); skip == 0 && !column.empty())
      throw Error(ErrorCode::kInvalidArgument, column + "; --map names it, and no row has it",
                  file);
    if (request_.progress) request_.progress(file, 1, ledger.read);
    return true;
  }

  void Commit(int64_t taken) {
    rejects_.Sync();
    Json mark = {{"signature", signature_}, {"kind", static_cast<int>(*kind_)},
                 {"rows", writer_->rows()}, {"hash", writer_->hash()},
                 {"taken", taken},          {"rejects", rejects_.bytes()},
                 {"files", Json::array()}};
    for (const FileLedger& ledger : report_.files) mark["files"].push_back(ToJson(ledger));
    writer_->Commit(DumpJson(mark));
    CRASH_POINT("import_after_commit");
  }

  Store& store_;
  const ImportRequest& request_;
  const std::string signature_;
  ImportReport report_;
  std::optional<RowKind> kind_;
  std::unique_ptr<ImportWriter> writer_;
  FingerprintSet seen_;
  std::array<Pending, ImportWriter::kSlots> batch_;
  size_t in_batch_ = 0;
  Rejects rejects_;
};

}  // namespace

ImportReport ImportFiles(Store& store, const ImportRequest& request) {
  ImportReport report = Import(store, request).Run();
  if (!report.files.empty()) report.kind = KindOf(*FormOfName(report.files.front().format));
  return report;
}

}  // namespace plumb::replay
