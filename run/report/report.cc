#include "run/report/report.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>
#include <vector>

#include "common/base/error.h"
#include "common/base/file.h"
#include "run/report/report_page.h"

namespace plumb::run {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kMaxFileBytes = size_t{1} << 30;
constexpr size_t kMaxSamples = 400;  // rows on the page; a browser stays quick with that many
constexpr size_t kMaxPoints = 4000;  // of one curve; more than any screen has columns

// What is on disk, and what about it has to be said.
struct RunData {
  std::vector<Json> metrics, samples;
  Json summary;  // null without one
  std::optional<std::string> config;
  std::vector<std::string> notes;
};

// Text that is safe inside an element and inside a quoted attribute. Control characters are shown,
// not executed.
std::string Escape(std::string_view text) {
  std::string out;
  out.reserve(text.size() + text.size() / 8);
  for (const char c : text) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      case '\'': out += "&#39;"; break;
      case '\n':
      case '\t': out += c; break;
      default:
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
          out += "\xE2\x90";  // U+2400 on: the pictures of control characters
          out += c == 0x7f ? '\xA1' : static_cast<char>(0x80 + c);
        } else {
          out += c;
        }
    }
  }
  return out;
}

// Bytes that are no UTF-8 become U+FFFD.
std::string ValidUtf8(const std::string& bytes) {
  return Json::parse(Json(bytes).dump(-1, ' ', false, Json::error_handler_t::replace))
      .get<std::string>();
}

std::optional<std::string> ReadIfThere(const std::string& path) {
  FileSystem& files = RealFileSystem();
  if (!files.Exists(path)) return std::nullopt;
  return files.ReadFile(path, kMaxFileBytes);
}

// Lines that are no object with a step are left out and counted: a killed run can leave a torn last
// line.
std::vector<Json> ReadLines(const std::string& folder, const std::string& name,
                            std::vector<std::string>& notes) {
  std::vector<Json> out;
  const auto text = ReadIfThere(folder + "/" + name);
  if (!text) {
    notes.push_back(name + " is missing, so what it holds is left out.");
    return out;
  }
  size_t unreadable = 0;
  for (size_t at = 0; at < text->size();) {
    size_t end = text->find('\n', at);
    if (end == std::string::npos) end = text->size();
    if (end > at) {
      Json line = Json::parse(text->begin() + static_cast<std::ptrdiff_t>(at),
                              text->begin() + static_cast<std::ptrdiff_t>(end), nullptr,
                              /*allow_exceptions=*/false);
      if (line.is_object() && line.contains("step") && line["step"].is_number_integer())
        out.push_back(std::move(line));
      else ++unreadable;
    }
    at = end + 1;
  }
  if (unreadable > 0) {
    notes.push_back(name + ": " + std::to_string(unreadable) +
                    (unreadable == 1 ? " line is" : " lines are") + " not readable and left out.");
  }
  return out;
}

RunData Load(const std::string& folder) {
  RunData data;
  data.config = ReadIfThere(folder + "/config.toml");
  const auto summary = ReadIfThere(folder + "/summary.json");
  FileSystem& files = RealFileSystem();
  if (!data.config && !summary && !files.Exists(folder + "/metrics.jsonl")) {
    throw Error(ErrorCode::kNotFound,
                "no run here: config.toml, metrics.jsonl and summary.json are all missing; give "
                "the folder that plumb train wrote",
                folder);
  }
  data.metrics = ReadLines(folder, "metrics.jsonl", data.notes);
  data.samples = ReadLines(folder, "samples.jsonl", data.notes);
  if (files.Exists(folder + "/changes.jsonl")) {
    for (const Json& change : ReadLines(folder, "changes.jsonl", data.notes)) {
      const auto part = [&](const char* name) {
        return change.is_object() && change.contains(name)
                   ? change[name].dump(-1, ' ', false, Json::error_handler_t::replace)
                   : std::string("?");
      };
      data.notes.push_back("Resumed with another recipe: from step " + part("step") + " on " +
                           part("option") + " is " + part("now") + ", before it was " +
                           part("before") + ".");
    }
  }
  if (!data.config) data.notes.push_back("config.toml is missing, so the recipe is left out.");
  if (!summary) {
    data.notes.push_back("summary.json is missing: the run has not ended, or was killed.");
  } else {
    data.summary = Json::parse(*summary, nullptr, /*allow_exceptions=*/false);
    if (!data.summary.is_object()) {
      data.notes.push_back("summary.json is not readable and left out.");
      data.summary = nullptr;
    }
  }
  return data;
}

const Json* Find(const Json& object, std::initializer_list<const char*> path) {
  const Json* at = &object;
  for (const char* key : path) {
    if (!at->is_object()) return nullptr;
    const auto it = at->find(key);
    if (it == at->end() || it->is_null()) return nullptr;
    at = &*it;
  }
  return at;
}

double Number(const Json* value, double otherwise) {
  return value && value->is_number() ? value->get<double>() : otherwise;
}

std::string Text(const Json* value) {
  if (!value) return "";
  return value->is_string() ? value->get<std::string>()
                            : value->dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string Format(const char* format, double value) {
  char out[64];
  std::snprintf(out, sizeof out, format, value);
  return out;
}

// 1234567 -> 1 234 567, with no-break spaces.
std::string Grouped(double value) {
  std::string digits = Format("%.0f", std::abs(value)), out;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) out += "\xC2\xA0";
    out += digits[i];
  }
  return value < 0 ? "-" + out : out;
}

std::string Duration(double seconds) {
  if (seconds < 120) return Format("%.1f s", seconds);
  const auto total = static_cast<int64_t>(seconds);
  char out[48];
  if (total < 7200)
    std::snprintf(out, sizeof out, "%lld min %lld s", static_cast<long long>(total / 60),
                  static_cast<long long>(total % 60));
  else
    std::snprintf(out, sizeof out, "%lld h %lld min", static_cast<long long>(total / 3600),
                  static_cast<long long>(total / 60 % 60));
  return out;
}

struct Series {
  std::string name;
  std::vector<int64_t> x;
  std::vector<std::optional<double>> y;
};

// Every k-th point and the last, so that at most kMaxPoints stay. True when points were left out.
bool Thin(Series& series) {
  const size_t n = series.x.size();
  if (n <= kMaxPoints) return false;
  const size_t stride = (n + kMaxPoints - 1) / kMaxPoints;
  Series kept{series.name, {}, {}};
  for (size_t i = 0; i < n; ++i) {
    if (i % stride != 0 && i + 1 != n) continue;
    kept.x.push_back(series.x[i]);
    kept.y.push_back(series.y[i]);
  }
  series = std::move(kept);
  return true;
}

Series Curve(const RunData& data, const std::string& metric, const std::string& name) {
  Series out{name, {}, {}};
  for (const Json& line : data.metrics) {
    const auto it = line.find(metric);
    if (it == line.end()) continue;
    out.x.push_back(line["step"].get<int64_t>());
    out.y.push_back(it->is_number() && std::isfinite(it->get<double>())
                        ? std::optional(it->get<double>())
                        : std::nullopt);
  }
  return out;
}

// Held-out accuracy by policy version: before, during (the policy after step n is version n + 1),
// after.
Series EvalCurve(const RunData& data) {
  std::map<int64_t, double> points;
  for (const Json& line : data.metrics) {
    if (const Json* v = Find(line, {"eval/accuracy"}); v && v->is_number())
      points[line["step"].get<int64_t>() + 1] = v->get<double>();
  }
  for (const char* when : {"before", "after"}) {
    const Json* accuracy = Find(data.summary, {"eval", when, "accuracy"});
    const Json* version = Find(data.summary, {"eval", when, "version"});
    if (accuracy && version && accuracy->is_number() && version->is_number_integer()) {
      points[version->get<int64_t>()] = accuracy->get<double>();
    }
  }
  Series out{"eval/accuracy", {}, {}};
  for (const auto& [version, accuracy] : points) {
    out.x.push_back(version);
    out.y.emplace_back(accuracy);
  }
  return out;
}

Json Charts(const RunData& data, bool& thinned) {
  Json charts = Json::array();
  const auto add = [&](const std::string& title, const std::string& note,
                       std::vector<Series> series, const char* axis = "step", bool raw = false) {
    std::erase_if(series, [](const Series& s) { return s.x.empty(); });
    if (series.empty()) return;
    Json list = Json::array();
    for (Series& s : series) {
      thinned |= Thin(s);
      Json y = Json::array();
      for (const auto& v : s.y) y.push_back(v ? Json(*v) : Json(nullptr));
      list.push_back({{"name", s.name}, {"x", s.x}, {"y", std::move(y)}});
    }
    charts.push_back({{"title", title},
                      {"note", note},
                      {"axis", axis},
                      {"raw", raw},
                      {"series", std::move(list)}});
  };
  const auto one = [&](const std::string& metric, const std::string& note) {
    add(metric, note, {Curve(data, metric, metric)});
  };

  one("reward/mean", "mean reward of the step's answers");
  std::map<std::string, std::string> parts;  // metric -> part
  for (const Json& line : data.metrics) {
    for (const auto& [key, value] : line.items()) {
      if (key.starts_with("reward/") && key.ends_with("/mean") && key.size() > 12)
        parts[key] = key.substr(7, key.size() - 12);
    }
  }
  std::vector<Series> part_curves;
  for (const auto& [metric, part] : parts) part_curves.push_back(Curve(data, metric, part));
  add("reward parts", "mean of each part, before its weight", std::move(part_curves));
  add("eval/accuracy", "share of held-out answers that are right", {EvalCurve(data)}, "version",
      true);
  one("objective/kl", "distance from the reference policy, nats a token or answer");
  one("policy/approx_kl", "how far an update moved from the sampling policy, nats a token");
  one("value/explained_variance", "share of the returns' variance that the critic knew beforehand");
  one("value/loss", "of the critic");
  one("policy/entropy", "nats a token; towards 0 the policy stops trying things");
  one("response_length/mean", "tokens an answer");
  one("perf/tokens_per_s", "generated tokens over the wall time of the step");
  one("sampling/logprob_diff_mean",
      "between generation and training of the same tokens; 0 is exact");
  one("optim/grad_norm", "before clipping");
  return charts;
}

std::string Tile(const std::string& value, const std::string& label, const char* css = "tile") {
  return "<div class=\"" + std::string(css) + "\"><b>" + value + "</b><span>" + label +
         "</span></div>\n";
}

std::string AccuracyTile(const RunData& data) {
  const Json* before = Find(data.summary, {"eval", "before"});
  const Json* after = Find(data.summary, {"eval", "after"});
  if (!before && !after) return "";
  const auto percent = [](const Json* e) {
    return Format("%.1f\u00a0%%", 100 * Number(Find(*e, {"accuracy"}), 0));
  };
  std::string value = before ? percent(before) : "?";
  value += " \u2192 ";
  value += after ? percent(after) : "?";
  std::string label = "held-out accuracy before and after";
  if (before && after) {
    const double gain =
        100 * (Number(Find(*after, {"accuracy"}), 0) - Number(Find(*before, {"accuracy"}), 0));
    label += std::string(", <span class=\"") + (gain >= 0 ? "up" : "down") + "\">" +
             Format("%+.1f points", gain) + "</span>";
  }
  if (const Json* either = after ? after : before)
    label += "<br>" + Grouped(Number(Find(*either, {"answers"}), 0)) + " answers";
  const double unscored = (before ? Number(Find(*before, {"unscored"}), 0) : 0) +
                          (after ? Number(Find(*after, {"unscored"}), 0) : 0);
  if (unscored > 0) label += ", " + Grouped(unscored) + " without a score count as not solved";
  const double aborted = (before ? Number(Find(*before, {"aborted"}), 0) : 0) +
                         (after ? Number(Find(*after, {"aborted"}), 0) : 0);
  if (aborted > 0) label += ", " + Grouped(aborted) + " of them never generated";
  return Tile(value, label, "tile wide");
}

std::string Header(const RunData& data) {
  std::string out = "<div class=\"tiles\">\n" + AccuracyTile(data);
  const Json& s = data.summary;
  if (s.is_object()) {
    const double steps = Number(Find(s, {"steps"}), 0),
                 wanted = Number(Find(s, {"wanted_steps"}), steps);
    out += Tile(Grouped(steps), steps < wanted ? "of " + Grouped(wanted) + " steps" : "steps");
    out += Tile(Duration(Number(Find(s, {"wall_s"}), 0)), "wall time");
    out += Tile(Grouped(Number(Find(s, {"tokens"}), 0)), "tokens trained on");
    if (const double skipped = Number(Find(s, {"skipped_updates"}), 0); skipped > 0) {
      out += Tile("<span class=\"down\">" + Grouped(skipped) + "</span>", "updates skipped");
    }
    double dropped = 0;
    if (const Json* d = Find(s, {"dropped"})) {
      // those are their answers
      for (const auto& [name, count] : d->items())
        dropped += name == "trajectories" ? 0 : Number(&count, 0);
    }
    if (dropped > 0) out += Tile(Grouped(dropped), "groups dropped, see Counters");
    if (const Json* u = Find(s, {"unscored"})) {
      const double answers = Number(Find(*u, {"answers"}), 0),
                   never = Number(Find(*u, {"never_generated"}), 0);
      if (answers > 0)
        out += Tile(Grouped(answers),
                    "answers without a score" +
                        (never > 0 ? ", " + Grouped(never) + " never generated" : ""));
    }
  } else if (!data.metrics.empty()) {
    out += Tile(Grouped(static_cast<double>(data.metrics.back()["step"].get<int64_t>() + 1)),
                "steps so far");
  }
  out += "</div>\n<dl class=\"facts\">";
  const auto fact = [&](const char* name, const std::string& value, bool mono) {
    if (value.empty()) return;
    out += std::string("<dt>") + name + "</dt><dd" + (mono ? " class=\"mono\">" : ">") +
           Escape(value) + "</dd>\n";
  };
  if (const Json* sft = Find(s, {"sft"})) {
    fact("warm start",
         Grouped(Number(Find(*sft, {"steps"}), 0)) + " steps, held-out loss " +
             Format("%.4f", Number(Find(*sft, {"heldout_first"}), 0)) + " to " +
             Format("%.4f", Number(Find(*sft, {"heldout_last"}), 0)) + " nats a token",
         false);
  }
  fact("policy digest", Text(Find(s, {"policy_digest"})), true);
  fact("weights sha256", Text(Find(s, {"weights_sha256"})), true);
  fact("optimizer sha256", Text(Find(s, {"optimizer_sha256"})), true);
  return out + "</dl>\n";
}

std::string SampleRow(const Json& sample) {
  const auto cell = [](const char* css, const char* name, const std::string& content) {
    return std::string("<td class=\"") + css + "\" data-name=\"" + name + "\">" + content + "</td>";
  };
  std::string parts;
  if (const Json* list = Find(sample, {"parts"}); list && list->is_object()) {
    for (const auto& [name, value] : list->items()) {
      parts += "<span>" + Escape(name) + " " +
               (value.is_number() ? Format("%.3g", value.get<double>()) : Escape(Text(&value))) +
               "</span>";
    }
  }
  const Json* reward = Find(sample, {"reward"});
  return "<tr>" + cell("num short", "step", std::to_string(sample["step"].get<int64_t>())) +
         cell("num short", "reward",
              reward && reward->is_number() ? Format("%.3g", reward->get<double>()) : "unscored") +
         cell("parts", "parts", parts) +
         cell("text", "prompt", "<div>" + Escape(Text(Find(sample, {"prompt"}))) + "</div>") +
         cell("text", "completion",
              "<div>" + Escape(Text(Find(sample, {"completion"}))) + "</div>") +
         cell("short", "expected", Escape(Text(Find(sample, {"ground_truth"})))) +
         cell("short", "finish", Escape(Text(Find(sample, {"finish"})))) + "</tr>\n";
}

std::string Samples(const RunData& data) {
  if (data.samples.empty()) return "";
  const size_t n = data.samples.size(), stride = (n + kMaxSamples - 1) / kMaxSamples;
  std::string rows;
  size_t shown = 0;
  for (size_t i = 0; i < n; i += stride, ++shown) rows += SampleRow(data.samples[n - 1 - i]);
  std::string label = "newest first; the best and the worst answer of one prompt a step";
  if (shown < n)
    label = std::to_string(shown) + " of " + std::to_string(n) + " spread over the run, " + label;
  return "<h2>Samples</h2>\n<div class=\"bar\"><input type=\"search\" id=\"filter\" "
         "placeholder=\"Filter by text\" "
         "aria-label=\"Filter samples by text\"><span class=\"soft\" id=\"shown\">" +
         label +
         "</span></div>\n"
         "<div class=\"box tall\"><table class=\"samples\"><thead><tr><th "
         "class=\"num\">step</th><th class=\"num\">reward</th>"
         "<th>parts</th><th>prompt</th><th>completion</th><th>expected</th><th>finish</th></tr></"
         "thead><tbody>\n" +
         rows + "</tbody></table></div>\n";
}

std::string Counters(const RunData& data) {
  std::string rows;
  for (const char* kind : {"dropped", "counters"}) {
    const Json* list = Find(data.summary, {kind});
    if (!list || !list->is_object()) continue;
    for (const auto& [name, count] : list->items()) {
      rows += "<tr><td>" + std::string(kind == std::string_view("dropped") ? "dropped/" : "") +
              Escape(name) + "</td><td class=\"num\">" + Grouped(Number(&count, 0)) +
              "</td></tr>\n";
    }
  }
  if (rows.empty()) return "";
  return "<details><summary>Counters</summary><div class=\"box\"><table><tbody>\n" + rows +
         "</tbody></table></div></details>\n";
}

std::string AllMetrics(const RunData& data) {
  struct Range {
    double first = 0, last = 0, low = 0, high = 0;
    bool any = false;
  };
  std::map<std::string, Range> ranges;
  for (const Json& line : data.metrics) {
    for (const auto& [key, value] : line.items()) {
      if (key == "step" || key == "wall_s" || !value.is_number()) continue;
      const double v = value.get<double>();
      Range& r = ranges[key];
      if (!r.any) r = {v, v, v, v, true};
      r.last = v;
      r.low = std::min(r.low, v);
      r.high = std::max(r.high, v);
    }
  }
  if (ranges.empty()) return "";
  std::string out =
      "<details><summary>All metrics</summary><div "
      "class=\"box\"><table><thead><tr><th>name</th><th class=\"num\">first"
      "</th><th class=\"num\">last</th><th class=\"num\">least</th><th "
      "class=\"num\">most</th></tr></thead><tbody>\n";
  for (const auto& [name, r] : ranges) {
    out += "<tr><td>" + Escape(name) + "</td>";
    for (const double v : {r.first, r.last, r.low, r.high})
      out += "<td class=\"num\">" + Format("%.5g", v) + "</td>";
    out += "</tr>\n";
  }
  return out + "</tbody></table></div></details>\n";
}

}  // namespace

void WriteReport(const std::string& run_folder, const std::string& output_html) {
  RunData data = Load(run_folder);
  bool thinned = false;
  const Json charts = Charts(data, thinned);
  if (thinned)
    data.notes.push_back("Long curves show every n-th step; metrics.jsonl has them all.");

  std::string json = Json{{"charts", charts}}.dump(-1, ' ', false, Json::error_handler_t::replace);
  // no </script> inside
  for (size_t at = 0; (at = json.find('<', at)) != std::string::npos;)
    json.replace(at, 1, "\\u003c");

  const size_t slash = run_folder.find_last_not_of('/');
  std::string name = slash == std::string::npos ? run_folder : run_folder.substr(0, slash + 1);
  name = Escape(ValidUtf8(name.substr(name.rfind('/') + 1)));

  std::string page =
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n"
      "<meta name=\"color-scheme\" content=\"light dark\">\n"
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src "
      "'unsafe-inline'; "
      "script-src 'unsafe-inline'\">\n<title>" +
      name + " - Plumb run</title>\n<style>";
  page += kReportStyle;
  page +=
      "</style></head>\n<body><main>\n<h1>" + name + "</h1>\n<div class=\"soft\">Plumb run</div>\n";
  if (!data.notes.empty()) {
    page += "<ul class=\"notes\">";
    for (const auto& note : data.notes) page += "<li>" + Escape(note) + "</li>";
    page += "</ul>\n";
  }
  page += Header(data);
  if (!charts.empty()) {
    page +=
        "<h2>Curves</h2>\n<div class=\"bar\"><label>Smoothing <input type=\"range\" id=\"smooth\" "
        "min=\"0\" max=\"98\" "
        "value=\"0\"></label><span class=\"soft\">point at a curve to read its "
        "values</span></div>\n"
        "<div class=\"charts\" id=\"charts\"></div>\n<noscript>The curves need JavaScript; the "
        "numbers are in metrics.jsonl."
        "</noscript>\n";
  } else {
    page += "<div id=\"charts\"></div>\n";
  }
  page += Samples(data);
  page += "<h2>Details</h2>\n" + AllMetrics(data) + Counters(data);
  if (data.config) {
    page += "<details><summary>Resolved recipe</summary><pre>" + Escape(ValidUtf8(*data.config)) +
            "</pre></details>\n";
  }
  page += "</main>\n<script type=\"application/json\" id=\"data\">" + json + "</script>\n<script>";
  page += kReportScript;
  page += "</script>\n</body></html>\n";
  RealFileSystem().WriteFileAtomic(output_html, page);
}

}  // namespace plumb::run
