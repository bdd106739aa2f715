#include "reward/rules/rouge.h"

#include <algorithm>
#include <bit>

#include "common/text/unicode.h"
#include "common/text/words.h"
#include "reward/part/truth.h"
#include "reward/rules/porter_stemmer.h"

namespace plumb::reward {
namespace {

std::vector<std::string_view> Views(const std::vector<std::string>& words) {
  return {words.begin(), words.end()};
}

RougeValue Value(size_t matched, size_t in_answer, size_t in_reference) {
  RougeValue v;
  v.precision = static_cast<double>(matched) / static_cast<double>(std::max<size_t>(in_answer, 1));
  v.recall = static_cast<double>(matched) / static_cast<double>(std::max<size_t>(in_reference, 1));
  if (v.precision + v.recall > 0) v.f = 2 * v.precision * v.recall / (v.precision + v.recall);
  return v;
}

}  // namespace

std::vector<std::string> RougeTokens(std::string_view text, bool stem) {
  std::vector<std::string> tokens;
  std::string word;
  const auto close = [&] {
    if (word.empty()) return;
    tokens.push_back(stem && word.size() > 3 ? PorterStem(word) : word);
    word.clear();
  };
  for (size_t i = 0; i < text.size();) {
    const unsigned char c = static_cast<unsigned char>(text[i]);
    if (c >= 'A' && c <= 'Z') {
      word += static_cast<char>(c - 'A' + 'a');
      ++i;
    } else if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9')) {
      word += static_cast<char>(c);
      ++i;
    } else if (c < 0x80) {
      close();
      ++i;
    } else {
      // Two characters outside ASCII have a lower case that begins with a letter inside: the Kelvin
      // sign and I with a dot.
      const Character wide = DecodeUtf8(text, i);
      if (wide.code == 0x212A) word += 'k';
      if (wide.code == 0x130) word += 'i';
      if (wide.code != 0x212A) close();
      i += wide.bytes;
    }
  }
  close();
  return tokens;
}

RougeValue RougeN(const std::vector<std::string>& reference, const std::vector<std::string>& answer,
                  int n) {
  Vocabulary vocabulary;
  NgramTable table(n);
  const std::vector<int32_t> in_reference = table.Add(vocabulary.Ids(Views(reference)));
  std::vector<int64_t> left(table.size(), 0);
  for (const int32_t gram : in_reference) ++left[static_cast<size_t>(gram)];
  const std::vector<int32_t> in_answer = table.Add(vocabulary.Ids(Views(answer)));
  size_t matched = 0;
  for (const int32_t gram : in_answer) {
    const size_t g = static_cast<size_t>(gram);
    if (g < left.size() && left[g] > 0) {
      --left[g];
      ++matched;
    }
  }
  return Value(matched, in_answer.size(), in_reference.size());
}

size_t CommonSubsequence(const std::vector<int32_t>& a, const std::vector<int32_t>& b) {
  const int32_t top = std::max(a.empty() ? 0 : *std::max_element(a.begin(), a.end()),
                               b.empty() ? 0 : *std::max_element(b.begin(), b.end()));
  std::vector<uint64_t> places(static_cast<size_t>(top) + 1, 0);  // of each word within the block
  std::vector<uint8_t> carry(b.size(), 0);  // out of the block before, at each word of b
  size_t length = 0;
  for (size_t begin = 0; begin < a.size(); begin += 64) {
    const size_t size = std::min<size_t>(64, a.size() - begin);
    for (size_t i = 0; i < size; ++i) places[static_cast<size_t>(a[begin + i])] |= uint64_t{1} << i;
    uint64_t v = ~uint64_t{0};  // a zero bit: the subsequence grew at this place of a
    for (size_t j = 0; j < b.size(); ++j) {
      const uint64_t match = places[static_cast<size_t>(b[j])];
      const uint64_t sum = v + (v & match);
      const uint64_t next = sum + carry[j];
      carry[j] = static_cast<uint8_t>((sum < v) | (next < sum));
      v = next | (v & ~match);
    }
    const uint64_t valid = size == 64 ? ~uint64_t{0} : (uint64_t{1} << size) - 1;
    length += static_cast<size_t>(std::popcount(~v & valid));
    for (size_t i = 0; i < size; ++i) places[static_cast<size_t>(a[begin + i])] = 0;
  }
  return length;
}

RougeValue RougeL(const std::vector<std::string>& reference,
                  const std::vector<std::string>& answer) {
  Vocabulary vocabulary;
  const auto a = vocabulary.Ids(Views(reference)), b = vocabulary.Ids(Views(answer));
  return Value(CommonSubsequence(a, b), b.size(), a.size());
}

RuleParts MakeRouge(const configs::RewardPartConfig& part) {
  const RuleOptions options(part, {"stemmer", "measure", "reference"});
  const bool stem = options.Flag("stemmer");
  const std::string measure = options.Choice("measure", {"f", "precision", "recall"});
  const std::string column = options.Text("reference");
  const int n = part.kind == "rouge1" ? 1 : part.kind == "rouge2" ? 2 : 0;
  return [=](std::string_view text, const Trajectory&, const Prompt& prompt) {
    std::string why;
    const std::vector<std::string> references = References(prompt, column, &why);
    if (references.empty()) return PartScore::Failed(Failure::kReported, why);
    const std::string_view said = Compared(text, references);
    const std::vector<std::string> answer = RougeTokens(said, stem);
    double best = 0;
    for (const std::string& reference : references) {
      const std::vector<std::string> tokens = RougeTokens(reference, stem);
      const RougeValue v = n > 0 ? RougeN(tokens, answer, n) : RougeL(tokens, answer);
      best = std::max(best, measure == "f" ? v.f : measure == "precision" ? v.precision : v.recall);
    }
    return PartScore::Of(best);
  };
}

}  // namespace plumb::reward
