#include "replay/datasets/importer.h"

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zlib.h>

#include <csignal>

#include <nlohmann/json.hpp>

#include "common/base/crash_point.h"
#include "replay/datasets/import_writer.h"
#include "replay/datasets/rows/row_form.h"
#include "replay/datasets/rows/row_parser.h"
#include "replay/datasets/rows/row_source.h"
#include "tests/replay/fixtures.h"

namespace plumb::replay {
namespace {

using Json = nlohmann::json;
using Messages = std::vector<Message>;

struct Imported {
  ImportReport report;
  std::vector<Prompt> prompts;
  std::vector<PreferenceRecord> records;
};

Imported ReadBack(Store& store, ImportReport report, const std::string& dataset) {
  Imported out;
  if (report.kind == RowKind::kPrompts) {
    for (uint64_t i = 0; i < store.PromptCount(dataset); ++i)
      out.prompts.push_back(store.ReadPrompt(dataset, i));
  } else {
    out.records = store.ReadPreferences(dataset, 0, UINT64_MAX);
  }
  out.report = std::move(report);
  return out;
}

ImportRequest Request(std::vector<std::string> files, const std::string& dataset = "train") {
  ImportRequest request;
  request.files = std::move(files);
  request.dataset = dataset;
  return request;
}

RowParserOptions Mapped(std::map<std::string, std::string> map) {
  RowParserOptions options;
  options.map = std::move(map);
  return options;
}

Imported Import(const std::string& text, const RowParserOptions& rows = {}) {
  TempFolder folder;
  auto store = OpenStore(folder / "store");
  ImportRequest request = Request({WriteFile(folder / "data", text)}, "d");
  request.rows = rows;
  return ReadBack(*store, ImportFiles(*store, request), "d");
}

std::string FormOf(const Imported& imported) { return imported.report.files.at(0).format; }

TEST(ImporterTest, PromptForms) {
  struct Case {
    std::string form, row, text, truth, extra;
  };
  const Case cases[] = {
      {"gsm8k", R"({"question": "How many?", "answer": "6*7 #### 42 "})", "How many?", "42",
       R"({"answer":"6*7 #### 42 "})"},
      {"prompt-answer", R"({"prompt": "p", "answer": 12, "z": null, "b": {"n": [1, 2.5, "x\n"]}})",
       "p", "12", R"({"answer":12,"b":{"n":[1,2.5,"x\n"]},"z":null})"},
      {"openrlhf", R"({"input": "i", "label": "l"})", "i", "l", ""},
      {"slime", R"({"prompt": "p", "label": "l", "metadata": {"k": 1}})", "p", "l",
       R"({"metadata":{"k":1}})"},
      {"trl", R"({"prompt": "only this", "level": 3})", "only this", "", R"({"level":3})"},
      {"skyrl",
       R"({"prompt": "p", "env_class": "e", "reward_spec": {"method": "rule", "ground_truth": "g"}})",
       "p", "g", R"({"env_class":"e","reward_spec":{"ground_truth":"g","method":"rule"}})"},
  };
  for (const Case& c : cases) {
    const Imported got = Import(c.row);
    EXPECT_EQ(FormOf(got), c.form);
    ASSERT_EQ(got.prompts.size(), 1u);
    EXPECT_EQ(got.prompts[0].text, c.text);
    EXPECT_EQ(got.prompts[0].ground_truth, c.truth) << c.form;
    EXPECT_EQ(got.prompts[0].extra_json, c.extra) << c.form;
  }
  const Imported verl = Import(
      R"({"data_source": "math", "prompt": [{"role": "user", "content": "u"}], "ability": "a", "reward_model": {"style": "rule", "ground_truth": "7"}, "extra_info": {"index": 3}})");
  EXPECT_EQ(FormOf(verl), "verl");
  EXPECT_EQ(verl.prompts.at(0).messages, (Messages{{"user", "u"}}));
  EXPECT_EQ(verl.prompts[0].ground_truth, "7");
  EXPECT_EQ(Json::parse(verl.prompts[0].extra_json).at("data_source"), "math");
}

TEST(ImporterTest, PairForms) {
  auto got =
      Import(R"({"prompt": "p", "chosen": "good", "rejected": "bad", "margin": 0.5, "id": 7})");
  EXPECT_EQ(FormOf(got), "preference");
  const PreferenceRecord explicit_pair = got.records.at(0);
  EXPECT_EQ(explicit_pair.prompt_text, "p");
  EXPECT_EQ(explicit_pair.chosen, (Messages{{"assistant", "good"}}));
  EXPECT_EQ(explicit_pair.rejected, (Messages{{"assistant", "bad"}}));
  EXPECT_TRUE(explicit_pair.has_margin);
  EXPECT_EQ(explicit_pair.margin, 0.5);
  EXPECT_EQ(explicit_pair.extra_json, R"({"id":7})");

  got = Import(
      R"({"chosen": "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: bye\n\nAssistant: see you", "rejected": "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: bye\n\nAssistant: no"})");
  EXPECT_EQ(FormOf(got), "hh-rlhf");
  EXPECT_EQ(got.records.at(0).prompt,
            (Messages{{"user", "hi"}, {"assistant", "hello"}, {"user", "bye"}}));
  EXPECT_EQ(got.records[0].chosen, (Messages{{"assistant", "see you"}}));
  EXPECT_EQ(got.records[0].rejected, (Messages{{"assistant", "no"}}));

  got = Import(
      R"({"chosen": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}], "rejected": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "b"}]})");
  EXPECT_EQ(FormOf(got), "implicit");
  EXPECT_EQ(got.records.at(0).prompt, (Messages{{"user", "u"}}));

  got = Import(R"({"chosen": "The sky is blue.", "rejected": "The sky is bleak."})");
  EXPECT_EQ(got.records.at(0).prompt_text, "The sky is ");
  EXPECT_EQ(got.records[0].chosen, (Messages{{"assistant", "blue."}}));

  got = Import(
      R"({"prompt": "u", "prompt_id": "x", "chosen": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}], "rejected": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "b"}], "messages": [{"role": "user", "content": "u"}], "score_chosen": 8.5, "score_rejected": 3})");
  EXPECT_EQ(FormOf(got), "ultrafeedback");
  EXPECT_EQ(got.records.at(0).prompt, (Messages{{"user", "u"}}));
  EXPECT_EQ(got.records[0].prompt_text, "");
  EXPECT_EQ(got.records[0].chosen, (Messages{{"assistant", "a"}}));
  EXPECT_FALSE(got.records[0].has_margin);
  EXPECT_EQ(Json::parse(got.records[0].extra_json).at("score_chosen"), 8.5);
  EXPECT_EQ(got.report.files[0].notes.entries.size(), 1u) << "said once, however many rows";

  got = Import(
      R"({"context": [{"role": "user", "content": "u"}], "completions": [{"rank": 1, "completion": [{"role": "assistant", "content": "b"}]}, {"rank": 0, "completion": [{"role": "assistant", "content": "a"}]}]})");
  EXPECT_EQ(FormOf(got), "nemo");
  EXPECT_EQ(got.records.at(0).chosen, (Messages{{"assistant", "a"}}));
  EXPECT_EQ(got.records[0].rejected, (Messages{{"assistant", "b"}}));
  // Any ranks and any number of completions: the lowest is preferred, the highest rejected.
  const auto ranked = [](const std::string& completions) {
    return Import(
        R"({"context": "u", "completions": [)" + completions +
        "]}\n"
        R"({"context": "v", "completions": [{"rank": 0, "completion": "a"}, {"rank": 1, "completion": "b"}]})");
  };
  got = ranked(
      R"({"rank": 2, "completion": "m"}, {"rank": 3, "completion": "n"}, {"rank": 1, "completion": "y"})");
  EXPECT_EQ(got.records.at(0).chosen, (Messages{{"assistant", "y"}}));
  EXPECT_EQ(got.records[0].rejected, (Messages{{"assistant", "n"}}));
  EXPECT_EQ(ranked(R"({"rank": 2, "completion": "m"})").report.files[0].Describe(),
            "read 2 = used 1 + 1 one_sided");
  EXPECT_EQ(ranked(R"({"rank": 2, "completion": "m"}, {"rank": 2, "completion": "n"})")
                .report.files[0]
                .Describe(),
            "read 2 = used 1 + 1 one_sided");
  EXPECT_EQ(
      ranked(
          R"({"rank": 0, "completion": "m"}, {"rank": 0, "completion": "n"}, {"rank": 1, "completion": "y"})")
          .report.files[0]
          .Describe(),
      "read 2 = used 1 + 1 wrong_type");
}

TEST(ImporterTest, LabelledAndDemonstrationForms) {
  auto got = Import(R"({"prompt": "p", "completion": "c", "label": false})");
  EXPECT_EQ(FormOf(got), "kto");
  EXPECT_EQ(got.records.at(0).kind, PreferenceKind::kLabelled);
  EXPECT_FALSE(got.records[0].desirable);

  got = Import(
      R"({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}, {"role": "user", "content": "v"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "end"}]})");
  EXPECT_EQ(FormOf(got), "messages");
  EXPECT_EQ(got.records.at(0).kind, PreferenceKind::kDemonstration);
  EXPECT_EQ(got.records[0].prompt, (Messages{{"system", "s"}, {"user", "u"}}));
  EXPECT_EQ(got.records[0].chosen,
            (Messages{{"assistant", "a"}, {"user", "v"}, {"assistant", "b"}}));

  got = Import(R"({"instruction": "do", "input": "this", "output": "done"})");
  EXPECT_EQ(FormOf(got), "alpaca");
  EXPECT_EQ(got.records.at(0).prompt, (Messages{{"user", "do\n\nthis"}}));
  EXPECT_EQ(got.records[0].chosen, (Messages{{"assistant", "done"}}));

  got = Import(R"({"text": "all of it"})");
  EXPECT_EQ(FormOf(got), "text");
  EXPECT_EQ(got.records.at(0).chosen, (Messages{{"assistant", "all of it"}}));
  EXPECT_EQ(
      FormOf(Import(R"({"prompt": "p", "completion": [{"role": "assistant", "content": "c"}]})")),
      "prompt-completion");
}

TEST(ImporterTest, MapAndForcedFormAndNumbersAsText) {
  auto got = Import(R"({"task": "a", "solution": "b"})",
                    Mapped({{"prompt", "task"}, {"answer", "solution"}}));
  EXPECT_EQ(got.prompts.at(0).text, "a");
  EXPECT_EQ(got.prompts[0].ground_truth, "b");
  EXPECT_THROWS(ErrorCode::kInvalidArgument, "names no part of a row",
                Import("{}", Mapped({{"promt", "task"}})));
  EXPECT_THROWS(
      ErrorCode::kInvalidArgument,
      "missing_column: no column 'tsak', did you mean 'task'? The row has: task, solution",
      Import(R"({"task": "a", "solution": "b"})", Mapped({{"prompt", "tsak"}})));
  const std::string rows = R"({"prompt": "p", "completion": "c", "label": true})"
                           "\n"
                           R"({"prompt": "p", "completion": "c", "label": "false"})"
                           "\n"
                           R"({"prompt": "p", "completion": "c", "label": "perhaps"})";
  got = Import(rows);
  EXPECT_EQ(got.report.files[0].Describe(), "read 3 = used 1 + 1 number_as_text + 1 wrong_type");
  RowParserOptions convert;
  convert.convert_numbers = true;
  got = Import(rows, convert);
  EXPECT_EQ(got.report.files[0].Describe(), "read 3 = used 2 + 1 wrong_type");
  EXPECT_FALSE(got.records.at(1).desirable);
}

// Reliability row 14 at smoke size: whatever mixture of good and bad rows, each ends under its
// reason.
TEST(ImporterTest, LedgerOverGeneratedBadRows) {
  const std::vector<std::pair<std::string, std::string>> kinds = {
      {"", ""},  // a good row of its own, made below
      {"duplicate", R"({"rejected": "b", "prompt": "first", "chosen": "a"})"},
      {"bad_json", R"({"prompt": "cut)"},
      {"bad_json", R"({"prompt": "a", "x": {"k": 1, "k": 2}})"},
      {"bad_json",
       "{\"prompt\": \"a\", \"x\": " + std::string(200, '[') + std::string(200, ']') + "}"},
      {"bad_json", R"({"prompt": "a"} trailing)"},
      {"bad_utf8", "{\"prompt\": \"\xC3\x28\"}"},
      {"bad_utf8", "{\"prompt\": \"\xED\xA0\x80\"}"},
      {"not_an_object", "[1, 2]"},
      {"mixed_format",
       R"({"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]})"},
      {"missing_column", R"({"chosen": "a", "rejected": "b"})"},
      {"missing_column", R"({"other": 1})"},
      {"one_sided", R"({"prompt": "p", "chosen": "a"})"},
      {"one_sided", R"({"prompt": "p", "chosen": "a", "rejected": " "})"},
      {"empty_completion", R"({"prompt": "p", "chosen": "", "rejected": ""})"},
      {"equal_pair", R"({"prompt": "p", "chosen": "a", "rejected": "a"})"},
      {"empty_prompt", R"({"prompt": " ", "chosen": "a", "rejected": "b"})"},
      {"wrong_type", R"({"prompt": 5, "chosen": "a", "rejected": "b"})"},
      {"number_as_text", R"({"prompt": "p", "chosen": "a", "rejected": "b", "margin": "0.5"})"},
      {"bad_messages",
       R"({"prompt": [{"role": "wizard", "content": "x"}], "chosen": "a", "rejected": "b"})"},
      {"line_too_long", "{\"prompt\": \"" + std::string(5000, 'x') + "\"}"},
  };
  for (uint64_t seed = 0; seed < 20; ++seed) {
    std::string text = R"({"prompt": "first", "chosen": "a", "rejected": "b"})"
                       "\n";
    std::map<std::string, int64_t> expected;
    int64_t used = 1;
    uint64_t state = seed * 7919 + 1;
    const int rows = 100;
    for (int i = 1; i < rows; ++i) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      const auto& [reason, line] = kinds[(state >> 33) % kinds.size()];
      if (reason.empty()) {
        ++used;
        text += R"({"prompt": "p)" + std::to_string(i) + R"(", "chosen": "a", "rejected": "b"})";
      } else {
        ++expected[reason];
        text += line;
      }
      text += (state >> 20) % 3 == 0 ? "\r\n" : "\n";
      if ((state >> 22) % 5 == 0) text += "  \n";  // blank lines are not rows
    }
    TempFolder folder;
    auto store = OpenStore(folder / "store");
    ImportRequest request = Request({WriteFile(folder / "data.jsonl", text)}, "d");
    request.rejects = folder / "rejects.jsonl";
    request.max_row_bytes = 4000;
    request.commit_rows = 7;
    const FileLedger ledger = ImportFiles(*store, request).files.at(0);
    EXPECT_EQ(ledger.read, rows);
    EXPECT_EQ(ledger.used, used);
    EXPECT_EQ(ledger.rejected, expected) << ledger.Describe();
    EXPECT_EQ(store->PreferenceCount("d"), static_cast<uint64_t>(used));
    std::map<std::string, int64_t> written;
    std::istringstream in(ReadFile(request.rejects));
    for (std::string line; std::getline(in, line);) ++written[Json::parse(line).at("reason")];
    EXPECT_EQ(written, expected);
  }
}

TEST(ImporterTest, ArraysGzipAndDamage) {
  TempFolder folder;
  std::string lines, array = "\xEF\xBB\xBF [\n";
  for (int i = 0; i < 500; ++i) {
    const std::string row = R"({"prompt": "q [{\"}, )" + std::to_string(i) + R"(", "answer": ")" +
                            std::to_string(i * i) + "\"}";
    lines += row + "\n";
    array += (i > 0 ? ",\n  " : "  ") + row;
  }
  array += "\n]\n";
  const auto gzip = [&](const std::string& name, const std::string& text) {
    gzFile file = gzopen((folder / name).c_str(), "wb");
    gzwrite(file, text.data(), static_cast<unsigned>(text.size()));
    gzclose(file);
    return folder / name;
  };
  const std::string paths[] = {WriteFile(folder / "a.jsonl", lines),
                               WriteFile(folder / "a.json", array), gzip("b.jsonl.gz", lines),
                               gzip("b.json.gz", array)};
  auto store = OpenStore(folder / "store");
  for (const std::string& path : paths) {
    const ImportReport report = ImportFiles(*store, Request({path}, "d"));
    EXPECT_EQ(report.rows, 500u) << path;
    EXPECT_EQ(report.unchanged, path != paths[0]) << "the same rows again change nothing";
  }
  const std::string bytes = ReadFile(paths[3]);
  const auto import = [&](const std::string& text) {
    return ImportFiles(*store, Request({WriteFile(folder / "x", text)}, "x"));
  };
  EXPECT_THROWS(ErrorCode::kCorruption, "ends too early",
                import(bytes.substr(0, bytes.size() / 2)));
  EXPECT_THROWS(ErrorCode::kCorruption, "the JSON array ends too early",
                import(array.substr(0, array.size() / 2)));
  EXPECT_THROWS(ErrorCode::kCorruption, "the array has ended", import(array + "{}"));
  EXPECT_THROWS(ErrorCode::kInvalidArgument, "1 bad_json",
                import("[{\"prompt\": \"a\"} {\"prompt\": \"b\"}]"));
  EXPECT_THROWS(ErrorCode::kInvalidArgument, "the dataset is empty", import("[]"));
  EXPECT_THROWS(ErrorCode::kInvalidArgument, "no row of the dataset can be used",
                import("nonsense\n"));
  EXPECT_THROWS(ErrorCode::kInvalidArgument, "an object over several lines is neither",
                import("{\n  \"prompt\": \"a\"\n}\n"));
  EXPECT_THROWS(ErrorCode::kUnsupported, "a zip archive; what is read",
                import("PK\x03\x04zzzzzzzz"));
  EXPECT_THROWS(ErrorCode::kUnsupported, "zstd", import("\x28\xB5\x2F\xFDzzzz"));
  EXPECT_EQ(store->PromptCount("x"), 0u);
  EXPECT_THROWS(ErrorCode::kNotFound, "nothing.jsonl",
                ImportFiles(*store, Request({"/nothing.jsonl"})));
  EXPECT_THROWS(
      ErrorCode::kConflict, "stored already with other rows",
      ImportFiles(*store, Request({WriteFile(folder / "y", R"({"prompt": "other"})")}, "d")));
  EXPECT_THROWS(ErrorCode::kConflict, "open elsewhere", OpenStore(folder / "store"));
  const std::string pairs =
      WriteFile(folder / "pairs", R"({"prompt": "p", "chosen": "a", "rejected": "b"})");
  EXPECT_THROWS(ErrorCode::kInvalidArgument, "under two names",
                ImportFiles(*store, Request({paths[0], pairs}, "m")));
}

// An import that is killed at any mark goes on and ends with the very bytes of one that was not.
TEST(ImporterTest, AFileThatIsNotWhatItIsCalledIsToldSo) {
  TempFolder temp;
  const auto write = [&](const std::string& name, const std::string& text) {
    RealFileSystem().WriteFileAtomic(temp / name, text);
    return temp / name;
  };
  EXPECT_THROWS(ErrorCode::kCorruption, "is no Parquet file",
                RowSource::Open(write("rows.parquet", "<html>gone</html>\n"), 1 << 20));
  EXPECT_THROWS(ErrorCode::kCorruption, "is no gzip file",
                RowSource::Open(write("rows.jsonl.gz", "garbage\n"), 1 << 20));
  for (const char* name : {"rows.parquet", "rows.jsonl.gz"})
    EXPECT_NE(RowSource::Open(write(name, "{\"prompt\": \"a\"}\n"), 1 << 20), nullptr) << name;
  EXPECT_NE(RowSource::Open(write("rows.jsonl", "garbage\n"), 1 << 20), nullptr);
}

TEST(ImporterTest, AKilledImportGoesOn) {
  TempFolder folder;
  std::string text;
  for (int i = 0; i < 300; ++i) {
    text += i % 10 == 9 ? "broken\n"
                        : R"({"prompt": "p)" + std::to_string(i % 200) +
                              R"(", "chosen": "a", "rejected": "b"})"
                              "\n";
  }
  const std::string path = WriteFile(folder / "data.jsonl", text);
  const auto request = [&](const std::string& name) {
    ImportRequest r = Request({path, path}, "d");
    r.rejects = folder / (name + ".rejects");
    r.commit_rows = 32;
    return r;
  };
  EXPECT_THROWS(ErrorCode::kInvalidArgument, "no row of the dataset can be used", {
    auto store = OpenStore(folder / "twice");
    ImportFiles(*store, request("twice"));  // the second time, every row is a duplicate
  });
  const auto one = [&](const std::string& name) {
    ImportRequest r = request(name);
    r.files.pop_back();
    return r;
  };
  auto whole = OpenStore(folder / "whole");
  const ImportReport expected = ImportFiles(*whole, one("whole"));
  EXPECT_EQ(expected.files[0].Describe(), "read 300 = used 180 + 30 bad_json + 90 duplicate");
  for (int nth = 1; nth <= 9; ++nth) {
    const std::string name = "killed" + std::to_string(nth);
    whole.reset();  // as below: no store is open when the child is made
    const pid_t child = ::fork();
    if (child == 0) {
      auto store = OpenStore(folder / name);
      ArmCrashPointForTest("import_after_commit", nth);
      ImportFiles(*store, one(name));
      ::_exit(0);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << nth;
    whole = OpenStore(folder / "whole");
    auto store = OpenStore(folder / name);
    EXPECT_EQ(store->PreferenceCount("d"), 0u) << "rows count only when the import has ended";
    const ImportReport report = ImportFiles(*store, one(name));
    EXPECT_GT(report.continued_at, 0u);
    EXPECT_EQ(report.files[0].Describe(), expected.files[0].Describe());
    EXPECT_EQ(report.files[0].samples, expected.files[0].samples);
    EXPECT_EQ(store->ReadPreferences("d", 0, UINT64_MAX),
              whole->ReadPreferences("d", 0, UINT64_MAX));
    EXPECT_EQ(ReadFile(folder / (name + ".rejects")), ReadFile(folder / "whole.rejects"));
    EXPECT_TRUE(store->Verify().problems.empty());
  }
}

// The same where rows are so many that they go into table files of their own: killed before a file
// is taken in, after that and before its mark, or after the mark.
TEST(ImporterTest, AKilledImportOfTableFilesGoesOn) {
  TempFolder folder;
  std::string text;
  for (int i = 0; i < 1500; ++i) {
    text += R"({"prompt": "p)" + std::to_string(i % 1400) + std::string(6000, 'x') +
            R"(", "chosen": "a", "rejected": "b"})"
            "\n";
  }
  ImportRequest request = Request({WriteFile(folder / "data.jsonl", text)}, "d");
  request.commit_rows = 500;  // 3 MB
  auto whole = OpenStore(folder / "whole");
  const ImportReport expected = ImportFiles(*whole, request);
  EXPECT_EQ(expected.files[0].Describe(), "read 1500 = used 1400 + 100 duplicate");
  for (const char* point : {"import_before_table", "import_after_table", "import_after_commit"}) {
    for (int nth = 1; nth <= 3; ++nth) {
      const std::string name = point + std::to_string(nth);
      // No store is open when the child is made: a thread of RocksDB could hold a lock that the
      // child then waits for.
      whole.reset();
      const pid_t child = ::fork();
      if (child == 0) {
        auto store = OpenStore(folder / name);
        ArmCrashPointForTest(point, nth);
        ImportFiles(*store, request);
        ::_exit(0);
      }
      int status = 0;
      ::waitpid(child, &status, 0);
      ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << name;
      whole = OpenStore(folder / "whole");
      auto store = OpenStore(folder / name);
      EXPECT_EQ(store->PreferenceCount("d"), 0u) << name;
      EXPECT_FALSE(std::filesystem::exists(folder / (name + "/ingest.tmp")));
      const ImportReport report = ImportFiles(*store, request);
      const bool marked = nth > 1 || std::string(point) == "import_after_commit";
      EXPECT_EQ(report.continued_at > 0, marked) << name;
      EXPECT_EQ(report.files[0].Describe(), expected.files[0].Describe());
      EXPECT_EQ(store->PreferenceIdentity("d"), whole->PreferenceIdentity("d"));
      EXPECT_EQ(store->ReadPreferences("d", 0, UINT64_MAX),
                whole->ReadPreferences("d", 0, UINT64_MAX));
      EXPECT_TRUE(store->Verify().problems.empty());
    }
  }
}

TEST(ImporterTest, AStoppedImportGoesOnWhereItWas) {
  TempFolder folder;
  std::string text;
  for (int i = 0; i < 10000; ++i) text += "{\"prompt\": \"p" + std::to_string(i) + "\"}\n";
  ImportRequest request = Request({WriteFile(folder / "data.jsonl", text)}, "d");
  auto store = OpenStore(folder / "store");
  std::vector<double> parts;
  request.progress = [&](const std::string&, double part, int64_t) {
    parts.push_back(part);
    return parts.size() != 2;
  };
  EXPECT_TRUE(ImportFiles(*store, request).stopped);
  EXPECT_EQ(store->PromptCount("d"), 0u);
  ASSERT_EQ(parts.size(), 2u);
  EXPECT_TRUE(0 < parts[0] && parts[0] <= parts[1] && parts[1] <= 1) << parts[0] << " " << parts[1];
  const ImportReport report = ImportFiles(*store, request);
  EXPECT_FALSE(report.stopped);
  EXPECT_EQ(report.continued_at, 8192u);
  EXPECT_EQ(report.rows, 10000u);
  EXPECT_EQ(report.files[0].Describe(), "read 10000 = used 10000");
  EXPECT_EQ(parts.back(), 1);
}

TEST(ImporterTest, RealHhPairs) {
  const std::string path =
      PLUMB_SOURCE_DIR "/../shared/data/hh-rlhf/harmless-base-test-1800.jsonl.gz";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "SKIPPED LOUDLY: no " << path;
  TempFolder folder;
  auto store = OpenStore(folder / "store");
  const ImportReport report = ImportFiles(*store, Request({path}, "hh"));
  EXPECT_EQ(report.files[0].format, "hh-rlhf");
  EXPECT_EQ(report.files[0].read, 1800);
  EXPECT_GT(report.files[0].used, 1750) << report.files[0].Describe();
  std::printf("hh-rlhf: %s\n", report.files[0].Describe().c_str());
}

}  // namespace
}  // namespace plumb::replay
