// CSV and TSV: what a strict reader takes, and what it says of the rest.
#include "replay/datasets/rows/csv_source.h"

#include <zlib.h>

#include "replay/datasets/importer.h"
#include "replay/datasets/rows/dataset_import.h"
#include "tests/replay/fixtures.h"

namespace plumb::replay {
namespace {

std::vector<std::string> Rows(const std::string& name, const std::string& text,
                              size_t max_row_bytes = 1000) {
  TempFolder folder;
  const auto source = RowSource::Open(WriteFile(folder / name, text), max_row_bytes);
  std::vector<std::string> out;
  SourceRow row;
  while (source->Next(row)) {
    const std::string line = "line " + std::to_string(row.number) + ": ";
    if (row.blank) continue;
    out.push_back(row.too_long          ? line + "too long"
                  : row.problem.empty() ? std::string(row.text)
                                        : line + row.problem);
  }
  return out;
}

using Strings = std::vector<std::string>;

TEST(CsvTest, FieldsQuotesAndLineEnds) {
  EXPECT_EQ(Rows("a.csv", "prompt,answer\nq,1\n\"a, \"\"b\"\"\nc\",\"\"\r\n\r\n,x"),
            (Strings{R"({"prompt":"q","answer":"1"})", R"({"prompt":"a, \"b\"\nc","answer":""})",
                     R"({"prompt":null,"answer":"x"})"}));
  EXPECT_EQ(Rows("a.TSV", "\xEF\xBB\xBFprompt\tanswer\r\na,b\t2\r\n"),
            (Strings{R"({"prompt":"a,b","answer":"2"})"}));
  EXPECT_EQ(Rows("a.csv", "prompt;answer\na,b;2\n"), (Strings{R"({"prompt":"a,b","answer":"2"})"}));
  EXPECT_EQ(Rows("a.csv", ",prompt , answer\n0,q,1\n"),
            (Strings{R"({"column_1":"0","prompt":"q","answer":"1"})"}));
  EXPECT_EQ(Rows("a.csv", "prompt\nq\n"), (Strings{R"({"prompt":"q"})"}));
  EXPECT_EQ(Rows("a.csv", "{\"prompt\": \"JSON by another name\"}"),
            (Strings{"{\"prompt\": \"JSON by another name\"}"}));
}

TEST(CsvTest, RowsThatAreNoneSayWhy) {
  EXPECT_EQ(Rows("a.csv", "a,b\n1,2,3\n\"x\" y,2\nsay \"hi\",2\n\"l1\nl2\",ok\n" +
                              std::string(2000, 'x') + ",2\n7,8\n"),
            (Strings{"line 2: 3 fields, the first line names 2 columns",
                     "line 3: text behind the closing quotes of field 1",
                     "line 4: quotes within a bare field (put the whole field in quotes, and "
                     "double those within it): field 1",
                     R"({"a":"l1\nl2","b":"ok"})", "line 7: too long", R"({"a":"7","b":"8"})"}));
  EXPECT_THROWS(ErrorCode::kCorruption, "a.csv:3", Rows("a.csv", "a,b\n1,2\n3,\"open\n4,5\n"));
  EXPECT_THROWS(ErrorCode::kInvalidArgument, "'a' is named twice", Rows("a.csv", "a,a\n1,2\n"));
  EXPECT_THROWS(ErrorCode::kInvalidArgument, "has to name the columns", Rows("a.csv", ""));
}

TEST(CsvTest, ImportsAsTheSameRowsOfJsonDo) {
  TempFolder folder;
  auto store = OpenStore(folder / "store");
  const std::string csv = WriteFile(folder / "pairs.csv",
                                    "instruction,input,chosen,rejected,margin\nExplain.,,good,bad,"
                                    "0.5\n\"Add, please.\",1+1,2,\"3\n\",1\nodd\n");
  const ImportReport report = ImportFiles(*store, ImportOf(csv, "d"));
  EXPECT_EQ(report.files[0].container, "csv");
  EXPECT_EQ(report.files[0].Describe(), "read 3 = used 2 + 1 bad_csv");
  EXPECT_EQ(report.files[0].examples,
            (Strings{csv + ":5: bad_csv: 1 fields, the first line names 5 columns"}));
  const auto records = store->ReadPreferences("d", 0, 10);
  EXPECT_EQ(records[1].prompt, (std::vector<Message>{{"user", "Add, please.\n\n1+1"}}));
  EXPECT_EQ(records[1].rejected, (std::vector<Message>{{"assistant", "3\n"}}));
  EXPECT_EQ(records[1].margin, 1.0) << "a table of texts has its numbers as texts";
  const std::string kto =
      WriteFile(folder / "kto.tsv", "prompt\tcompletion\tlabel\nq\ta\tTrue\nq\tb\tFalse\n");
  ImportFiles(*store, ImportOf(kto, "kto"));
  EXPECT_FALSE(store->ReadPreferences("kto", 1, 1).front().desirable);
  gzFile file = gzopen((folder / "prompts.csv.gz").c_str(), "wb");
  gzputs(file, "question,answer\nq,42\n");
  gzclose(file);
  EXPECT_EQ(ImportPrompts(folder / "prompts.csv.gz", {}).prompts.at(0).ground_truth, "42");
}

// What needs a list is one, where the field is JSON; a text that begins with a bracket stays a
// text.
TEST(CsvTest, EveryKindOfRow) {
  TempFolder folder;
  auto store = OpenStore(folder / "store");
  const auto import = [&](const std::string& name, const std::string& text) {
    return ImportFiles(*store, ImportOf(WriteFile(folder / name, text), name));
  };
  import(
      "prompts.csv",
      "system,prompt,answer,history\nbe brief,q,\"[[1,2],[3,4]]\",\"[[\"\"h\"\",\"\"r\"\"]]\"\n");
  const Prompt prompt = store->ReadPrompt("prompts.csv", 0);
  EXPECT_EQ(prompt.messages,
            (std::vector<Message>{
                {"system", "be brief"}, {"user", "h"}, {"assistant", "r"}, {"user", "q"}}));
  EXPECT_EQ(prompt.ground_truth, "[[1,2],[3,4]]");
  import("sft.tsv", "instruction\tinput\toutput\nAdd.\t1+1\t2\n");
  EXPECT_EQ(store->ReadPreferences("sft.tsv", 0, 1).front().prompt,
            (std::vector<Message>{{"user", "Add.\n\n1+1"}}));
  const std::string turns =
      R"("[{""from"": ""human"", ""value"": ""q""}, {""from"": ""gpt"", ""value"": ""a""}]")";
  import("chat.csv", "conversations\n" + turns + "\n");
  EXPECT_EQ(store->ReadPreferences("chat.csv", 0, 1).front().chosen,
            (std::vector<Message>{{"assistant", "a"}}));
  import("winner.csv", "prompt,response_a,response_b,winner\nq,x,y,1\nr,x,y,tie\n");
  EXPECT_EQ(store->ReadPreferences("winner.csv", 0, 9).size(), 1u);
  EXPECT_EQ(store->ReadPreferences("winner.csv", 0, 1).front().chosen,
            (std::vector<Message>{{"assistant", "y"}}));
  const auto printed =
      import("python.csv",
             "prompt,chosen,rejected\nq,\"[{'role': 'assistant', 'content': 'a'}]\",b\nq,a,b\n");
  EXPECT_EQ(printed.files[0].Describe(), "read 2 = used 1 + 1 bad_csv");
  EXPECT_NE(printed.files[0].examples[0].find("'chosen' is a list as Python prints it"),
            std::string::npos);
}

// Standard input has no name that could say it.
TEST(CsvTest, AFileWithoutANameIsKnownByItsFirstLine) {
  EXPECT_EQ(Rows("piped", "prompt,answer\nq,1\n"), (Strings{R"({"prompt":"q","answer":"1"})"}));
  EXPECT_EQ(Rows("piped", "\"question\"\tx\nq\t1\n"), (Strings{R"({"question":"q","x":"1"})"}));
  EXPECT_EQ(Rows("piped", "neither,nor\n"), (Strings{"neither,nor"})) << "lines, and no JSON";
  EXPECT_EQ(Rows("named.jsonl", "prompt,answer\n"), (Strings{"prompt,answer"}));
}

TEST(CsvTest, OtherFilesSayHowToConvertThem) {
  TempFolder folder;
  const auto open = [&](const std::string& name, const std::string& bytes) {
    RowSource::Open(WriteFile(folder / name, bytes));
  };
  EXPECT_THROWS(ErrorCode::kUnsupported, "load_from_disk('FOLDER').to_parquet('F.parquet')",
                open("data-00000-of-00001.arrow", "\xFF\xFF\xFF\xFFxxxx"));
  EXPECT_THROWS(ErrorCode::kUnsupported, "to_parquet", open("f.arrow", "ARROW1xx"));
  EXPECT_THROWS(ErrorCode::kUnsupported, "`plumb convert` reads it",
                open("model-00001-of-00002.gguf", "GGUFxxxx"));
  EXPECT_THROWS(ErrorCode::kUnsupported, "iconv -f UTF-16", open("excel.csv", "\xFF\xFEpxrx"));
  std::filesystem::create_directory(folder / "saved");
  WriteFile(folder / "saved/state.json", "{}");
  EXPECT_THROWS(ErrorCode::kUnsupported, "save_to_disk", RowSource::Open(folder / "saved"));
  std::filesystem::create_directory(folder / "plain");
  EXPECT_THROWS(ErrorCode::kInvalidArgument, "is a folder, not a file",
                RowSource::Open(folder / "plain"));
  std::filesystem::create_directory(folder / "store");
  WriteFile(folder / "store/CURRENT", "MANIFEST-000001");
  WriteFile(folder / "store/IDENTITY", "x");
  EXPECT_THROWS(ErrorCode::kInvalidArgument, "data export rows.jsonl --store",
                RowSource::Open(folder / "store"));
  EXPECT_THROWS(ErrorCode::kInvalidArgument, "is a recipe, not a file of rows",
                open("grpo.toml", "[run]\nseed = 1\n"));
  EXPECT_THROWS(ErrorCode::kInvalidArgument, "is a Python program, not a file of rows",
                open("reward.py", "def reward(completions): return []\n"));
}

}  // namespace
}  // namespace plumb::replay
