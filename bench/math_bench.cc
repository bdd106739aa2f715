// Speed of the maths verdict (reward/maths/math_answer.h) over a file of pairs.
//
//   math_bench PAIRS.jsonl [rounds]      default: 20 rounds; prints verdicts a second and
//                                        microseconds a verdict
//   math_bench PAIRS.jsonl --verdicts    prints 1 or 0 a pair, in the file's order
//
// A line of the file is {"gold", "answer", "expected", ...}. A round whose verdicts differ from
// `expected` is not timed. bench/math_verify_ratio.py runs it beside math-verify.
#include <chrono>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "reward/maths/math_answer.h"

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "math_bench PAIRS.jsonl [rounds | --verdicts]\n");
    return 2;
  }
  struct Pair {
    std::string gold, answer;
    bool expected;
  };
  std::vector<Pair> pairs;
  std::ifstream file(argv[1]);
  for (std::string line; std::getline(file, line);) {
    const auto row = nlohmann::json::parse(line);
    pairs.push_back({row["gold"], row["answer"], row["expected"]});
  }
  if (pairs.empty()) {
    std::fprintf(stderr, "%s: no pairs\n", argv[1]);
    return 1;
  }
  using plumb::reward::SameMath;
  if (argc > 2 && std::strcmp(argv[2], "--verdicts") == 0) {
    for (const Pair& pair : pairs) std::printf("%d\n", SameMath(pair.answer, pair.gold));
    return 0;
  }
  size_t wrong = 0;
  for (const Pair& pair : pairs) wrong += SameMath(pair.answer, pair.gold) != pair.expected;
  if (wrong > 0) {
    std::fprintf(stderr, "%zu of %zu verdicts are not the expected ones: not timed\n", wrong,
                 pairs.size());
    return 1;
  }
  const int rounds = argc > 2 ? std::atoi(argv[2]) : 20;
  size_t same = 0;
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < rounds; ++i) {
    for (const Pair& pair : pairs) same += SameMath(pair.answer, pair.gold);
  }
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  const double verdicts = static_cast<double>(pairs.size()) * rounds;
  std::printf(
      "{\"verdicts\": %.0f, \"seconds\": %.6f, \"microseconds_a_verdict\": %.3f, \"same\": %zu}\n",
      verdicts, seconds.count(), seconds.count() / verdicts * 1e6, same);
  return 0;
}
