#include "replay/datasets/rows/tiny_texts.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <set>
#include <string_view>
#include <utility>

#include "common/base/error.h"
#include "common/base/rng.h"

namespace plumb::replay {
namespace {

// Streams of the seed, a set each.
constexpr uint64_t kSplitStream = 0x717E, kTextStream = 0x717F, kPairStream = 0x7180,
                   kOrderStream = 0x7190;
constexpr uint32_t kWrongOneIn = 6, kRudeOneIn = 6;  // of the dialogues

// Names have four letters and more, so that rules which leave out short words see them.
struct Animal {
  std::string_view name;
  std::array<std::string_view, 3> facts;  // food, home, colour
};
constexpr std::array<Animal, 16> kAnimals = {{
    {"horse", {"hay", "stable", "brown"}},
    {"sheep", {"grass", "meadow", "white"}},
    {"tiger", {"meat", "jungle", "orange"}},
    {"rabbit", {"carrots", "burrow", "grey"}},
    {"snake", {"eggs", "desert", "green"}},
    {"mouse", {"cheese", "attic", "grey"}},
    {"duck", {"bread", "pond", "yellow"}},
    {"frog", {"flies", "swamp", "green"}},
    {"lion", {"zebras", "savanna", "golden"}},
    {"bear", {"honey", "cave", "brown"}},
    {"wolf", {"lambs", "forest", "silver"}},
    {"goat", {"leaves", "mountains", "black"}},
    {"eagle", {"fish", "cliffs", "golden"}},
    {"whale", {"shrimp", "ocean", "blue"}},
    {"monkey", {"bananas", "trees", "red"}},
    {"chicken", {"corn", "coop", "white"}},
}};
constexpr std::array<std::string_view, 3> kKinds = {"food", "home", "colour"};
constexpr uint32_t kWays = 6, kForms = 3;
// "#": the animal.
constexpr std::array<std::array<std::string_view, kWays>, 3> kQuestions = {{
    {"What does the # eat?", "Tell me what the # eats.", "Which food does the # like?",
     "What is the food of the #?", "The # is hungry. What does it eat?", "Name what a # eats."},
    {"Where does the # live?", "Tell me where the # lives.", "Which place is home to the #?",
     "What is the home of the #?", "The # goes home. Where is that?", "Name where a # lives."},
    {"What colour is the #?", "Tell me the colour of the #.", "Which colour does the # have?",
     "What is the colour of the #?", "The # has a coat. Of which colour?",
     "Name the colour of a #."},
}};
// "#": the animal, "*": the fact.
constexpr std::array<std::array<std::string_view, kForms>, 3> kAnswers = {{
    {"The # eats *.", "The food of the # is *.", "A # likes to eat *."},
    {"The # lives in the *.", "The home of the # is the *.", "A # sleeps in the *."},
    {"The # is *.", "The colour of the # is *.", "A # has a * coat."},
}};

std::string Filled(std::string_view pattern, std::string_view animal, std::string_view fact = {}) {
  std::string out;
  for (const char c : pattern) {
    if (c == '#') out += animal;
    else if (c == '*') out += fact;
    else out += c;
  }
  return out;
}

struct Question {
  uint32_t animal = 0, kind = 0, way = 0;
  std::string text() const { return Filled(kQuestions[kind][way], kAnimals[animal].name); }
  std::string_view fact() const { return kAnimals[animal].facts[kind]; }
};

struct Questions {
  std::vector<Question> train, heldout;
};

Questions Split(uint64_t seed) {
  RandomStream random(seed, kSplitStream);
  Questions out;
  for (uint32_t animal = 0; animal < kAnimals.size(); ++animal) {
    for (uint32_t kind = 0; kind < kKinds.size(); ++kind) {
      const uint32_t away = random.NextBelow(kWays);
      for (uint32_t way = 0; way < kWays; ++way)
        (way == away ? out.heldout : out.train).push_back({animal, kind, way});
    }
  }
  return out;
}

uint32_t Below(RandomStream& random, size_t n) {
  return random.NextBelow(static_cast<uint32_t>(n));
}

// The fact of this kind of another animal, which is not this one's.
std::string_view WrongFact(const Question& q, RandomStream& random) {
  while (true) {
    const std::string_view fact = kAnimals[Below(random, kAnimals.size())].facts[q.kind];
    if (fact != q.fact()) return fact;
  }
}

std::string Answer(const Question& q, std::string_view fact, bool rude, RandomStream& random) {
  const std::string animal = (rude ? "silly " : "") + std::string(kAnimals[q.animal].name);
  return Filled(kAnswers[q.kind][Below(random, kForms)], animal, fact) + " <answer>" +
         std::string(fact) + "</answer>";
}

std::string Text(RandomStream& random) {
  const Animal& animal = kAnimals[Below(random, kAnimals.size())];
  const uint32_t first = Below(random, kKinds.size());
  std::string out;
  for (uint32_t i = 0; i < kKinds.size(); ++i) {
    const uint32_t kind = (first + i) % kKinds.size();
    out += (i == 0 ? "" : " ") +
           Filled(kAnswers[kind][Below(random, kForms)], animal.name, animal.facts[kind]);
  }
  return out;
}

std::string Quoted(std::string_view word) { return "\"" + std::string(word) + "\""; }

std::string Code(RandomStream& random) {
  const uint32_t a = Below(random, kAnimals.size()),
                 b = (a + 1 + Below(random, kAnimals.size() - 1)) % kAnimals.size(),
                 kind = Below(random, kKinds.size());
  const Animal &x = kAnimals[a], &y = kAnimals[b];
  const std::string name(kKinds[kind]);
  switch (Below(random, 3)) {
    case 0:
      return "def " + name + "(animal):\n  return {" + Quoted(x.name) + ": " +
             Quoted(x.facts[kind]) + ", " + Quoted(y.name) + ": " + Quoted(y.facts[kind]) +
             "}[animal]";
    case 1:
      return name + " = {}\n" + name + "[" + Quoted(x.name) + "] = " + Quoted(x.facts[kind]) +
             "\nprint(" + name + ".get(" + Quoted(x.name) + "))";
    default:
      return name + "s = [(" + Quoted(x.name) + ", " + Quoted(x.facts[kind]) + "), (" +
             Quoted(y.name) + ", " + Quoted(y.facts[kind]) + ")]";
  }
}

// The claim of every result on held-out questions, checked from the texts themselves.
template <class Rows, class TextOf>
void CheckApart(const Questions& questions, const Rows& rows, size_t trained,
                const TextOf& text_of) {
  std::set<std::string> heldout;
  for (const Question& q : questions.heldout) heldout.insert(q.text());
  for (size_t i = 0; i < rows.size(); ++i) {
    const std::string& text = text_of(rows[i]);
    if (text.empty()) continue;  // asks nothing
    PLUMB_CHECK(heldout.contains(text) == (i >= trained), "question in the wrong set: " + text);
  }
}

std::pair<size_t, size_t> Sizes(const TinyTextOptions& o) {
  const int64_t rows = o.rows > 0 ? o.rows : kTinyTextRows;
  if (o.heldout < 0 || o.heldout > rows) {
    throw Error(ErrorCode::kInvalidArgument,
                "of " + std::to_string(rows) + " generated rows " + std::to_string(o.heldout) +
                    " cannot be held out",
                kTinyTexts);
  }
  return {static_cast<size_t>(rows), static_cast<size_t>(rows - o.heldout)};
}

}  // namespace

std::vector<TextDemonstration> TinyDemonstrations(const TinyTextOptions& options) {
  const auto [rows, trained] = Sizes(options);
  const Questions questions = Split(options.seed);
  RandomStream random(options.seed, kTextStream);
  std::vector<TextDemonstration> out;
  for (size_t i = 0; i < rows; ++i) {
    TextDemonstration d{.row = i};
    const size_t source = i % 3;
    if (source == 0) {
      d.completion = Text(random);
    } else if (source == 1) {
      d.completion = Code(random);
    } else {
      const auto& from = i < trained ? questions.train : questions.heldout;
      const Question& q = from[Below(random, from.size())];
      const bool wrong = random.NextBelow(kWrongOneIn) == 0;
      const bool rude = random.NextBelow(kRudeOneIn) == 0;
      d.prompt = q.text();
      d.completion = Answer(q, wrong ? WrongFact(q, random) : q.fact(), rude, random);
    }
    static constexpr std::array<const char*, 3> kSources = {"text", "code", "dialogue"};
    d.columns_json = nlohmann::json{{"source", kSources[source]}}.dump();
    out.push_back(std::move(d));
  }
  CheckApart(questions, out, trained, [](const TextDemonstration& d) { return d.prompt; });
  return out;
}

std::vector<PreferenceRecord> TinyPairs(const TinyTextOptions& options, uint64_t draw) {
  const auto [rows, trained] = Sizes(options);
  const Questions questions = Split(options.seed);
  RandomStream random(options.seed, kPairStream + draw);
  std::vector<PreferenceRecord> out;
  for (size_t i = 0; i < rows; ++i) {
    const auto& from = i < trained ? questions.train : questions.heldout;
    const Question& q = from[Below(random, from.size())];
    PreferenceRecord record;
    record.prompt_text = q.text();
    const std::string better = Answer(q, q.fact(), /*rude=*/false, random);
    std::string worse;
    switch (random.NextBelow(4)) {
      case 0:
      case 1: worse = Answer(q, WrongFact(q, random), /*rude=*/false, random); break;
      case 2: worse = Answer(q, q.fact(), /*rude=*/true, random); break;
      default: {  // says nothing of the question
        Question other = q;
        other.animal = (q.animal + 1 + Below(random, kAnimals.size() - 1)) % kAnimals.size();
        worse = Answer(other, other.fact(), /*rude=*/false, random);
      }
    }
    record.chosen = {{.role = "assistant", .content = better}};
    record.rejected = {{.role = "assistant", .content = worse}};
    out.push_back(std::move(record));
  }
  CheckApart(questions, out, trained, [](const PreferenceRecord& r) { return r.prompt_text; });
  return out;
}

std::vector<Prompt> TinyPrompts(uint64_t seed, bool heldout, int64_t limit) {
  const Questions questions = Split(seed);
  std::vector<Question> from = heldout ? questions.heldout : questions.train;
  RandomStream random(seed, kOrderStream + (heldout ? 1 : 0));
  for (size_t i = from.size(); i > 1; --i) std::swap(from[i - 1], from[Below(random, i)]);
  if (limit > 0 && std::ssize(from) > limit) from.resize(static_cast<size_t>(limit));
  std::vector<Prompt> out;
  for (const Question& q : from) {
    Prompt prompt;
    prompt.dataset = heldout ? "eval" : "train";
    prompt.row = out.size();
    prompt.text = q.text();
    prompt.ground_truth = std::string(q.fact());
    out.push_back(std::move(prompt));
  }
  CheckApart(questions, out, heldout ? 0 : out.size(), [](const Prompt& p) { return p.text; });
  return out;
}

}  // namespace plumb::replay
