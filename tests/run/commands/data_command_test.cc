// plumb data import and plumb store (run/commands/data_command.cc, run/commands/store_command.cc):
// ledger, rejects, idempotence, exit codes.
#include <gtest/gtest.h>

#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <thread>

#include "common/base/file.h"
#include "common/text/tokenizer/tokenizer.h"
#include "replay/datasets/rows/parquet_source.h"
#include "tests/run/cli_runner.h"
#include "tests/testing/standard_input.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

using plumb::testing::TempFolder;
using testing::Has;
using testing::RunPlumb;

std::string Write(const std::string& path, const std::string& text) {
  RealFileSystem().WriteFileAtomic(path, text);
  return path;
}

TEST(DataCommandTest, ImportsCountsRejectsAndRepeats) {
  const TempFolder temp;
  const std::string store = temp / "store", rejects = temp / "rejects.jsonl";
  const std::string file =
      Write(temp / "pairs.jsonl",
            "{\"prompt\": \"p\", \"chosen\": \"good\", \"rejected\": \"bad\"}\n"
            "{\"prompt\": \"q\", \"chosen\": \"same\", \"rejected\": \"same\"}\n"
            "broken\n");
  const auto first = RunPlumb(
      {"data", "import", file, "--store", store, "--dataset", "pairs", "--rejects", rejects});
  EXPECT_EQ(first.code, 0) << first.err;
  const std::string said = first.out + first.err;
  EXPECT_TRUE(Has(said, "read 3 = used 1 + 1 bad_json + 1")) << said;
  EXPECT_TRUE(Has(said, "pairs.jsonl:3")) << said;
  const std::string rejected = RealFileSystem().ReadFile(rejects, 1 << 16);
  EXPECT_EQ(std::count(rejected.begin(), rejected.end(), '\n'), 2);
  const auto again = RunPlumb({"data", "import", file, "--store", store, "--dataset", "pairs"});
  EXPECT_EQ(again.code, 0) << again.err;
  EXPECT_TRUE(Has(again.out + again.err, "nothing changed")) << again.out << again.err;

  const auto verified = RunPlumb({"store", "verify", store});
  EXPECT_EQ(verified.code, 0) << verified.err;
  EXPECT_TRUE(Has(verified.out, "1 preference rows") && Has(verified.out, "0 problems"))
      << verified.out;
  EXPECT_TRUE(Has(RunPlumb({"store", "verify", store, "--json"}).out, "\"preferences\": 1"));
  EXPECT_TRUE(Has(RunPlumb({"store", "explain", store}).out, "CRC32C"));
  EXPECT_EQ(RunPlumb({"store", "snapshot", store, temp / "copy"}).code, 0);
  EXPECT_TRUE(Has(RunPlumb({"store", "verify", temp / "copy"}).out, "1 preference rows"));
}

// Row 7 of docs/reliability.md: what a damaged log leaves is said, and made into a store that
// opens.
TEST(DataCommandTest, ADamagedStoreIsRecoveredUpToTheDamage) {
  const TempFolder temp;
  const std::string store = temp / "store", copy = temp / "copy";
  for (const char* dataset : {"first", "second"}) {
    const std::string file = Write(temp / "pairs.jsonl",
                                   "{\"prompt\": \"p\", \"chosen\": \"good\", "
                                   "\"rejected\": \"bad\"}\n");
    ASSERT_EQ(RunPlumb({"data", "import", file, "--store", store, "--dataset", dataset}).code, 0);
  }
  EXPECT_EQ(RunPlumb({"store", "recover", store}).code, 2) << "it has to be said how";
  const auto whole = RunPlumb({"store", "recover", store, "--point-in-time"});
  EXPECT_EQ(whole.code, 0) << whole.err;
  EXPECT_TRUE(Has(whole.out, "no log is damaged")) << whole.out;
  std::string log;
  for (const std::string& name : RealFileSystem().List(store)) {
    if (name.ends_with(".log") && std::filesystem::file_size(store + "/" + name) > 0)
      log = store + "/" + name;
  }
  ASSERT_NE(log, "");
  std::string bytes = RealFileSystem().ReadFile(log, 1 << 20);
  bytes[20] = static_cast<char>(bytes[20] ^ 4);
  Write(log, bytes);
  const auto refused = RunPlumb({"store", "snapshot", store, temp / "snapshot"});
  EXPECT_EQ(refused.code, 4);
  EXPECT_TRUE(Has(refused.err, "store recover --point-in-time")) << refused.err;
  const auto said = RunPlumb({"store", "recover", store, "--point-in-time"});
  EXPECT_EQ(said.code, 0) << said.err;
  for (const char* words : {"damaged:  ", "the record at byte 0 does not match its checksum",
                            "kept:     0 groups", "missing:  0 groups", "nothing was changed"})
    EXPECT_TRUE(Has(said.out, words)) << said.out;
  const auto made =
      RunPlumb({"store", "recover", store, "--point-in-time", "--to", copy, "--json"});
  EXPECT_EQ(made.code, 0) << made.err;
  EXPECT_TRUE(Has(made.out, "\"nameless\": 0")) << made.out;
  const auto verified = RunPlumb({"store", "verify", copy});
  EXPECT_EQ(verified.code, 0) << verified.err;
  EXPECT_TRUE(Has(verified.out, "0 problems")) << verified.out;
}

TEST(DataCommandTest, OverlongRowsAreCountedOrAnError) {
  const TempFolder temp;
  const std::string store = temp / "store";
  RealFileSystem().CreateDirectories(temp / "model");
  Write(temp / "model/tokenizer.json", Tokenizer::BuiltIn("arithmetic")->json());
  const std::string file =
      Write(temp / "pairs.jsonl",
            "{\"prompt\": \"1+1=\", \"chosen\": \"2\", \"rejected\": \"3\"}\n"
            "{\"prompt\": \"2+1=\", \"chosen\": \"3\", \"rejected\": \"3000000\"}\n");
  const auto bounded = [&](const std::string& dataset, const std::string& policy) {
    return RunPlumb({"data", "import", file, "--store", store, "--dataset", dataset, "--max-tokens",
                     "6", "--model", temp / "model", "--overlong", policy});
  };
  const auto dropped = bounded("a", "drop");
  EXPECT_EQ(dropped.code, 0) << dropped.err;
  EXPECT_TRUE(Has(dropped.out, "read 2 = used 1 + 1 overlong") &&
              Has(dropped.out, "pairs.jsonl:2: overlong: 11 tokens"))
      << dropped.out;
  // So are rows that the model's tokenizer does not take.
  Write(file,
        "{\"prompt\": \"1+1=\", \"chosen\": \"2\", \"rejected\": \"h\"}\n"
        "{\"prompt\": \"2+1=\", \"chosen\": \"3\", \"rejected\": \"4\"}\n");
  const auto odd = bounded("odd", "drop");
  EXPECT_TRUE(Has(odd.out, "read 2 = used 1 + 1 untokenizable") &&
              Has(odd.out, "pairs.jsonl:1: untokenizable: the character 'h'"))
      << odd.out << odd.err;
  Write(file,
        "{\"prompt\": \"1+1=\", \"chosen\": \"2\", \"rejected\": \"3\"}\n"
        "{\"prompt\": \"2+1=\", \"chosen\": \"3\", \"rejected\": \"3000000\"}\n");
  const auto refused = bounded("b", "error");
  EXPECT_EQ(refused.code, 2);
  EXPECT_TRUE(Has(refused.err, "pairs.jsonl:2")) << refused.err;
  EXPECT_EQ(bounded("c", "squeeze").code, 2);
  EXPECT_EQ(RunPlumb({"data", "import", file, "--store", store, "--max-tokens", "6"}).code, 2);
}

TEST(DataCommandTest, ExportsWhatCanBeImportedAgain) {
  const TempFolder temp;
  const std::string store = temp / "store", out = temp / "out.jsonl.gz";
  const std::string file =
      Write(temp / "pairs.jsonl",
            "{\"prompt\": \"p\", \"chosen\": \"good\", \"rejected\": \"bad\", \"id\": 3}\n");
  ASSERT_EQ(RunPlumb({"data", "import", file, "--store", temp / "one", "--dataset", "only"}).code,
            0);
  EXPECT_TRUE(
      Has(RunPlumb({"data", "export", out, "--store", temp / "one"}).out, "read 1 = written 1"));
  ASSERT_EQ(RunPlumb({"data", "import", file, "--store", store}).code, 0);
  const auto exported =
      RunPlumb({"data", "export", out, "--store", store, "--form", "trl", "--overwrite"});
  EXPECT_EQ(exported.code, 0) << exported.err;
  EXPECT_TRUE(Has(exported.out, "read 1 = written 1") &&
              Has(exported.out, "1 of 1 rows are read back as the very same"))
      << exported.out;
  const auto again = RunPlumb({"data", "import", out, "--store", store});
  EXPECT_TRUE(Has(again.out, "nothing changed")) << again.out << again.err;
  EXPECT_EQ(RunPlumb({"data", "export", temp / "x", "--store", store, "--form", "csv"}).code, 2);
  const auto none =
      RunPlumb({"data", "export", temp / "x", "--store", store, "--dataset", "other"});
  EXPECT_EQ(none.code, 3);
  EXPECT_TRUE(Has(none.err, "train (preferences)")) << none.err;
}

TEST(DataCommandTest, PipesInAndStandardOutput) {
  const TempFolder temp;
  const std::string pipe = temp / "pipe",
                    row = "{\"prompt\": \"p\", \"chosen\": \"good\", \"rejected\": \"bad\"}\n";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  std::thread writer([&] { std::ofstream(pipe) << row; });
  const auto in = RunPlumb({"data", "import", pipe, "--store", temp / "store"});
  writer.join();
  EXPECT_EQ(in.code, 0) << in.err;
  EXPECT_TRUE(Has(in.out, "read 1 = used 1")) << in.out;
  EXPECT_TRUE(Has(in.out, pipe + ": jsonl, form preference") && !Has(in.out, "/proc/")) << in.out;
  const auto out = RunPlumb({"data", "export", "-", "--store", temp / "store"});
  EXPECT_EQ(out.code, 0) << out.err;
  EXPECT_EQ(out.out, "{\"prompt\":\"p\",\"chosen\":\"good\",\"rejected\":\"bad\"}\n");
  EXPECT_TRUE(Has(out.err, "read 1 = written 1")) << out.err;
}

TEST(DataCommandTest, StandardInputIsCalledSoInAllThatIsSaid) {
  const TempFolder temp;
  {
    const plumb::testing::StandardInput rows("{\"prompt\": \"p\", \"answer\": \"1\"}\nbroken\n");
    const auto in = RunPlumb({"data", "import", "-", "--store", temp / "store"});
    EXPECT_EQ(in.code, 0) << in.err;
    EXPECT_TRUE(Has(in.out, "standard input: jsonl, form prompt-answer") &&
                Has(in.out, "rejected standard input:2: bad_json"))
        << in.out;
  }
  {
    const plumb::testing::StandardInput table("question,answer\n6*7?,42\n");
    const auto in =
        RunPlumb({"data", "import", "-", "--store", temp / "store", "--dataset", "table"});
    EXPECT_TRUE(Has(in.out, "standard input: csv, form prompt-answer")) << in.out << in.err;
  }
  const plumb::testing::StandardInput useless("{\"a\": 1}\n");
  const auto in = RunPlumb({"data", "import", "-", "--store", temp / "store", "--dataset", "none"});
  EXPECT_EQ(in.code, 2);
  EXPECT_TRUE(Has(in.err, "standard input") && !Has(in.err, "/proc/")) << in.err;
}

TEST(DataCommandTest, NotesWhatWasPassedOver) {
  const TempFolder temp;
  const std::string file = Write(temp / "pairs.jsonl",
                                 "{\"prompt\": \"p\", \"chosen\": \"a\", \"rejected\": \"b\", "
                                 "\"score_chosen\": 2, \"score_rejected\": 1}\n"
                                 "{\"prompt\": \"q\", \"chosen\": \"a\", \"rejected\": \"b\", "
                                 "\"score_chosen\": 2, \"score_rejected\": 1}\n");
  const auto plain =
      RunPlumb({"data", "import", file, "--store", temp / "store", "--dataset", "plain"});
  EXPECT_TRUE(
      Has(plain.out, "note: 2 rows: score_chosen and score_rejected left among the other columns"))
      << plain.out;
  const auto mapped = RunPlumb({"data", "import", file, "--store", temp / "store", "--dataset",
                                "margin", "--map", "margin=score_chosen-score_rejected"});
  EXPECT_EQ(mapped.code, 0) << mapped.err;
  EXPECT_FALSE(Has(mapped.out, "note:")) << mapped.out;
}

// A column may be called by what a terminal would obey.
TEST(DataCommandTest, NamesFromAFileSteerNoTerminal) {
  const TempFolder temp;
  const std::string file =
      Write(temp / "rows.jsonl",
            "{\"prompt\": \"p\", \"answer\": \"1\"}\n"
            "{\"\\u001b[2Jprompt\": \"p\", \"x\\u001b[31m\": \"1\"}\n"
            "{\"prompt\": [{\"role\": \"\\u001b[2Jx\", \"content\": \"a\"}]}\n");
  const auto imported =
      RunPlumb({"data", "import", file, "--store", temp / "store", "--dataset", "d"});
  EXPECT_TRUE(Has(imported.out, "rejected")) << imported.out;
  EXPECT_TRUE(Has(imported.out, "\u241B[2J")) << imported.out;
  EXPECT_FALSE(Has(imported.out + imported.err, "\x1b")) << imported.out;
}

TEST(DataCommandTest, WhatIsReadIsNeverWrittenOver) {
  const TempFolder temp;
  const std::string rows = "{\"prompt\": \"p\"}\nbroken\n", store = temp / "store";
  const std::string file = Write(temp / "rows.jsonl", rows);
  const auto refused = [&](const std::vector<std::string>& line, int code, const std::string& why) {
    const auto output = RunPlumb(line);
    EXPECT_EQ(output.code, code) << why;
    EXPECT_TRUE(Has(output.err, why)) << why << " is not in " << output.err;
  };
  refused({"data", "import", file, "--store", store, "--rejects", file}, 2,
          "--rejects: is the file that is read");
  refused({"data", "import", file, "--store", store, "--rejects", temp.path()}, 2, "is a folder");
  refused({"data", "import", file, "--store", store, "--rejects", temp / "no/x"}, 3,
          "there is no folder");
  refused({"data", "import", file, "--store", ""}, 2, "--store: is empty");
  refused({"data", "import", file, "--store", file}, 2, "is a file of rows, not a store");
  EXPECT_EQ(RealFileSystem().ReadFile(file, 1 << 16), rows);
  EXPECT_FALSE(std::filesystem::exists(store));
  ASSERT_EQ(RunPlumb({"data", "import", file, "--store", store}).code, 0);
  refused({"data", "export", temp / "x.csv", "--store", store}, 2, "call it .jsonl");
  refused({"data", "export", temp.path(), "--store", store}, 2, "is a folder");
  refused({"data", "export", "", "--store", store}, 2, "is empty: name a file");
  refused({"data", "export", temp / "no/x.jsonl", "--store", store}, 3, "there is no folder");
  refused({"store", "export", store, "--out", temp.path()}, 2, "is a folder");
}

TEST(DataCommandTest, WrongInputIsNamedAndStoresNothing) {
  const TempFolder temp;
  const std::string store = temp / "store";
  const auto missing =
      RunPlumb({"data", "import", temp / "no.jsonl", "--store", store, "--dataset", "d"});
  EXPECT_EQ(missing.code, 3);
  EXPECT_TRUE(Has(missing.err, "no.jsonl")) << missing.err;
  const auto useless = RunPlumb(
      {"data", "import", Write(temp / "x", "{\"a\": 1}\n"), "--store", store, "--dataset", "d"});
  EXPECT_EQ(useless.code, 2) << useless.out;
  const auto parquet = RunPlumb({"data", "import", Write(temp / "x.parquet", "PAR1....PAR1"),
                                 "--store", store, "--dataset", "d"});
  EXPECT_EQ(parquet.code, replay::HasParquet() ? 4 : 9);
  EXPECT_TRUE(Has(parquet.err, replay::HasParquet() ? "damaged" : "JSON lines")) << parquet.err;
  EXPECT_FALSE(std::filesystem::exists(store)) << "no empty store stays";
  EXPECT_EQ(RunPlumb({"store", "verify", temp / "nothing"}).code, 3);
  // So does an import of which a later file fails, unless it has got so far that it can go on.
  for (const int rows : {10, 66'000}) {
    std::string many;
    for (int i = 0; i < rows; ++i) many += "{\"prompt\": \"p" + std::to_string(i) + "\"}\n";
    EXPECT_EQ(RunPlumb({"data", "import", Write(temp / "many", many), temp / "x", "--store", store,
                        "--quiet"})
                  .code,
              2);
    EXPECT_EQ(std::filesystem::exists(store), rows > 65'536) << rows;
  }
  // A store with something in it is left alone.
  const std::string kept = temp / "kept";
  const std::string good = Write(temp / "good.jsonl", "{\"prompt\": \"p\"}\n");
  ASSERT_EQ(RunPlumb({"data", "import", good, "--store", kept, "--dataset", "g"}).code, 0);
  EXPECT_EQ(RunPlumb({"data", "import", temp / "x", "--store", kept, "--dataset", "d"}).code, 2);
  EXPECT_TRUE(Has(RunPlumb({"store", "verify", kept}).out, ", 1 prompts"));
}

TEST(DataCommandTest, AnExportReplacesAFileOnlyWithLeave) {
  const TempFolder temp;
  const std::string store = temp / "store", out = temp / "out.jsonl",
                    file = Write(temp / "rows.jsonl", "{\"prompt\": \"p\"}\n");
  ASSERT_EQ(RunPlumb({"data", "import", file, "--store", store}).code, 0);
  for (const std::vector<std::string>& verb :
       {std::vector<std::string>{"data", "export", out, "--store", store},
        {"store", "export", store, "--out", out}}) {
    Write(out, "mine");
    const auto refused = RunPlumb(verb);
    EXPECT_EQ(refused.code, 2) << refused.out;
    EXPECT_TRUE(Has(refused.err, "replace it with --overwrite")) << refused.err;
    EXPECT_EQ(RealFileSystem().ReadFile(out, 1 << 16), "mine");
    auto replace = verb;
    replace.emplace_back("--overwrite");
    EXPECT_EQ(RunPlumb(replace).code, 0) << verb[0];
    EXPECT_NE(RealFileSystem().ReadFile(out, 1 << 16), "mine");
  }
  EXPECT_EQ(RunPlumb({"store", "export", store, "--overwrite"}).code, 2) << "there is no --out";
}

TEST(DataCommandTest, DemonstrationsAreExportedByTheirName) {
  const TempFolder temp;
  const std::string store = temp / "store";
  const std::string prompts = Write(temp / "prompts.jsonl", "{\"prompt\": \"p\"}\n"),
                    shown = Write(temp / "shown.jsonl",
                                  "{\"prompt\": \"p\", \"completion\": \"said\"}\n");
  ASSERT_EQ(RunPlumb({"data", "import", prompts, "--store", store}).code, 0);
  ASSERT_EQ(RunPlumb({"data", "import", shown, "--store", store}).code, 0);
  const auto both = RunPlumb({"data", "export", "-", "--store", store});
  EXPECT_EQ(both.code, 2);
  EXPECT_TRUE(Has(both.err,
                  "names prompts and demonstrations: say which with --rows prompts or "
                  "--rows demonstrations"))
      << both.err;
  const auto one = RunPlumb({"data", "export", "-", "--store", store, "--rows", "demonstrations"});
  EXPECT_EQ(one.code, 0) << one.err;
  EXPECT_EQ(one.out, "{\"prompt\":\"p\",\"completion\":\"said\"}\n");
  const auto pairs = RunPlumb({"data", "export", "-", "--store", store, "--rows", "preferences"});
  EXPECT_EQ(pairs.code, 2);
  EXPECT_TRUE(Has(pairs.err, "'train' holds demonstrations")) << pairs.err;
  const auto unknown = RunPlumb({"data", "export", "-", "--store", store, "--rows", "rows"});
  EXPECT_TRUE(Has(unknown.err, "known: auto, prompts, preferences, labelled, demonstrations"))
      << unknown.err;
}

TEST(DataCommandTest, SampledAnswersAreNotTakenForDemonstrationsWithoutAWord) {
  const TempFolder temp;
  const std::string file = Write(temp / "rollouts.jsonl",
                                 "{\"prompt\": \"p\", \"completion\": \"said\", \"reward\": 0, "
                                 "\"lease\": 1, \"sample\": 0}\n");
  const auto imported = RunPlumb({"data", "import", file, "--store", temp / "store"});
  EXPECT_EQ(imported.code, 0) << imported.err;
  EXPECT_TRUE(Has(imported.out, "1 row: a sampled answer taken as a demonstration"))
      << imported.out;
}

}  // namespace
}  // namespace plumb::run
