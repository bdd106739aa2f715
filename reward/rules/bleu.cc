#include "reward/rules/bleu.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/base/text.h"
#include "common/text/words.h"
#include "reward/part/truth.h"

namespace plumb::reward {
namespace {

void ReplaceAll(std::string& text, std::string_view from, std::string_view to) {
  if (text.find(from) == std::string::npos) return;
  std::string out;
  size_t at = 0;
  for (size_t found; (found = text.find(from, at)) != std::string::npos; at = found + from.size()) {
    out.append(text, at, found - at).append(to);
  }
  out.append(text, at);
  text = std::move(out);
}

bool IsStop(char c) { return c == '.' || c == ','; }
// ASCII punctuation but ' , - . and the blank.
bool StandsApart(char c) {
  return (c >= ' ' && c <= '&') || (c >= '(' && c <= '+') || c == '/' || (c >= ':' && c <= '@') ||
         (c >= '[' && c <= '`') || (c >= '{' && c <= '~');
}

// Walks over pairs of neighbours that do not overlap: `fits(a, b)` says whether the pair is written
// as a, b with `before`, `between` and `after` around it. Bytes of a wide character are no digits
// and no stops, so it is enough to look at bytes.
template <class Fits>
std::string Spread(const std::string& text, const Fits& fits, std::string_view before,
                   std::string_view after) {
  std::string out;
  out.reserve(text.size() + text.size() / 4 + 8);
  for (size_t i = 0; i < text.size();) {
    if (i + 1 < text.size() && fits(text[i], text[i + 1])) {
      out.append(before).append(1, text[i]).append(1, ' ').append(1, text[i + 1]).append(after);
      i += 2;
    } else {
      out += text[i++];
    }
  }
  return out;
}

// Grams of every order of one token list, numbered over all texts that went through the same
// tables, which look into the tokens for as long as they live.
struct Orders {
  std::array<std::vector<int32_t>, kBleuOrder> grams;
};
class OrderTables {
 public:
  Orders Add(const std::vector<std::string>& tokens) {
    const std::vector<int32_t> ids = vocabulary_.Ids({tokens.begin(), tokens.end()});
    Orders out;
    for (size_t n = 0; n < kBleuOrder; ++n) out.grams[n] = tables_[n].Add(ids);
    return out;
  }
  size_t size(size_t n) const { return tables_[n].size(); }

 private:
  Vocabulary vocabulary_;
  std::array<NgramTable, kBleuOrder> tables_ = {NgramTable(1), NgramTable(2), NgramTable(3),
                                                NgramTable(4)};
};

}  // namespace

std::vector<std::string> BleuTokens(std::string_view text) {
  // White space at the end goes first: a dash there must not meet a line break.
  const std::vector<std::string_view> words = UnicodeSpacedWords(text);
  if (words.empty()) return {};
  std::string line(
      text.substr(0, static_cast<size_t>(words.back().data() + words.back().size() - text.data())));
  ReplaceAll(line, "<skipped>", "");
  ReplaceAll(line, "-\n", "");
  std::replace(line.begin(), line.end(), '\n', ' ');
  ReplaceAll(line, "&quot;", "\"");
  ReplaceAll(line, "&amp;", "&");
  ReplaceAll(line, "&lt;", "<");
  ReplaceAll(line, "&gt;", ">");
  std::string apart = " ";
  apart.reserve(line.size() * 2);
  for (const char c : line) {
    if (StandsApart(c)) {
      apart.append(1, ' ').append(1, c).append(1, ' ');
    } else {
      apart += c;
    }
  }
  apart += ' ';
  apart = Spread(
      apart, [](char a, char b) { return !IsDigit(a) && IsStop(b); }, "", " ");
  apart = Spread(
      apart, [](char a, char b) { return IsStop(a) && !IsDigit(b); }, " ", "");
  apart = Spread(
      apart, [](char a, char b) { return IsDigit(a) && b == '-'; }, "", " ");
  const std::vector<std::string_view> tokens = UnicodeSpacedWords(apart);
  return {tokens.begin(), tokens.end()};
}

BleuCounts& BleuCounts::operator+=(const BleuCounts& other) {
  answer_length += other.answer_length;
  reference_length += other.reference_length;
  for (size_t n = 0; n < kBleuOrder; ++n) {
    matched[n] += other.matched[n];
    total[n] += other.total[n];
  }
  return *this;
}

BleuCounts CountBleu(std::string_view answer, const std::vector<std::string>& references) {
  const std::vector<std::string> tokens = BleuTokens(answer);
  BleuCounts counts;
  counts.answer_length = static_cast<int64_t>(tokens.size());
  OrderTables tables;
  std::vector<Orders> held;
  std::vector<std::vector<std::string>> kept;  // the tables look into these words
  int64_t nearest = std::numeric_limits<int64_t>::max();
  for (const std::string& reference : references) {
    const std::vector<std::string>& words = kept.emplace_back(BleuTokens(reference));
    held.push_back(tables.Add(words));
    const int64_t length = static_cast<int64_t>(words.size());
    const int64_t distance = std::abs(length - counts.answer_length);
    if (distance < nearest || (distance == nearest && length < counts.reference_length)) {
      nearest = distance;
      counts.reference_length = length;
    }
  }
  const Orders own = tables.Add(tokens);
  for (size_t n = 0; n < kBleuOrder; ++n) {
    std::vector<int64_t> most(tables.size(n), 0), one(tables.size(n), 0);
    for (const Orders& reference : held) {
      for (const int32_t g : reference.grams[n]) {
        const size_t gram = static_cast<size_t>(g);
        most[gram] = std::max(most[gram], ++one[gram]);
      }
      for (const int32_t g : reference.grams[n]) one[static_cast<size_t>(g)] = 0;
    }
    for (const int32_t g : own.grams[n]) {
      const size_t gram = static_cast<size_t>(g);
      if (most[gram] > 0) {
        --most[gram];
        ++counts.matched[n];
      }
    }
    counts.total[n] = static_cast<int64_t>(own.grams[n].size());
  }
  return counts;
}

double BleuScore(const BleuCounts& counts, const BleuOptions& options) {
  if (std::all_of(counts.matched.begin(), counts.matched.end(), [](int64_t m) { return m == 0; }))
    return 0;
  double brevity = 1;
  if (counts.answer_length < counts.reference_length) {
    brevity = std::exp(1 - static_cast<double>(counts.reference_length) /
                               static_cast<double>(counts.answer_length));
  }
  const double value = options.value > 0                        ? options.value
                       : options.smoothing == Smoothing::kFloor ? 0.1
                                                                : 1;
  double sum = 0, halves = 1;
  size_t order = kBleuOrder;
  for (size_t n = 0; n < kBleuOrder; ++n) {
    double matched = static_cast<double>(counts.matched[n]),
           total = static_cast<double>(counts.total[n]);
    if (options.smoothing == Smoothing::kAddK && n > 0) {
      matched += value;
      total += value;
    }
    if (total == 0) {
      if (!options.effective_order) return 0;
      break;
    }
    if (options.effective_order) order = n + 1;
    double precision = matched / total;
    if (matched == 0) {
      if (options.smoothing == Smoothing::kExp) precision = 1 / ((halves *= 2) * total);
      if (options.smoothing == Smoothing::kFloor) precision = value / total;
    }
    if (precision == 0) return 0;
    sum += std::log(precision);
  }
  return brevity * std::exp(sum / static_cast<double>(order));
}

RuleParts MakeBleu(const configs::RewardPartConfig& part) {
  const RuleOptions args(part, {"smooth", "smooth_value", "effective", "reference"});
  const std::string smooth = args.Choice("smooth", {"exp", "floor", "add-k", "none"});
  BleuOptions options;
  options.smoothing = smooth == "exp"     ? Smoothing::kExp
                      : smooth == "floor" ? Smoothing::kFloor
                      : smooth == "add-k" ? Smoothing::kAddK
                                          : Smoothing::kNone;
  if (args.has("smooth_value") && smooth != "floor" && smooth != "add-k") {
    Refuse(part, "smooth_value belongs to smooth=floor and smooth=add-k");
  }
  options.value = args.Number("smooth_value", 0, 1e-9, 1);
  options.effective_order = args.Flag("effective", true);
  const std::string column = args.Text("reference");
  return [=](std::string_view text, const Trajectory&, const Prompt& prompt) {
    std::string why;
    const std::vector<std::string> references = References(prompt, column, &why);
    if (references.empty()) return PartScore::Failed(Failure::kReported, why);
    const std::string_view said = Compared(text, references);
    return PartScore::Of(std::clamp(BleuScore(CountBleu(said, references), options), 0.0, 1.0));
  };
}

}  // namespace plumb::reward
