#include "run/report/headline.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "common/base/wilson_interval.h"
#include "run/report/html.h"
#include "run/report/run_charts.h"

namespace plumb::run {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kSpace[] = "\u00a0";

std::string LastName(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path.substr(path.rfind('/') + 1);
}

std::string ModelText(const RecipeValues& recipe) {
  std::string model = LastName(TextOf(recipe, "model.path"));
  if (model.empty()) {
    const double layers = NumberOf(recipe, "model.layers", 0),
                 hidden = NumberOf(recipe, "model.hidden", 0);
    if (layers <= 0) return "";
    model = "new model of " + Format("%.0f", layers) + (layers == 1 ? " layer" : " layers") +
            " \u00d7 " + Format("%.0f", hidden);
  }
  if (TextOf(recipe, "policy.adapter") == "lora") model += " + LoRA";
  return model;
}

std::string AlgorithmText(const RecipeValues& recipe) {
  const std::string name = TextOf(recipe, "algorithm.name"),
                    loss = TextOf(recipe, "preference.loss");
  return name == "dpo" && !loss.empty() && loss != "sigmoid" ? name + " (" + loss + ")" : name;
}

std::string Tile(const std::string& value, const std::string& label, const char* css = "tile") {
  return "<div class=\"" + std::string(css) + "\"><b>" + value + "</b><span>" + label +
         "</span></div>\n";
}

std::string Gain(double change, const char* format) {
  return std::string("<span class=\"") + (change >= 0 ? "up" : "down") + "\">" +
         Format(format, change) + "</span>";
}

// Offline runs evaluate pairs, demonstrations or judged answers; the others ask questions.
bool HasColumn(const RunData& data, const char* name) { return data.columns.contains(name); }

std::string AccuracyTile(const RunData& data) {
  const Json* before = FindIn(data.summary, {"eval", "before"});
  const Json* after = FindIn(data.summary, {"eval", "after"});
  if (!before && !after) return "";
  const double samples = std::max(1.0, NumberOf(data.recipe, "eval.samples", 1));
  bool interval = false;
  const auto share = [&](const Json* e) {
    if (!e) return std::string("?");
    const Json* known = FindIn(*e, {"accuracy"});
    if (!known || !known->is_number()) return std::string("-");  // no answer had a score
    const double right = NumberIn(known, 0), error = AccuracyError(*e);
    std::string text = Format("%.1f", 100 * right) + kSpace;
    // All or none: a standard error of 0 would say that few answers leave no doubt.
    if (error > 0 || (right > 0 && right < 1))
      return text + "\u00b1" + kSpace + Format("%.1f", 100 * error);
    interval = true;
    const auto [low, high] = WilsonInterval(right, NumberIn(FindIn(*e, {"answers"}), 0) / samples);
    return text + "(" + Format("%.1f", 100 * low) + "\u2013" + Format("%.1f", 100 * high) + ")";
  };
  const std::string shares = share(before) + " \u2192 " + share(after);
  const bool pairs = HasColumn(data, "dpo/loss") || HasColumn(data, "rm/loss"),
             judged = pairs && TextOf(data.recipe, "preference.loss") == "kto" &&
                      !HasColumn(data, "rm/loss");
  std::string label = judged  ? "held-out answers judged right"
                      : pairs ? "held-out pairs ranked right (equal rewards count as half)"
                              : "held-out accuracy";
  label += " before and after, \u00b1 standard error";
  if (interval) label += " (of all or none: Wilson's interval at 95 %)";
  const auto known = [](const Json* e) {
    const Json* accuracy = e ? FindIn(*e, {"accuracy"}) : nullptr;
    return accuracy && accuracy->is_number();
  };
  if (known(before) && known(after)) {
    label += ", " + Gain(100 * (NumberIn(FindIn(*after, {"accuracy"}), 0) -
                                NumberIn(FindIn(*before, {"accuracy"}), 0)),
                         "%+.1f points");
  }
  const Json& either = after ? *after : *before;
  label += "<br>" + Grouped(NumberIn(FindIn(either, {"answers"}), 0)) +
           (judged || !pairs ? " answers" : " pairs");
  const auto both = [&](const char* name) {
    return (before ? NumberIn(FindIn(*before, {name}), 0) : 0) +
           (after ? NumberIn(FindIn(*after, {name}), 0) : 0);
  };
  if (const double unscored = both("unscored"); unscored > 0)
    label += ", " + Grouped(unscored) + " without a score" +
             (known(before) || known(after) ? " count as not solved" : "");
  if (const double aborted = both("aborted"); aborted > 0)
    label += ", " + Grouped(aborted) + " of them never generated";
  return Tile(shares + kSpace + "%", label, "tile wide");
}

// Demonstrations have a loss to go by, nothing that is right or wrong.
std::string LossTile(const RunData& data) {
  const Json* before = FindIn(data.summary, {"eval", "before", "loss"});
  const Json* after = FindIn(data.summary, {"eval", "after", "loss"});
  if (!before && !after) return "";
  const auto loss = [](const Json* v) { return v ? Format("%.3f", NumberIn(v, 0)) : "?"; };
  const auto perplexity = [](const Json* v) {
    return v ? Format("%.4g", std::exp(NumberIn(v, 0))) : "?";
  };
  std::string label = "held-out loss before and after, nats a token<br>perplexity " +
                      perplexity(before) + " \u2192 " + perplexity(after);
  return Tile(loss(before) + " \u2192 " + loss(after), label, "tile wide");
}

// Mean reward of the first and the last tenth of the steps: what an evaluation would cost time for.
std::string RewardTile(const RunData& data) {
  const auto found = data.columns.find("reward/mean");
  if (found == data.columns.end()) return "";
  std::vector<double> values;
  for (const double v : found->second.value) {
    if (std::isfinite(v)) values.push_back(v);
  }
  if (values.size() < 2) return "";
  const size_t tenth = std::max<size_t>(1, values.size() / 10);
  double first = 0, last = 0;
  for (size_t i = 0; i < tenth; ++i) {
    first += values[i] / static_cast<double>(tenth);
    last += values[values.size() - 1 - i] / static_cast<double>(tenth);
  }
  return Tile(Format("%.3g", first) + " \u2192 " + Format("%.3g", last),
              tenth == 1 ? "mean reward of the first and the last step"
                         : "mean reward of the first and the last " +
                               Grouped(static_cast<double>(tenth)) + " steps",
              "tile wide");
}

std::string TroubleTiles(const Json& summary) {
  std::string out;
  if (const double skipped = NumberIn(FindIn(summary, {"skipped_updates"}), 0); skipped > 0)
    out += Tile("<span class=\"down\">" + Grouped(skipped) + "</span>", "updates skipped");
  double dropped = 0;
  if (const Json* d = FindIn(summary, {"dropped"})) {
    // "trajectories" are their answers
    for (const auto& [name, count] : d->items())
      dropped += name == "trajectories" ? 0 : NumberIn(&count, 0);
  }
  if (dropped > 0) out += Tile(Grouped(dropped), "groups dropped, see Counters");
  const double answers = NumberIn(FindIn(summary, {"unscored", "answers"}), 0),
               never = NumberIn(FindIn(summary, {"unscored", "never_generated"}), 0);
  if (answers > 0) {
    out += Tile(Grouped(answers),
                "answers without a score" +
                    (never > 0 ? ", " + Grouped(never) + " never generated" : std::string()));
  }
  return out;
}

}  // namespace

std::string HeadlineHtml(const RunData& data) {
  std::vector<std::string> words;
  const auto add = [&](const std::string& text) {
    if (!text.empty()) words.push_back(EscapeHtml(ValidUtf8(text)));
  };
  if (const std::string name = AlgorithmText(data.recipe); !name.empty())
    words.push_back("<b>" + EscapeHtml(name) + "</b>");
  if (const std::string model = ModelText(data.recipe); !model.empty())
    words.push_back("<b>" + EscapeHtml(ValidUtf8(model)) + "</b>");
  add(LastName(TextIn(FindIn(data.identity, {"recipe"}))));
  add(DateText(NumberIn(FindIn(data.identity, {"began_s"}), data.first_wall_s)));
  std::string plumb = "Plumb";
  if (const std::string version = TextIn(FindIn(data.identity, {"version"})); !version.empty())
    plumb += " " + version + " (" + TextIn(FindIn(data.identity, {"commit"})) + ")";
  add(plumb);
  std::string out = "<p class=\"headline\">";
  for (size_t i = 0; i < words.size(); ++i) out += (i ? " \u00b7 " : "") + words[i];
  return out + "</p>\n";
}

std::string TilesHtml(const RunData& data) {
  std::string out = "<div class=\"tiles\">\n";
  out += HasColumn(data, "sft/loss") ? LossTile(data) : AccuracyTile(data) + RewardTile(data);
  const Json& s = data.summary;
  if (s.is_object()) {
    const double steps = NumberIn(FindIn(s, {"steps"}), 0),
                 wanted = NumberIn(FindIn(s, {"wanted_steps"}), steps);
    out += Tile(Grouped(steps), steps < wanted ? "of " + Grouped(wanted) + " steps" : "steps");
    out += Tile(DurationText(NumberIn(FindIn(s, {"wall_s"}), 0)), "wall time");
    out += Tile(Grouped(NumberIn(FindIn(s, {"tokens"}), 0)), "tokens trained on");
    out += TroubleTiles(s);
  } else if (data.last_step >= 0) {
    const double wanted = NumberOf(data.recipe, "run.steps", 0);
    out += Tile(Grouped(static_cast<double>(data.last_step + 1)),
                "steps so far" + (wanted > 0 ? ", of " + Grouped(wanted) : std::string()));
  }
  return out + "</div>\n";
}

std::string FactsHtml(const RunData& data) {
  std::string out = "<dl class=\"facts\">";
  const auto fact = [&](const char* name, const std::string& value, bool mono) {
    if (value.empty()) return;
    out += std::string("<dt>") + name + "</dt><dd" + (mono ? " class=\"mono\">" : ">") +
           EscapeHtml(value) + "</dd>\n";
  };
  const Json& s = data.summary;
  if (const Json* sft = FindIn(s, {"sft"})) {
    fact("warm start",
         Grouped(NumberIn(FindIn(*sft, {"steps"}), 0)) + " steps, held-out loss " +
             Format("%.4f", NumberIn(FindIn(*sft, {"heldout_first"}), 0)) + " to " +
             Format("%.4f", NumberIn(FindIn(*sft, {"heldout_last"}), 0)) + " nats a token",
         false);
  }
  fact("policy digest", TextIn(FindIn(s, {"policy_digest"})), true);
  fact("weights sha256", TextIn(FindIn(s, {"weights_sha256"})), true);
  fact("optimizer sha256", TextIn(FindIn(s, {"optimizer_sha256"})), true);
  return out + "</dl>\n";
}

}  // namespace plumb::run
