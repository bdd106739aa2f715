#include "replay/datasets/rows/dataset_import.h"

#include <zlib.h>

#include "common/text/unicode.h"
#include "replay/datasets/rows/line_reader.h"
#include "replay/datasets/rows/row_parser.h"
#include "tests/replay/fixtures.h"

namespace plumb::replay {
namespace {

std::string WriteGzip(const std::string& path, const std::string& text) {
  gzFile file = gzopen(path.c_str(), "wb");
  EXPECT_EQ(gzwrite(file, text.data(), static_cast<unsigned>(text.size())),
            static_cast<int>(text.size()));
  gzclose(file);
  return path;
}

ImportedPrompts Import(const std::string& text, const ImportOptions& options = {}) {
  TempFolder folder;
  return ImportPrompts(WriteFile(folder / "data.jsonl", text), options);
}

TEST(ImportTest, Gsm8k) {
  const auto got = Import(R"({"question": "How many?", "answer": "6*7=<<6*7=42>>42\n#### 42"})"
                          "\n"
                          R"({"question": "Then?", "answer": "x #### 1,000 "})");
  EXPECT_EQ(got.ledger.format, "gsm8k");
  ASSERT_EQ(got.prompts.size(), 2u);
  EXPECT_EQ(got.prompts[0].text, "How many?");
  EXPECT_EQ(got.prompts[0].ground_truth, "42");
  EXPECT_EQ(got.prompts[1].ground_truth, "1,000");
  EXPECT_EQ(got.prompts[1].row, 1u);
  EXPECT_NE(got.prompts[0].extra_json.find("6*7="), std::string::npos);
}

TEST(ImportTest, PromptRowsOfOtherSystems) {
  const auto got = Import(
      R"({"prompt": "p", "answer": 12, "level": {"n": [1, 2]}, "topic": "t"})"
      "\n"
      R"({"prompt": [{"role": "user", "content": "hi"}], "reward_model": {"style": "rule", "ground_truth": "yes"}})"
      "\n\n"
      R"({"input": "i", "label": "l"})"
      "\n"
      R"({"prompt": "only a prompt"})");
  ASSERT_EQ(got.prompts.size(), 4u);
  EXPECT_EQ(got.ledger.read, 4);
  EXPECT_EQ(got.prompts[0].ground_truth, "12");
  EXPECT_EQ(got.prompts[0].extra_json, R"({"answer":12,"level":{"n":[1,2]},"topic":"t"})")
      << "a number stays one for reward functions";
  EXPECT_EQ(got.prompts[1].messages, (std::vector<Message>{{"user", "hi"}}));
  EXPECT_EQ(got.prompts[1].ground_truth, "yes");
  EXPECT_EQ(got.prompts[2].text, "i");
  EXPECT_EQ(got.prompts[2].ground_truth, "l");
  EXPECT_EQ(got.prompts[2].extra_json, "");
  EXPECT_EQ(got.prompts[3].ground_truth, "");
  EXPECT_EQ(got.prompts[3].extra_json, "");
}

// What a message says beyond two texts travels as the row has it, keys in order; what is null is
// not there.
TEST(ImportTest, MessagesKeepWhatTheySay) {
  const auto got = Import(
      R"({"prompt": [{"role": "developer", "content": "d"},)"
      R"({"content": [{"type": "text", "text": "a"}, "b"], "role": "user", "name": "ann", "audio": null},)"
      R"({"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": {"z": 1, "a": [true, 1.5]}}}], "content": null},)"
      R"({"role": "assistant", "thinking": "hm \"x\"\n"},)"
      R"({"role": "function", "content": "5", "name": "f"}, {"role": "ipython", "content": ""}],)"
      R"("tools": [{"type": "function", "function": {"name": "f", "a": 1}}], "other": {"z": 1, "a": 2}})");
  ASSERT_EQ(got.prompts.size(), 1u);
  EXPECT_EQ(
      got.prompts[0].messages,
      (std::vector<Message>{
          {"developer", "d"},
          {"user", "ab", R"({"content":[{"type":"text","text":"a"},"b"],"name":"ann"})"},
          {"assistant", "",
           R"({"content":null,"tool_calls":[{"id":"1","function":{"name":"f","arguments":{"z":1,"a":[true,1.5]}}}]})"},
          {"assistant", "", R"({"content":null,"thinking":"hm \"x\"\n"})"},
          {"function", "5", R"({"name":"f"})"},
          {"ipython", ""}}));
  EXPECT_EQ(
      got.prompts[0].extra_json,
      R"({"other":{"a":2,"z":1},"tools":[{"type":"function","function":{"name":"f","a":1}}]})")
      << "the template may write tools as they stand";

  // system_prompt and prompt_suffix make the content a text; the rest stays.
  ImportOptions options;
  options.system_prompt = "be brief";
  options.prompt_suffix = "!";
  const auto dressed = Import(R"({"prompt": [{"role": "system", "content": [{"text": "long"}]},)"
                              R"({"role": "user", "content": [{"text": "q"}], "name": "ann"}]})",
                              options);
  EXPECT_EQ(dressed.prompts.at(0).messages,
            (std::vector<Message>{{"system", "be brief"}, {"user", "q!", R"({"name":"ann"})"}}));

  for (const auto& [why, message] : std::vector<std::pair<std::string, std::string>>{
           {"a part of type 'image_url'",
            R"({"role": "user", "content": [{"type": "image_url", "image_url": "x"}]})"},
           {"a part without a text", R"({"role": "user", "content": [{"type": "text"}]})"},
           {"neither a text nor parts", R"({"role": "user", "content": {"text": "x"}})"},
           {"needs the texts", R"({"role": "user", "content": null})"},
           {"needs the texts", R"({"role": "user", "content": null, "name": null})"},
           {"needs the texts", R"({"content": "q", "name": "ann"})"},
           {"the weight 0.5 of a message",
            R"({"role": "assistant", "content": "a", "weight": 0.5})"},
           {"'train' of a message is 3", R"({"role": "assistant", "content": "a", "train": 3})"},
           {"system, developer, user, assistant, tool, function, ipython",
            R"({"role": "bot", "content": "q"})"}}) {
    EXPECT_THROWS(ErrorCode::kInvalidArgument, why, Import(R"({"prompt": [)" + message + "]}"));
  }
}

TEST(ImportTest, MapNamesOtherColumns) {
  ImportOptions options;
  options.map = {{"prompt", "task"}, {"answer", "solution"}, {"weight", "w"}};
  const auto got =
      Import(R"({"task": "a", "solution": "b", "w": 2.5, "prompt": "not this"})", options);
  EXPECT_EQ(got.prompts[0].text, "a");
  EXPECT_EQ(got.prompts[0].ground_truth, "b");
  EXPECT_EQ(got.prompts[0].weight, 2.5);
  EXPECT_EQ(got.prompts[0].extra_json, R"({"prompt":"not this","solution":"b"})")
      << "under the name that reward functions know";
  options.map = {{"promt", "task"}};
  EXPECT_THROWS(ErrorCode::kInvalidArgument, "unknown key 'promt'", Import("{}", options));
}

TEST(ImportTest, SystemPromptAndSuffix) {
  ImportOptions options;
  options.system_prompt = "Be short.";
  options.prompt_suffix = " Think.";
  const auto got = Import(
      R"({"prompt": "p"})"
      "\n"
      R"({"prompt": [{"role": "system", "content": "old"}, {"role": "user", "content": "u"}]})"
      "\n"
      R"({"prompt": [{"role": "system", "content": "Be short."}, {"role": "user", "content": "v"}]})",
      options);
  EXPECT_EQ(got.ledger.system_replaced, 1)
      << "a row without one, and one that says the same, lose nothing";
  EXPECT_EQ(got.ledger.Describe(),
            "read 3 = used 3 (1 with a system message of their own, replaced by the given one)");
  EXPECT_EQ(got.prompts[0].text, "");
  EXPECT_EQ(got.prompts[0].messages,
            (std::vector<Message>{{"system", "Be short."}, {"user", "p Think."}}));
  EXPECT_EQ(got.prompts[1].messages,
            (std::vector<Message>{{"system", "Be short."}, {"user", "u Think."}}));
  options.system_prompt.clear();
  EXPECT_EQ(Import(R"({"prompt": "p"})", options).prompts[0].text, "p Think.");
  EXPECT_EQ(
      Import(
          R"({"prompt": [{"role": "system", "content": "old"}, {"role": "user", "content": "u"}]})",
          options)
          .ledger.system_replaced,
      0);
}

// A conversation is one row, however many demonstrations it gives.
TEST(ImportTest, ReplacedSystemMessagesOfDemonstrationsAreCounted) {
  TempFolder folder;
  const std::string turn =
      R"({"role": "user", "content": "u"}, {"role": "assistant", "content": "a"})";
  const std::string path = WriteFile(
      folder / "data.jsonl", R"({"messages": [{"role": "system", "content": "old"}, )" + turn +
                                 ", " + turn + "]}\n" + R"({"messages": [)" + turn + "]}\n");
  ImportOptions options;
  options.system_prompt = "Be short.";
  const auto got = ImportDemonstrations(path, options);
  EXPECT_EQ(got.demonstrations.size(), 3u);
  EXPECT_EQ(got.ledger.system_replaced, 1);
}

TEST(ImportTest, ARowThatCannotBeTokenizedEndsTheImportOrCostsItsRow) {
  ImportOptions options;
  options.tokenize = [](const Prompt& p) {
    if (p.text == "odd") throw Error(ErrorCode::kInvalidArgument, "no such character");
    if (p.text == "broken") throw Error(ErrorCode::kCorruption, "the vocabulary is broken");
    return std::vector<int32_t>{1};
  };
  const std::string rows = "{\"prompt\": \"a\"}\n{\"prompt\": \"odd\"}\nx\n{\"prompt\": \"odd\"}\n";
  EXPECT_THROWS(ErrorCode::kInvalidArgument, "data.jsonl:2: no such character",
                Import(rows, options));
  options.skip_untokenizable = true;
  const auto got = Import(rows, options);
  EXPECT_EQ(got.prompts.size(), 1u);
  EXPECT_EQ(got.ledger.rejected.at("untokenizable"), 2);
  const std::string said = got.ledger.LeftOut();
  EXPECT_TRUE(
      said.starts_with("3 of 4 rows were left out (1 bad_json, 2 untokenizable), the first: "))
      << said;
  EXPECT_TRUE(said.ends_with("data.jsonl:2: untokenizable: no such character")) << said;
  EXPECT_EQ(Import("{\"prompt\": \"a\"}\n", options).ledger.LeftOut(), "");
  EXPECT_THROWS(ErrorCode::kCorruption, "the vocabulary is broken",
                Import("{\"prompt\": \"broken\"}\n", options));
}

TEST(ImportTest, OverlongByPolicy) {
  ImportOptions options;
  options.max_prompt_tokens = 3;
  options.tokenize = [](const Prompt& p) {
    return std::vector<int32_t>(p.text.begin(), p.text.end());
  };
  const std::string rows = "{\"prompt\": \"abcde\"}\n{\"prompt\": \"abc\"}\n";
  auto got = Import(rows, options);
  EXPECT_EQ(got.prompts.size(), 1u);
  EXPECT_EQ(got.prompts[0].row, 0u);
  EXPECT_EQ(got.ledger.rejected["overlong"], 1);
  EXPECT_NE(got.ledger.examples.at(0).find("data.jsonl:1: overlong: 5 tokens"), std::string::npos)
      << got.ledger.examples[0];
  options.overlong = configs::OverlongPolicy::kLeft;  // the end of a prompt stays
  got = Import(rows, options);
  EXPECT_EQ(got.prompts[0].tokens, (std::vector<int32_t>{'c', 'd', 'e'}));
  EXPECT_EQ(got.ledger.truncated, 1);
  options.overlong = configs::OverlongPolicy::kRight;
  EXPECT_EQ(Import(rows, options).prompts[0].tokens, (std::vector<int32_t>{'a', 'b', 'c'}));
  options.overlong = configs::OverlongPolicy::kError;
  EXPECT_THROWS(ErrorCode::kInvalidArgument, "data.jsonl:1: 5 tokens, data.max_prompt_tokens is 3",
                Import(rows, options));
}

// RELIABILITY.md row 14 at smoke size: whatever mixture of good and bad rows, read = used +
// rejected by the right reason.
TEST(ImportTest, LedgerOverGeneratedBadRows) {
  const std::vector<std::pair<std::string, std::string>> kinds = {
      {"", R"({"prompt": "good", "answer": "1"})"},
      {"", "\xEF\xBB\xBF"},  // replaced below: a good row too
      {"bad_json", R"({"prompt": "cut)"},
      {"bad_json", R"({"prompt": "a", "prompt": "twice"})"},
      {"bad_json", R"({"prompt": "a"} trailing)"},
      {"bad_json",
       "{\"prompt\": \"a\", \"x\": " + std::string(200, '[') + std::string(200, ']') + "}"},
      {"bad_json", "nonsense"},
      {"bad_utf8", "{\"prompt\": \"\xC3\x28\"}"},
      {"bad_utf8", "{\"prompt\": \"\xED\xA0\x80\"}"},
      {"not_an_object", "[1, 2]"},
      {"missing_column", R"({"other": "column"})"},
      {"empty_prompt", R"({"prompt": "  \n"})"},
      {"wrong_type", R"({"prompt": 5})"},
      {"bad_messages", R"({"prompt": []})"},
      {"bad_messages", R"({"prompt": [{"role": "wizard", "content": "x"}]})"},
      {"bad_messages", R"({"prompt": [{"role": "user"}]})"},
      {"bad_messages", R"({"prompt": [{"role": "user", "text": "misspelt"}]})"},
      {"bad_messages", R"({"prompt": [{"role": "user", "content": null, "name": "n"}]})"},
      {"bad_messages", R"({"prompt": ["text"]})"},
      {"missing_column", R"({"prompt": "p", "answer": "no number ####  "})"},
      {"line_too_long", "{\"prompt\": \"" + std::string(5000, 'x') + "\"}"},
  };
  ImportOptions options;
  options.max_line_bytes = 4000;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    std::string text;
    std::map<std::string, int64_t> expected;
    int64_t used = 0;
    uint64_t state = seed * 7919 + 1;
    const int rows = 100;
    for (int i = 0; i < rows; ++i) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      const auto& [reason, line] = i == 0 ? kinds[0] : kinds[(state >> 33) % kinds.size()];
      if (reason.empty()) {
        ++used;
        text += kinds[0].second;
      } else {
        ++expected[reason];
        text += line;
      }
      text += (state >> 20) % 3 == 0 ? "\r\n" : "\n";
      if ((state >> 22) % 5 == 0) text += "  \n";  // blank lines are not rows
    }
    const auto got = Import(text, options);
    EXPECT_EQ(got.ledger.read, rows);
    EXPECT_EQ(got.ledger.used, used);
    EXPECT_EQ(got.ledger.rejected, expected) << got.ledger.Describe();
    EXPECT_EQ(static_cast<int64_t>(got.prompts.size()), used);
    EXPECT_EQ(got.ledger.examples.size(),
              std::min<size_t>(RowLedger::kMaxExamples, static_cast<size_t>(rows - used)));
  }
}

TEST(ImportTest, EmptyAndHopelessFilesAreErrors) {
  EXPECT_THROWS(ErrorCode::kInvalidArgument, "the dataset is empty", Import(""));
  EXPECT_THROWS(ErrorCode::kInvalidArgument, "the dataset is empty", Import("\n \n"));
  EXPECT_THROWS(ErrorCode::kInvalidArgument, "missing_column: no known columns; the row has: b, a",
                Import(R"({"b": 1, "a": 2})"));
  EXPECT_THROWS(ErrorCode::kInvalidArgument, "in a recipe data.map = { prompt = \"COLUMN\" }",
                Import(R"({"b": 1, "a": 2})"));
  EXPECT_THROWS(ErrorCode::kNotFound, "/nothing.jsonl", ImportPrompts("/nothing.jsonl", {}));
  TempFolder folder;
  EXPECT_THROWS(ErrorCode::kInvalidArgument, "is a folder", ImportPrompts(folder / "", {}));
}

TEST(ImportTest, GzipWholeCutAndDamaged) {
  TempFolder folder;
  std::string text;
  for (int i = 0; i < 3000; ++i) text += R"({"prompt": ")" + std::to_string(i * i) + "\"}\n";
  const std::string path = WriteGzip(folder / "data.jsonl.gz", text);
  EXPECT_EQ(ImportPrompts(path, {}).prompts.size(), 3000u);
  ImportOptions limited;
  limited.limit = 10;
  EXPECT_EQ(ImportPrompts(path, limited).prompts.size(), 10u);
  const std::string bytes = ReadFile(path);
  EXPECT_THROWS(ErrorCode::kCorruption, "ends too early",
                ImportPrompts(WriteFile(folder / "cut.gz", bytes.substr(0, bytes.size() / 2)), {}));
  std::string damaged = bytes;
  damaged[bytes.size() / 2] = static_cast<char>(damaged[bytes.size() / 2] ^ 0x55);
  EXPECT_THROWS(ErrorCode::kCorruption,
                "damaged.gz:", ImportPrompts(WriteFile(folder / "damaged.gz", damaged), {}));
}

TEST(ImportTest, Demonstrations) {
  TempFolder folder;
  const std::string path = WriteFile(
      folder / "sft.jsonl",
      R"({"prompt": "p", "completion": "c"})"
      "\n"
      R"({"messages": [{"role": "user", "content": "u1"}, {"role": "assistant", "content": "a1"}, {"role": "user", "content": "u2"}, {"role": "assistant", "content": "a2"}]})"
      "\n"
      R"({"messages": [{"role": "user", "content": "nobody answers"}]})"
      "\n"
      R"({"prompt": [{"role": "user", "content": "u"}], "completion": [{"role": "assistant", "content": "a"}]})"
      "\n"
      R"({"prompt": "p"})");
  const auto got = ImportDemonstrations(path, {});
  ASSERT_EQ(got.demonstrations.size(), 4u);
  EXPECT_EQ(got.demonstrations[0], (TextDemonstration{"p", {}, "c"}));
  EXPECT_EQ(got.demonstrations[1], (TextDemonstration{"", {{"user", "u1"}}, "a1", "", "", 1}));
  EXPECT_EQ(got.demonstrations[2],
            (TextDemonstration{
                "", {{"user", "u1"}, {"assistant", "a1"}, {"user", "u2"}}, "a2", "", "", 1}))
      << "both turns are of the second row";
  EXPECT_EQ(got.demonstrations[3], (TextDemonstration{"", {{"user", "u"}}, "a", "", "", 2}));
  EXPECT_EQ(got.ledger.Describe(), "read 5 = used 3 + 1 empty_completion + 1 missing_column");
}

TEST(ImportTest, ADemonstrationWithoutACompletionIsToldWhatIsMissing) {
  TempFolder folder;
  const auto read = [&](const char* row, std::map<std::string, std::string> map = {}) {
    ImportOptions options;
    options.map = std::move(map);
    return ImportDemonstrations(WriteFile(folder / "sft.jsonl", row), options);
  };
  constexpr char kAnswered[] = R"({"prompt": "p", "answer": "a"})";
  EXPECT_THROWS(ErrorCode::kInvalidArgument,
                ":1: missing_column: 'prompt' is the prompt, and no column is the completion; the "
                "row has: prompt, answer (name it: --map completion=answer, in a recipe data.map = "
                "{ completion = \"answer\" })",
                read(kAnswered));
  EXPECT_EQ(read(kAnswered, {{"completion", "answer"}}).demonstrations.size(), 1u)
      << "what the advice says works";
  EXPECT_THROWS(ErrorCode::kInvalidArgument, "data.map = { completion = \"COLUMN\" }",
                read(R"({"question": "p", "topic": "a"})"));
  EXPECT_THROWS(ErrorCode::kInvalidArgument,
                "no column 'anser', did you mean 'answer'? The row has: prompt, answer",
                read(kAnswered, {{"completion", "anser"}}));
  constexpr char kPair[] = R"({"prompt": "p", "chosen": "a", "rejected": "b"})";
  EXPECT_THROWS(ErrorCode::kInvalidArgument, "this is a preference pair", read(kPair));
  EXPECT_EQ(read(kPair, {{"completion", "chosen"}}).demonstrations.size(), 1u);
}

TEST(ImportTest, ATruthThatIsAskedForByNameIsNotReplacedByAnotherColumn) {
  const auto truth = [&](const char* row, std::map<std::string, std::string> map) {
    ImportOptions options;
    options.map = std::move(map);
    return Import(row, options).prompts.at(0).ground_truth;
  };
  for (const char* part : {"ground_truth", "answer"}) {
    EXPECT_THROWS(
        ErrorCode::kInvalidArgument,
        "no column 'solutoin', did you mean 'solution'? The row has: prompt, "
        "ground_truth, solution",
        truth(R"({"prompt": "p", "ground_truth": "1", "solution": "2"})", {{part, "solutoin"}}));
    EXPECT_THROWS(ErrorCode::kInvalidArgument, "no column 'solutoin'",
                  truth(R"({"question": "p", "answer": "so #### 1"})", {{part, "solutoin"}}));
    EXPECT_EQ(
        truth(R"({"prompt": "p", "answer": "so #### 1", "solution": "2"})", {{part, "solution"}}),
        "2");
    EXPECT_EQ(truth(R"({"question": "p", "answer": "so #### 1"})", {{part, "answer"}}), "1");
  }
}

TEST(ImportTest, AColumnThatMayBeLackingIsThereInOneRowAtLeastWhereItIsNamed) {
  ImportOptions options;
  const std::string rows = R"({"prompt": "p"})"
                           "\n"
                           R"({"prompt": "q", "share": 2, "about": null})";
  options.map = {{"weight", "share"}, {"system", "about"}};
  EXPECT_EQ(Import(rows, options).prompts.at(1).weight, 2);
  for (const char* part : {"weight", "system", "history"}) {
    options.map = {{part, "promptt"}};
    EXPECT_THROWS(ErrorCode::kInvalidArgument,
                  "no column 'promptt', did you mean 'prompt'? The row has: prompt; data.map "
                  "names it, and no row has it",
                  Import(rows, options));
  }
  options.dataset = "eval";
  EXPECT_EQ(Import(rows, options).prompts.size(), 2u) << "the map is that of other rows, too";
}

TEST(ImportTest, PromptsOfAStoreAreTakenAsThoseOfAFile) {
  const std::string rows = R"({"prompt": "one", "answer": "1"})"
                           "\n"
                           R"({"prompt": "a much longer one", "answer": "2"})"
                           "\n"
                           R"({"prompt": "two", "answer": "3"})";
  ImportOptions options;
  options.dataset = "train";
  options.prompt_suffix = "!";
  options.max_prompt_tokens = 5;
  options.tokenize = [](const Prompt& p) { return std::vector<int32_t>(p.text.size(), 1); };
  ImportOptions plain;
  const std::vector<Prompt> stored = Import(rows, plain).prompts;
  const ImportedPrompts file = Import(rows, options);
  const ImportedPrompts taken =
      TakePrompts("store", options, stored.size(), [&](uint64_t row) { return stored[row]; });
  EXPECT_EQ(taken.prompts, file.prompts);
  EXPECT_EQ(taken.ledger.Describe(), "read 3 = used 2 + 1 overlong");
  EXPECT_EQ(taken.ledger.examples.front().substr(0, 20), "store, row 2: overlo");
  options.skip = 1;
  options.limit = 1;
  EXPECT_EQ(TakePrompts("store", options, stored.size(), [&](uint64_t row) { return stored[row]; })
                .prompts.front()
                .text,
            "two!");
  EXPECT_THROW(TakePrompts("store", options, 0, nullptr), Error);
}

TEST(ImportTest, AColumnThatIsNearlyRightOrNullIsSaidToBe) {
  const auto refused = [](const std::string& row, const ImportOptions& options = {}) {
    try {
      Import(row, options);
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  const std::string misspelt = refused(R"({"promt": "p", "label": "1"})");
  EXPECT_NE(misspelt.find("is 'promt' the column 'prompt'? (--map prompt=promt"), std::string::npos)
      << misspelt;
  const std::string null = refused(R"({"prompt": null, "answer": "1"})");
  EXPECT_NE(null.find("'prompt' is null in this row"), std::string::npos) << null;
  const auto pair = [](const std::string& row) {
    const std::string padded = row + std::string(64, ' ');
    try {
      RowParser({}).Parse(std::string_view(padded).substr(0, row.size()));
    } catch (const RowProblem& problem) {
      return problem.detail;
    }
    return std::string();
  };
  EXPECT_NE(pair(R"({"prompt": "p", "choosen": "a", "rejected": "b"})").find("is 'choosen' the"),
            std::string::npos);
  EXPECT_NE(pair(R"({"prompt": null, "chosen": "a", "rejected": "b"})").find("'prompt' is null"),
            std::string::npos);
  ImportOptions mapped;
  mapped.map = {{"prompt", "qestion"}};
  const std::string meant = refused(R"({"question": "p"})", mapped);
  EXPECT_NE(meant.find("no column 'qestion', did you mean 'question'? The row has: question"),
            std::string::npos)
      << meant;
}

TEST(ImportTest, ARowOfAStoreIsDressedAsOneOfAFile) {
  PreferenceRecord record{.kind = PreferenceKind::kDemonstration,
                          .row = 7,
                          .prompt_text = "p",
                          .chosen = {{"assistant", "c"}}};
  ImportOptions options;
  options.prompt_suffix = "!";
  EXPECT_EQ(DemonstrationsOf(record, options),
            (std::vector<TextDemonstration>{{"p!", {}, "c", "", "", 7}}));
  record.chosen[0].fields_json = R"({"weight":0})";
  EXPECT_TRUE(DemonstrationsOf(record, options).empty());
  record = {.kind = PreferenceKind::kDemonstration,
            .row = 7,
            .prompt = {{"system", "s"}},
            .chosen = {{"assistant", "c"}}};
  EXPECT_THROWS(ErrorCode::kInvalidArgument, "no user message", DemonstrationsOf(record, options));
}

TEST(ImportTest, RealGsm8kWhole) {
  const std::string folder = std::string(PLUMB_SOURCE_DIR) + "/../shared/data/gsm8k";
  if (!std::filesystem::is_directory(folder))
    GTEST_SKIP() << "SKIPPED LOUDLY: no " << folder << ", the real GSM8K was not read";
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string path = entry.path().string();
    if (path.find(".jsonl") == std::string::npos) continue;
    ++files;
    const auto got = ImportPrompts(path, {});
    EXPECT_EQ(got.ledger.format, "gsm8k") << path;
    EXPECT_EQ(got.ledger.TotalRejected(), 0) << path << ": " << got.ledger.Describe();
    EXPECT_GT(got.prompts.size(), 1000u) << path;
    for (const Prompt& p : got.prompts)
      ASSERT_NE(p.ground_truth.find_first_of("0123456789"), std::string::npos) << p.text;
  }
  EXPECT_GT(files, 0) << folder;
}

TEST(LineReaderTest, EndsMarksAndBounds) {
  TempFolder folder;
  LineReader lines(WriteFile(folder / "f",
                             "\xEF\xBB\xBF"
                             "one\r\n\ntoolong\nlast"),
                   5);
  std::string line;
  ASSERT_TRUE(lines.Next(line));
  EXPECT_TRUE(lines.too_long());  // the byte order mark and the CR count
  ASSERT_TRUE(lines.Next(line));
  EXPECT_EQ(line, "");
  EXPECT_FALSE(lines.too_long());
  ASSERT_TRUE(lines.Next(line));
  EXPECT_TRUE(lines.too_long());
  ASSERT_TRUE(lines.Next(line));
  EXPECT_EQ(line, "last");
  EXPECT_EQ(lines.Where(), (folder / "f") + ":4");
  EXPECT_FALSE(lines.Next(line));
  LineReader marked(WriteFile(folder / "g",
                              "\xEF\xBB\xBF"
                              "one\r\n"));
  ASSERT_TRUE(marked.Next(line));
  EXPECT_EQ(line, "one");
}

TEST(LineReaderTest, Utf8) {
  for (const char* good :
       {"", "abc", "\xC3\xA9", "\xE2\x82\xAC", "\xF0\x9F\x98\x80", "\xEF\xBF\xBD"})
    EXPECT_TRUE(IsUtf8(good));
  for (const char* bad : {"\x80", "\xC0\xAF", "\xE2\x82", "\xED\xA0\x80", "\xF4\x90\x80\x80",
                          "\xF8\x88\x80\x80\x80", "\xE0\x80\x80"}) {
    EXPECT_FALSE(IsUtf8(bad));
  }
}

}  // namespace
}  // namespace plumb::replay
