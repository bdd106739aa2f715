#define PCRE2_CODE_UNIT_WIDTH 8
#include "reward/rules/rules.h"

#include <pcre2.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <optional>
#include <unordered_set>

#include "common/base/text.h"
#include "common/text/words.h"
#include "reward/maths/answer.h"
#include "reward/maths/math_answer.h"
#include "reward/part/file_digest.h"
#include "reward/part/truth.h"
#include "reward/rules/bleu.h"
#include "reward/rules/coherence.h"
#include "reward/rules/diversity.h"
#include "reward/rules/json_schema.h"
#include "reward/rules/linear_regex.h"
#include "reward/rules/multiple_choice.h"
#include "reward/rules/rouge.h"
#include "reward/rules/rule.h"
#include "reward/rules/safety.h"
#include "reward/rules/token_f1.h"
#include "reward/rules/turn_rewards.h"

namespace plumb::reward {
namespace {

constexpr std::string_view kTags[] = {"<think>", "</think>", "<answer>", "</answer>"};

// Places of the tags that stand exactly once; npos for the others.
std::array<size_t, 4> TagPlaces(std::string_view text) {
  std::array<size_t, 4> at;
  for (size_t i = 0; i < 4; ++i) {
    at[i] = text.find(kTags[i]);
    if (at[i] != std::string_view::npos &&
        text.find(kTags[i], at[i] + 1) != std::string_view::npos) {
      at[i] = std::string_view::npos;
    }
  }
  return at;
}

class Rule : public RewardFunction {
 public:
  Rule(std::string name, std::string digest, RuleParts parts)
      : name_(std::move(name)), digest_(std::move(digest)), parts_(std::move(parts)) {}
  const std::string& name() const override { return name_; }
  const std::string& digest() const override { return digest_; }
  std::vector<PartScore> Score(const TrajectoryGroup& group, Deadline) override {
    std::vector<std::string_view> texts;
    texts.reserve(group.trajectories.size());
    for (const Trajectory& t : group.trajectories) texts.push_back(StripEndTokens(t.completion));
    if (parts_.all) return parts_.all(texts, group);
    std::vector<PartScore> scores;
    scores.reserve(texts.size());
    for (size_t i = 0; i < texts.size(); ++i) {
      scores.push_back(parts_.each(texts[i], group.trajectories[i], group.lease.prompt));
    }
    return scores;
  }

 private:
  const std::string name_;
  const std::string digest_;
  const RuleParts parts_;
};

template <class Same>
bool Any(const std::vector<std::string>& truths, const Same& same) {
  return std::any_of(truths.begin(), truths.end(), same);
}
PartScore OneIf(bool yes) { return PartScore::Of(yes ? 1 : 0); }

// With prefilled=1 an answer begins within the thinking that its prompt opened.
bool StillThinking(bool prefilled, std::string_view text) {
  return prefilled && text.find("</think>") == std::string_view::npos;
}

RuleParts Answer(const configs::RewardPartConfig& part) {
  const RuleOptions options(part, {"fallback", "prefilled"});
  const bool prefilled = options.Flag("prefilled");
  const bool last = options.Choice("fallback", {"none", "last_number"}) == "last_number";
  const Fallback fallback = last ? Fallback::kLastNumber : Fallback::kNone;
  return [fallback, prefilled](std::string_view text, const Trajectory&, const Prompt& prompt) {
    std::string why;
    const auto truths = Truths(prompt, &why, /*quoted=*/true);
    if (truths.empty()) return PartScore::Failed(Failure::kReported, why);
    if (StillThinking(prefilled, text)) return OneIf(false);
    const auto answer = ExtractAnswer(text, fallback);
    return OneIf(answer &&
                 Any(truths, [&](const std::string& t) { return SameAnswer(*answer, t); }));
  };
}

RuleParts Math(const configs::RewardPartConfig& part) {
  const RuleOptions options(part, {"fallback", "digits", "prefilled"});
  const std::string where = options.Choice("fallback", {"none", "last_number", "last_math"});
  const MathFallback fallback = where == "last_number" ? MathFallback::kLastNumber
                                : where == "last_math" ? MathFallback::kLastMath
                                                       : MathFallback::kNone;
  const bool prefilled = options.Flag("prefilled");
  const int digits = static_cast<int>(options.Integer("digits", 0, 0, 15));
  return [fallback, digits, prefilled](std::string_view text, const Trajectory&,
                                       const Prompt& prompt) {
    std::string why;
    const auto truths = Truths(prompt, &why, /*quoted=*/true);
    if (truths.empty()) return PartScore::Failed(Failure::kReported, why);
    if (StillThinking(prefilled, text)) return OneIf(false);
    const auto answer = ExtractMath(text, fallback);
    return OneIf(answer &&
                 Any(truths, [&](const std::string& t) { return SameMath(*answer, t, digits); }));
  };
}

RuleParts MultipleChoice(const configs::RewardPartConfig& part) {
  const RuleOptions options(part, {"last", "index_base", "prefilled"});
  const std::string letter = options.Text("last", "E");
  if (letter.size() != 1 || letter[0] < 'B' || letter[0] > 'Z') {
    Refuse(part, "last=" + letter + ": say the last letter that is an option, B to Z");
  }
  const char last = letter[0];
  const bool prefilled = options.Flag("prefilled");
  // Without a base a number as the truth is refused.
  const int base =
      options.has("index_base") ? static_cast<int>(options.Integer("index_base", 0, 0, 1)) : -1;
  return [last, base, prefilled](std::string_view text, const Trajectory&, const Prompt& prompt) {
    const auto choices = ReadChoices(PromptText(prompt), prompt.extra_json);
    const char end = std::max(last, choices.empty() ? 'A' : choices.back().letter);
    std::string why;
    const auto truths = Truths(prompt, &why, /*quoted=*/true);
    if (truths.empty()) return PartScore::Failed(Failure::kReported, why);
    std::string wanted;  // letters
    for (const std::string& whole : truths) {
      const std::string_view truth = Trim(whole);
      const bool number = !truth.empty() && truth.size() <= 2 &&
                          truth.find_first_not_of("0123456789") == std::string_view::npos;
      std::optional<char> letter;
      if (base >= 0 && number) {
        const int index = std::stoi(std::string(truth)) - base;
        if (index >= 0 && index <= end - 'A') letter = static_cast<char>('A' + index);
      } else {
        letter = FindChoice(truth, choices, end);
      }
      if (!letter) {
        return PartScore::Failed(
            Failure::kReported,
            "the ground truth '" + std::string(truth.substr(0, 80)) +
                "' is no letter and no option's text; for a number set index_base");
      }
      wanted += *letter;
    }
    if (StillThinking(prefilled, text)) return OneIf(false);
    const auto found = FindChoice(text, choices, end);
    return OneIf(found && wanted.find(*found) != std::string::npos);
  };
}

RuleParts Format(const configs::RewardPartConfig& part) {
  const bool prefilled = RuleOptions(part, {"prefilled"}).Flag("prefilled");
  if (part.kind == "format") {
    return [prefilled](std::string_view text, const Trajectory&, const Prompt&) {
      return PartScore::Of(FormatScore(text, prefilled));
    };
  }
  return [prefilled](std::string_view text, const Trajectory& trajectory, const Prompt&) {
    return PartScore::Of(
        SoftFormatScore(text, prefilled, trajectory.finish == FinishReason::kStop));
  };
}

RuleParts Length(const configs::RewardPartConfig& part) {
  RuleOptions(part, {});
  if (part.target_tokens < 0 || part.max_tokens <= part.target_tokens) {
    Refuse(part, "needs 0 <= target_tokens < max_tokens, got target_tokens = " +
                     std::to_string(part.target_tokens) +
                     " and max_tokens = " + std::to_string(part.max_tokens));
  }
  return [target = part.target_tokens, max = part.max_tokens](std::string_view, const Trajectory& t,
                                                              const Prompt&) {
    // A worker that is sent texts has no tokens to count; without segments it does not know where
    // the prompt ends.
    if (t.segments.empty())
      return PartScore::Failed(Failure::kReported,
                               "length counts tokens, and this answer came as text");
    return PartScore::Of(LengthScore(t.policy_length(), target, max));
  };
}

RuleParts Exact(const configs::RewardPartConfig& part) {
  const bool ignore_case = RuleOptions(part, {"ignore_case"}).Flag("ignore_case");
  return [ignore_case](std::string_view text, const Trajectory&, const Prompt& prompt) {
    std::string why;
    const auto truths = Truths(prompt, &why);
    if (truths.empty()) return PartScore::Failed(Failure::kReported, why);
    const std::string_view said = Trim(Compared(text, truths));
    return OneIf(Any(truths, [&](const std::string& t) {
      return ignore_case ? LowerAscii(said) == LowerAscii(Trim(t)) : said == Trim(t);
    }));
  };
}

// Backtracking where linear time is not possible. Each step calls out to a count, which bounds all
// starting places together.
PartScore Backtrack(const pcre2_code* code, std::string_view text) {
  const std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> match(
      pcre2_match_data_create_from_pattern(code, nullptr), pcre2_match_data_free);
  const std::unique_ptr<pcre2_match_context, decltype(&pcre2_match_context_free)> limits(
      pcre2_match_context_create(nullptr), pcre2_match_context_free);
  pcre2_set_match_limit(limits.get(), 1000000);
  pcre2_set_heap_limit(limits.get(), 65536);  // KiB
  int64_t steps = 20000000;                   // about half a second
  pcre2_set_callout(
      limits.get(),
      [](pcre2_callout_block*, void* left) {
        return --*static_cast<int64_t*>(left) < 0 ? PCRE2_ERROR_MATCHLIMIT : 0;
      },
      &steps);
  const int found = pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), 0, 0,
                                match.get(), limits.get());
  if (found >= 0) return PartScore::Of(1);
  if (found == PCRE2_ERROR_NOMATCH) return PartScore::Of(0);
  PCRE2_UCHAR message[256];
  pcre2_get_error_message(found, message, sizeof message);
  return PartScore::Failed(Failure::kReported, std::string("the pattern gave up: ") +
                                                   reinterpret_cast<const char*>(message));
}

RuleParts Regex(const configs::RewardPartConfig& part) {
  const RuleOptions options(part, {"pattern"});
  if (!options.has("pattern")) Refuse(part, "needs args = [\"pattern=...\"]");
  const std::string pattern = options.Text("pattern");
  std::string why;
  const LinearRegex linear = LinearRegex::Compile(pattern, &why);
  if (why.empty()) {
    return [linear](std::string_view text, const Trajectory&, const Prompt&) {
      return PartScore::Of(linear.Find(text) ? 1 : 0);
    };
  }
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* raw = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                  PCRE2_UTF | PCRE2_MATCH_INVALID_UTF | PCRE2_AUTO_CALLOUT, &error,
                                  &offset, nullptr);
  if (raw == nullptr) {
    PCRE2_UCHAR text[256];
    pcre2_get_error_message(error, text, sizeof text);
    Refuse(part, "pattern " + why + "; nor does it compile as PCRE2, at offset " +
                     std::to_string(offset) + ": " + reinterpret_cast<const char*>(text));
  }
  const std::shared_ptr<pcre2_code> code(raw, pcre2_code_free);
  return [code](std::string_view text, const Trajectory&, const Prompt&) {
    return Backtrack(code.get(), text);
  };
}

RuleParts Repetition(const configs::RewardPartConfig& part) {
  const int n = static_cast<int>(RuleOptions(part, {"n"}).Integer("n", 3, 1, 9));
  return [n](std::string_view text, const Trajectory&, const Prompt&) {
    return PartScore::Of(RepetitionScore(text, n));
  };
}

std::vector<std::string> NeededWords(const configs::RewardPartConfig& part) {
  auto words = RuleOptions(part, {"words"}).List("words");
  if (words.empty()) Refuse(part, "needs args = [\"words=first,second\"]");
  return words;
}

RuleParts Contains(const configs::RewardPartConfig& part) {
  return [words = NeededWords(part)](std::string_view text, const Trajectory&, const Prompt&) {
    const auto hits = std::count_if(words.begin(), words.end(), [&](const std::string& w) {
      return text.find(w) != std::string_view::npos;
    });
    return PartScore::Of(static_cast<double>(hits) / static_cast<double>(words.size()));
  };
}

RuleParts Absent(const configs::RewardPartConfig& part) {
  std::vector<std::string> words;
  for (const auto& w : NeededWords(part)) words.push_back(LowerAscii(w));
  return [words](std::string_view text, const Trajectory&, const Prompt&) {
    const std::string lower = LowerAscii(text);
    const auto inside = [](char c) {
      return std::isalnum(static_cast<unsigned char>(c)) || (c & 0x80) || c == '_';
    };
    for (const std::string& word : words) {
      for (size_t at = 0; (at = lower.find(word, at)) != std::string::npos; ++at) {
        const size_t end = at + word.size();
        if ((at == 0 || !inside(lower[at - 1])) && (end == lower.size() || !inside(lower[end])))
          return PartScore::Of(0);
      }
    }
    return PartScore::Of(1);
  };
}

// Kind, the version of its formula (part of the digest: raise it when a score can change), its
// maker.
struct Entry {
  const char* kind;
  int version;
  RuleParts (*make)(const configs::RewardPartConfig&);
};
constexpr Entry kRules[] = {
    {"math", 4, Math},
    {"multiple_choice", 3, MultipleChoice},
    {"answer", 3, Answer},
    {"format", 2, Format},
    {"soft_format", 2, Format},
    {"length", 1, Length},
    {"exact", 3, Exact},
    {"regex", 3, Regex},
    {"repetition", 1, Repetition},
    {"contains", 1, Contains},
    {"absent", 1, Absent},
    {"coherence", 2, MakeCoherence},
    {"distinct", 2, MakeDiversity},
    {"entropy", 2, MakeDiversity},
    {"safety", 2, MakeSafety},
    {"rouge1", 2, MakeRouge},
    {"rouge2", 2, MakeRouge},
    {"rougeL", 2, MakeRouge},
    {"bleu", 2, MakeBleu},
    {"f1", 3, MakeTokenF1},
    {"exact_words", 3, MakeTokenF1},
    {"json_schema", 3, MakeJsonSchema},
    {"environment", 1, MakeTurnRewards},
};

}  // namespace

double FormatScore(std::string_view text, bool prefilled) {
  std::string whole = prefilled ? "<think>" : "";
  whole += text;
  const std::string_view s = Trim(whole);
  const auto at = TagPlaces(s);
  for (size_t place : at) {
    if (place == std::string_view::npos) return 0;
  }
  if (at[0] != 0 || at[3] + kTags[3].size() != s.size()) return 0;
  const size_t think_end = at[1] + kTags[1].size(), answer_begin = at[2] + kTags[2].size();
  if (at[1] < kTags[0].size() || at[2] < think_end || at[3] < answer_begin) return 0;
  if (!Trim(s.substr(think_end, at[2] - think_end)).empty()) return 0;
  if (Trim(s.substr(kTags[0].size(), at[1] - kTags[0].size())).empty()) return 0;
  return Trim(s.substr(answer_begin, at[3] - answer_begin)).empty() ? 0 : 1;
}

double SoftFormatScore(std::string_view text, bool prefilled, bool stopped) {
  if (FormatScore(text, prefilled) == 1) return 1;
  std::string whole = prefilled ? "<think>" : "";
  whole += text;
  const auto words = SpacedWords(text);
  const std::unordered_set<std::string_view> different(words.begin(), words.end());
  const double distinct =
      words.empty() ? 0 : static_cast<double>(different.size()) / static_cast<double>(words.size());
  const bool number =
      std::any_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
  const auto at = TagPlaces(whole);
  const auto tags =
      std::count_if(at.begin(), at.end(), [](size_t p) { return p != std::string_view::npos; });
  const bool order = tags == 4 && at[0] < at[1] && at[1] < at[2] && at[2] < at[3];
  return 0.1 * stopped + 0.1 * distinct + 0.1 * number + 0.1 * static_cast<double>(tags) +
         0.2 * order;
}

double LengthScore(int64_t tokens, int64_t target_tokens, int64_t max_tokens) {
  if (tokens <= target_tokens) return 1;
  if (tokens >= max_tokens) return 0;
  return static_cast<double>(max_tokens - tokens) / static_cast<double>(max_tokens - target_tokens);
}

double RepetitionScore(std::string_view text, int n) {
  const auto words = SpacedWords(text);
  if (words.size() < static_cast<size_t>(n)) return 1;
  Vocabulary vocabulary;
  NgramTable table(n);
  const size_t total = table.Add(vocabulary.Ids(words)).size();
  return static_cast<double>(table.size()) / static_cast<double>(total);
}

std::vector<std::string> RuleKinds() {
  std::vector<std::string> kinds;
  for (const Entry& entry : kRules) kinds.emplace_back(entry.kind);
  return kinds;
}

bool IsRuleKind(std::string_view kind) {
  return std::any_of(std::begin(kRules), std::end(kRules),
                     [&](const Entry& e) { return kind == e.kind; });
}

bool ComparesWithTruth(const configs::RewardPartConfig& part) {
  constexpr std::string_view kTruth[] = {"math",   "multiple_choice", "answer", "exact",
                                         "rouge1", "rouge2",          "rougeL", "bleu",
                                         "f1",     "exact_words"};
  return std::find(std::begin(kTruth), std::end(kTruth), part.kind) != std::end(kTruth) &&
         std::none_of(part.args.begin(), part.args.end(),
                      [](const std::string& arg) { return arg.starts_with("reference="); });
}

std::unique_ptr<RewardFunction> MakeRule(const configs::RewardPartConfig& part) {
  for (const Entry& entry : kRules) {
    if (part.kind != entry.kind) continue;
    std::string options =
        std::to_string(part.target_tokens) + "/" + std::to_string(part.max_tokens);
    for (const std::string& arg : part.args) options += "\n" + arg;
    RuleParts parts = entry.make(part);
    if (!parts.content.empty()) options += "\n\n" + parts.content;
    const std::string digest = "rule:" + part.kind + "/" + std::to_string(entry.version) + ":" +
                               TextSha256(options).substr(0, 16);
    return std::make_unique<Rule>(part.name.empty() ? part.kind : part.name, digest,
                                  std::move(parts));
  }
  Refuse(part, "unknown kind");
}

}  // namespace plumb::reward
