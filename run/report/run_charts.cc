#include "run/report/run_charts.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <map>
#include <utility>

#include "run/report/html.h"

namespace plumb::run {
namespace {

using Json = nlohmann::ordered_json;

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
// Parts of a reward share an axis as long as none is this many times larger than another.
constexpr double kSameSize = 8;

struct Curve {
  std::string name;    // in the legend
  std::string metric;  // of docs/metrics.md
  std::vector<int64_t> x;
  std::vector<double> y, low, high;  // low and high: none, or one for each y
  bool marks = false;                // measured now and then
  bool exact = false;                // without noise
  bool span = false;                 // low and high belong on the axis
};

// Mean of y, least of low, most of high, over buckets of neighbouring points. Returns the points of
// a bucket; 0 when there were few enough before.
size_t Bucket(Curve& curve) {
  const size_t n = curve.x.size();
  if (n <= 2 * RunCharts::kBuckets) return 0;
  Curve out = curve;
  out.x.clear(), out.y.clear(), out.low.clear(), out.high.clear();
  const std::vector<double>& low = curve.low.empty() ? curve.y : curve.low;
  const std::vector<double>& high = curve.high.empty() ? curve.y : curve.high;
  for (size_t b = 0; b < RunCharts::kBuckets; ++b) {
    const size_t begin = b * n / RunCharts::kBuckets, end = (b + 1) * n / RunCharts::kBuckets;
    double sum = 0, least = kNone, most = kNone;
    size_t finite = 0;
    for (size_t i = begin; i < end; ++i) {
      if (!std::isfinite(curve.y[i])) continue;
      sum += curve.y[i];
      ++finite;
      least = std::fmin(least, low[i]);
      most = std::fmax(most, high[i]);
    }
    // The run's first and last step stay the ends of the axis.
    out.x.push_back(curve.x[b == 0                         ? begin
                            : b + 1 == RunCharts::kBuckets ? end - 1
                                                           : begin + (end - begin) / 2]);
    out.y.push_back(finite > 0 ? sum / static_cast<double>(finite) : kNone);
    out.low.push_back(least);
    out.high.push_back(most);
  }
  curve = std::move(out);
  return (n + RunCharts::kBuckets - 1) / RunCharts::kBuckets;
}

// Six digits: more than a screen shows, and a third of the bytes.
Json Values(const std::vector<double>& values) {
  Json out = Json::array();
  for (const double v : values) {
    out.push_back(std::isfinite(v) ? Json(std::strtod(Format("%.6g", v).c_str(), nullptr))
                                   : Json(nullptr));
  }
  return out;
}

class ChartList {
 public:
  explicit ChartList(const RunData& data) : data_(data) {}

  void Section(const char* name) { section_ = name; }

  void Add(const std::string& title, const std::string& note, std::vector<Curve> curves) {
    std::erase_if(curves, [](const Curve& c) { return c.x.empty(); });
    if (curves.empty()) return;
    Json series = Json::array();
    for (Curve& c : curves) {
      out_.steps_a_bucket = std::max(out_.steps_a_bucket, Bucket(c));
      Json one = {{"name", c.name}, {"metric", c.metric}, {"x", c.x}, {"y", Values(c.y)}};
      if (!c.low.empty()) one["low"] = Values(c.low), one["high"] = Values(c.high);
      if (c.marks) one["marks"] = true;
      if (c.exact) one["exact"] = true;
      if (c.span) one["span"] = true;
      series.push_back(std::move(one));
    }
    out_.specs.push_back({{"title", title},
                          {"note", note},
                          {"axis", "step"},
                          {"section", section_},
                          {"series", std::move(series)}});
  }
  void One(const std::string& metric, const std::string& note) {
    Add(metric, note, {Of(metric, metric)});
  }
  void Exact(const std::string& metric, const std::string& note) {
    Curve curve = Of(metric, metric);
    curve.exact = true;
    Add(metric, note, {std::move(curve)});
  }
  // A sign of trouble: where it was never there, one word says so.
  void Sign(const std::string& metric, const std::string& note) {
    Curve curve = Of(metric, metric);
    if (curve.x.empty()) return;
    if (std::all_of(curve.y.begin(), curve.y.end(), [](double v) { return v == 0; }))
      out_.quiet.push_back(metric);
    else Add(metric, note, {std::move(curve)});
  }

  Curve Of(const std::string& metric, const std::string& name) const {
    Curve out{.name = name, .metric = metric};
    if (const auto found = data_.columns.find(metric); found != data_.columns.end())
      out.x = found->second.step, out.y = found->second.value;
    return out;
  }

  // A held-out value by the updates that were made before it: an evaluation after step n saw the
  // weights that step n + 1 begins with. `summary` is its name in summary.json.
  Curve HeldOut(const std::string& metric, const char* summary,
                const char* name = "held out") const {
    std::map<int64_t, double> points;
    const Curve during = Of(metric, metric);
    for (size_t i = 0; i < during.x.size(); ++i) points[during.x[i] + 1] = during.y[i];
    for (const char* when : {"before", "after"}) {
      const Json* value = FindIn(data_.summary, {"eval", when, summary});
      const Json* version = FindIn(data_.summary, {"eval", when, "version"});
      if (value && version && value->is_number() && version->is_number_integer())
        points[version->get<int64_t>()] = value->get<double>();
    }
    Curve out{.name = name, .metric = metric, .marks = true};
    for (const auto& [version, value] : points) {
      out.x.push_back(version);
      out.y.push_back(value);
    }
    return out;
  }

  RunCharts Take() && { return std::move(out_); }

 private:
  const RunData& data_;
  RunCharts out_{.specs = Json::array()};
  std::string section_;
};

double LargestSize(const Curve& curve) {
  double most = 0;
  for (const double v : curve.y) {
    if (std::isfinite(v)) most = std::max(most, std::abs(v));
  }
  return most;
}

// As many charts as it takes for no curve to be flat beside another.
void AddBySize(ChartList& charts, const std::string& title, const std::string& note,
               std::vector<Curve> curves) {
  std::stable_sort(curves.begin(), curves.end(),
                   [](const Curve& a, const Curve& b) { return LargestSize(a) < LargestSize(b); });
  std::vector<Curve> together;
  double least = 0;
  int number = 0;
  const auto flush = [&] {
    const std::string name = together.size() == 1 ? together[0].metric
                             : ++number == 1      ? title
                                                  : title + " (" + std::to_string(number) + ")";
    charts.Add(name, note, std::exchange(together, {}));
  };
  for (Curve& curve : curves) {
    const double size = LargestSize(curve);
    if (!together.empty() && least > 0 && size > kSameSize * least) flush();
    if (together.empty() || least == 0) least = size;
    together.push_back(std::move(curve));
  }
  if (!together.empty()) flush();
}

// Parts of the reward, and what their functions told besides: "PART.DETAIL".
void AddRewardParts(ChartList& charts, const RunData& data) {
  std::map<std::string, std::string> metrics;  // name of a part or detail -> metric
  for (const auto& [key, column] : data.columns) {
    if (key.starts_with("reward/") && key.ends_with("/mean") && key.size() > 12)
      metrics[key.substr(7, key.size() - 12)] = key;
  }
  std::vector<Curve> parts, details;
  for (const auto& [name, metric] : metrics) {
    bool detail = false;
    for (size_t dot = name.find('.'); dot != std::string::npos; dot = name.find('.', dot + 1))
      detail = detail || metrics.contains(name.substr(0, dot));
    (detail ? details : parts).push_back(charts.Of(metric, name));
  }
  // One part alone is the reward itself, but for its weight.
  if (parts.size() > 1 || !details.empty())
    AddBySize(charts, "reward parts", "mean of each part, before its weight", std::move(parts));
  AddBySize(charts, "sub-scores", "means of what the reward functions report besides their score",
            std::move(details));
}

void AddUpdates(ChartList& charts) {
  charts.One("optim/grad_norm", "norm of the gradient before clipping");
  charts.Exact("optim/lr", "learning rate");
}

void AddSpeed(ChartList& charts, bool rollouts) {
  charts.Section("Speed");
  charts.One("perf/tokens_per_s", rollouts ? "generated tokens over the wall time of the step"
                                           : "tokens trained on over the wall time of the step");
  std::vector<Curve> times;
  for (const char* name :
       {"step", "wait", "generate", "reward", "train", "publish", "checkpoint", "checkpoint_wait"})
    times.push_back(charts.Of("time/" + std::string(name), name));
  charts.Add("time of a step, s",
             rollouts ? "wait: the learner waited for answers, in which they were generated and "
                        "scored; the rest is the learner's own"
                      : "train: the update; checkpoint: saving, which goes on beside the steps; "
                        "checkpoint_wait: what the steps waited for it",
             std::move(times));
  charts.Exact("perf/peak_memory_gb", "the most memory so far, 10^9 bytes");
}

// Of dpo and reward_model: `room` is the first word of their metrics.
void AddPairs(ChartList& charts, const RunData& data, const std::string& room) {
  const bool scores = room == "rm";
  const auto both = [&](const std::string& title, const std::string& note, const char* word,
                        const char* summary) {
    charts.Add(title, note,
               {charts.Of(room + "/" + word, "training batch"),
                charts.HeldOut("eval/" + std::string(word), summary)});
  };
  const std::string loss = TextOf(data.recipe, "preference.loss");
  charts.Section("Learning");
  both("loss",
       scores || loss == "sigmoid" || loss.empty()
           ? "0.693 = ln 2: tells chosen and rejected apart no better than a coin"
           : "preference.loss = " + loss,
       "loss", "loss");
  both("accuracy",
       loss == "kto" && !scores ? "share of the answers that are judged right"
                                : "share of the pairs whose chosen answer has the higher reward; "
                                  "equal ones count as half",
       "accuracy", "accuracy");
  both("margin", "mean reward of the chosen answers minus that of the rejected ones", "margin",
       "reward");
  charts.Add("rewards of chosen and rejected",
             scores ? "the head's scores; only their difference is trained"
                    : "beta times the log-ratio to the reference; both falling: the margin grows "
                      "by making rejected answers unlikely",
             {charts.Of(room + "/reward_chosen", "chosen"),
              charts.Of(room + "/reward_rejected", "rejected"),
              charts.HeldOut("eval/reward_chosen", "reward_chosen", "chosen, held out"),
              charts.HeldOut("eval/reward_rejected", "reward_rejected", "rejected, held out")});
  charts.One("kto/kl", "distance from the reference that rewards are compared with, nats");
  charts.Section("Updates");
  AddUpdates(charts);
  AddSpeed(charts, false);
}

void AddDemonstrations(ChartList& charts) {
  charts.Section("Learning");
  charts.Add("loss", "mean over the tokens that are learned, nats a token",
             {charts.Of("sft/loss", "training batch"), charts.HeldOut("eval/loss", "loss")});
  Curve perplexity = charts.HeldOut("eval/loss", "loss");
  for (double& v : perplexity.y) v = std::exp(v);
  perplexity.metric = "eval/perplexity";
  charts.Add("perplexity", "exp(held-out loss): as unsure as among this many tokens",
             {std::move(perplexity)});
  charts.Section("Updates");
  AddUpdates(charts);
  AddSpeed(charts, false);
}

// One standard error to each side. Every evaluation of a run asks the same questions, so that what
// summary.json says of one of them gives the size for all.
void AddErrors(Curve& accuracy, const Json& summary) {
  double unit = 0;  // the error where it is largest, times two
  for (const char* when : {"before", "after"}) {
    const Json* evaluation = FindIn(summary, {"eval", when});
    if (!evaluation) continue;
    const double p = NumberIn(FindIn(*evaluation, {"accuracy"}), 0),
                 n = NumberIn(FindIn(*evaluation, {"answers"}), 0);
    if (p > 0 && p < 1) unit = AccuracyError(*evaluation) / std::sqrt(p * (1 - p));
    else if (n > 0 && unit == 0) unit = 1 / std::sqrt(n);
  }
  if (unit == 0) return;
  accuracy.span = true;
  for (const double p : accuracy.y) {
    const double error = unit * std::sqrt(std::max(0.0, p * (1 - p)));
    accuracy.low.push_back(p - error);
    accuracy.high.push_back(p + error);
  }
}

void AddRollouts(ChartList& charts, const RunData& data) {
  const bool critic = data.columns.contains("value/loss");
  charts.Section("Learning");
  charts.One("reward/mean", "mean over the step's answers that have a score");
  Curve accuracy = charts.HeldOut("eval/accuracy", "accuracy");
  AddErrors(accuracy, data.summary);
  const bool error = !accuracy.low.empty();
  charts.Add("eval/accuracy",
             std::string("share of held-out answers that are right") +
                 (error ? "; area: one standard error" : ""),
             {std::move(accuracy)});
  AddRewardParts(charts, data);
  const double prompts = NumberOf(data.recipe, "rollout.prompts_per_step", 0);
  charts.Sign("reward/zero_std_groups",
              "prompts" + (prompts > 0 ? ", of " + Grouped(prompts) + " a step," : std::string()) +
                  " whose answers all got the same reward" +
                  (critic || TextOf(data.recipe, "algorithm.advantage") == "batch"
                       ? ""
                       : ": they show no direction"));

  charts.Section("Policy");
  charts.One("objective/kl", TextOf(data.recipe, "algorithm.kl_placement") == "reward"
                                 ? "distance from the reference policy, nats an answer"
                                 : "distance from the reference policy, nats a token");
  charts.One("policy/approx_kl",
             "how far the updates of a step moved from the policy that answered, nats a token");
  charts.Sign("policy/clip_fraction",
              "share of tokens at which the clip took hold; above 0.2 updates are too large");
  charts.One("policy/entropy", "nats a token; towards 0 the policy stops trying things");
  charts.Sign("sampling/logprob_diff_mean",
              "learner against actor for the same tokens, nats; 0 is exact");
  AddUpdates(charts);
  charts.One("value/explained_variance", "share of the returns' variance that the critic knew");
  charts.One("value/loss", "of the critic");

  charts.Section("Answers");
  Curve length = charts.Of("response_length/mean", "mean"),
        least = charts.Of("response_length/min", ""), most = charts.Of("response_length/max", "");
  const bool ends = least.x == length.x && most.x == length.x;
  if (ends) length.low = least.y, length.high = most.y, length.span = true;
  charts.Add(
      "response_length/mean",
      std::string("generated tokens an answer") + (ends ? "; area: shortest to longest" : ""),
      {std::move(length)});
  charts.Sign("response_length/clipped", "share of answers that were cut at the limit");
  charts.Sign("reward/unscored", "answers without a score: they train nothing");
  charts.Sign("reward/dropped_groups", "prompts without any answer that has a score");
  charts.Sign("offpolicy/staleness_mean", "versions between answering and training");
  AddSpeed(charts, true);
}

}  // namespace

RunCharts ChartsOf(const RunData& data) {
  ChartList charts(data);
  if (data.columns.contains("dpo/loss")) AddPairs(charts, data, "dpo");
  else if (data.columns.contains("rm/loss")) AddPairs(charts, data, "rm");
  else if (data.columns.contains("sft/loss")) AddDemonstrations(charts);
  else AddRollouts(charts, data);
  charts.Section("Trouble");
  charts.Sign("optim/skipped", "updates skipped so far: something was not finite");
  charts.Sign("metrics/non_finite", "values so far that were not finite: gaps in the curves");
  return std::move(charts).Take();
}

double AccuracyError(const Json& evaluation) {
  if (const Json* known = FindIn(evaluation, {"accuracy_se"}); known && known->is_number())
    return known->get<double>();
  const double p = NumberIn(FindIn(evaluation, {"accuracy"}), 0),
               n = NumberIn(FindIn(evaluation, {"answers"}), 0);
  return n > 0 ? std::sqrt(std::max(0.0, p * (1 - p)) / n) : 0;
}

}  // namespace plumb::run
