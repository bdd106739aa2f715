// Microseconds a pair of texts for ROUGE, BLEU and F1, over the pairs of
// tests/golden/text_metrics.json.
//
//   text_metrics_bench GOLDEN.json [rounds]      prints "name<TAB>microseconds a pair", the fastest
//   of the rounds
//
// One thread. Each value is first compared with the reference package's to 1e-9; a wrong one is not
// timed. bench/text_metrics.py runs this beside rouge-score and sacrebleu and prints the ratios.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>

#include "reward/rules/bleu.h"
#include "reward/rules/rouge.h"
#include "reward/rules/token_f1.h"

namespace plumb::reward {
namespace {

struct Pair {
  std::string answer;
  std::string truth;
  nlohmann::json golden;
};

using Metric = std::function<double(const Pair&)>;

bool Time(const char* name, const std::vector<Pair>& pairs, int rounds, const Metric& metric,
          const Metric& want) {
  for (const Pair& pair : pairs) {
    if (std::abs(metric(pair) - want(pair)) > 1e-9) {
      std::fprintf(stderr, "%s NOT TIMED: %.12f instead of %.12f on \"%s\"\n", name, metric(pair),
                   want(pair), pair.answer.c_str());
      return false;
    }
  }
  double best = 1e30, sink = 0;
  for (int round = 0; round < rounds; ++round) {
    const auto start = std::chrono::steady_clock::now();
    for (const Pair& pair : pairs) sink += metric(pair);
    const std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - start;
    best = std::min(best, took.count() / static_cast<double>(pairs.size()));
  }
  std::printf("%s\t%.4f\n", name, best);
  return sink >= 0;
}

int Main(int argc, char** argv) {
  const int rounds = argc > 2 ? std::atoi(argv[2]) : 20;
  if (argc < 2 || rounds < 1) {
    std::fprintf(stderr, "usage: text_metrics_bench GOLDEN.json [rounds]\n");
    return 2;
  }
  std::ifstream file(argv[1]);
  const nlohmann::json golden = nlohmann::json::parse(file, nullptr, false);
  if (!golden.is_object()) {
    std::fprintf(stderr, "%s is no golden file of text metrics\n", argv[1]);
    return 2;
  }
  std::vector<Pair> pairs;
  for (const auto& c : golden.at("cases")) pairs.push_back({c.at("answer"), c.at("truth"), c});
  const auto rouge = [](bool stem, int n) {
    return [=](const Pair& p) {
      const auto t = RougeTokens(p.truth, stem), a = RougeTokens(p.answer, stem);
      return (n > 0 ? RougeN(t, a, n) : RougeL(t, a)).f;
    };
  };
  const auto rouge_want = [](size_t i) {
    return [=](const Pair& p) { return p.golden.at("rouge").at(i).at(2).get<double>(); };
  };
  bool good = Time("rouge1", pairs, rounds, rouge(false, 1), rouge_want(0));
  good &= Time("rouge2", pairs, rounds, rouge(false, 2), rouge_want(1));
  good &= Time("rougeL", pairs, rounds, rouge(false, 0), rouge_want(2));
  good &= Time("rougeL stemmed", pairs, rounds, rouge(true, 0), rouge_want(5));
  good &= Time(
      "bleu", pairs, rounds,
      [](const Pair& p) {
        return BleuScore(CountBleu(p.answer, {p.truth}), {.effective_order = true});
      },
      [](const Pair& p) { return p.golden.at("bleu").at(0).get<double>() / 100; });
  good &= Time(
      "f1", pairs, rounds, [](const Pair& p) { return TokenF1(p.answer, p.truth); },
      [](const Pair& p) { return p.golden.at("f1").get<double>(); });
  return good ? 0 : 1;
}

}  // namespace
}  // namespace plumb::reward

int main(int argc, char** argv) { return plumb::reward::Main(argc, argv); }
