// Folders of runs that were never trained, with curves and answers that look as if they had been:
// what the board's tests, and whoever works on its page, look at.
//
// Purpose: all numbers follow from a seed. Thread safety: none. Errors: those of the file system.
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <string>

#include "common/base/file.h"

namespace plumb::testing {

struct MadeRun {
  std::string algorithm = "grpo";
  std::string model = "";  // a path, or "" for a new one
  int64_t steps = 400, wanted = 400;
  double rate = 1;  // of learning
  double learning_rate = 3e-4;
  uint64_t seed = 1;
  bool async = false, summary = true, stopped = false;
  std::string error;  // what its log says that it ended by
  int64_t samples_every = 20;
};

class RunMaker {
 public:
  RunMaker(std::string folder, MadeRun run)
      : folder_(std::move(folder)), run_(std::move(run)), random_(run_.seed) {
    using namespace std::chrono;
    const double now = duration<double>(system_clock::now().time_since_epoch()).count();
    begin_s_ = now - 1.6 * static_cast<double>(run_.steps);
  }

  bool pairs() const { return run_.algorithm == "dpo"; }

  // One line of metrics.jsonl, with its end.
  std::string MetricsLine(int64_t step) {
    const double t = static_cast<double>(step) / 400 * run_.rate;
    const double learned = 1 / (1 + std::exp(-9 * (t - 0.35)));
    const double step_s = 1.5 + 0.25 * Normal();
    std::map<std::string, double> m;
    m["time/step"] = step_s;
    m["time/train"] = step_s * 0.52;
    m["optim/lr"] = run_.learning_rate * std::max(0.05, 1 - static_cast<double>(step) /
                                                                static_cast<double>(run_.wanted));
    m["optim/grad_norm"] = std::exp(-0.6 + 0.35 * Normal()) * (1.4 - learned);
    m["optim/skipped"] = static_cast<double>(step / 170);
    m["perf/peak_memory_gb"] = 1.61;
    m["perf/mfu"] = 0.31 + 0.01 * Normal();
    m["perf/train_tokens"] = std::floor(52000 - 9000 * learned + 800 * Normal());
    if (pairs()) {
      m["dpo/loss"] = 0.693 * std::exp(-1.3 * learned) + 0.02 * Normal();
      m["dpo/accuracy"] = Clamp(0.5 + 0.36 * learned + 0.04 * Normal());
      m["dpo/margin"] = 1.9 * learned + 0.1 * Normal();
      m["dpo/reward_chosen"] = 0.4 * learned + 0.05 * Normal();
      m["dpo/reward_rejected"] = -1.5 * learned + 0.05 * Normal();
      m["perf/tokens_per_s"] = m["perf/train_tokens"] / step_s;
      if (step % 25 == 24) m["eval/accuracy"] = Clamp(0.5 + 0.3 * learned + 0.01 * Normal());
      return Line(step, m);
    }
    m["time/generate"] = step_s * 0.61;
    m["time/reward"] = 0.04 + 0.005 * Normal();
    m["time/wait"] = std::max(0.0, 0.3 + 0.1 * Normal());
    m["time/publish"] = 0.021;
    const double correct = Clamp(0.06 + 0.86 * learned + 0.045 * Normal());
    const double format = Clamp(0.4 + 0.58 * std::min(1.0, 3 * t) + 0.02 * Normal());
    m["reward/correct/mean"] = correct;
    m["reward/format/mean"] = format;
    m["reward/correct/latency_p50"] = 0.0004;
    m["reward/correct/latency_p99"] = 0.0021;
    m["reward/mean"] = 0.9 * correct + 0.1 * format;
    m["reward/std"] = std::sqrt(correct * (1 - correct) + 0.002);
    m["reward/zero_std_groups"] = std::floor(4 + 40 * std::abs(correct - 0.5));
    m["reward/dropped_groups"] = 0;
    m["reward/unscored"] = step % 37 == 9 ? 2 : 0;
    m["reward/groups"] = static_cast<double>(step * 32);
    m["reward/retries"] = static_cast<double>(step / 37 * 2);
    m["reward/failed/correct/timeout"] = static_cast<double>(step / 37 * 2);
    m["response_length/mean"] = 38 + 60 * learned + 2 * Normal();
    m["response_length/min"] = 6;
    m["response_length/max"] = 256;
    m["response_length/clipped"] = Clamp(0.22 - 0.2 * learned + 0.01 * Normal());
    m["objective/kl"] = std::max(0.0, 0.11 * learned + 0.004 * Normal());
    m["policy/loss"] = -0.01 + 0.02 * Normal();
    m["policy/approx_kl"] = std::abs(0.0021 + 0.0006 * Normal());
    m["policy/entropy"] = 0.22 + 1.1 * std::exp(-4.0 * t) + 0.02 * Normal();
    m["policy/ratio"] = 1 + 0.001 * Normal();
    m["policy/clip_fraction"] = Clamp(0.021 + 0.006 * Normal());
    m["policy/groups_used"] = 32 - m["reward/zero_std_groups"];
    m["policy/updates"] = 4;
    m["sampling/logprob_diff_mean"] = std::abs(2e-4 + 5e-5 * Normal());
    m["sampling/logprob_diff_max"] = std::abs(0.02 + 0.005 * Normal());
    m["offpolicy/staleness_mean"] = run_.async ? std::max(0.0, 1.2 + 0.3 * Normal()) : 0;
    m["offpolicy/staleness_max"] = run_.async ? 3 : 0;
    m["perf/generated_tokens"] = std::floor(m["response_length/mean"] * 256);
    m["perf/tokens_per_s"] = m["perf/generated_tokens"] / step_s;
    m["perf/decode_tokens_per_s"] = m["perf/generated_tokens"] / (0.61 * step_s);
    m["perf/shared_tokens"] = 18000;
    m["replay/inserts"] = static_cast<double>((step + 1) * 32);
    m["replay/bytes"] = static_cast<double>((step + 1)) * 410000.0;
    m["replay/duplicates"] = static_cast<double>(step / 90);
    m["replay/leased"] = static_cast<double>((step + 2) * 32);
    m["replay/released"] = 0;
    m["replay/expired"] = static_cast<double>(step / 60);
    m["replay/requeued"] = static_cast<double>(step / 37 * 2);
    m["replay/held"] = 32;
    m["replay/waiting"] = 1;
    m["replay/queue"] = run_.async ? std::floor(std::abs(11 + 4 * Normal())) : 0;
    m["replay/unscored_trajectories"] = static_cast<double>(step / 37 * 2);
    m["replay/aborted_trajectories"] = 0;
    m["replay/trimmed"] = static_cast<double>(std::max<int64_t>(0, step - 50) * 32);
    m["dropped/unscored"] = static_cast<double>(step / 37);
    m["dropped/trajectories"] = static_cast<double>(step / 37 * 8);
    m["refused/stale"] = run_.async ? static_cast<double>(step / 25) : 0;
    m["actor/leases"] = static_cast<double>((step + 2) * 32);
    m["actor/groups_delivered"] = static_cast<double>((step + 1) * 32);
    m["actor/refused_prompts"] = 3;
    if (step % 25 == 24) m["eval/accuracy"] = Clamp(0.05 + 0.85 * learned + 0.012 * Normal());
    return Line(step, m);
  }

  // The answers of one prompt; the same prompts come again every third time.
  std::string SampleLines(int64_t step) {
    const int64_t turn = step / std::max<int64_t>(1, run_.samples_every), which = turn % 3;
    const int64_t a = 17 + 13 * which, b = 25 + 9 * which;
    const double learned = static_cast<double>(step) / 400 * run_.rate;
    std::string lines;
    for (int sample = 0; sample < 4; ++sample) {
      const bool right = Uniform() < 0.1 + learned;
      const bool unscored = sample == 3 && turn % 5 == 4;
      const int64_t answer = right ? a + b : a + b + 1 + static_cast<int64_t>(9 * Uniform());
      const std::string sum = std::to_string(answer);
      nlohmann::ordered_json line = {
          {"step", step},
          {"lease_id", step * 32 + which},
          {"sample", sample},
          {"prompt", "What is " + std::to_string(a) + " + " + std::to_string(b) +
                         "? Think step by step, then give the answer in <answer> tags."},
          {"completion",
           "Add the units first: " + std::to_string(a % 10) + " + " + std::to_string(b % 10) +
               " = " + std::to_string(a % 10 + b % 10) + ".\nThen the tens: " +
               std::to_string(a / 10 * 10) + " + " + std::to_string(b / 10 * 10) + " = " +
               std::to_string(a / 10 * 10 + b / 10 * 10) + ".\n<answer>" + sum + "</answer>"},
          {"reward",
           unscored ? nlohmann::ordered_json() : nlohmann::ordered_json(right ? 1.0 : 0.1)},
          {"parts", {{"correct", right ? 1.0 : 0.0}, {"format", 1.0}}},
          {"finish", sample == 2 && !right ? "length" : "stop"},
          {"ground_truth", std::to_string(a + b)}};
      if (unscored) {
        line["unscored_reason"] = "part correct: no reply within 2 s";
        line["parts"] = nlohmann::ordered_json::object();
      }
      lines += line.dump() + "\n";
    }
    return lines;
  }

  std::string Recipe() const {
    std::string text = "[run]\nseed = " + std::to_string(run_.seed) +
                       "\nsteps = " + std::to_string(run_.wanted) + "\nschedule = \"" +
                       (run_.async ? "async" : "sync") +
                       "\"\nmax_staleness = 4\n\n[model]\npath = \"" + run_.model +
                       "\"\nlayers = 4\nhidden = 128\nheads = 4\n\n";
    if (!pairs()) {
      text +=
          "[rollout]\nprompts_per_step = 32\nsamples_per_prompt = 8\nmax_new_tokens = 256\n\n"
          "[[reward.parts]]\nname = \"correct\"\nkind = \"answer\"\nweight = 0.9\n\n"
          "[[reward.parts]]\nname = \"format\"\nkind = \"regex\"\nweight = 0.1\n\n";
    }
    char rate[32];
    std::snprintf(rate, sizeof rate, "%g", run_.learning_rate);
    return text + "[algorithm]\nname = \"" + run_.algorithm +
           "\"\nminibatches = 4\n\n[optimizer]\n" + "learning_rate = " + rate +
           "\nlr_schedule = \"linear\"\n\n[eval]\nevery = 25\nbar = 0.8\n";
  }

  void WriteAll() {
    FileSystem& files = RealFileSystem();
    files.CreateDirectories(folder_ + "/logs");
    Put("run.json",
        "{\"run_id\":\"00000000000000" + std::to_string(10 + run_.seed) + "\",\"format\":1}\n");
    Put("config.toml", Recipe());
    std::string metrics, samples;
    for (int64_t step = 0; step < run_.steps; ++step) {
      metrics += MetricsLine(step);
      if (!pairs() && step % run_.samples_every == 0) samples += SampleLines(step);
    }
    Put("metrics.jsonl", metrics);
    Put("samples.jsonl", samples);
    if (!run_.error.empty())
      Put("logs/train.log", "[info] ended by an error: " + run_.error + "\n");
    if (run_.summary) {
      const nlohmann::ordered_json summary = {
          {"eval", {{"before", {{"accuracy", 0.06}, {"answers", 200}}}, {"after", nullptr}}},
          {"steps", run_.steps},
          {"wanted_steps", run_.wanted},
          {"stopped_early", run_.stopped},
          {"dropped", {{"unscored", 3}}},
          {"counters", {{"inserts", 1234}}}};
      Put("summary.json", summary.dump(1) + "\n");
    }
  }

  void Put(const std::string& name, const std::string& text) const {
    RealFileSystem().OpenAppend(folder_ + "/" + name, /*truncate=*/true)->Append(text);
  }
  void AppendTo(const std::string& name, const std::string& text) const {
    RealFileSystem().OpenAppend(folder_ + "/" + name)->Append(text);
  }

 private:
  double Normal() { return normal_(random_); }
  double Uniform() { return uniform_(random_); }
  static double Clamp(double v) { return std::clamp(v, 0.0, 1.0); }

  std::string Line(int64_t step, const std::map<std::string, double>& values) const {
    char text[64];
    std::snprintf(text, sizeof text, "{\"step\":%lld,\"wall_s\":%.3f", static_cast<long long>(step),
                  begin_s_ + 1.6 * static_cast<double>(step + 1));
    std::string line = text;
    for (const auto& [name, value] : values) {
      std::snprintf(text, sizeof text, "\":%.9g", value);
      line += ",\"" + name + text;
    }
    return line + "}\n";
  }

  const std::string folder_;
  const MadeRun run_;
  std::mt19937_64 random_;
  std::normal_distribution<double> normal_;
  std::uniform_real_distribution<double> uniform_;
  double begin_s_ = 0;
};

// Seven runs of all states below `folder`.
inline void MakeRuns(const std::string& folder) {
  const auto make = [&](const std::string& name, MadeRun run) {
    RunMaker(folder + "/" + name, std::move(run)).WriteAll();
  };
  make("arithmetic_grpo", {.steps = 312, .seed = 2, .summary = false});
  make("arithmetic_ppo", {.algorithm = "ppo", .rate = 0.8, .seed = 3});
  make("gsm8k_async",
       {.model = "models/SmolLM2-135M-Instruct", .rate = 0.6, .seed = 4, .async = true});
  make("hh_dpo", {.algorithm = "dpo", .model = "models/SmolLM2-135M-Instruct", .seed = 5});
  make("sweep/lr_1e-3", {.rate = 1.4, .learning_rate = 1e-3, .seed = 6});
  make("sweep/lr_1e-4",
       {.steps = 220, .rate = 0.5, .learning_rate = 1e-4, .seed = 7, .stopped = true});
  make("sweep/lr_1e-2",
       {.steps = 61,
        .rate = 0.1,
        .learning_rate = 1e-2,
        .seed = 8,
        .summary = false,
        .error = "the loss is not finite in 3 steps in a row: lower optimizer.learning_rate"});
}

}  // namespace plumb::testing
