// What reward code sends back, and the rules' readers of text that a model or a user wrote.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>

#include "common/base/error.h"
#include "common/record/json_text.h"
#include "common/text/words.h"
#include "reward/doors/http_reward.h"
#include "reward/doors/plugin.h"
#include "reward/doors/plugin_wire.h"
#include "reward/doors/subprocess.h"
#include "reward/doors/zmq_worker.h"
#include "reward/maths/answer.h"
#include "reward/maths/latex_text.h"
#include "reward/maths/math_answer.h"
#include "reward/maths/units.h"
#include "reward/part/reply.h"
#include "reward/rules/bleu.h"
#include "reward/rules/coherence.h"
#include "reward/rules/json_schema.h"
#include "reward/rules/linear_regex.h"
#include "reward/rules/multiple_choice.h"
#include "reward/rules/rouge.h"
#include "reward/rules/safety.h"
#include "targets.h"

namespace plumb::fuzz {
namespace {

using namespace reward;

constexpr size_t kAnswers = 3;

// A score that counts is finite; one that does not says why.
void Check(const PartScore& score) {
  if (score.scored() && !score.skipped)
    PLUMB_CHECK(std::isfinite(score.value), "a score that is not finite");
  if (!score.scored()) PLUMB_CHECK(!score.reason.empty(), "a failure without a reason");
  for (const auto& [name, value] : score.details)
    PLUMB_CHECK(std::isfinite(value) && name.size() <= 100, name);
}
void Check(const std::vector<PartScore>& scores, size_t count) {
  PLUMB_CHECK(scores.size() == count, "scores for all answers, or none");
  for (const PartScore& score : scores) Check(score);
}

}  // namespace

// A frame, header and body, as a host sends it.
void FuzzPluginReply(std::string_view input) {
  FrameType type{};
  uint64_t size = 0;
  if (input.size() < kFrameHeader || !ReadHeader(input.substr(0, kFrameHeader), 4096, &type, &size))
    return;
  std::vector<PartScore> scores;
  if (ReadPluginReply(type, input.substr(kFrameHeader), /*id=*/1, kAnswers, &scores))
    Check(scores, kAnswers);
}

Seeds PluginReplySeeds() {
  std::string scores, failed;
  Put<uint64_t>(&scores, 1);
  Put<int64_t>(&scores, kAnswers);
  Put<uint64_t>(&scores, kAnswers);
  for (int32_t i = 0; i < static_cast<int32_t>(kAnswers); ++i) {
    Put<double>(&scores, 0.5);
    Put<int32_t>(&scores, i);
    PutString(&scores, i == 1 ? "why" : "");
  }
  Put<uint64_t>(&failed, 1);
  Put<uint8_t>(&failed, 2);
  PutString(&failed, "it broke");
  return {Frame(FrameType::kScores, scores), Frame(FrameType::kFailed, failed)};
}

void FuzzJsonReply(std::string_view input) {
  const std::string text(input);
  Check(ReadOpenRlhfReply(text, kAnswers), kAnswers);
  Check(ReadSlimeReply(text, "score"));
  bool stray = false;
  const std::vector<PartScore> scores = ReadZmqReply(text, "id", kAnswers, &stray);
  if (!stray) Check(scores, kAnswers);
  try {
    Check(ParseProgramReply(input).score);
  } catch (const Error&) {
  }
  Prompt prompt;
  prompt.extra_json = text;
  Use(ExtraJson(prompt).size() + Shown(input).size());
}

Seeds JsonReplySeeds() {
  return {R"({"rewards":[0.5,null,1],"scores":[1,2,3],"extra_logs":{"a":[1,2,3]}})",
          R"({"rewards":[NaN,Infinity,-Infinity]})",
          R"({"id":"id","scores":[0.5,{"score":1},{"scores":{"a":1,"b":0}}],"digest":"sha"})",
          R"({"id":"id","error":"why","kind":"timeout"})",
          R"({"id":7,"score":0.5})",
          R"({"id":7,"scores":{"a":1e308,"b":1e308}})",
          R"({"id":7,"skip":true})",
          R"({"score":"no \u00e9"})",
          "0.5",
          "1e400"};
}

// A schema and a document.
void FuzzJsonSchema(std::string_view input) {
  const auto [schema_text, document_text] = Halves(input);
  if (TooDeep(schema_text, 64) || TooDeep(document_text, 64)) return;
  const auto schema = nlohmann::json::parse(schema_text, nullptr, false),
             document = nlohmann::json::parse(document_text, nullptr, false);
  if (schema.is_discarded() || document.is_discarded()) return;
  const JsonSchema compiled(schema);
  const JsonSchema::Checks checks = compiled.Check(document);
  PLUMB_CHECK(checks.held >= 0 && checks.held <= checks.made, "more checks held than were made");
}

Seeds JsonSchemaSeeds() {
  return {
      Joined(
          R"({"type":"object","properties":{"a":{"type":"integer","minimum":0,"multipleOf":0.5}},"required":["a"],"additionalProperties":false})",
          R"({"a":3})"),
      Joined(
          R"({"type":["array","null"],"prefixItems":[{"const":1}],"items":{"enum":[1,2.0,"x"]},"uniqueItems":true,"minItems":1})",
          "[1,2,2.0]"),
      Joined(
          R"({"anyOf":[{"type":"string","pattern":"^a+$","maxLength":3},{"not":{"type":"null"}}],"oneOf":[true,false]})",
          R"("aaa")"),
      Joined(R"({"exclusiveMaximum":1e308,"multipleOf":1e-300})", "-1e308")};
}

// A pattern and a text.
void FuzzRegex(std::string_view input) {
  const auto [pattern, text] = Halves(input);
  std::string error;
  const LinearRegex regex = LinearRegex::Compile(std::string(pattern), &error);
  if (error.empty()) Use(static_cast<size_t>(regex.Find(text)));
}

Seeds RegexSeeds() {
  return {Joined("(a|b)+c", "ababab"), Joined("^(?i)x{2,5}\\b[^\\d]", "xxx y"),
          Joined("(a*)*b", "aaaaaaaaaaaaaaaaaaaa"), Joined("(?<=a)b|\\1|(?>x)", ""),
          Joined("\\p{L}+.\\x{1F600}", "\xF0\x9F\x98\x80 \xFF")};
}

// Two answers.
void FuzzMath(std::string_view input) {
  const auto [answer, truth] = Halves(input);
  const auto taken = ExtractMath(answer, MathFallback::kLastMath);
  Use(SameMath(answer, truth) + SameMath(truth, answer, 3));
  if (taken) Use(SameMath(*taken, truth));
  const std::string plain = PlainLatex(answer);
  Use(ReadUnit(plain).has_value());
  size_t used = 0;
  Use(ReadCurrencySign(plain, &used).has_value());
  PLUMB_CHECK(used <= plain.size(), "a currency sign longer than its text");
}

Seeds MathSeeds() {
  Seeds out;
  std::istringstream pairs(SourceFile("tests/golden/math_pairs.jsonl"));
  for (std::string line; std::getline(pairs, line);) {
    const auto row = nlohmann::json::parse(line);
    out.push_back(Joined(row.at("answer").get<std::string>(), row.at("gold").get<std::string>()));
  }
  return out;
}

// An answer and a text beside it, for the rules that compare words.
void FuzzAnswer(std::string_view input) {
  const auto [answer, truth] = Halves(input);
  Use(SameAnswer(answer, truth) + SameAnswer(truth, answer));
  Use(ExtractAnswer(answer, Fallback::kLastNumber).has_value());
  if (const auto number = ParseRational(answer))
    PLUMB_CHECK(Equal(*number, *number) && number->denominator != "0",
                "a number differs from itself");
  const std::vector<Choice> choices = ReadChoices(truth, std::string(truth));
  Use(FindChoice(answer, choices, choices.empty() ? 'E' : choices.back().letter).has_value());
  const double coherence = CoherenceScore(answer, truth, {});
  PLUMB_CHECK(coherence >= 0 && coherence <= 1, "a score outside 0 .. 1");
  for (const std::string_view part : Sentences(answer)) PLUMB_CHECK(!part.empty());
  Use(BleuTokens(answer).size() + RougeTokens(answer, true).size() + LetterWords(answer).size() +
      UnicodeSpacedWords(answer).size());
  WordList list;
  if (list.Add(truth)) Use(list.Hits(answer));
  Use(LowerUnicode(answer).size() + Unmasked(answer).size());
}

Seeds AnswerSeeds() {
  Seeds out;
  for (const std::string& pair : MathSeeds()) {
    if (out.size() < 100) out.push_back(pair);
  }
  out.push_back(
      Joined("The answer is (B). <answer>B</answer> #### 1,234.50%", "A) Paris\nB) London\n"));
  out.push_back(
      Joined("\\boxed{C}", R"({"choices":{"text":["a","b","c"],"label":["A","B","C"]}})"));
  out.push_back(
      Joined("\xE2\x80\x8B"
             "b\xC2\xAD"
             "a\xEF\xBC\xA1 ... 3.5 \xE3\x80\x82 \xE6\xBC\xA2\xE5\xAD\x97",
             "ba a"));
  return out;
}

}  // namespace plumb::fuzz
