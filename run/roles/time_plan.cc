#include "run/roles/time_plan.h"

#include <cstdio>
#include <vector>

#include "common/base/device.h"
#include "common/base/size_text.h"
#include "configs/learning_check.h"
#include "policy_model/memory/threads.h"
#include "run/report/progress.h"
#include "run/roles/roles.h"
#include "run/roles/speed_probe.h"

namespace plumb::run {
namespace {

using configs::Config;
using configs::Recompute;

std::string SecondsText(double seconds) {
  char text[40];
  if (seconds < 1) std::snprintf(text, sizeof text, "%.3g ms", 1000 * seconds);
  else std::snprintf(text, sizeof text, "%.3g s", seconds);
  return text;
}

std::string Row(const std::string& name, const std::string& value) {
  return name + std::string(name.size() < 22 ? 22 - name.size() : 1, ' ') + value + "\n";
}

struct Way {
  std::string options;
  Config config;
};

void Extend(std::vector<Way>& ways, bool sensible, const std::string& option, const auto& change) {
  if (!sensible) return;
  const size_t n = ways.size();
  for (size_t i = 0; i < n; ++i) {
    Way way = ways[i];
    change(way.config);
    way.options += (way.options.empty() ? "" : " ") + option;
    ways.push_back(std::move(way));
  }
}

// The recipe first, then what changes more and more.
std::vector<Way> WaysOf(const Config& config) {
  const configs::OptimizerConfig& o = config.optimizer;
  std::vector<Way> ways = {{"", config}};
  for (const int64_t tokens :
       {o.micro_batch_tokens / 2, 2 * o.micro_batch_tokens, 4 * o.micro_batch_tokens}) {
    if (tokens < 1) continue;
    Way way{"optimizer.micro_batch_tokens=" + std::to_string(tokens), config};
    way.config.optimizer.micro_batch_tokens = tokens;
    ways.push_back(std::move(way));
  }
  Extend(ways, o.recompute == Recompute::kNone, "optimizer.recompute=layer",
         [](Config& c) { c.optimizer.recompute = Recompute::kLayer; });
  Extend(ways, o.recompute == Recompute::kLayer, "optimizer.recompute=none",
         [](Config& c) { c.optimizer.recompute = Recompute::kNone; });
  Extend(ways, o.moments == configs::Moments::kFloat32, "optimizer.moments=int8",
         [](Config& c) { c.optimizer.moments = configs::Moments::kInt8; });
  Extend(ways, o.masters == configs::Masters::kFloat32 && config.model.dtype == DType::kBFloat16,
         "optimizer.masters=none",
         [](Config& c) { c.optimizer.masters = configs::Masters::kNone; });
  Extend(ways, configs::MayNarrowGradients(config), "optimizer.gradients=bfloat16",
         [](Config& c) { c.optimizer.gradients = configs::Gradients::kBFloat16; });
  Extend(ways,
         !o.offload && o.name == configs::OptimizerName::kAdamW &&
             ParseDevice(config.run.device).value_or(Device::kCpu).is_cuda(),
         "optimizer.offload=true", [](Config& c) { c.optimizer.offload = true; });
  Extend(ways, o.offload, "optimizer.offload=false",
         [](Config& c) { c.optimizer.offload = false; });
  return ways;
}

}  // namespace

std::optional<Choice> FastestThatFits(const Config& config, const policy_model::ModelShape& shape,
                                      Device device, int64_t free, const Speeds& speeds,
                                      const Lengths& lengths) {
  constexpr double kWorthIt = 0.98;  // of the time of one that changes less
  std::optional<Choice> best;
  for (const Way& way : WaysOf(config)) {
    const RunMemory memory = PlanRun(way.config, shape, device, free);
    if (!memory.fits()) continue;
    const double seconds =
        TimeOf(CountStep(way.config, shape, lengths, memory.recompute), speeds).total();
    if (best && seconds > kWorthIt * best->seconds) continue;
    best = {.options = way.options, .bytes = memory.plan.total(), .seconds = seconds};
  }
  return best;
}

std::optional<StepExpectation> ExpectStep(const Config& config,
                                          const policy_model::ModelShape& shape,
                                          const RunMemory& memory, const Lengths& lengths) {
  if (!memory.device.is_cpu()) return std::nullopt;
  policy_model::UseThreads(ThreadSharesOf(config).learner);
  const StepWork work = CountStep(config, shape, lengths, memory.recompute);
  const double roughly = TimeOf(work, ProductSpeeds(Device::kCpu, config.model.dtype)).total();
  if (roughly < kShortStep) return std::nullopt;
  const Speeds speeds = MeasureSpeeds(config, shape, Device::kCpu, lengths, roughly / 4);
  const StepTime time = TimeOf(work, speeds);
  if (time.total() < kShortStep) return std::nullopt;
  return StepExpectation{.time = time,
                         .line = ExpectationText(config, time, lengths, speeds.middling >= kBusy)};
}

std::string ExpectationText(const Config& config, const StepTime& time, const Lengths& lengths,
                            bool busy) {
  const bool offline = configs::IsOffline(config);
  std::string line = "a step: about " + Duration(time.total());
  if (!offline) {
    line += " (generating " + Duration(time.generate) + ", updating " + Duration(time.train) +
            (lengths.answer > 0 ? "" : "; answers as long as they may be") +
            "; rewards come on top)";
  }
  const double all = static_cast<double>(config.run.steps) * time.total();
  if (config.run.steps > 1)
    line += "; " + std::to_string(config.run.steps) + " steps: about " + Duration(all);
  return line + (busy ? "; the machine is busy now, alone it is faster" : "") +
         "; `plumb plan` says what of it could be faster";
}

std::string TimeText(const Config& config, const policy_model::ModelShape& shape,
                     const RunMemory& memory, const Speeds& speeds, const Lengths& lengths) {
  const bool offline = configs::IsOffline(config);
  const StepWork work = CountStep(config, shape, lengths, memory.recompute);
  const StepTime time = TimeOf(work, speeds);
  std::string line = SecondsText(time.total()) + ": ";
  if (!offline) line += "generate " + SecondsText(time.generate) + ", ";
  line += "train " + SecondsText(time.train);
  if (!offline)
    line += ", publish " + SecondsText(time.publish) + "; rewards are not known, " +
            (lengths.answer > 0 ? "" : "answers as long as they may be, ") +
            "groups of equal rewards counted";
  std::string text = Row("time a step", line);
  char counted[200];
  const auto tera = [](double operations) { return operations / 1e12; };
  std::snprintf(counted, sizeof counted,
                "%lld x %.0f tokens, each with %lld of %.0f; %.3g T operations to train, %.3g to "
                "generate",
                static_cast<long long>(work.groups), work.prompt,
                static_cast<long long>(work.answers), work.answer,
                tera(work.train_layers + work.train_head + work.forward_layers + work.forward_head),
                tera(work.prefill + work.decode_layers + work.decode_head));
  text += Row("counted", counted) + Row("speeds", speeds.source);
  const auto best = FastestThatFits(config, shape, memory.device, memory.free, speeds, lengths);
  text += Row("fastest that fits",
              !best ? "none of the choices of optimizer.*: see what makes it smaller"
              : best->options.empty() ? "as it is"
                                      : best->options + " (" + SecondsText(best->seconds) + ", " +
                                            SizeText(best->bytes) + ")");
  return text;
}

}  // namespace plumb::run
