// Values that JSON has not: what is made of them, which rows they cost, what people are told.
#include "replay/datasets/rows/odd_values.h"

#include <nlohmann/json.hpp>

#include "replay/datasets/importer.h"
#include "tests/replay/fixtures.h"

namespace plumb::replay {
namespace {

std::string Mended(const std::string& row) {
  std::string out;
  return MendRow(row, out).empty() ? "nothing" : out;
}

TEST(OddValuesTest, AreMendedAndNothingElseIs) {
  EXPECT_EQ(Mended(R"({"a": NaN, "b": [1, -Infinity, {"c": Infinity}]})"),
            R"({"a": null, "b": [1, null, {"c": null}]})");
  EXPECT_EQ(Mended(R"({"a": 18446744073709551616, "b": -9223372036854775809, "c": 1e999})"),
            R"({"a": "18446744073709551616", "b": "-9223372036854775809", "c": "1e999"})");
  EXPECT_EQ(
      Mended(
          R"({"a": 18446744073709551615, "b": -9223372036854775808, "c": 1e308, "d": "NaN 18446744073709551616", "e": 1e-999})"),
      "nothing");
  EXPECT_EQ(
      Mended(R"({"a": "cut \ud83d here", "b": "\ude00", "c": "\ud83d\ude00", "d": "\\ud83d"})"),
      R"({"a": "cut \ufffd here", "b": "\ufffd", "c": "\ud83d\ude00", "d": "\\ud83d"})");
  EXPECT_EQ(Mended("{\"a\": \"caf\xE9\", \"b\": Binary}"),
            "{\"a\": \"caf\xEF\xBF\xBD\", \"b\": null}");
  EXPECT_EQ(Mended(R"({"a": 01, "b": nope, "c": "cut)"), "nothing");
  std::string out;
  const auto odd = MendRow(R"({"first": 1, "x": {"y": [NaN]}, "z": "\udc00"})", out);
  ASSERT_EQ(odd.size(), 2u);
  EXPECT_EQ(Describe(odd[0]), "column 'x' holds NaN");
  EXPECT_EQ(Describe(odd[1]), "column 'z' holds \\udc00, half of a surrogate pair");
}

FileLedger Import(const TempFolder& folder, Store& store, const std::string& text) {
  return ImportFiles(store, ImportOf(WriteFile(folder / "data.jsonl", text), "d")).files.at(0);
}

TEST(OddValuesTest, CostARowOnlyWhereItNeedsTheColumn) {
  TempFolder folder;
  auto store = OpenStore(folder / "store");
  const FileLedger ledger =
      Import(folder, *store,
             R"({"prompt": "q1", "answer": "1", "score": NaN})"
             "\n"
             R"({"prompt": "q2", "answer": "2", "id": 123456789012345678901234567890})"
             "\n"
             R"({"prompt": "q3", "answer": "3", "user": "cut \ud83d"})"
             "\n"
             "{\"prompt\": \"q4\", \"answer\": \"4\", \"user\": \"caf\xE9\"}\n"
             R"({"prompt": "q5", "answer": 123456789012345678901234567890})"
             "\n"
             R"({"prompt": "q6", "answer": NaN})"
             "\n"
             R"({"prompt": "cut \ud83d here", "answer": "7"})"
             "\n"
             "{\"prompt\": \"caf\xE9\", \"answer\": \"8\"}\n");
  EXPECT_EQ(ledger.Describe(), "read 8 = used 5 + 2 bad_json + 1 bad_utf8");
  EXPECT_EQ(store->ReadPrompt("d", 0).extra_json, R"({"score":null})");
  EXPECT_EQ(store->ReadPrompt("d", 1).extra_json, R"({"id":"123456789012345678901234567890"})");
  EXPECT_EQ(store->ReadPrompt("d", 2).extra_json, "{\"user\":\"cut \xEF\xBF\xBD\"}");
  EXPECT_EQ(store->ReadPrompt("d", 4).ground_truth, "123456789012345678901234567890");
  std::string said;
  for (const auto& lines : {ledger.examples, ledger.notes.Describe()}) {
    for (const std::string& line : lines) said += line + "\n";
  }
  for (const char* part :
       {"data.jsonl:6: bad_json: column 'answer' holds NaN: JSON has no such value: write null",
        "data.jsonl:7: bad_json: column 'prompt' holds \\ud83d, half of a surrogate pair: a text "
        "was cut",
        "data.jsonl:8: bad_utf8: column 'prompt' holds a text that is not valid UTF-8",
        "1 row: NaN or Infinity in other columns, taken as null; first ",
        "data.jsonl:1: column 'score' holds NaN",
        "2 rows: numbers beyond 64 bits in other columns or answers, taken as text; first ",
        "data.jsonl:2: column 'id' holds 1234567890"}) {
    EXPECT_NE(said.find(part), std::string::npos) << part << "\n" << said;
  }
}

TEST(OddValuesTest, ALongNumberWhereANumberIsNeededIsNamed) {
  TempFolder folder;
  auto store = OpenStore(folder / "store");
  const FileLedger ledger = Import(
      folder, *store,
      R"({"prompt": "p", "chosen": "a", "rejected": "b"})"
      "\n"
      R"({"prompt": "p2", "chosen": "a", "rejected": "b", "margin": 99999999999999999999999})");
  ASSERT_EQ(ledger.examples.size(), 1u);
  EXPECT_NE(ledger.examples[0].find("column 'margin' holds 99999999999999999999999, a number "
                                    "beyond 64 bits: write a smaller one"),
            std::string::npos)
      << ledger.examples[0];
}

}  // namespace
}  // namespace plumb::replay
