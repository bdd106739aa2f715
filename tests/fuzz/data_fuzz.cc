// Dataset files and the JSON inside of them.
#include <zlib.h>

#include <functional>

#include <nlohmann/json.hpp>

#include "common/base/error.h"
#include "common/base/json/strict_json.h"
#include "common/record/json_text.h"
#include "common/text/unicode.h"
#include "parquet_seeds.h"
#include "replay/datasets/rows/csv_source.h"
#include "replay/datasets/rows/dialogue.h"
#include "replay/datasets/rows/line_reader.h"
#include "replay/datasets/rows/row_parser.h"
#include "replay/datasets/rows/row_source.h"
#include "targets.h"

namespace plumb::fuzz {
namespace {

using namespace replay;

constexpr size_t kMaxRow = 4096;

// The whole file, row by row, as an import and as a run's data read it.
void ReadRows(const std::function<std::unique_ptr<RowSource>()>& open) {
  for (const auto as : {std::optional<RowKind>(), std::optional(RowKind::kPrompts),
                        std::optional(RowKind::kDemonstrations)}) {
    RowParserOptions options;
    options.as = as;
    options.convert_numbers = as.has_value();
    RowParser parser(options);
    const auto source = open();
    SourceRow row;
    while (source->Next(row)) {
      PLUMB_CHECK(row.text.size() <= kMaxRow && !(row.too_long && !row.text.empty()),
                  "a row longer than its bound");
      PLUMB_CHECK(row.problem.empty() || row.text.empty(), "a row with a problem has no text");
      if (row.blank || row.too_long || !row.problem.empty()) continue;
      try {
        const ParsedRow parsed = parser.Parse(row.text);
        if (!as && KindOf(parsed.form) != RowKind::kPrompts) CheckInvariants(parsed.record);
        Use(parsed.record.chosen.size() + parsed.prompt.text.size());
      } catch (const RowProblem& problem) {
        PLUMB_CHECK(!problem.reason.empty());
      }
    }
    const double progress = source->Progress();
    PLUMB_CHECK(progress >= 0 && progress <= 1);
  }
}

void ReadRows(const std::string& path) {
  ReadRows([&] { return RowSource::Open(path, kMaxRow); });
}

std::string Gzipped(const std::string& text) {
  std::string out(compressBound(text.size()) + 64, '\0');
  z_stream z{};
  PLUMB_CHECK(deflateInit2(&z, 9, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) == Z_OK);
  z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  z.avail_in = static_cast<uInt>(text.size());
  z.next_out = reinterpret_cast<Bytef*>(out.data());
  z.avail_out = static_cast<uInt>(out.size());
  PLUMB_CHECK(deflate(&z, Z_FINISH) == Z_STREAM_END);
  out.resize(z.total_out);
  deflateEnd(&z);
  return out;
}

}  // namespace

void FuzzRows(std::string_view input) { ReadRows(InputFile(input)); }

// The first byte says which separator.
void FuzzCsv(std::string_view input) {
  if (input.empty()) return;
  constexpr std::string_view kSeparators("\0,;\t", 4);
  const char separator = kSeparators[static_cast<uint8_t>(input[0]) % 4];
  const std::string path = InputFile(input.substr(1));
  ReadRows([&] { return OpenCsv(path, kMaxRow, separator); });
}

Seeds CsvSeeds() {
  return {
      "0prompt,answer\nq,1\n\"a, \"\"b\"\"\nc\",\"\"\r\n",
      "1instruction,input,chosen,rejected,margin\nExplain.,,good,bad,0.5\n",
      "2prompt;completion;label\nq;a;True\n\n;;\n",
      "3\xEF\xBB\xBFprompt\tanswer\n\"open\tx\n",
      "1system,conversations,history\ns,\"[{\"\"from\"\": \"\"human\"\", \"\"value\"\": "
      "\"\"q\"\"}, "
      "{\"\"from\"\": \"\"gpt\"\", \"\"value\"\": \"\"a\"\"}]\",\"[[\"\"h\"\",\"\"r\"\"]]\"\n",
      "1prompt,chosen,rejected\nq,\"[{'role': 'assistant'}]\",[\n",
      "1a,b\n\"x\" y,2\nsay \"hi\",2\n1,2,3\ncaf\xE9,\n",
  };
}

Seeds RowSeeds() {
  const Seeds rows = {
      R"({"question": "How many?", "answer": "6*7 #### 42"})",
      R"({"data_source": "math", "prompt": [{"role": "user", "content": "u"}], "reward_model": {"ground_truth": "7"}})",
      R"({"prompt": "p", "env_class": "e", "reward_spec": {"ground_truth": "g"}})",
      R"({"input": "i", "label": "l"})",
      R"({"prompt": "p", "answer": 12, "z": null, "b": {"n": [1, 2.5e-3, "x\n\u00e9\ud83d\ude00"]}})",
      R"({"prompt": "p", "chosen": "good", "rejected": "bad", "margin": 0.5})",
      R"({"chosen": "\n\nHuman: hi\n\nAssistant: a", "rejected": "\n\nHuman: hi\n\nAssistant: b"})",
      R"({"chosen": "The sky is blue.", "rejected": "The sky is bleak."})",
      R"({"prompt": "u", "chosen": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}], "rejected": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "b"}], "score_chosen": 8.5, "score_rejected": "3"})",
      R"({"context": [{"role": "user", "content": "u"}], "completions": [{"rank": 1, "completion": [{"role": "assistant", "content": "b"}]}, {"rank": 0, "completion": [{"role": "assistant", "content": "a"}]}]})",
      R"({"prompt": "p", "completion": "c", "label": false})",
      R"({"system": "s", "instruction": "i", "input": "n", "history": [["h", "r"]], "chosen": "a", "rejected": "b"})",
      R"({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}, {"from": "function_call", "value": "{}"}], "kto_tag": true})",
      R"({"conversations": [{"from": "human", "value": "q"}], "chosen": {"from": "gpt", "value": "a"}, "rejected": {"from": "gpt", "value": "b"}})",
      R"({"prompt": "p", "response_a": "x", "response_b": "y", "winner": "model_a", "odd": [NaN, -Infinity, 1e999, 99999999999999999999, "\ud83d"]})",
      R"({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]})",
      R"({"prompt": "p", "response_1": "x", "response_2": "y", "winner": null})",
      R"row({"conversation_a": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}], "conversation_b": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "b"}], "winner": "tie (bothbad)"})row",
      R"({"prompt": "p", "chosen": "a", "rejected": "b", "plumb_tokens": {"prompt": [1], "chosen": [2, 3], "rejected": [4294967296]}})",
      R"({"prompt": "p", "completion": "c", "plumb_tokens": {"prompt": [1], "completion": [2]}, "lease": 3})",
      R"({"data_source": "d", "prompt": [{"role": "user", "content": "u"}], "ability": "", "reward_model": {"style": "rule", "ground_truth": "g"}, "extra_info": {"index": 0, "plumb": {"prompt": "text", "weight": 2}, "level": [1]}})",
      R"({"text": "all of it"})",
      R"({"instruction": "do", "input": "this", "output": "done"})",
  };
  Seeds out = rows;
  std::string lines, list;
  for (const std::string& row : rows) {
    lines += row + "\r\n";
    list += (list.empty() ? "[" : ",\n") + row;
  }
  out.push_back(lines);
  out.push_back("\xEF\xBB\xBF" + list + "]");
  return out;
}

void FuzzGzip(std::string_view input) {
  const std::string path = InputFile(input);
  LineReader lines(path, kMaxRow);
  std::string line;
  while (lines.Next(line)) {
    PLUMB_CHECK(line.size() <= kMaxRow);
    Use(IsUtf8(line));
    const bool changed = RepairUtf8(line);
    PLUMB_CHECK(IsUtf8(line), "text that was repaired");
    PLUMB_CHECK(!RepairUtf8(line), "text that was repaired twice");
    Use(changed);
  }
}

Seeds GzipSeeds() {
  Seeds out;
  for (const std::string& text : RowSeeds()) {
    if (text.size() < 2000) out.push_back(Gzipped(text));
  }
  out.push_back(Gzipped(std::string(100000, 'x')));
  out.push_back(Gzipped("first\n") + Gzipped("second\n"));
  out.push_back("plain\ntext\xC3\xA9\n\xED\xA0\x80\n");
  return out;
}

void FuzzParquet(std::string_view input) {
  const std::string file =
      input.starts_with("PAR1") ? std::string(input) : "PAR1" + std::string(input);
  ReadRows(InputFile(file));
}

Seeds ParquetSeeds() { return ParquetFiles(); }

void FuzzJson(std::string_view input) {
  std::string mine;
  try {
    mine = ParseStrictJson(input).dump();
  } catch (const Error&) {
    return;
  }
  // What is taken is JSON, and means the same to a reader that does not look for twins.
  PLUMB_CHECK(mine == nlohmann::ordered_json::parse(input).dump(), "read something else: " + mine);
}

Seeds JsonSeeds() {
  Seeds out = RowSeeds();
  out.push_back(
      R"([1, -0, 1e308, 1E400, 18446744073709551616, true, null, "\u0000\ud800", {"a": {"a": []}}])");
  out.push_back(std::string(64, '[') + std::string(64, ']'));
  return out;
}

void FuzzDialogue(std::string_view input) {
  const auto [first, second] = Halves(input);
  const auto chosen = ParseHumanAssistant(first), rejected = ParseHumanAssistant(second);
  if (!chosen || !rejected) return;
  const std::vector<Message> shared = SharedPrompt(*chosen, *rejected);
  PLUMB_CHECK(shared.size() <= std::min(chosen->size(), rejected->size()) &&
              (shared.empty() || shared.back().role == "user"));
  std::string json;
  AppendJsonMessages(json, *chosen);
  Use(json.size());
}

Seeds DialogueSeeds() {
  return {Joined("\n\nHuman: hi\n\nAssistant: hello\n\nHuman: bye\n\nAssistant: see you",
                 "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: bye\n\nAssistant: no"),
          Joined("\n\nHuman: a\n\nAssistant:", "\n\nHuman: a\n\nHuman: b")};
}

}  // namespace plumb::fuzz
