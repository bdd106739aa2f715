#define PCRE2_CODE_UNIT_WIDTH 8
#include "reward/rules.h"

#include <pcre2.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <unordered_set>

#include "reward/answer.h"
#include "reward/file_digest.h"
#include "reward/math_answer.h"
#include "reward/multiple_choice.h"

namespace plumb::reward {
namespace {

constexpr std::string_view kTags[] = {"<think>", "</think>", "<answer>", "</answer>"};

bool IsSpace(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r' || c == '\f' || c == '\v'; }

std::string_view Trim(std::string_view s) {
  while (!s.empty() && IsSpace(s.front())) s.remove_prefix(1);
  while (!s.empty() && IsSpace(s.back())) s.remove_suffix(1);
  return s;
}

std::vector<std::string_view> Words(std::string_view s) {
  std::vector<std::string_view> words;
  for (size_t i = 0; i < s.size();) {
    while (i < s.size() && IsSpace(s[i])) ++i;
    const size_t begin = i;
    while (i < s.size() && !IsSpace(s[i])) ++i;
    if (i > begin) words.push_back(s.substr(begin, i - begin));
  }
  return words;
}

std::string Lower(std::string_view s) {
  std::string out(s);
  for (char& c : out) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  return out;
}

// Places of the tags that stand exactly once; npos for the others.
std::array<size_t, 4> TagPlaces(std::string_view text) {
  std::array<size_t, 4> at;
  for (size_t i = 0; i < 4; ++i) {
    at[i] = text.find(kTags[i]);
    if (at[i] != std::string_view::npos && text.find(kTags[i], at[i] + 1) != std::string_view::npos) {
      at[i] = std::string_view::npos;
    }
  }
  return at;
}

using Options = std::map<std::string, std::string>;
// One answer's score: completion without end tokens, and the whole trajectory for what else a rule needs.
using RuleBody = std::function<PartScore(std::string_view text, const Trajectory&, const Prompt&)>;

[[noreturn]] void Refuse(const configs::RewardPartConfig& part, const std::string& message) {
  throw Error(ErrorCode::kInvalidArgument, message, "reward part '" + part.name + "' (kind " + part.kind + ")");
}

Options ReadOptions(const configs::RewardPartConfig& part, const std::vector<std::string>& known) {
  Options options;
  for (const std::string& arg : part.args) {
    const size_t equals = arg.find('=');
    const std::string key = arg.substr(0, equals);
    if (equals == std::string::npos || std::find(known.begin(), known.end(), key) == known.end()) {
      std::string list;
      for (const std::string& name : known) list += (list.empty() ? "" : ", ") + name + "=...";
      Refuse(part, "args has '" + arg + "'; " + (list.empty() ? "this kind takes none" : "it takes " + list));
    }
    options[key] = arg.substr(equals + 1);
  }
  return options;
}

bool Flag(const configs::RewardPartConfig& part, const Options& options, const std::string& name) {
  const auto it = options.find(name);
  if (it == options.end() || it->second == "0") return false;
  if (it->second != "1") Refuse(part, name + "=" + it->second + ": say 0 or 1");
  return true;
}

std::vector<std::string> List(const configs::RewardPartConfig& part, const Options& options, const std::string& name) {
  std::vector<std::string> out;
  const auto it = options.find(name);
  if (it != options.end()) {
    for (size_t at = 0; at <= it->second.size();) {
      const size_t comma = std::min(it->second.find(',', at), it->second.size());
      const std::string_view word = Trim(std::string_view(it->second).substr(at, comma - at));
      if (!word.empty()) out.emplace_back(word);
      at = comma + 1;
    }
  }
  if (out.empty()) Refuse(part, "needs args = [\"" + name + "=first,second\"]");
  return out;
}

class Rule : public RewardFunction {
 public:
  Rule(std::string name, std::string digest, RuleBody body)
      : name_(std::move(name)), digest_(std::move(digest)), body_(std::move(body)) {}
  const std::string& name() const override { return name_; }
  const std::string& digest() const override { return digest_; }
  std::vector<PartScore> Score(const TrajectoryGroup& group, Deadline) override {
    std::vector<PartScore> scores;
    scores.reserve(group.trajectories.size());
    for (const Trajectory& trajectory : group.trajectories) {
      scores.push_back(body_(StripEndTokens(trajectory.completion), trajectory, group.lease.prompt));
    }
    return scores;
  }

 private:
  const std::string name_;
  const std::string digest_;
  const RuleBody body_;
};

RuleBody Answer(const configs::RewardPartConfig& part) {
  const Options options = ReadOptions(part, {"fallback"});
  Fallback fallback = Fallback::kNone;
  if (const auto it = options.find("fallback"); it != options.end()) {
    if (it->second == "last_number") {
      fallback = Fallback::kLastNumber;
    } else if (it->second != "none") {
      Refuse(part, "fallback=" + it->second + ": say none or last_number");
    }
  }
  return [fallback](std::string_view text, const Trajectory&, const Prompt& prompt) {
    if (prompt.ground_truth.empty()) {
      return PartScore::Failed(Failure::kReported, "the prompt has no ground truth to compare with");
    }
    const auto answer = ExtractAnswer(text, fallback);
    return PartScore::Of(answer && SameAnswer(*answer, prompt.ground_truth) ? 1 : 0);
  };
}

RuleBody Math(const configs::RewardPartConfig& part) {
  const Options options = ReadOptions(part, {"fallback", "digits"});
  MathFallback fallback = MathFallback::kNone;
  if (const auto it = options.find("fallback"); it != options.end()) {
    if (it->second == "last_number") {
      fallback = MathFallback::kLastNumber;
    } else if (it->second == "last_math") {
      fallback = MathFallback::kLastMath;
    } else if (it->second != "none") {
      Refuse(part, "fallback=" + it->second + ": say none, last_number or last_math");
    }
  }
  int digits = 0;
  if (const auto it = options.find("digits"); it != options.end()) {
    const std::string& text = it->second;
    if (text.empty() || text.size() > 2 || text.find_first_not_of("0123456789") != std::string::npos ||
        (digits = std::stoi(text)) > 15) {
      Refuse(part, "digits=" + text + ": say 0 (exact) to 15");
    }
  }
  return [fallback, digits](std::string_view text, const Trajectory&, const Prompt& prompt) {
    if (prompt.ground_truth.empty()) {
      return PartScore::Failed(Failure::kReported, "the prompt has no ground truth to compare with");
    }
    const auto answer = ExtractMath(text, fallback);
    return PartScore::Of(answer && SameMath(*answer, prompt.ground_truth, digits) ? 1 : 0);
  };
}

RuleBody MultipleChoice(const configs::RewardPartConfig& part) {
  const Options options = ReadOptions(part, {"last", "index_base"});
  char last = 'E';
  if (const auto it = options.find("last"); it != options.end()) {
    if (it->second.size() != 1 || it->second[0] < 'B' || it->second[0] > 'Z') {
      Refuse(part, "last=" + it->second + ": say the last letter that is an option, B to Z");
    }
    last = it->second[0];
  }
  int base = -1;  // a number as the truth is refused
  if (const auto it = options.find("index_base"); it != options.end()) {
    if (it->second != "0" && it->second != "1") Refuse(part, "index_base=" + it->second + ": say 0 or 1");
    base = it->second[0] - '0';
  }
  return [last, base](std::string_view text, const Trajectory&, const Prompt& prompt) {
    const auto choices = ReadChoices(PromptText(prompt), prompt.extra_json);
    const char end = std::max(last, choices.empty() ? 'A' : choices.back().letter);
    const std::string_view truth = Trim(prompt.ground_truth);
    std::optional<char> wanted;
    const bool number = !truth.empty() && truth.size() <= 2 && truth.find_first_not_of("0123456789") == std::string_view::npos;
    if (base >= 0 && number) {
      const int index = std::stoi(std::string(truth)) - base;
      if (index >= 0 && index <= end - 'A') wanted = static_cast<char>('A' + index);
    } else {
      wanted = FindChoice(truth, choices, end);
    }
    if (!wanted) {
      return PartScore::Failed(Failure::kReported, "the ground truth '" + std::string(truth.substr(0, 80)) +
                                                       "' is no letter and no option's text; for a number set index_base");
    }
    const auto found = FindChoice(text, choices, end);
    return PartScore::Of(found == wanted ? 1 : 0);
  };
}

RuleBody Format(const configs::RewardPartConfig& part) {
  const bool prefilled = Flag(part, ReadOptions(part, {"prefilled"}), "prefilled");
  if (part.kind == "format") {
    return [prefilled](std::string_view text, const Trajectory&, const Prompt&) {
      return PartScore::Of(FormatScore(text, prefilled));
    };
  }
  return [prefilled](std::string_view text, const Trajectory& trajectory, const Prompt&) {
    return PartScore::Of(SoftFormatScore(text, prefilled, trajectory.finish == FinishReason::kStop));
  };
}

RuleBody Length(const configs::RewardPartConfig& part) {
  ReadOptions(part, {});
  if (part.target_tokens < 0 || part.max_tokens <= part.target_tokens) {
    Refuse(part, "needs 0 <= target_tokens < max_tokens, got target_tokens = " + std::to_string(part.target_tokens) +
                     " and max_tokens = " + std::to_string(part.max_tokens));
  }
  return [target = part.target_tokens, max = part.max_tokens](std::string_view, const Trajectory& t, const Prompt&) {
    return PartScore::Of(LengthScore(t.completion_length(), target, max));
  };
}

RuleBody Exact(const configs::RewardPartConfig& part) {
  const bool ignore_case = Flag(part, ReadOptions(part, {"ignore_case"}), "ignore_case");
  return [ignore_case](std::string_view text, const Trajectory&, const Prompt& prompt) {
    const std::string_view a = Trim(text), b = Trim(prompt.ground_truth);
    return PartScore::Of((ignore_case ? Lower(a) == Lower(b) : a == b) ? 1 : 0);
  };
}

RuleBody Regex(const configs::RewardPartConfig& part) {
  const Options options = ReadOptions(part, {"pattern"});
  const auto it = options.find("pattern");
  if (it == options.end()) Refuse(part, "needs args = [\"pattern=...\"]");
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* raw = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(it->second.data()), it->second.size(),
                                  PCRE2_UTF | PCRE2_MATCH_INVALID_UTF, &error, &offset, nullptr);
  if (raw == nullptr) {
    PCRE2_UCHAR text[256];
    pcre2_get_error_message(error, text, sizeof text);
    Refuse(part, "pattern does not compile at offset " + std::to_string(offset) + ": " +
                     reinterpret_cast<const char*>(text));
  }
  const std::shared_ptr<pcre2_code> code(raw, pcre2_code_free);
  return [code](std::string_view text, const Trajectory&, const Prompt&) {
    const std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> match(
        pcre2_match_data_create_from_pattern(code.get(), nullptr), pcre2_match_data_free);
    const std::unique_ptr<pcre2_match_context, decltype(&pcre2_match_context_free)> limits(
        pcre2_match_context_create(nullptr), pcre2_match_context_free);
    pcre2_set_match_limit(limits.get(), 1000000);
    pcre2_set_heap_limit(limits.get(), 65536);  // KiB
    const int found = pcre2_match(code.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), 0, 0,
                                  match.get(), limits.get());
    if (found >= 0) return PartScore::Of(1);
    if (found == PCRE2_ERROR_NOMATCH) return PartScore::Of(0);
    PCRE2_UCHAR message[256];
    pcre2_get_error_message(found, message, sizeof message);
    return PartScore::Failed(Failure::kReported,
                             std::string("the pattern gave up: ") + reinterpret_cast<const char*>(message));
  };
}

RuleBody Repetition(const configs::RewardPartConfig& part) {
  const Options options = ReadOptions(part, {"n"});
  int n = 3;
  if (const auto it = options.find("n"); it != options.end()) {
    if (it->second.size() != 1 || it->second[0] < '1' || it->second[0] > '9') Refuse(part, "n has to be 1 to 9");
    n = it->second[0] - '0';
  }
  return [n](std::string_view text, const Trajectory&, const Prompt&) { return PartScore::Of(RepetitionScore(text, n)); };
}

RuleBody Contains(const configs::RewardPartConfig& part) {
  const auto words = List(part, ReadOptions(part, {"words"}), "words");
  return [words](std::string_view text, const Trajectory&, const Prompt&) {
    const auto hits = std::count_if(words.begin(), words.end(),
                                    [&](const std::string& w) { return text.find(w) != std::string_view::npos; });
    return PartScore::Of(static_cast<double>(hits) / static_cast<double>(words.size()));
  };
}

RuleBody Absent(const configs::RewardPartConfig& part) {
  std::vector<std::string> words;
  for (const auto& w : List(part, ReadOptions(part, {"words"}), "words")) words.push_back(Lower(w));
  return [words](std::string_view text, const Trajectory&, const Prompt&) {
    const std::string lower = Lower(text);
    const auto inside = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) || (c & 0x80) || c == '_'; };
    for (const std::string& word : words) {
      for (size_t at = 0; (at = lower.find(word, at)) != std::string::npos; ++at) {
        const size_t end = at + word.size();
        if ((at == 0 || !inside(lower[at - 1])) && (end == lower.size() || !inside(lower[end]))) return PartScore::Of(0);
      }
    }
    return PartScore::Of(1);
  };
}

// Kind, the version of its formula (part of the digest: raise it when a score can change), its maker.
struct Entry {
  const char* kind;
  int version;
  RuleBody (*make)(const configs::RewardPartConfig&);
};
constexpr Entry kRules[] = {
    {"math", 1, Math}, {"multiple_choice", 1, MultipleChoice},
    {"answer", 1, Answer}, {"format", 1, Format},         {"soft_format", 1, Format},
    {"length", 1, Length}, {"exact", 1, Exact},           {"regex", 1, Regex},
    {"repetition", 1, Repetition}, {"contains", 1, Contains}, {"absent", 1, Absent},
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
  const auto words = Words(text);
  const std::unordered_set<std::string_view> different(words.begin(), words.end());
  const double distinct = words.empty() ? 0 : static_cast<double>(different.size()) / static_cast<double>(words.size());
  const bool number = std::any_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
  const auto at = TagPlaces(whole);
  const auto tags = std::count_if(at.begin(), at.end(), [](size_t p) { return p != std::string_view::npos; });
  const bool order = tags == 4 && at[0] < at[1] && at[1] < at[2] && at[2] < at[3];
  return 0.1 * stopped + 0.1 * distinct + 0.1 * number + 0.1 * static_cast<double>(tags) + 0.2 * order;
}

double LengthScore(int64_t tokens, int64_t target_tokens, int64_t max_tokens) {
  if (tokens <= target_tokens) return 1;
  if (tokens >= max_tokens) return 0;
  return static_cast<double>(max_tokens - tokens) / static_cast<double>(max_tokens - target_tokens);
}

double RepetitionScore(std::string_view text, int n) {
  const auto words = Words(text);
  const size_t size = static_cast<size_t>(n);
  if (words.size() < size) return 1;
  // Words are views into one text: an n-gram is compared word by word, spacing ignored.
  std::set<std::vector<std::string_view>> different;
  const size_t total = words.size() - size + 1;
  for (size_t i = 0; i < total; ++i) {
    different.emplace(words.begin() + static_cast<ptrdiff_t>(i), words.begin() + static_cast<ptrdiff_t>(i + size));
  }
  return static_cast<double>(different.size()) / static_cast<double>(total);
}

std::vector<std::string> RuleKinds() {
  std::vector<std::string> kinds;
  for (const Entry& entry : kRules) kinds.emplace_back(entry.kind);
  return kinds;
}

bool IsRuleKind(std::string_view kind) {
  return std::any_of(std::begin(kRules), std::end(kRules), [&](const Entry& e) { return kind == e.kind; });
}

std::unique_ptr<RewardFunction> MakeRule(const configs::RewardPartConfig& part) {
  for (const Entry& entry : kRules) {
    if (part.kind != entry.kind) continue;
    std::string options = std::to_string(part.target_tokens) + "/" + std::to_string(part.max_tokens);
    for (const std::string& arg : part.args) options += "\n" + arg;
    const std::string digest =
        "rule:" + part.kind + "/" + std::to_string(entry.version) + ":" + TextSha256(options).substr(0, 16);
    return std::make_unique<Rule>(part.name.empty() ? part.kind : part.name, digest, entry.make(part));
  }
  Refuse(part, "unknown kind");
}

}  // namespace plumb::reward
