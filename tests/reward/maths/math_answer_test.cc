// Verdicts on maths answers (reward/maths/math_answer.h, math_object.h): a human reading of each
// pair, what math-verify says of it, every answer of GSM8K, and text made to hang a reader.
#include "reward/maths/math_answer.h"

#include <gtest/gtest.h>
#include <zlib.h>

#include <chrono>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <string>

#include "reward/maths/math_object.h"

namespace plumb::reward {
namespace {

using Json = nlohmann::json;
const std::string kGolden = PLUMB_SOURCE_DIR "/tests/golden/";

std::vector<Json> Pairs() {
  std::vector<Json> rows;
  std::ifstream file(kGolden + "math_pairs.jsonl");
  for (std::string line; std::getline(file, line);) rows.push_back(Json::parse(line));
  return rows;
}

TEST(SameMath, EveryPairAsAPersonReadsIt) {
  const auto rows = Pairs();
  ASSERT_GE(rows.size(), 300u);
  int same = 0;
  for (const Json& row : rows) {
    const std::string gold = row["gold"], answer = row["answer"];
    EXPECT_EQ(SameMath(answer, gold), row["expected"].get<bool>())
        << "gold " << gold << " | answer " << answer;
    EXPECT_TRUE(SameMath(gold, gold)) << gold;
    same += row["expected"].get<bool>();
  }
  EXPECT_GT(same, 100) << "both verdicts have to occur";
  EXPECT_GT(static_cast<int>(rows.size()) - same, 60);
}

// math-verify's verdicts are stored by tests/golden/math_verify.py; every difference is listed with
// its reason.
TEST(SameMath, DiffersFromMathVerifyExactlyWhereListed) {
  std::set<std::pair<std::string, std::string>> listed, found;
  for (const Json& group : Json::parse(std::ifstream(kGolden + "math_disagreements.json"))) {
    EXPECT_GT(group["why"].get<std::string>().size(), 20u);
    for (const Json& pair : group["pairs"]) {
      const bool first =
          listed.emplace(pair[0].get<std::string>(), pair[1].get<std::string>()).second;
      EXPECT_TRUE(first) << pair << " is listed twice";
    }
  }
  for (const Json& row : Pairs()) {
    ASSERT_TRUE(row["math_verify"].is_boolean()) << row << ": run tests/golden/math_verify.py";
    const std::string gold = row["gold"], answer = row["answer"];
    if (SameMath(answer, gold) != row["math_verify"].get<bool>()) found.insert({gold, answer});
  }
  for (const auto& [gold, answer] : found) {
    EXPECT_TRUE(listed.count({gold, answer})) << "not listed: " << gold << " | " << answer;
  }
  for (const auto& [gold, answer] : listed) {
    EXPECT_TRUE(found.count({gold, answer})) << "listed, but we agree: " << gold << " | " << answer;
  }
}

TEST(SameMath, ShortWordsAreNoProducts) {
  struct Case {
    const char *truth, *answer;
    bool same;
  };
  for (const Case& c : {
           Case{"Yes", "\\text{Yes}", true},
           Case{"Yes", "yes.", true},
           Case{"No", "\\text{no}", true},
           Case{"Red", "red", true},
           Case{"Two", "\\text{Two}", true},
           Case{"NO", "no", true},
           Case{"x = Red", "Red", true},
           Case{"Tom", "\\textbf{Tom}", true},
           Case{"Yes", "seY", false},
           Case{"Yes", "No", false},
           Case{"Ann", "nnA", false},
           Case{"tea", "eat", false},
           Case{"no", "on", false},
           Case{"Two", "Two cats", false},
           Case{"Alice and Bob", "Bob and Alice", true},
           Case{"Alice and Bob", "Bob, Alice", true},
           Case{"Alice and Bob", "Bob", false},
           Case{"\\text{Red and Blue}", "Blue and Red", true},
           Case{"(Red, Blue)", "(Blue, Red)", false},
           // Letters are still letters.
           Case{"pq", "\\text{pq}", true},
           Case{"pq", "qp", true},
           Case{"pq", "\\text{qp}", false},
           Case{"AB", "BA", true},
           Case{"abc", "bca", true},
           Case{"mc^2", "c^2 m", true},
           Case{"2pq", "2qp", true},
           Case{"xy", "XY", false},
           Case{"5 cm", "5\\text{ cm}", true},
       }) {
    EXPECT_EQ(SameMath(c.answer, c.truth), c.same) << c.truth << " | " << c.answer;
    EXPECT_EQ(SameMath(c.truth, c.answer), c.same) << c.answer << " | " << c.truth;
  }
}

TEST(SameMath, RoundedDecimalsOnlyWhenAsked) {
  EXPECT_FALSE(SameMath("0.3333", "\\frac{1}{3}"));
  EXPECT_TRUE(SameMath("0.3333", "\\frac{1}{3}", 4));
  EXPECT_FALSE(SameMath("0.333", "\\frac{1}{3}", 4)) << "three digits";
  EXPECT_FALSE(SameMath("0.3334", "\\frac{1}{3}", 4)) << "not the rounded value";
  EXPECT_TRUE(SameMath("3.14159", "\\pi", 6));
  EXPECT_FALSE(SameMath("3.14158", "\\pi", 6));
  EXPECT_TRUE(SameMath("-1.414", "-\\sqrt{2}", 4));
  EXPECT_FALSE(SameMath("\\frac{1}{3}", "0.3333", 4)) << "the truth is what it is";
}

TEST(ExtractMath, MarkersThenFallbacks) {
  EXPECT_EQ(ExtractMath("<answer>4</answer> \\boxed{5}", MathFallback::kNone), "4");
  EXPECT_EQ(ExtractMath("#### 7", MathFallback::kNone), "7");
  EXPECT_EQ(ExtractMath("\\fbox{8}", MathFallback::kNone), "8");
  EXPECT_FALSE(ExtractMath("so it is $9$", MathFallback::kNone));
  EXPECT_EQ(ExtractMath("so it is $9$ of 10", MathFallback::kLastNumber), "10");
  const auto last = [](const char* text) {
    const auto found = ExtractMath(text, MathFallback::kLastMath);
    return found.value_or("none");
  };
  EXPECT_TRUE(SameMath(last("so it is $\\frac{9}{2}$ of all"), "4.5"));
  EXPECT_TRUE(SameMath(last("We get \\(x=1\\) and then \\[x^2+1\\] in the end"), "x^2+1"));
  EXPECT_TRUE(SameMath(last("The answer is 12 km. I checked 3 times."), "12"));
  EXPECT_TRUE(SameMath(last("Final Answer: $\\sqrt{2}$"), "\\sqrt{2}"));
  EXPECT_TRUE(SameMath(last("it makes 3 and 4"), "4"));
  EXPECT_EQ(last("nothing"), "none");
}

TEST(ReadMathObject, Shapes) {
  using Kind = MathObject::Kind;
  struct Case {
    const char* plain;
    Kind kind;
    size_t items;
  };
  for (const Case& c : {Case{"5", Kind::kQuantity, 0}, Case{"1,234", Kind::kQuantity, 0},
                        Case{"1, 2", Kind::kList, 2}, Case{"\\{1,2,3\\}", Kind::kSet, 3},
                        Case{"(1,2)", Kind::kTuple, 2}, Case{"[1,2)", Kind::kInterval, 2},
                        Case{"x > 2", Kind::kInterval, 2}, Case{"x = 5", Kind::kAssignment, 1},
                        Case{"x + y = 5", Kind::kRelation, 0},
                        Case{"(0,1)\\cup (2,3)", Kind::kUnion, 2}, Case{"1 \\pm 2", Kind::kList, 2},
                        Case{"101_2", Kind::kBased, 0}, Case{"Monday", Kind::kWords, 0},
                        Case{"\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}", Kind::kMatrix, 2},
                        Case{"", Kind::kWords, 0}}) {
    const MathObject object = ReadMathObject(c.plain, true);
    EXPECT_EQ(object.kind, c.kind) << c.plain;
    EXPECT_EQ(object.items.size(), c.items) << c.plain;
  }
  EXPECT_EQ(ReadMathObject("(1,234)", true).kind, Kind::kTuple)
      << "behind a bracket the comma separates";
  EXPECT_EQ(ReadMathObject("(1,234)", false).kind, Kind::kTuple);
}

// All 8,792 answers of GSM8K: equal to themselves in nine spellings (those of math_verify.py), to
// none of their neighbours.
TEST(SameMath, AllOfGsm8k) {
  int rows = 0;
  for (const char* name : {"train", "test"}) {
    const std::string path =
        std::string(PLUMB_SOURCE_DIR "/../shared/data/gsm8k/") + name + ".jsonl.gz";
    gzFile file = gzopen(path.c_str(), "rb");
    if (file == nullptr) GTEST_SKIP() << "NOT TESTED: " << path << " is not here";
    std::string buffer(1 << 16, '\0');
    while (gzgets(file, buffer.data(), static_cast<int>(buffer.size())) != nullptr) {
      const std::string truth = Json::parse(buffer.c_str())["answer"];
      ++rows;
      std::string digits;
      const std::string marked = ExtractMath(truth, MathFallback::kNone).value_or("");
      for (char c : marked) {
        if (c != ',') digits += c;
      }
      for (const std::string& same :
           {digits, digits + ".00", "$" + digits, "\\boxed{" + digits + "}", "x = " + digits,
            "The answer is " + digits + ".", "\\frac{" + digits + "}{1}",
            digits + " \\text{ dollars}", "$" + digits + "$"}) {
        ASSERT_TRUE(SameMath(same, truth)) << same << " | " << digits;
      }
      const long long value = std::stoll(digits);
      for (long long other : {value + 1, value - 1, value * 10 + 1, -value - 1}) {
        ASSERT_FALSE(SameMath(std::to_string(other), truth)) << other << " | " << digits;
      }
      ASSERT_FALSE(SameMath(digits + ".5", truth)) << digits;
    }
    gzclose(file);
  }
  EXPECT_EQ(rows, 8792);
}

std::string Repeated(const std::string& piece, size_t bytes) {
  std::string out;
  while (out.size() < bytes) out += piece;
  return out.substr(0, bytes);
}

// Made to cost a naive reader exponential or quadratic time, or its stack. Each verdict within half
// a second even on a busy machine (they take about a millisecond at most); "not equal", for the
// truth is 7.
TEST(SameMath, HostileTextIsAQuickNo) {
  std::vector<std::string> hostile;
  for (const char* piece : {"(",
                            "{",
                            "[",
                            "|",
                            "\\{",
                            "\\frac",
                            "\\frac{",
                            "\\sqrt",
                            "\\sqrt{",
                            "-",
                            "+",
                            "\\pm",
                            "^",
                            "2^",
                            "9^9",
                            "9!",
                            "((1+",
                            "x=",
                            "x<",
                            "1,",
                            "1 and ",
                            "\\boxed{",
                            "\\text{",
                            "\\cup",
                            "$",
                            "\\left(",
                            "2\\frac{1}{3}",
                            "2\\frac{2\\frac{",
                            "\\sin",
                            "\\sin x",
                            "|x|",
                            "||",
                            "1/",
                            "1:",
                            "9999999999",
                            "\\begin{pmatrix}",
                            "a_",
                            "5 feet ",
                            "\\binom{9",
                            "\\log_",
                            "\xff",
                            "\\",
                            "1e999",
                            "\u221A",
                            "answer is ",
                            "0.\\overline{",
                            "\\{1,",
                            "(1,",
                            "x^2+",
                            "\\pm 1 ",
                            "(1,2)+",
                            "2(1,2)-",
                            "]1,",
                            "[1,2[\\cup",
                            "(1,2)^T",
                            "[[1,2],",
                            "\\begin{array}{cc}",
                            "\\begin{pmatrix}1\\end{pmatrix}+",
                            "1 000 ",
                            "3 x 10^8",
                            "\u00B9",
                            "\\frac{\\text{m}}{",
                            "\\frac{m}{s}",
                            "|x|<",
                            "1<2x<",
                            "1st ",
                            "\\{1\\}\\cup",
                            "x\\in ]1,",
                            "**",
                            "_",
                            "\\boxed{}",
                            "\\color{",
                            "\\sqrt{x}+",
                            "c+",
                            "\\hline",
                            "1\\mu m "}) {
    for (size_t bytes : {30u, 400u, 1900u, 100000u}) hostile.push_back(Repeated(piece, bytes));
  }
  hostile.push_back("9^{9^{9^{9^{9}}}}");
  hostile.push_back("(((2^{99})^{99})^{99})^{99}");
  hostile.push_back("\\binom{99999}{50000}");
  hostile.push_back("1000!");
  hostile.push_back(std::string(600, '9') + "/" + std::string(600, '7'));
  for (const std::string& text : hostile) {
    const auto begin = std::chrono::steady_clock::now();
    EXPECT_FALSE(SameMath(text, "7")) << text.substr(0, 60) << " x" << text.size();
    SameMath(text, text);
    SameMath(text + " ", text);
    SameMath("7", text);
    ExtractMath(text, MathFallback::kLastMath);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    EXPECT_LT(took.count(), 0.5) << text.substr(0, 60) << " x" << text.size();
  }
}

// Random strings over the alphabet of LaTeX: no crash, no hang, and equality is symmetric.
TEST(SameMath, RandomTextNeitherCrashesNorFavoursASide) {
  static const char* kPieces[] = {
      "1",    "2",    "0.5",     "x",       "y",     "+", "-", "*",   "/",    "^",      "{",
      "}",    "(",    ")",       "[",       "]",     ",", "=", "<",   "\\le", "\\frac", "\\sqrt",
      "\\pi", "\\pm", "\\cup",   "\\text{", "cm",    " ", "%", "\\$", "\\{",  "\\}",    "|",
      "!",    "_",    "\\infty", "and",     "\\sin", ";", "i", "e",   "\\in", "&",      "\\\\"};
  std::mt19937 random(20261124);
  const auto any = [&] {
    std::string out;
    for (size_t n = 1 + random() % 12; n > 0; --n) out += kPieces[random() % std::size(kPieces)];
    return out;
  };
  for (int i = 0; i < 20000; ++i) {
    const std::string a = any(), b = any();
    EXPECT_EQ(SameMath(a, b), SameMath(b, a)) << a << " | " << b;
  }
}

}  // namespace
}  // namespace plumb::reward
