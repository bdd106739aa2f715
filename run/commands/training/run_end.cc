#include "run/commands/training/run_end.h"

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <string>

#include "common/base/program_call.h"
#include "run/commands/cli.h"
#include "run/roles/observer.h"
#include "run/session/interrupt.h"
#include "run/session/newest_checkpoint.h"
#include "run/session/recipe/cut_short.h"

namespace plumb::run {
namespace {

bool Spoilt(const learner::LearnerResult& r) {
  const auto finite = [](const std::optional<double>& value) {
    return !value || std::isfinite(*value);
  };
  if (r.skipped_at_end > 0) return true;
  return r.after && !(finite(r.after->loss) && finite(r.after->perplexity) &&
                      std::isfinite(r.after->accuracy) && std::isfinite(r.after->reward));
}

}  // namespace

RunOptions OptionsOf(bool resume, bool newest, bool quiet) {
  RunOptions options;
  options.resume = resume;
  options.quiet = quiet;
  options.stop = &StopRequested();
  options.newest = newest;
  return options;
}

int64_t Count(const RunSummary& summary, const std::string& name) {
  const auto found = summary.counters.find(name);
  return found == summary.counters.end() ? 0 : found->second;
}

bool Stopped() { return StopRequested().load(); }

int SayStopped() {
  std::fprintf(stderr, "plumb: stopped: %s\n", kNothingTrained);
  return kExitFewerSteps;
}

std::string SkippedText(const configs::Config& config, const learner::LearnerResult& r) {
  return std::to_string(r.skipped_updates) + " of " +
         std::to_string(r.updates + r.skipped_updates) +
         (r.updates + r.skipped_updates == 1 ? " update was skipped" : " updates were skipped") +
         ": not finite" +
         (config.model.products == configs::Products::kFp16
              ? " (under model.products = \"fp16\" an overflow lowers the scale of the loss)"
              : "");
}

std::string WhySpoilt(const configs::Config& config, const learner::LearnerResult& r) {
  const bool one = r.steps == 1;
  const std::string steps = "the run's " + std::to_string(r.steps) + (one ? " step" : " steps");
  const std::string skipped = std::to_string(r.skipped_updates);
  if (r.steps == 0) return "";
  if (r.updates == 0 && r.skipped_updates > 0 && r.skipped_at_end == 0) {
    // Each divides the scale by 4.
    return steps + " trained nothing: gradients overflowed float16 (model.products = \"fp16\") " +
           "under the scale of the loss, which begins at optimizer.loss_scale = " +
           std::to_string(static_cast<int64_t>(config.optimizer.loss_scale)) +
           " and is a quarter after each update that was skipped for it (optim/skipped = " +
           skipped +
           "). Go on with more steps (--resume --steps N), or begin again with --overwrite and a "
           "smaller optimizer.loss_scale";
  }
  if (r.updates == 0 && r.skipped_updates > 0) {
    return steps +
           " trained nothing: its loss or the gradient was not finite, so each update was skipped "
           "(optim/skipped = " +
           skipped +
           "); the model that was saved is as it was before the run. Begin again with --overwrite "
           "and a lower learning rate, or mend what makes the loss overflow";
  }
  if (!Spoilt(r)) return "";
  const std::string again =
      "begin anew with --overwrite and a lower optimizer.learning_rate (or optimizer.grad_clip), "
      "or go on from an older checkpoint";
  if (r.skipped_at_end == 0)
    return "the run diverged: what was held out gives numbers that are not finite; " + again;
  return "the run diverged: its last " +
         (r.skipped_at_end == 1 ? "update was"
                                : std::to_string(r.skipped_at_end) + " updates were") +
         " skipped, because the loss or the gradient was not finite" +
         (r.skipped_updates > r.skipped_at_end ? " (" + skipped + " in all)" : "") +
         ". The model that was saved is as the update before left it, and that may have broken "
         "it: " +
         again;
}

int Conclude(const Session& session, const RunSummary& summary, bool quiet) {
  const learner::LearnerResult& r = summary.learner;
  const std::string spoilt = WhySpoilt(session.config(), r);
  if (!quiet) {
    const auto held_out = [&](const char* when, const learner::EvalResult& e) {
      std::printf("%s held-out %s\n", when, HeldOutText(session.config(), e).c_str());
    };
    if (r.before) held_out("before:", *r.before);
    if (r.after) held_out("after: ", *r.after);
    std::printf("steps:  %lld in %.1f s\nreport: %s\n", static_cast<long long>(r.steps), r.wall_s,
                session.folder().report().c_str());
    if (r.skipped_updates > 0)
      std::printf("note:   %s\n", SkippedText(session.config(), r).c_str());
    const bool scores = session.config().algorithm.name == configs::AlgorithmName::kRewardModel;
    if (!r.stopped_early && r.saved && spoilt.empty()) {
      std::printf("model:  %s\n", session.folder().model().c_str());
      std::printf(scores ? "try:    %s eval %s PAIRS.jsonl --pairs\n"
                         : "try:    %s generate %s --prompt '...'\n",
                  ProgramCall().c_str(), session.folder().path.c_str());
      if (session.config().policy.adapter != configs::Adapter::kNone) {
        std::printf(
            "also:   a LoRA adapter as PEFT reads it; %s convert %s DIR makes a whole model\n",
            ProgramCall().c_str(), session.folder().path.c_str());
      } else if (!scores && session.shape().family != "plumb") {
        std::printf("also:   transformers and vLLM read the model's folder as it is\n");
      }
    }
    if (!r.stopped_early && r.saved && spoilt.empty() &&
        NewestLacksMoments(session.folder().checkpoints())) {
      std::printf(
          "note:   the last checkpoint has no moments of the optimizer: with more steps they begin "
          "anew (checkpoint.optimizer = \"always\" keeps them)\n");
    }
    if (const int64_t failed = Count(summary, "environment/failures"); failed > 0) {
      std::printf(
          "note:   %lld episode%s failed in the environment and trained nothing; samples.jsonl and "
          "logs/ say why (unscored_reason)\n",
          static_cast<long long>(failed), failed == 1 ? "" : "s");
    }
    if (r.best) {
      std::printf("best:   %s, after step %lld: held-out %s\n", session.folder().best().c_str(),
                  static_cast<long long>(r.best->version),
                  HeldOutText(session.config(), *r.best).c_str());
    }
    std::fflush(stdout);
  }
  if (r.sft && r.sft->stopped) {
    std::fprintf(stderr, "plumb: error: the warm start made %lld of %lld updates; %s\n",
                 static_cast<long long>(r.sft->steps),
                 static_cast<long long>(session.config().sft.steps),
                 HowToGoOn(session.folder().path).c_str());
    return kExitFewerSteps;
  }
  if (!r.stopped_early && r.steps > 0 && r.rewards.scoreless_steps == r.steps) {
    std::fprintf(stderr,
                 "plumb: error: not one answer of the run's %lld steps got a score that counts, so "
                 "nothing was trained and nothing saved; samples.jsonl and logs/ say why. Mend "
                 "that, try it with `%s reward test`, then go on with --resume\n",
                 static_cast<long long>(r.steps), ProgramCall().c_str());
    return kExitRewardFailed;
  }
  if (r.steps < summary.wanted_steps) {
    std::fprintf(stderr, "plumb: error: trained %lld of %lld steps; %s\n",
                 static_cast<long long>(r.steps), static_cast<long long>(summary.wanted_steps),
                 HowToGoOn(session.folder().path).c_str());
    return kExitFewerSteps;
  }
  if (!spoilt.empty()) {
    std::fprintf(stderr, "plumb: error: %s\n", spoilt.c_str());
    return ExitCodeOf(ErrorCode::kNonFinite);
  }
  const double bar = session.config().eval.bar;
  if (r.after && bar > 0 && r.after->aborted > 0) {
    std::fprintf(stderr,
                 "plumb: error: the recipe's eval.bar = %.3f is not met: %lld of %lld held-out "
                 "answers were never generated; "
                 "the first answer without a score: %s\n",
                 bar, static_cast<long long>(r.after->aborted),
                 static_cast<long long>(r.after->answers), r.after->reason.c_str());
    return kExitFewerSteps;
  }
  if (r.after && bar > 0 && BarValue(*r.after) < bar) {
    if (const int64_t whole = StepsBeforeTheCut(session.folder().identity(), session.config());
        whole > 0) {
      if (quiet) return 0;
      std::printf(
          "bar:    held-out %s %.3f is below eval.bar = %.3f, which is for the recipe's %lld "
          "steps: this run was cut short at %lld\ngo on:  %s train --resume --out %s --steps "
          "%lld\n",
          BarName(session.config()).c_str(), BarValue(*r.after), bar, static_cast<long long>(whole),
          static_cast<long long>(r.steps), ProgramCall().c_str(), session.folder().path.c_str(),
          static_cast<long long>(whole));
      std::fflush(stdout);
      return 0;
    }
    std::fprintf(stderr, "plumb: error: held-out %s %.3f is below the recipe's eval.bar = %.3f\n",
                 BarName(session.config()).c_str(), BarValue(*r.after), bar);
    return kExitFewerSteps;
  }
  return 0;
}

}  // namespace plumb::run
