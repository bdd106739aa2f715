#include "run/board/board_api.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <utility>

#include "common/base/numbers/number_text.h"
#include "common/record/json_text.h"

namespace plumb::run {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kMaxKeys = 64, kMaxPoints = 20'000, kDefaultPoints = 1000;
constexpr size_t kMaxSteps = 20'000, kMaxPrompts = 500, kMaxAnswers = 512;
constexpr size_t kMaxHoles = 100;   // named
constexpr size_t kMaxNewRows = 50;  // more at once are loaded as curves

BoardReply Problem(int status, const std::string& what) {
  return {status, DumpJson({{"error", what}})};
}

Json Finite(double value) { return std::isfinite(value) ? Json(value) : Json(); }

double NowS() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

void Append(std::string& out, double value) {
  char digits[32];
  out.append(digits, std::to_chars(digits, digits + sizeof digits, value).ptr);
}

void Append(std::string& out, float value) {
  char digits[32];
  if (std::isfinite(value))
    out.append(digits, std::to_chars(digits, digits + sizeof digits, value).ptr);
  else out += "null";
}

template <class Number>
void AppendList(std::string& out, const char* name, const std::vector<Number>& numbers) {
  ((out += '"') += name) += "\":[";
  for (size_t i = 0; i < numbers.size(); ++i) {
    if (i > 0) out += ',';
    Append(out, numbers[i]);
  }
  out += ']';
}

// The first of these that the run has.
const MetricTable::Value* FirstOf(const RunView::Glance& glance,
                                  std::initializer_list<std::string_view> names) {
  for (const std::string_view name : names) {
    const auto found = glance.newest.find(name);
    if (found != glance.newest.end() && found->second.step >= 0) return &found->second;
  }
  return nullptr;
}

Json Line(const std::string& name, const RunView::Glance& glance) {
  Json line = {{"name", name},           {"algorithm", glance.algorithm},
               {"model", glance.model},  {"state", NameOf(glance.state)},
               {"step", glance.step},    {"steps", glance.steps},
               {"wall_s", glance.wall_s}};
  if (glance.state == RunState::kFailed && !glance.reason.empty()) line["reason"] = glance.reason;
  const auto put = [&](const char* key, const MetricTable::Value* value) {
    line[key] = value == nullptr ? Json() : Finite(value->value);
  };
  put("reward", FirstOf(glance, {"reward/mean"}));
  put("margin", FirstOf(glance, {"dpo/margin", "rm/margin"}));
  put("loss", FirstOf(glance, {"dpo/loss", "rm/loss", "sft/loss", "policy/loss"}));
  if (glance.accuracy_after) line["accuracy"] = Finite(*glance.accuracy_after);
  else put("accuracy", FirstOf(glance, {"eval/accuracy", "dpo/accuracy", "rm/accuracy"}));
  return line;
}

std::optional<uint64_t> NumberIn(const Query& query, const std::string& key, bool& bad) {
  const auto found = query.find(key);
  if (found == query.end()) return std::nullopt;
  const auto number = ParseNumber<uint64_t>(found->second);
  bad = bad || !number;
  return number;
}

BoardReply List(RunCatalog& catalog) {
  Json list = Json::array();
  for (const auto& run : catalog.Runs()) list.push_back(Line(run->name(), run->Look()));
  return {200, DumpJson({{"now_s", NowS()}, {"runs", list}, {"left_out", catalog.left_out()}})};
}

BoardReply Facts(RunView& run) {
  Json out = Line(run.name(), run.Look());
  run.WithMetrics([&](const MetricTable& metrics, const RunFacts& facts) {
    Json values = Json::object();
    for (const auto& [name, value] : metrics.Newest()) {
      values[name] = value.step < 0 ? Json{{"value", nullptr}, {"step", nullptr}}
                                    : Json{{"value", Finite(value.value)}, {"step", value.step}};
    }
    out["now_s"] = NowS();
    out["revision"] = metrics.revision();
    out["rows"] = metrics.rows();
    out["every"] = metrics.stride();
    out["unreadable_lines"] = metrics.unreadable();
    const MissingSteps& missing = metrics.missing();
    Json holes = Json::array();
    for (size_t i = 0; i < std::min(kMaxHoles, missing.holes().size()); ++i)
      holes.push_back({missing.holes()[i].first, missing.holes()[i].second});
    out["missing"] = {{"steps", missing.count()}, {"holes", holes}, {"text", missing.Text()}};
    out["tokens"] = metrics.tokens();
    out["seconds"] = metrics.seconds();
    out["pace_s"] = metrics.Pace();
    out["values"] = std::move(values);
    out["summary"] = facts.summary();
  });
  return {200, DumpJson(out)};
}

BoardReply Series(RunView& run, const Query& query) {
  bool bad = false;
  const size_t points =
      std::min<uint64_t>(NumberIn(query, "points", bad).value_or(kDefaultPoints), kMaxPoints);
  XAxis axis = XAxis::kStep;
  if (const auto x = query.find("x"); x != query.end()) {
    if (x->second == "tokens") axis = XAxis::kTokens;
    else if (x->second == "time") axis = XAxis::kTime;
    else if (x->second != "step") bad = true;
  }
  if (bad || points == 0)
    return Problem(400, "points is a number above 0, x is step, tokens or time");
  std::string out;
  bool too_many = false;
  run.WithMetrics([&](const MetricTable& metrics, const RunFacts&) {
    std::vector<std::string> keys;
    const auto [first, last] = query.equal_range("keys");
    for (auto at = first; at != last; ++at) {
      std::string_view rest = at->second;
      if (metrics.Newest().contains(rest)) {  // also one with a comma in its name
        keys.emplace_back(rest);
        continue;
      }
      while (!rest.empty()) {
        const size_t comma = std::min(rest.find(','), rest.size());
        if (comma > 0) keys.emplace_back(rest.substr(0, comma));
        rest.remove_prefix(std::min(rest.size(), comma + 1));
      }
    }
    if ((too_many = keys.size() > kMaxKeys)) return;
    out = "{\"run\":" + DumpJson(run.name()) +
          ",\"revision\":" + std::to_string(metrics.revision()) +
          ",\"last_step\":" + std::to_string(metrics.last_step()) +
          ",\"rows\":" + std::to_string(metrics.rows()) +
          ",\"every\":" + std::to_string(metrics.stride()) + ",\"series\":{";
    bool begun = false;
    for (const std::string& key : keys) {
      const Curve curve = metrics.CurveOf(key, axis, points);
      if (begun) out += ',';
      begun = true;
      out += DumpJson(key) + ":{";
      AppendList(out, "x", curve.x);
      out += ',';
      AppendList(out, "mean", curve.mean);
      if (curve.low != curve.mean || curve.high != curve.mean) {  // buckets of several steps
        out += ',';
        AppendList(out, "min", curve.low);
        out += ',';
        AppendList(out, "max", curve.high);
      }
      out += '}';
    }
    out += "}}";
  });
  if (too_many) return Problem(400, "at most " + std::to_string(kMaxKeys) + " keys at once");
  return {200, std::move(out)};
}

BoardReply Samples(RunView& run, const Query& query) {
  bool bad = false;
  const auto step = NumberIn(query, "step", bad), prompt = NumberIn(query, "prompt", bad);
  if (bad) return Problem(400, "step and prompt are numbers");
  Json out;
  run.WithSamples([&](const SampleTable& samples) {
    out = {{"answers", samples.answers()},
           {"left_out", samples.left_out()},
           {"unreadable_lines", samples.unreadable()}};
    if (step || prompt) {
      std::optional<int64_t> wanted;
      if (step) wanted = static_cast<int64_t>(std::min<uint64_t>(*step, INT64_MAX));
      out["groups"] = samples.Groups(wanted, prompt, kMaxAnswers);
      return;
    }
    out["steps"] = samples.Steps(kMaxSteps);
    Json prompts = Json::array();
    for (const auto& seen : samples.Prompts(kMaxPrompts)) {
      // a number beyond 2^53 is no number in a browser
      prompts.push_back({{"prompt_id", std::to_string(seen.prompt)},
                         {"begins", seen.begins},
                         {"steps", seen.steps}});
    }
    out["prompts"] = std::move(prompts);
  });
  return {200, DumpJson(out)};
}

BoardReply Recipe(RunView& run) {
  Json out;
  run.WithFacts([&](const RunFacts& facts) {
    Json options = Json::array();
    for (const auto& [key, value] : facts.options()) options.push_back({key, value});
    out = {{"options", options}, {"changes", facts.Changes()}, {"text", facts.recipe()}};
  });
  return {200, DumpJson(out)};
}

// `text` without this ending; nullopt: it has another.
std::optional<std::string_view> Before(std::string_view text, std::string_view ending) {
  if (!text.ends_with(ending)) return std::nullopt;
  return text.substr(0, text.size() - ending.size());
}

std::string Event(const char* name, const Json& data) {
  return std::string("event: ") + name + "\ndata: " + DumpJson(data) + "\n\n";
}

}  // namespace

BoardReply AnswerBoard(RunCatalog& runs, std::string_view path, const Query& query) {
  constexpr std::string_view kRuns = "/api/runs";
  if (path == kRuns) return List(runs);
  if (!path.starts_with("/api/runs/")) return Problem(404, "there is no such page");
  const std::string_view rest = path.substr(kRuns.size() + 1);
  // The name of a run may itself end like that: the whole is asked for first.
  if (const auto run = runs.Find(rest)) return Facts(*run);
  if (const auto name = Before(rest, "/series")) {
    if (const auto run = runs.Find(*name)) return Series(*run, query);
  }
  if (const auto name = Before(rest, "/samples")) {
    if (const auto run = runs.Find(*name)) return Samples(*run, query);
  }
  if (const auto name = Before(rest, "/recipe")) {
    if (const auto run = runs.Find(*name)) return Recipe(*run);
  }
  return Problem(404, "there is no such run");
}

EventStream::EventStream(RunCatalog& runs, std::vector<std::string> followed)
    : runs_(runs), followed_(std::move(followed)) {}

std::string EventStream::Next() {
  std::string out;
  std::set<std::string> there;
  for (const auto& run : runs_.Runs()) {
    there.insert(run->name());
    const Json line = Line(run->name(), run->Look());
    std::string text = DumpJson(line);
    std::string& before = listed_[run->name()];
    if (text == before) continue;
    before = std::move(text);
    out += Event("run", line);
  }
  for (auto at = listed_.begin(); at != listed_.end();) {
    if (there.contains(at->first)) {
      ++at;
      continue;
    }
    out += Event("gone", {{"name", at->first}});
    at = listed_.erase(at);
  }
  for (const std::string& name : followed_) {
    const auto run = runs_.Find(name);
    if (run == nullptr) continue;
    Place& place = places_[name];
    run->WithMetrics([&](const MetricTable& metrics, const RunFacts&) {
      const bool first = place.revision == 0;
      if (!first && place.revision == metrics.revision() && place.step == metrics.last_step())
        return;
      size_t from = metrics.rows();
      while (from > 0 && metrics.rows() - from <= kMaxNewRows &&
             metrics.RowAt(from - 1).step > place.step)
        --from;
      if (!first && (place.revision != metrics.revision() || metrics.rows() - from > kMaxNewRows)) {
        out += Event("reload", {{"run", name}, {"revision", metrics.revision()}});
      } else if (!first && from < metrics.rows()) {
        Json rows = Json::array();
        for (size_t row = from; row < metrics.rows(); ++row) {
          const MetricTable::Row at = metrics.RowAt(row);
          Json values = Json::object();
          for (size_t column = 0; column < metrics.columns(); ++column) {
            bool written = false;
            const float value = metrics.At(column, row, &written);
            if (written) values[metrics.NameOf(column)] = Finite(static_cast<double>(value));
          }
          rows.push_back({{"step", at.step},
                          {"wall_s", at.wall_s},
                          {"seconds", at.seconds},
                          {"tokens", at.tokens},
                          {"values", std::move(values)}});
        }
        out += Event("rows", {{"run", name}, {"revision", metrics.revision()}, {"rows", rows}});
      }
      place.revision = metrics.revision();
      place.step = metrics.last_step();
    });
    run->WithSamples([&](const SampleTable& samples) {
      const auto answers = static_cast<int64_t>(samples.answers()) + samples.left_out();
      if (place.answers >= 0 && answers != place.answers)
        out += Event("samples", {{"run", name}, {"answers", answers}});
      place.answers = answers;
    });
  }
  return out;
}

}  // namespace plumb::run
