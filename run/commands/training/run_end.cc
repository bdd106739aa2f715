#include "run/commands/training/run_end.h"

#include <cstdio>
#include <string>

#include "common/base/program_call.h"
#include "run/commands/cli.h"
#include "run/roles/observer.h"
#include "run/session/interrupt.h"
#include "run/session/newest_checkpoint.h"
#include "run/session/recipe/cut_short.h"

namespace plumb::run {

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

int Conclude(const Session& session, const RunSummary& summary, bool quiet) {
  const learner::LearnerResult& r = summary.learner;
  if (!quiet) {
    const auto held_out = [&](const char* when, const learner::EvalResult& e) {
      std::printf("%s held-out %s\n", when, HeldOutText(session.config(), e).c_str());
    };
    if (r.before) held_out("before:", *r.before);
    if (r.after) held_out("after: ", *r.after);
    std::printf("steps:  %lld in %.1f s\nreport: %s\n", static_cast<long long>(r.steps), r.wall_s,
                session.folder().report().c_str());
    const bool scores = session.config().algorithm.name == configs::AlgorithmName::kRewardModel;
    if (!r.stopped_early && r.saved) {
      std::printf("model:  %s\n", session.folder().model().c_str());
      if (!scores)
        std::printf("try:    %s generate %s --prompt '...'\n", ProgramCall().c_str(),
                    session.folder().path.c_str());
      if (session.config().policy.adapter != configs::Adapter::kNone) {
        std::printf(
            "also:   a LoRA adapter as PEFT reads it; %s convert %s DIR makes a whole model\n",
            ProgramCall().c_str(), session.folder().path.c_str());
      } else if (!scores && session.shape().family != "plumb") {
        std::printf("also:   transformers and vLLM read the model's folder as it is\n");
      }
    }
    if (!r.stopped_early && r.saved && NewestLacksMoments(session.folder().checkpoints())) {
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
  if (r.steps > 0 && r.updates == 0 && r.skipped_updates > 0) {
    std::fprintf(
        stderr,
        "plumb: error: the run's %lld step%s trained nothing: its loss or the gradient was "
        "not finite, so each update was skipped (optim/skipped = %lld); the model that was "
        "saved is as it was before the run. Begin again with %s\n",
        static_cast<long long>(r.steps), r.steps == 1 ? "" : "s",
        static_cast<long long>(r.skipped_updates),
        "--overwrite and a lower learning rate, or mend what makes the loss overflow");
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
