// plumb data import | export: datasets into a store and out of it. Its sisters are in
// run/commands/replay_commands.cc.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>

#include "common/base/file.h"
#include "common/base/files/scratch_folder.h"
#include "common/base/output_path.h"
#include "common/text/columns.h"
#include "common/text/template/chat_template.h"
#include "common/text/tokenizer/tokenizer.h"
#include "replay/datasets/exporter.h"
#include "replay/datasets/importer.h"
#include "replay/datasets/missing_rollouts.h"
#include "run/commands/checked_numbers.h"
#include "run/commands/cli.h"
#include "run/commands/model_options.h"
#include "run/commands/spooled_input.h"
#include "run/session/fresh_folder.h"
#include "run/session/stored/run_store.h"

namespace plumb::run {
namespace {

struct ImportArguments {
  replay::ImportRequest request;
  std::string store, form, model;
  std::vector<std::string> map;
  bool quiet = false;
};

// The files of an import, called as people call them in all that is said about them.
class Inputs {
 public:
  // Names in `files` what can be read.
  explicit Inputs(std::vector<std::string>& files) {
    for (std::string& file : files) {
      inputs_.push_back(std::make_unique<SpooledInput>(file));
      file = inputs_.back()->file();
    }
  }
  std::string Named(std::string text) const {
    for (const auto& input : inputs_) text = input->Named(std::move(text));
    return text;
  }
  void Name(replay::ImportReport& report) const {
    for (replay::FileLedger& ledger : report.files) {
      ledger.file = Named(ledger.file);
      for (std::string& example : ledger.examples) example = Named(example);
      for (auto& [what, entry] : ledger.notes.entries) entry.first = Named(entry.first);
    }
  }
  template <class Work>
  void Run(Work work) const {
    try {
      work();
    } catch (const Error& e) {
      throw Error(e.code(), Named(e.message()), Named(e.where()));
    }
  }

 private:
  std::vector<std::unique_ptr<SpooledInput>> inputs_;
};

// Tokens of the longest sequence of a row, as the model's tokenizer and chat template make it.
std::function<int64_t(const replay::ParsedRow&)> TokenCounter(const std::string& model) {
  const std::shared_ptr<const Tokenizer> tokenizer = Tokenizer::Load(model);
  const std::shared_ptr<const ChatTemplate> chat = ChatTemplate::LoadOrNull(model);
  const auto count = [tokenizer, chat](const std::string& text, std::vector<Message> messages,
                                       const std::vector<Message>& answer,
                                       const std::string& columns_json) {
    if (text.empty() && chat) {
      messages.insert(messages.end(), answer.begin(), answer.end());
      return static_cast<int64_t>(
          tokenizer->Encode(chat->Render(messages, answer.empty(), columns_json)).size());
    }
    int64_t n = static_cast<int64_t>(tokenizer->Encode(text).size());
    for (const std::vector<Message>* list : {&std::as_const(messages), &answer}) {
      for (const Message& m : *list) n += static_cast<int64_t>(tokenizer->Encode(m.content).size());
    }
    return n;
  };
  return [count](const replay::ParsedRow& row) {
    if (replay::KindOf(row.form) == replay::RowKind::kPrompts)
      return count(row.prompt.text, row.prompt.messages, {}, row.prompt.extra_json);
    const PreferenceRecord& r = row.record;
    const int64_t chosen = count(r.prompt_text, r.prompt, r.chosen, r.extra_json);
    return r.rejected.empty()
               ? chosen
               : std::max(chosen, count(r.prompt_text, r.prompt, r.rejected, r.extra_json));
  };
}

void PrintReport(const replay::ImportReport& report, const replay::ImportRequest& request) {
  for (const replay::FileLedger& file : report.files) {
    std::printf("%s: %s, form %s (%s)\n", PrintableLine(file.file).c_str(), file.container.c_str(),
                file.format.c_str(),
                replay::KindName(replay::KindOf(*replay::FormOfName(file.format))));
    for (size_t i = 0; i < file.samples.size(); ++i)
      std::printf("  row %zu: %s\n", i + 1, PrintableLine(file.samples[i]).c_str());
    std::printf("  %s\n", file.Describe().c_str());
    for (const std::string& note : file.notes.Describe())
      std::printf("  note: %s\n", PrintableLines(note).c_str());
    for (const std::string& example : file.examples)
      std::printf("  rejected %s\n", PrintableLines(example).c_str());
    const int64_t rejected = file.TotalRejected();
    if (rejected > static_cast<int64_t>(file.examples.size())) {
      std::printf("  ... and %lld more%s\n",
                  static_cast<long long>(rejected) - static_cast<long long>(file.examples.size()),
                  request.rejects.empty() ? " (--rejects FILE writes all of them)" : "");
    }
    if (!request.rejects.empty() && rejected > 0)
      std::printf("  rejected rows: %s\n", request.rejects.c_str());
  }
  if (report.continued_at > 0) {
    std::printf("went on behind %llu rows that an unfinished import had stored\n",
                static_cast<unsigned long long>(report.continued_at));
  }
  if (report.stopped) return;
  std::printf("dataset '%s': %llu %s%s\n", request.dataset.c_str(),
              static_cast<unsigned long long>(report.rows), replay::KindName(report.kind),
              report.unchanged ? ", the same as before: nothing changed" : "");
}

// One line that is rewritten, for a terminal; silent elsewhere.
class Bar {
 public:
  explicit Bar(bool quiet)
      : on_(!quiet && isatty(STDERR_FILENO) == 1), started_(std::chrono::steady_clock::now()) {}
  void Show(const std::string& file, double part, int64_t rows) {
    const auto now = std::chrono::steady_clock::now();
    if (!on_ || (part < 1 && now - last_ < std::chrono::milliseconds(200))) return;
    last_ = now;
    const double seconds = std::max(1e-3, std::chrono::duration<double>(now - started_).count());
    std::string bar(30, '.');
    std::fill_n(bar.begin(), static_cast<size_t>(30 * std::clamp(part, 0.0, 1.0)), '#');
    std::fprintf(stderr, "\r[%s] %3.0f%%  %lld rows  %.0f s  %s", bar.c_str(), 100 * part,
                 static_cast<long long>(rows), seconds, file.c_str());
    if (part >= 1) std::fputc('\n', stderr);
  }

 private:
  const bool on_;
  const std::chrono::steady_clock::time_point started_;
  std::chrono::steady_clock::time_point last_;
};

// Those of an unfinished import, from which the same command goes on, among them.
bool HasRows(const replay::Store& store) {
  const auto usage = store.Usage();
  return std::any_of(usage.begin(), usage.end(), [](const auto& family) {
    return (family.name == "prompts" || family.name == "preferences") && family.records > 0;
  });
}

void RunImport(ImportArguments& a, CliResult& result) {
  replay::ImportRequest& request = a.request;
  request.rows.map = ReadMap(a.map);
  if (!a.form.empty()) {
    request.rows.form = replay::FormOfName(a.form);
    if (!request.rows.form)
      throw Error(ErrorCode::kInvalidArgument,
                  "--format '" + a.form + "' is unknown; known: " + replay::FormNames());
  }
  if ((request.max_tokens > 0) == a.model.empty()) {
    throw Error(ErrorCode::kInvalidArgument,
                "--max-tokens N and --model FOLDER go together: the model's tokenizer counts");
  }
  if (a.store.empty())
    throw Error(ErrorCode::kInvalidArgument, "is empty: name the folder of a store", "--store");
  if (!request.rejects.empty()) CheckOutput(request.rejects, request.files, "--rejects");
  if (request.max_tokens > 0) request.count_tokens = TokenCounter(a.model);
  NowBusy(Busy::kNothingToKeep, "nothing was imported");
  Inputs inputs(request.files);
  NowBusy(Busy::kNothingToKeep, "the same command goes on from here");
  FreshFolder fresh(a.store);
  const auto store = replay::Store::Open(a.store);
  Bar bar(a.quiet);
  request.progress = [&](const std::string& file, double part, int64_t rows) {
    bar.Show(inputs.Named(file), part, rows);
    return !StopRequested();
  };
  replay::ImportReport report;
  try {
    inputs.Run([&] { report = replay::ImportFiles(*store, request); });
  } catch (const Error&) {
    if (HasRows(*store)) fresh.Keep();
    throw;
  }
  fresh.Keep();
  inputs.Name(report);
  PrintReport(report, request);
  if (report.stopped) {
    std::fprintf(stderr, "plumb: stopped; the same command goes on from here\n");
    result.exit_code = kExitFewerSteps;
  }
}

struct ExportArguments {
  replay::ExportRequest request;
  std::string store, form = "trl", rows = "auto";
  bool eval = false, quiet = false, overwrite = false;
};

// `to`: where the rows are not.
void PrintReport(std::FILE* to, const std::string& name, const replay::ExportReport& report,
                 const replay::ExportRequest& request) {
  const auto number = [](int64_t n) { return static_cast<long long>(n); };
  std::fprintf(to, "%s: %s, %lld lines, %llu bytes\n  %s\n", name.c_str(),
               replay::FormName(request.form), number(report.lines),
               static_cast<unsigned long long>(report.bytes), report.Describe().c_str());
  if (report.other_purpose > 0)
    std::fprintf(to, "  %s\n", replay::OtherPurpose(report, request).c_str());
  for (const auto& [what, n] : report.notes) {
    std::fprintf(to, "  %s: %lld%s\n", what.c_str(), number(n),
                 what == "weights" ? " (import with --map weight=weight)" : "");
  }
  std::fprintf(to, "  %lld of %lld rows are read back as the very same %s\n", number(report.same),
               number(report.lines),
               report.rows != replay::ExportRows::kRollouts ? "records"
               : request.form == replay::ExportForm::kTrl   ? "answers"
                                                            : "prompts");
  for (const std::string& example : report.examples)
    std::fprintf(to, "  not the same: %s\n", PrintableLines(example).c_str());
}

void CopyToStandardOutput(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::string piece(size_t{1} << 20, '\0');
  while (in.read(piece.data(), static_cast<std::streamsize>(piece.size())), in.gcount() > 0) {
    if (std::fwrite(piece.data(), 1, static_cast<size_t>(in.gcount()), stdout) !=
        static_cast<size_t>(in.gcount()))
      break;
  }
  FlushOutput();
  if (!in.eof()) throw Error(ErrorCode::kIo, "could not read it again", path);
}

void RunExport(ExportArguments& a, CliResult& result) {
  replay::ExportRequest& request = a.request;
  // Rows go to standard output once all of them are there: half a dataset looks like a whole one.
  const bool standard_output = request.out == "-";
  CheckOutput(request.out, {}, "data export");
  CheckNothingIsLost(request.out, a.overwrite, "data export");
  for (const char* other : {".csv", ".tsv", ".csv.gz", ".tsv.gz"}) {
    if (!request.out.ends_with(other)) continue;
    throw Error(ErrorCode::kInvalidArgument,
                "rows are written as JSON lines or Parquet: call it .jsonl, .jsonl.gz or .parquet",
                request.out);
  }
  std::unique_ptr<ScratchFolder> folder;
  if (standard_output) {
    folder = std::make_unique<ScratchFolder>(TemporaryFolder() / "plumb-data");
    request.out = folder->path() + "/rows";
  }
  const auto form = replay::ExportFormOfName(a.form);
  if (!form)
    throw Error(ErrorCode::kInvalidArgument,
                "--form '" + a.form + "' is unknown; known: trl, verl");
  const auto rows = replay::ExportRowsOfName(a.rows);
  if (!rows)
    throw Error(ErrorCode::kInvalidArgument,
                "--rows '" + a.rows + "' is unknown; known: " + replay::RowsNames(", "));
  request.form = *form;
  request.rows = *rows;
  if (a.eval && *rows != replay::ExportRows::kRollouts)
    throw Error(ErrorCode::kInvalidArgument, "is for --rows rollouts", "--eval");
  if (a.eval) request.purpose = Purpose::kEval;
  replay::StoreOptions how;
  how.read_only = true;
  const auto store = replay::Store::Open(StoreFolderOf(a.store), how);
  if (request.dataset.empty() && *rows != replay::ExportRows::kRollouts) {
    std::map<std::string, uint64_t> all = store->Datasets();
    all.merge(store->PreferenceDatasets());
    request.dataset = all.size() == 1 ? all.begin()->first : "train";
  }
  Bar bar(a.quiet);
  request.progress = [&](double part, int64_t done) {
    bar.Show(request.out, part, done);
    return !StopRequested();
  };
  const replay::ExportReport report = replay::ExportDataset(*store, request);
  if (report.stopped) {
    std::fprintf(stderr, "plumb: stopped; no file was written\n");
    result.exit_code = kExitFewerSteps;
    return;
  }
  if (standard_output) CopyToStandardOutput(request.out);
  std::FILE* const said = standard_output ? stderr : stdout;
  PrintReport(said, standard_output ? "standard output" : request.out, report, request);
  // Who asks a run's store for what there is may have meant the answers.
  if (*rows == replay::ExportRows::kAuto && report.rows == replay::ExportRows::kPrompts &&
      store->TrimmedBefore(Purpose::kTrain) > 0) {
    std::fprintf(said, "  prompts without answers: %s\n",
                 replay::WhyNoRollouts(*store, Purpose::kTrain).c_str());
  }
}

void AddExport(CLI::App& data, CliResult& result) {
  auto a = std::make_shared<ExportArguments>();
  CLI::App* out = data.add_subcommand(
      "export", "A dataset or the rollouts of a store as JSON lines, in the forms of TRL and verl");
  out->add_option(
         "out", a->request.out,
         "file, there as a whole or not at all; gzip when it ends in .gz; -: standard output")
      ->required();
  out->add_flag("--overwrite", a->overwrite, "replace the file that is there");
  out->add_option("--store,--from", a->store, "folder of the store, or of a run; a run may hold it")
      ->required();
  a->request.dataset.clear();
  out->add_option(
      "--dataset", a->request.dataset,
      "name in the store (default: the only one, else train; rollouts: of every dataset)");
  out->add_option("--form", a->form, "trl | verl")->capture_default_str();
  out->add_option("--rows", a->rows, replay::RowsNames(" | ") + "; auto: whichever has the name")
      ->capture_default_str();
  out->add_flag("--eval", a->eval,
                "of rollouts: answers of held-out evaluations instead of those of training");
  out->add_option("--end-token", a->request.end_tokens,
                  "text of an end token that sampled answers carry, where it is an unusual one");
  out->add_flag("!--no-tokens", a->request.tokens,
                "without plumb_tokens, the tokens of answers that were sampled");
  out->add_flag("--quiet", a->quiet, "no progress bar");
  out->callback([a, &result] { RunExport(*a, result); });
}

}  // namespace

void AddDataCommand(CLI::App& app, CliResult& result) {
  CLI::App* data = app.add_subcommand("data", "Datasets: import into a store, export out of it");
  data->require_subcommand(1);
  auto a = std::make_shared<ImportArguments>();
  CLI::App* import = data->add_subcommand(
      "import", "JSONL, JSON arrays, CSV, TSV, gzip of them, or Parquet into a store");
  import->add_option("files", a->request.files, "files, in this order; -: standard input")
      ->required();
  import
      ->add_option("--store,--into,--out", a->store,
                   "folder of the store; made when it is not there")
      ->required();
  import->add_option("--dataset", a->request.dataset, "name in the store")->capture_default_str();
  import->add_option("--map", a->map,
                     "part=column,...: other names of columns, e.g. prompt=task,answer=solution; "
                     "margin=a-b: a difference");
  import->add_option("--format", a->form, "instead of finding it out: " + replay::FormNames());
  import->add_option("--rejects", a->request.rejects,
                     "file for the rejected rows, with line and reason");
  import
      ->add_option("--max-tokens", a->request.max_tokens,
                   "bound for the longest sequence of a row; needs --model")
      ->check(WholeNumber(1));
  import->add_option("--model", a->model,
                     "folder of the model whose tokenizer and chat template count");
  import
      ->add_option("--overlong", a->request.overlong,
                   "drop | error: what longer rows are; a run cuts them by data.overlong")
      ->capture_default_str();
  import->add_flag("--numbers-from-text", a->request.rows.convert_numbers,
                   "take numbers and booleans that are written as text");
  import->add_flag("--quiet", a->quiet, "no progress bar");
  import->callback([a, &result] { RunImport(*a, result);
});
AddExport(*data, result);
AddReplayCommands(*data, result);
}  // namespace plumb::run

}  // namespace plumb::run
