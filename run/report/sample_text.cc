#include "run/report/sample_text.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "run/report/html.h"

namespace plumb::run {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kMaxTextBytes = 6000;  // of one prompt or answer on the page

double Reward(const Json& answer) {
  const Json* reward = FindIn(answer, {"reward"});
  return NumberIn(reward, -std::numeric_limits<double>::infinity());
}

std::vector<const Json*> BestFirst(std::span<const Json> answers) {
  std::vector<const Json*> out;
  for (const Json& answer : answers) out.push_back(&answer);
  std::stable_sort(out.begin(), out.end(),
                   [](const Json* a, const Json* b) { return Reward(*a) > Reward(*b); });
  return out;
}

std::string RewardText(const Json& answer) {
  const Json* reward = FindIn(answer, {"reward"});
  return reward && reward->is_number() ? Format("%.3g", reward->get<double>()) : "unscored";
}

std::string PartText(const std::string& name, const Json& value) {
  return name + " " + (value.is_number() ? Format("%.3g", value.get<double>()) : TextIn(&value));
}

// Why it ended otherwise than by itself, and why it has no score.
std::string EndText(const Json& answer) {
  const std::string finish = TextIn(FindIn(answer, {"finish"}));
  std::string out = finish == "length"    ? "cut at the limit"
                    : finish == "aborted" ? "never generated"
                                          : "";
  if (const std::string why = TextIn(FindIn(answer, {"unscored_reason"})); !why.empty())
    out += (out.empty() ? "" : "; ") + why;
  return out;
}

std::string Said(const char* css, const std::string& text) {
  std::string more;
  const std::string shown = CutText(text, kMaxTextBytes, more);
  return std::string("<div class=\"said ") + css + "\">" + EscapeHtml(shown) + "</div>" +
         (more.empty() ? "" : "<div class=\"soft\">" + more + " in samples.jsonl</div>");
}

// A conversation turn by turn: what the policy said, and what was said to it.
std::string TurnsHtml(const Json& turns) {
  std::string out;
  for (const Json& turn : turns) {
    const bool policy = TextIn(FindIn(turn, {"by"})) == "policy";
    std::string head = policy ? "policy" : "environment";
    if (const Json* reward = FindIn(turn, {"reward"}); reward && reward->is_number())
      head += ", reward " + Format("%.3g", reward->get<double>());
    if (FindIn(turn, {"failed"})) head += ", a call that failed";
    out += "<div class=\"soft\">" + head + "</div>" +
           Said(policy ? "" : "prompt", TextIn(FindIn(turn, {"text"})));
  }
  return out;
}

std::string AnswerHtml(const Json& answer) {
  std::string out = "<div class=\"answer\"><div class=\"score\"><b>" +
                    (FindIn(answer, {"reward"}) ? "reward " + RewardText(answer) : "unscored") +
                    "</b>";
  if (const Json* parts = FindIn(answer, {"parts"}); parts && parts->is_object()) {
    for (const auto& [name, value] : parts->items())
      out += "<span>" + EscapeHtml(PartText(name, value)) + "</span>";
  }
  if (const std::string end = EndText(answer); !end.empty())
    out += "<span class=\"down\">" + EscapeHtml(end) + "</span>";
  const Json* turns = FindIn(answer, {"turns"});
  return out + "</div>" +
         (turns && turns->is_array() ? TurnsHtml(*turns)
                                     : Said("", TextIn(FindIn(answer, {"completion"})))) +
         "</div>\n";
}

std::string GroupHtml(const SampleGroup& group) {
  std::string out = "<article class=\"sample\"><header><span>step <b>" +
                    std::to_string(group.step) + "</b></span>";
  const auto count = static_cast<int64_t>(group.answers.size());
  if (group.answers_in_all > count) {
    out += "<span>" + std::to_string(count) + " of " + std::to_string(group.answers_in_all) +
           " answers, the best and the worst among them</span>";
  }
  std::string more;
  if (const std::string truth =
          CutText(TextIn(FindIn(group.answers.front(), {"ground_truth"})), 300, more);
      !truth.empty()) {
    out += "<span>expected <b>" + EscapeHtml(truth) + (more.empty() ? "" : " ...") + "</b></span>";
  }
  out += "</header>\n" + Said("prompt", TextIn(FindIn(group.answers.front(), {"prompt"}))) +
         "<div class=\"answers\">\n";
  for (const Json* answer : BestFirst(group.answers)) out += AnswerHtml(*answer);
  return out + "</div></article>\n";
}

// A block that shows its text as it is: fenced by more backticks than the text has in a row.
std::string Fenced(const std::string& text) {
  size_t most = 2, run = 0;
  for (const char c : text) {
    run = c == '`' ? run + 1 : 0;
    most = std::max(most, run);
  }
  const std::string fence(most + 1, '`');
  return fence + "text\n" + text + (text.ends_with('\n') ? "" : "\n") + fence + "\n";
}

}  // namespace

std::string SamplesHtml(const RunData& data) {
  if (data.samples.empty()) return "";
  std::string label = "newest first; answers to one prompt side by side, the best first";
  if (const auto shown = static_cast<int64_t>(data.samples.size()); shown < data.sample_groups) {
    label = std::to_string(shown) + " of " + std::to_string(data.sample_groups) +
            " prompts, spread over the run, " + label;
  }
  std::string out =
      "<h2>Samples</h2>\n<div class=\"bar\"><input type=\"search\" id=\"filter\" "
      "placeholder=\"Filter by text\" aria-label=\"Filter samples by text\"><span class=\"soft\" "
      "id=\"shown\">" +
      label + "</span></div>\n<div class=\"samples\">\n";
  for (auto group = data.samples.rbegin(); group != data.samples.rend(); ++group)
    out += GroupHtml(*group);
  return out + "</div>\n";
}

std::string SamplesMarkdown(std::span<const Json> answers) {
  if (answers.empty()) return "";
  const std::vector<const Json*> ordered = BestFirst(answers);
  std::vector<const Json*> shown = {ordered.front()};
  if (ordered.size() > 1) shown.push_back(ordered.back());
  std::string out = "**Prompt**\n\n" + Fenced(TextIn(FindIn(*shown[0], {"prompt"})));
  if (const std::string truth = TextIn(FindIn(*shown[0], {"ground_truth"})); !truth.empty())
    out += "\n**Expected**\n\n" + Fenced(truth);
  if (ordered.size() > shown.size()) {
    out += "\nThe best and the worst of " + std::to_string(ordered.size()) + " answers.\n";
  }
  for (const Json* answer : shown) {
    out += "\n**Reward " + RewardText(*answer) + "**\n\n";
    std::string facts;
    if (const Json* parts = FindIn(*answer, {"parts"}); parts && parts->is_object()) {
      for (const auto& [name, value] : parts->items()) facts += PartText(name, value) + "\n";
    }
    if (const std::string end = EndText(*answer); !end.empty()) facts += end + "\n";
    if (!facts.empty()) out += Fenced(facts) + "\n";
    out += Fenced(TextIn(FindIn(*answer, {"completion"})));
  }
  return out;
}

}  // namespace plumb::run
