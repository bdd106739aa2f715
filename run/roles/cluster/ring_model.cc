#include "run/roles/cluster/ring_model.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/size_text.h"

namespace plumb::run {
namespace {

constexpr size_t kGenerate = 0, kReward = 1, kStore = 2, kTransfer = 3, kLearner = 4;
constexpr double kInsertsASync = 64;  // ScoringOptions::insert_groups
constexpr double kAnswerBytes = 8e6;  // BlockShelfOptions::answer_bytes

// A median of small writes, each synced, and of the bytes a second of a large one.
void MeasureDisk(const std::string& folder, RingRates& rates) {
  const std::string path = folder + "/.plumb-plan-probe";
  const auto seconds = [](const auto& work) {
    const auto begin = std::chrono::steady_clock::now();
    work();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  };
  std::vector<double> syncs;
  double large = 0;
  constexpr size_t kLarge = size_t{16} << 20;
  {
    const auto file = RealFileSystem().OpenAppend(path, /*truncate=*/true);
    for (int i = 0; i < 9; ++i) {
      syncs.push_back(seconds([&] {
        file->Append(std::string(4096, 'p'));
        file->Sync();
      }));
    }
    large = seconds([&] {
      file->Append(std::string(kLarge, 'p'));
      file->Sync();
    });
  }
  RealFileSystem().Remove(path);
  std::nth_element(syncs.begin(), syncs.begin() + 4, syncs.end());
  rates.sync_s = syncs[4];
  rates.disk_bytes_per_s = kLarge / std::max(1e-9, large - rates.sync_s);
}

double Up(double a, double b) { return std::ceil(a / b - 1e-9); }

std::string SecondsText(double seconds) {
  char text[40];
  if (seconds < 1) std::snprintf(text, sizeof text, "%.3g ms", 1000 * seconds);
  else std::snprintf(text, sizeof text, "%.3g s", seconds);
  return text;
}

}  // namespace

RingRates ReadRingRates(const std::string& run, const std::string& probe, int64_t actors) {
  std::ifstream in(run + "/metrics.jsonl");
  if (!in)
    throw Error(ErrorCode::kNotFound, "holds no metrics.jsonl: name the folder of a run", run);
  RingRates sum;
  double bytes_before = -1, inserts_before = -1, bytes = 0, inserts = 0;
  int64_t lines = 0;
  for (std::string line; std::getline(in, line);) {
    const auto json = nlohmann::json::parse(line, nullptr, false);
    if (!json.is_object() || !json.contains("time/step")) continue;
    const auto number = [&](const char* name) {
      const auto found = json.find(name);
      return found != json.end() && found->is_number() ? found->get<double>() : 0.0;
    };
    const double stored = number("replay/bytes"), count = number("replay/inserts");
    if (bytes_before >= 0 && count > inserts_before) {
      bytes += std::max(0.0, stored - bytes_before);
      inserts += count - inserts_before;
    }
    bytes_before = stored;
    inserts_before = count;
    if (++lines == 1) continue;
    const double generate = number("time/generate"), wait = number("time/wait"),
                 train = number("time/train"), publish = number("time/publish"),
                 step = number("time/step");
    ++sum.steps;
    sum.tokens += generate * number("perf/decode_tokens_per_s");
    sum.tokens_per_s += generate;  // its seconds, until they are divided by below
    sum.reward_s += number("time/reward");
    sum.train_s += train;
    sum.publish_s += publish;
    sum.latency_s += wait;
    sum.measured_step_s += step;
    sum.other_s += std::max(0.0, step - wait - train - publish);
  }
  if (sum.steps == 0 || sum.tokens <= 0) {
    throw Error(ErrorCode::kInvalidArgument,
                "has no step behind its first in which something was generated: let it make a few "
                "steps",
                run);
  }
  const auto n = static_cast<double>(sum.steps);
  const double generate_s = sum.tokens_per_s;
  RingRates rates = sum;
  rates.tokens_per_s = sum.tokens / generate_s;
  for (double* each : {&rates.tokens, &rates.reward_s, &rates.train_s, &rates.publish_s,
                       &rates.latency_s, &rates.measured_step_s, &rates.other_s})
    *each /= n;
  const double each_s = generate_s / n / static_cast<double>(std::max<int64_t>(1, actors));
  rates.latency_s = std::max(0.0, rates.latency_s - each_s);
  rates.group_bytes = inserts > 0 ? bytes / inserts : 0;
  MeasureDisk(probe, rates);
  return rates;
}

RingTime PredictStep(const RingRates& r, const Ring& ring) {
  const auto actors = static_cast<double>(ring.actors),
             learners = static_cast<double>(ring.learners);
  RingTime time;
  const double groups_each = Up(r.groups, actors);
  time.idle_actors = std::max<int64_t>(0, ring.actors - static_cast<int64_t>(r.groups));
  time.stage[kGenerate] = groups_each * (r.tokens / r.groups) / r.tokens_per_s;
  time.stage[kReward] = r.reward_s / static_cast<double>(std::max<int64_t>(1, ring.rewards));
  time.stage[kStore] = Up(r.groups, kInsertsASync) * r.sync_s +
                       r.groups * r.group_bytes / std::max(1.0, r.disk_bytes_per_s);
  // In a tree all send to as many at a time, and a level begins an answer behind the one above.
  double copies = actors, levels = 0;
  if (r.relay > 0) {
    copies = std::min(actors, static_cast<double>(r.relay));
    for (double there = copies, level = copies; there < actors; there += level *= copies) ++levels;
  }
  const double behind = levels * std::min(kAnswerBytes, r.weight_bytes) * copies;
  time.stage[kTransfer] =
      (r.weight_bytes * copies + behind + r.groups * r.group_bytes) / r.network_bytes_per_s;
  // Gradients to their owners and sums back, 8 bytes a trained parameter of 4 (docs/ranks.md).
  const double sums = 2 * r.weight_bytes * (learners - 1) / learners / r.network_bytes_per_s;
  time.stage[kLearner] = r.train_s / learners + sums + r.publish_s + r.other_s;
  const double ring_s = std::max({time.stage[kGenerate], time.stage[kReward], time.stage[kStore]});
  if (r.sync) {
    time.step = ring_s + r.latency_s + time.stage[kTransfer] + time.stage[kLearner];
    // Of those that run side by side only the slowest counts.
    std::array<double, 5> counts = time.stage;
    for (const size_t stage : {kGenerate, kReward, kStore})
      counts[stage] = time.stage[stage] >= ring_s ? time.stage[stage] : 0;
    time.bottleneck =
        static_cast<size_t>(std::max_element(counts.begin(), counts.end()) - counts.begin());
  } else {
    time.bottleneck = static_cast<size_t>(std::max_element(time.stage.begin(), time.stage.end()) -
                                          time.stage.begin());
    time.step = time.stage[time.bottleneck];
  }
  return time;
}

Ring BestRing(const RingRates& rates, int64_t machines, int64_t rewards) {
  Ring best{.actors = std::max<int64_t>(1, machines - 1), .rewards = rewards, .learners = 1};
  for (int64_t learners = 1; learners < machines; learners *= 2) {
    const Ring ring{.actors = machines - learners, .rewards = rewards, .learners = learners};
    if (PredictStep(rates, ring).step < 0.999 * PredictStep(rates, best).step) best = ring;
  }
  return best;
}

std::string RingText(const RingRates& rates, const std::vector<Ring>& rings) {
  char line[400];
  std::snprintf(
      line, sizeof line,
      "measured, %lld steps: %s a step; %.3g tokens/s an actor, %.4g tokens and %.3g "
      "groups a step, rewards %s, train %s, publish %s, else %s; groups of %s; disk %s/s, "
      "%s a sync; versions of %s, network %s/s\n",
      static_cast<long long>(rates.steps), SecondsText(rates.measured_step_s).c_str(),
      rates.tokens_per_s, rates.tokens, rates.groups, SecondsText(rates.reward_s).c_str(),
      SecondsText(rates.train_s).c_str(), SecondsText(rates.publish_s).c_str(),
      SecondsText(rates.latency_s + rates.other_s).c_str(),
      SizeText(static_cast<int64_t>(rates.group_bytes)).c_str(),
      SizeText(static_cast<int64_t>(rates.disk_bytes_per_s)).c_str(),
      SecondsText(rates.sync_s).c_str(), SizeText(static_cast<int64_t>(rates.weight_bytes)).c_str(),
      SizeText(static_cast<int64_t>(rates.network_bytes_per_s)).c_str());
  std::string text = line;
  text +=
      "learners actors rewards       step   generate     reward      store   transfer    "
      "learner  first bottleneck\n";
  for (const Ring& ring : rings) {
    const RingTime time = PredictStep(rates, ring);
    std::snprintf(line, sizeof line, "%8lld %6lld %7lld %10s",
                  static_cast<long long>(ring.learners), static_cast<long long>(ring.actors),
                  static_cast<long long>(ring.rewards), SecondsText(time.step).c_str());
    text += line;
    for (const double stage : time.stage) {
      std::snprintf(line, sizeof line, " %10s", SecondsText(stage).c_str());
      text += line;
    }
    text += std::string("  ") + RingTime::kStages[time.bottleneck];
    if (time.idle_actors > 0)
      text += "; " + std::to_string(time.idle_actors) +
              " actors get no group: rollout.prompts_per_step is what they share";
    text += "\n";
  }
  return text;
}

}  // namespace plumb::run
