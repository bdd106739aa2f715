#include "replay/datasets/rows/arithmetic.h"

#include <algorithm>
#include <set>
#include <utility>

#include "common/base/error.h"
#include "common/base/rng.h"

namespace plumb::replay {
namespace {

using Pair = std::pair<uint32_t, uint32_t>;  // first <= second

constexpr uint64_t kPairStream = 0xA217;
constexpr uint64_t kOrderStream = 0xA218;
// operands; up to here all pairs are listed and shuffled
constexpr uint64_t kEnumerateBelow = 2'000;

std::vector<Pair> DrawPairs(uint64_t seed, uint64_t operands, uint64_t wanted) {
  RandomStream random(seed, kPairStream);
  std::vector<Pair> pairs;
  if (operands <= kEnumerateBelow) {
    for (uint32_t a = 0; a < operands; ++a) {
      for (uint32_t b = a; b < operands; ++b) pairs.emplace_back(a, b);
    }
    for (size_t i = pairs.size(); i > 1; --i)
      std::swap(pairs[i - 1], pairs[random.NextBelow(static_cast<uint32_t>(i))]);
    return pairs;
  }
  std::set<Pair> seen;
  while (pairs.size() < wanted) {
    const uint32_t a = random.NextBelow(static_cast<uint32_t>(operands)),
                   b = random.NextBelow(static_cast<uint32_t>(operands));
    const Pair pair{std::min(a, b), std::max(a, b)};
    if (seen.insert(pair).second) pairs.push_back(pair);
  }
  return pairs;
}

Prompt MakePrompt(const char* dataset, uint64_t row, Pair pair) {
  Prompt prompt;
  prompt.dataset = dataset;
  prompt.row = row;
  prompt.text = ArithmeticPrompt(pair.first, pair.second);
  prompt.ground_truth = std::to_string(uint64_t{pair.first} + pair.second);
  return prompt;
}

Pair Unordered(const std::string& prompt) {
  const size_t plus = prompt.find('+');
  const uint32_t a = static_cast<uint32_t>(std::stoul(prompt.substr(0, plus)));
  const uint32_t b = static_cast<uint32_t>(std::stoul(prompt.substr(plus + 1)));
  return {std::min(a, b), std::max(a, b)};
}

}  // namespace

std::string ArithmeticPrompt(uint64_t a, uint64_t b) {
  std::string text = std::to_string(a);
  text += '+';
  text += std::to_string(b);
  text += '=';
  return text;
}

std::string ArithmeticCompletion(uint64_t a, uint64_t b) {
  std::string text = "<think>";
  uint64_t carry = 0, x = a, y = b;
  bool first = true;
  do {
    const uint64_t sum = x % 10 + y % 10 + carry;
    if (!first) text += ',';
    text += std::to_string(x % 10);
    text += '+';
    text += std::to_string(y % 10);
    if (carry != 0) text += "+1";
    text += '=';
    text += std::to_string(sum);
    carry = sum / 10;
    x /= 10;
    y /= 10;
    first = false;
  } while (x != 0 || y != 0);
  text += "</think><answer>";
  text += std::to_string(a + b);
  text += "</answer><eos>";
  return text;
}

TextDemonstration ArithmeticCall(uint64_t a, uint64_t b) {
  const std::string prompt = ArithmeticPrompt(a, b), sum = std::to_string(a + b);
  TextDemonstration out{prompt, {}, "<think>" + prompt};
  out.said = {{out.completion.size(), out.completion.size() + sum.size()}};
  out.completion += sum + "</think><answer>" + sum + "</answer><eos>";
  return out;
}

ArithmeticSets GenerateArithmetic(const ArithmeticOptions& o) {
  const auto refuse = [](const std::string& why) { throw Error(ErrorCode::kInvalidArgument, why); };
  if (o.digits < 1 || o.digits > 9)
    refuse("data.arithmetic_digits must lie in 1 .. 9, not " + std::to_string(o.digits));
  if (o.sft_examples < 0 || o.eval_prompts < 0 || o.train_prompts < 0)
    refuse("numbers of generated problems must not be negative");
  uint64_t operands = 1;
  for (int64_t i = 0; i < o.digits; ++i) operands *= 10;
  const uint64_t total = operands * (operands + 1) / 2;
  const int64_t train_wanted = o.train_prompts == 0 ? kMaxTrain : o.train_prompts;
  const uint64_t fixed =
      static_cast<uint64_t>(o.sft_examples) + static_cast<uint64_t>(o.eval_prompts);
  // A pair gives two training prompts unless its operands are equal; one is always left.
  const uint64_t needed =
      fixed + (static_cast<uint64_t>(std::max<int64_t>(o.train_prompts, 2)) + 1) / 2;
  if (needed > total) {
    refuse("there are " + std::to_string(total) + " different sums of numbers with up to " +
           std::to_string(o.digits) + " digits, but " + std::to_string(o.sft_examples) +
           " demonstrations, " + std::to_string(o.eval_prompts) + " held-out and " +
           std::to_string(o.train_prompts) +
           " training problems are asked for: raise data.arithmetic_digits");
  }
  const std::vector<Pair> pairs =
      DrawPairs(o.seed, operands, fixed + static_cast<uint64_t>(train_wanted));
  RandomStream order(o.seed, kOrderStream);
  const auto turned = [&](Pair pair) {
    return order.NextBits() % 2 == 0 ? pair : Pair{pair.second, pair.first};
  };

  const auto worked_out = [&](Pair pair) {
    if (o.calls) return ArithmeticCall(pair.first, pair.second);
    return TextDemonstration{ArithmeticPrompt(pair.first, pair.second),
                             {},
                             ArithmeticCompletion(pair.first, pair.second)};
  };

  ArithmeticSets sets;
  size_t at = 0;
  for (int64_t i = 0; i < o.eval_prompts; ++i) {
    const Pair pair = turned(pairs[at++]);
    sets.eval.push_back(MakePrompt("eval", static_cast<uint64_t>(i), pair));
    sets.sft_eval.push_back(worked_out(pair));
  }
  for (int64_t i = 0; i < o.sft_examples; ++i) {
    const Pair pair = turned(pairs[at++]);
    sets.sft.push_back(worked_out(pair));
  }
  while (at < pairs.size() && static_cast<int64_t>(sets.train.size()) < train_wanted) {
    const Pair pair = turned(pairs[at++]);
    sets.train.push_back(MakePrompt("train", sets.train.size(), pair));
    if (pair.first != pair.second && static_cast<int64_t>(sets.train.size()) < train_wanted) {
      sets.train.push_back(MakePrompt("train", sets.train.size(), {pair.second, pair.first}));
    }
  }
  if (o.train_prompts > 0 && static_cast<int64_t>(sets.train.size()) < o.train_prompts) {
    refuse("only " + std::to_string(sets.train.size()) + " training problems are left of the " +
           std::to_string(o.train_prompts) +
           " asked for: raise data.arithmetic_digits or ask for fewer");
  }
  // The claim of every result on held-out problems, so it is checked from the texts themselves.
  std::set<Pair> held_out, shown;
  for (const Prompt& p : sets.eval) held_out.insert(Unordered(p.text));
  for (const TextDemonstration& d : sets.sft) {
    shown.insert(Unordered(d.prompt));
    PLUMB_CHECK(!held_out.contains(Unordered(d.prompt)),
                "held-out problem in the demonstrations: " + d.prompt);
  }
  for (const Prompt& p : sets.train) {
    PLUMB_CHECK(!held_out.contains(Unordered(p.text)) && !shown.contains(Unordered(p.text)),
                "problem in two sets: " + p.text);
  }
  return sets;
}

}  // namespace plumb::replay
