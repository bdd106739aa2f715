// ShareGPT's turns, Alpaca's instructions, the columns `system` and `history`, comparisons: which
// records they give.
#include "replay/datasets/rows/share_gpt.h"

#include "replay/datasets/rows/dataset_import.h"
#include "replay/datasets/rows/row_detection.h"
#include "replay/datasets/rows/row_parser.h"
#include "replay/datasets/rows/row_source.h"
#include "tests/replay/fixtures.h"

namespace plumb::replay {
namespace {

using Messages = std::vector<Message>;

ParsedRow Parse(std::string text, std::map<std::string, std::string> map = {},
                std::optional<RowKind> as = {}) {
  text.reserve(text.size() + RowSource::kPadding);
  RowParserOptions options;
  options.map = std::move(map);
  options.as = as;
  return RowParser(options).Parse(text);
}

std::string Refused(const std::string& text, std::map<std::string, std::string> map = {}) {
  try {
    Parse(text, std::move(map));
  } catch (const RowProblem& problem) {
    return problem.reason + ": " + problem.detail;
  }
  return "taken";
}

bool Has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST(ShareGptTest, TurnsOfEverySpeaker) {
  auto row = Parse(
      R"({"conversations": [{"from": "system", "value": "s"}, {"from": "human", "value": "q"}, {"from": "gpt", "value": "a"},
                       {"from": "observation", "value": "t"}, {"from": "assistant", "value": "b"}, {"from": "user", "value": "end"}], "id": 1})");
  EXPECT_EQ(row.form, RowForm::kMessages);
  EXPECT_EQ(row.record.prompt, (Messages{{"system", "s"}, {"user", "q"}}));
  EXPECT_EQ(row.record.chosen, (Messages{{"assistant", "a"}, {"tool", "t"}, {"assistant", "b"}}));
  EXPECT_EQ(row.record.extra_json, R"({"id":1})");
  row = Parse(
      R"({"system": "be X", "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]})");
  EXPECT_EQ(row.record.prompt, (Messages{{"system", "be X"}, {"user", "q"}}));
  row = Parse(R"({"messages": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]})");
  EXPECT_EQ(row.record.chosen, (Messages{{"assistant", "a"}}));
  EXPECT_TRUE(Has(Refused(R"({"conversations": [{"from": "wizard", "value": "q"}]})"),
                  "bad_messages: the unknown speaker 'wizard' (human, gpt"));
  EXPECT_TRUE(Has(Refused(R"({"conversations": [{"from": "human"}]})"),
                  "a turn without the texts 'from' and 'value' in 'conversations'"));
}

TEST(ShareGptTest, FunctionCallsAreToolCalls) {
  auto row = Parse(
      R"({"conversations": [{"from": "human", "value": "q"}, {"from": "function_call", "value": "{\"name\": \"f\", \"arguments\": {\"x\": 1}}"},)"
      R"( {"from": "observation", "value": "2"}, {"from": "gpt", "value": "a"}], "tools": ""})");
  ASSERT_EQ(row.record.chosen.size(), 3u);
  EXPECT_EQ(row.record.chosen[0].role, "assistant");
  EXPECT_EQ(row.record.chosen[0].content, "");
  EXPECT_EQ(
      row.record.chosen[0].fields_json,
      R"({"content":null,"tool_calls":[{"type":"function","function":{"name":"f","arguments":{"x":1}}}]})");
  EXPECT_EQ(row.record.chosen[1], (Message{"tool", "2"}));
  EXPECT_EQ(row.record.extra_json, "") << "an empty text of tools says that there are none";
  row = Parse(
      R"({"conversations": [{"from": "human", "value": "q"}, {"from": "function_call", "value": "[{\"name\": \"f\"}, {\"name\": \"g\"}]"}], "tools": "[]"})");
  EXPECT_EQ(
      row.record.chosen[0].fields_json,
      R"({"content":null,"tool_calls":[{"type":"function","function":{"name":"f"}},{"type":"function","function":{"name":"g"}}]})");
  EXPECT_TRUE(Has(Refused(R"({"conversations": [{"from": "human", "value": "q"},)"
                          R"( {"from": "function_call", "value": "call f"}]})"),
                  "bad_messages: a function_call whose value is no JSON"));
}

TEST(ShareGptTest, PairsAndJudgedAnswers) {
  auto row = Parse(
      R"({"conversations": [{"from": "human", "value": "q"}], "chosen": {"from": "gpt", "value": "good"}, "rejected": {"from": "gpt", "value": "bad"}})");
  EXPECT_EQ(row.form, RowForm::kPreference);
  EXPECT_EQ(row.record.prompt, (Messages{{"user", "q"}}));
  EXPECT_EQ(row.record.chosen, (Messages{{"assistant", "good"}}));
  EXPECT_EQ(row.record.rejected, (Messages{{"assistant", "bad"}}));
  EXPECT_EQ(row.record.extra_json, "");
  row = Parse(
      R"({"messages": [{"role": "user", "content": "q"}], "chosen": {"role": "assistant", "content": "y"}, "rejected": {"role": "assistant", "content": "n"}})");
  EXPECT_EQ(row.record.prompt, (Messages{{"user", "q"}}));
  EXPECT_EQ(row.record.rejected, (Messages{{"assistant", "n"}}));
  row = Parse(
      R"({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}, {"from": "human", "value": "r"}, {"from": "gpt", "value": "b"}], "kto_tag": false})");
  EXPECT_EQ(row.form, RowForm::kKto);
  EXPECT_EQ(row.record.prompt.size(), 3u);
  EXPECT_EQ(row.record.chosen, (Messages{{"assistant", "b"}}));
  EXPECT_FALSE(row.record.desirable);
  row = Parse(
      R"({"chosen": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "y"}], "rejected": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "n"}], "system": "s"})");
  EXPECT_EQ(row.form, RowForm::kImplicit);
  EXPECT_EQ(row.record.prompt, (Messages{{"system", "s"}, {"user", "q"}}));
}

// The input belongs to the instruction, whatever stands behind the two.
TEST(ShareGptTest, ADialogueWithoutAnAnswerIsAPrompt) {
  const char* const dialogues[] = {
      R"("conversations": [{"from": "system", "value": "s"}, {"from": "human", "value": "q"}])",
      R"("messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}])"};
  const Messages prompt = {{"system", "s"}, {"user", "q"}};
  for (const std::string dialogue : dialogues) {
    for (const auto as : {std::optional<RowKind>(), std::optional(RowKind::kPrompts)}) {
      const auto answered = Parse("{" + dialogue + R"(, "answer": "4"})", {}, as);
      EXPECT_EQ(answered.form, RowForm::kPromptAnswer);
      EXPECT_EQ(answered.prompt.messages, prompt);
      EXPECT_EQ(answered.prompt.ground_truth, "4");
      EXPECT_EQ(answered.prompt.extra_json, "");
      EXPECT_EQ(Parse("{" + dialogue + "}", {}, as).form, RowForm::kTrl);
    }
  }
  // With an answer it is a demonstration, and as prompts of a run what stands before that.
  const std::string whole =
      R"({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]})";
  EXPECT_EQ(Parse(whole).form, RowForm::kMessages);
  const auto before = Parse(
      R"({"system": "s", "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}, {"role": "user", "content": "r"}, {"role": "assistant", "content": "b"}], "answer": "4", "level": 1})",
      {}, RowKind::kPrompts);
  EXPECT_EQ(before.prompt.messages,
            (Messages{{"system", "s"}, {"user", "q"}, {"assistant", "a"}, {"user", "r"}}));
  EXPECT_EQ(before.prompt.ground_truth, "4");
  EXPECT_EQ(before.prompt.extra_json, R"({"level":1})");
  ASSERT_EQ(before.notes.size(), 1u);
  EXPECT_TRUE(Has(before.notes[0].what, "the answer is left out"));
  // Among demonstrations it lacks its answer.
  TempFolder folder;
  auto store = OpenStore(folder / "s");
  const ImportReport report = ImportFiles(
      *store, ImportOf(WriteFile(folder / "in", whole + "\n{" + dialogues[0] + "}\n"), "d"));
  EXPECT_EQ(report.files[0].Describe(), "read 2 = used 1 + 1 empty_completion");
}

TEST(ShareGptTest, AlpacaInEveryKind) {
  const Messages with = {{"user", "Explain.\n\nUse simple words."}},
                 without = {{"user", "Explain."}};
  struct Case {
    std::string input;
    Messages prompt;
  };
  const Case cases[] = {{R"("input": "Use simple words.",)", with},
                        {R"("input": "",)", without},
                        {R"("input": null,)", without},
                        {"", without}};
  for (const Case& c : cases) {
    const std::string begin = R"({"instruction": "Explain.", )" + c.input;
    auto row = Parse(begin + R"("chosen": "good", "rejected": "bad"})");
    EXPECT_EQ(row.form, RowForm::kPreference);
    EXPECT_EQ(row.record.prompt, c.prompt) << c.input;
    EXPECT_EQ(row.record.chosen, (Messages{{"assistant", "good"}}));
    EXPECT_EQ(row.record.extra_json, "");
    EXPECT_EQ(Parse(begin + R"("output": "o"})").record.prompt, c.prompt);
    EXPECT_EQ(Parse(begin + R"("output": "o", "kto_tag": true})").record.kind,
              PreferenceKind::kLabelled);
    EXPECT_EQ(Parse(begin + R"("output": "o", "kto_tag": true})").record.prompt, c.prompt);
    EXPECT_EQ(Parse(begin + R"("completion": "c", "label": false})").record.prompt, c.prompt);
    row = Parse(begin + R"("answer": "42"})");
    EXPECT_EQ(row.form, RowForm::kPromptAnswer);
    EXPECT_EQ(row.prompt.messages, c.prompt);
    EXPECT_EQ(row.prompt.ground_truth, "42");
    // As prompts of a run.
    EXPECT_EQ(Parse(begin + R"("output": "o"})", {}, RowKind::kPrompts).prompt.messages, c.prompt);
    EXPECT_EQ(Parse(begin + R"("chosen": "good", "rejected": "bad"})", {{"prompt", "instruction"}})
                  .record.prompt,
              c.prompt);
  }
  EXPECT_EQ(Refused(R"({"instruction": " ", "input": "x", "chosen": "a", "rejected": "b"})"),
            "empty_prompt: 'instruction' is empty");
  EXPECT_EQ(Parse(R"({"instruction": "q", "context": "c", "response": "r"})").record.prompt,
            (Messages{{"user", "q\n\nc"}}));
}

TEST(ShareGptTest, AColumnNamedPromptBesideAnInstructionIsAnother) {
  const auto row = Parse(R"({"prompt": "### Instruction: i", "instruction": "i", "output": "o"})");
  EXPECT_EQ(row.form, RowForm::kAlpaca);
  EXPECT_EQ(row.record.prompt, (Messages{{"user", "i"}}));
  EXPECT_EQ(row.record.extra_json, "{\"prompt\":\"### Instruction: i\"}");
  // Of a list of passages the instruction says nothing.
  const auto list = Parse(R"({"instruction": "i", "context": ["a", "b"], "response": "r"})");
  EXPECT_EQ(list.record.prompt, (Messages{{"user", "i"}}));
  EXPECT_EQ(list.record.extra_json, R"({"context":["a","b"]})");
}

TEST(ShareGptTest, SystemAndHistoryStandBeforeThePrompt) {
  const std::string both = R"("system": "s", "history": [["h1", "r1"], ["h2", "r2"]])";
  const Messages before = {{"system", "s"}, {"user", "h1"},      {"assistant", "r1"},
                           {"user", "h2"},  {"assistant", "r2"}, {"user", "q"}};
  EXPECT_EQ(Parse(R"({"prompt": "q", "answer": "1", )" + both + "}").prompt.messages, before);
  EXPECT_EQ(Parse(R"({"prompt": "q", "answer": "1", )" + both + "}").prompt.text, "");
  EXPECT_EQ(
      Parse(R"({"question": "q", "chosen": "a", "rejected": "b", )" + both + "}").record.prompt,
      before);
  EXPECT_EQ(
      Parse(R"({"instruction": "q", "input": "", "output": "o", )" + both + "}").record.prompt,
      before);
  EXPECT_EQ(Parse(R"({"prompt": "q", "completion": "o", )" + both + "}").record.prompt, before);
  EXPECT_EQ(
      Parse(R"({"prompt": "q", "completion": "o", "label": true, )" + both + "}").record.prompt,
      before);
  EXPECT_EQ(
      Parse(
          R"({"prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}], "completion": "o", )" +
          both + "}")
          .record.prompt,
      before);
  EXPECT_EQ(Parse(R"({"prompt": "q", "completion": "o", )" + both + "}").record.extra_json, "");
  const std::string hh =
      R"({"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b", "system_prompt": "s"})";
  EXPECT_EQ(Parse(hh).record.prompt, (Messages{{"system", "s"}, {"user", "q"}}));
  // UltraFeedback's lists hold the prompt again, without the system message.
  EXPECT_EQ(
      Parse(
          R"({"prompt": "q", "system": "s", "chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "b"}]})")
          .record.prompt,
      (Messages{{"system", "s"}, {"user", "q"}}));
  EXPECT_EQ(
      Parse(
          R"({"prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}], "chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "b"}]})")
          .record.prompt,
      (Messages{{"system", "s"}, {"user", "q"}}));
  // Nothing in them: a text prompt stays one.
  EXPECT_EQ(Parse(R"({"prompt": "q", "completion": "o", "system": "", "history": []})")
                .record.prompt_text,
            "q");
  EXPECT_EQ(Parse(R"({"prompt": "q", "completion": "o", "system": null, "history": null})")
                .record.prompt_text,
            "q");
  // What is neither is another column.
  EXPECT_EQ(Parse(R"({"prompt": "q", "answer": "1", "system": 7, "history": "long ago"})")
                .prompt.extra_json,
            R"({"history":"long ago","system":7})");
  EXPECT_TRUE(Has(
      Refused(
          R"({"prompt": [{"role": "system", "content": "other"}, {"role": "user", "content": "q"}], "completion": "o", "system": "s"})"),
      "two system messages"));
  EXPECT_TRUE(Has(Refused(R"({"prompt": "q", "completion": "o", "history": [["only one"]]})"),
                  "no pair of texts [user, assistant] in 'history'"));
  EXPECT_TRUE(
      Has(Refused(R"({"prompt": "q", "completion": "o", "persona": 3})", {{"system", "persona"}}),
          "'persona' is no text"));
  EXPECT_EQ(Parse(R"({"prompt": "q", "completion": "o", "persona": "p"})", {{"system", "persona"}})
                .record.prompt,
            (Messages{{"system", "p"}, {"user", "q"}}));
  const auto text = Parse(R"({"text": "all of it", "system": "s"})");
  EXPECT_EQ(text.record.extra_json, R"({"system":"s"})");
  ASSERT_EQ(text.notes.size(), 1u);
  EXPECT_TRUE(Has(text.notes[0].what, "left among the other columns"));
}

TEST(ShareGptTest, ComparisonsNameTheirWinner) {
  const auto row = [](const std::string& winner) {
    return R"({"prompt": "q", "response_a": "one", "response_b": "two", "winner": )" + winner + "}";
  };
  for (const char* winner :
       {R"("b")", R"("B")", R"("response_b")", R"("model_b")", R"(" Model_B ")"}) {
    const auto got = Parse(row(winner));
    EXPECT_EQ(got.form, RowForm::kWinner);
    EXPECT_EQ(got.record.chosen, (Messages{{"assistant", "two"}})) << winner;
    EXPECT_EQ(got.record.rejected, (Messages{{"assistant", "one"}}));
    EXPECT_EQ(got.record.prompt_text, "q");
    EXPECT_EQ(got.record.extra_json, "");
  }
  EXPECT_EQ(Refused(row(R"("tie")")).substr(0, 5), "tied:");
  EXPECT_EQ(Refused(row(R"("Both bad")")).substr(0, 5), "tied:");
  for (const char* winner : {"1", R"("1")", "1.0"})
    EXPECT_EQ(Parse(row(winner)).record.chosen, (Messages{{"assistant", "two"}})) << winner;
  for (const char* winner : {"0", R"("0")", R"("a")"})
    EXPECT_EQ(Parse(row(winner)).record.chosen, (Messages{{"assistant", "one"}})) << winner;
  for (const char* winner : {"\"tie (bothbad)\"", R"("both_bad")", R"("neither")", "0.5"})
    EXPECT_EQ(Refused(row(winner)).substr(0, 5), "tied:") << winner;
  EXPECT_TRUE(
      Has(Refused(row("2")), "'winner' is '2' and names neither 'response_a' nor 'response_b'"));
  EXPECT_EQ(Refused(row("null")), "no_winner: the column of the winner is null");
  const auto numbered = Parse(
      R"({"prompt": "q", "response_0": "one", "response_1": "two", "better_response_id": 0})");
  EXPECT_EQ(numbered.record.chosen, (Messages{{"assistant", "one"}}));
  // Columns with numbers of their own: 1 is the first of 1 and 2.
  const auto from_one =
      Parse(R"({"prompt": "q", "response_1": "one", "response_2": "two", "winner": "model_1"})");
  EXPECT_EQ(from_one.record.chosen, (Messages{{"assistant", "one"}}));
  EXPECT_TRUE(
      Has(Refused(R"({"prompt": "q", "response_1": "one", "response_2": "two", "winner": 0})"),
          "wrong_type"));
  const auto mapped =
      Parse(R"({"prompt": "q", "left": "one", "right": "two", "winner": "model_b"})",
            {{"response_a", "left"}, {"response_b", "right"}});
  EXPECT_EQ(mapped.record.chosen, (Messages{{"assistant", "two"}}));
  const auto dialogues = Parse(
      R"({"conversation_a": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "y"}], "conversation_b": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "n"}], "winner": "model_a"})");
  EXPECT_EQ(dialogues.record.prompt, (Messages{{"user", "q"}}));
  EXPECT_EQ(dialogues.record.chosen, (Messages{{"assistant", "y"}}));
  // As the arena writes it: the models' names and a verdict, dialogues of several turns.
  const auto arena = Parse(
      R"({"question_id": "x", "model_a": "m1", "model_b": "m2", "winner": "model_b", "turn": 2, "conversation_a": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "y"}, {"role": "user", "content": "more"}, {"role": "assistant", "content": "z"}], "conversation_b": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "n"}, {"role": "user", "content": "more"}, {"role": "assistant", "content": "o"}]})");
  EXPECT_EQ(arena.form, RowForm::kWinner);
  EXPECT_EQ(arena.record.prompt, (Messages{{"user", "q"}}));
  EXPECT_EQ(arena.record.chosen.front(), (Message{"assistant", "n"}));
  EXPECT_EQ(arena.record.rejected.back(), (Message{"assistant", "z"}));
  EXPECT_EQ(arena.record.extra_json,
            R"({"model_a":"m1","model_b":"m2","question_id":"x","turn":2})");
  // Without a verdict the answers are no pair.
  EXPECT_EQ(Parse(R"({"prompt": "q", "response_a": "one", "response_b": "two"})").form,
            RowForm::kTrl);
}

TEST(ShareGptTest, AMarginComesFromItsColumnAlone) {
  const std::string scored =
      R"({"prompt": "p", "chosen": "a", "rejected": "b", "score_chosen": 8.5, "score_rejected": 4.0)";
  const auto plain = Parse(scored + "}");
  EXPECT_FALSE(plain.record.has_margin);
  EXPECT_EQ(plain.record.margin, 0);
  EXPECT_EQ(plain.record.extra_json, R"({"score_chosen":8.5,"score_rejected":4.0})");
  ASSERT_EQ(plain.notes.size(), 1u);
  EXPECT_TRUE(Has(plain.notes[0].what, "--map margin=score_chosen-score_rejected"));
  const auto with = Parse(scored + R"(, "margin": 2})");
  EXPECT_EQ(with.record.margin, 2);
  EXPECT_TRUE(with.record.has_margin && with.notes.empty());
  const auto mapped = Parse(scored + "}", {{"margin", "score_chosen-score_rejected"}});
  EXPECT_TRUE(mapped.record.has_margin);
  EXPECT_EQ(mapped.record.margin, 4.5);
  EXPECT_EQ(mapped.record.extra_json, plain.record.extra_json);
  EXPECT_EQ(Parse(scored + R"(, "gap-size": 3})", {{"margin", "gap-size"}}).record.margin, 3);
  EXPECT_TRUE(Has(Refused(scored + "}", {{"margin", "gap"}}), "missing_column: no column 'gap'"));
  EXPECT_TRUE(
      Has(Refused(R"({"prompt": "p", "chosen": "a", "rejected": "b", "s": 1e308, "t": -1e308})",
                  {{"margin", "s-t"}}),
          "is not finite"));
}

TEST(ShareGptTest, ARunShowsItsFirstRowsAndWhatWasPassedOver) {
  TempFolder folder;
  const std::string path =
      WriteFile(folder / "d.jsonl", R"({"prompt": "q one", "answer": "1", "loss": NaN})"
                                    "\n"
                                    R"({"prompt": "q two", "answer": "2"})");
  const ImportedPrompts got = ImportPrompts(path, {});
  ASSERT_EQ(got.ledger.samples.size(), 2u);
  EXPECT_EQ(got.ledger.samples[0], "prompt \"q one\"  ground truth \"1\"");
  const auto lines = got.ledger.Notes(path);
  ASSERT_EQ(lines.size(), 4u);
  EXPECT_EQ(lines[0], path + ": prompt-answer, read 2 = used 2");
  EXPECT_EQ(lines[3], "  note: 1 row: NaN or Infinity in other columns, taken as null; first " +
                          path + ":1: column 'loss' holds NaN");

  const std::string bare = WriteFile(folder / "bare.jsonl", R"({"prompt": "q three"})");
  EXPECT_EQ(ImportPrompts(bare, {}).ledger.samples.at(0), "prompt \"q three\"")
      << "a truth that is not there is not shown as an empty one";
}

}  // namespace
}  // namespace plumb::replay
