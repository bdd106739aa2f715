#include "run/commands/training/role_process.h"

#include <cstdio>
#include <memory>
#include <string>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/program_call.h"
#include "configs/checks/actor_device.h"
#include "configs/parallel.h"
#include "kernels/device/process_gpu.h"
#include "learner/ranks/rendezvous.h"
#include "run/commands/training/run_end.h"
#include "run/roles/learner_ports.h"
#include "run/roles/observer.h"
#include "run/roles/rank_start.h"
#include "run/roles/roles.h"
#include "run/roles/sharing/actor_ranks.h"
#include "run/session/interrupt.h"
#include "run/session/newest_checkpoint.h"
#include "run/session/session.h"

namespace plumb::run {
namespace {

struct RoleArguments {
  std::string folder, role, sockets, called;
  int64_t index = 0, ranks = 1, rank = 0;  // of an actor: which of rollout.tp
  bool resume = false, newest = false, quiet = false;
};

// A stop that comes while the store cannot be asked (it imports, or ended first) is a stop all the
// same.
int Learner(const Session& session, const Endpoints& endpoints, const RunOptions& options,
            bool quiet) {
  try {
    const bool offline = configs::IsOffline(session.config());
    return Conclude(session,
                    offline ? RunOfflineTraining(session, options)
                            : RunLearnerRole(session, endpoints, options),
                    quiet);
  } catch (const Error& e) {
    if (!StopRequested() || !TryAgain(e)) throw;
    std::fprintf(stderr, "plumb: stopped: %s; %s\n", e.what(),
                 HowToGoOn(session.folder().path).c_str());
    return kExitFewerSteps;
  }
}

int Role(const RoleArguments& arguments) {
  CalledAs(arguments.called);
  if (arguments.role == "learner") {
    NowBusy(Busy::kNothingToKeep, kNothingTrained);
    MarkWhenStopped(arguments.folder);
  }
  if (arguments.role == "learner" && arguments.ranks > 1)
    kernels::UseGpu(static_cast<int>(arguments.index));
  Session::DeviceOf device_of;
  if (arguments.role == "actor") {
    device_of = [&](const configs::Config& config) {
      const int64_t learners = configs::ReadParallel(config.run.parallel).ranks();
      return configs::ActorDevice(config, learners, arguments.index, arguments.rank);
    };
  }
  const auto session = Session::Open(arguments.folder, device_of);
  const bool numbered = arguments.role == "actor" || arguments.role == "reward" ||
                        (arguments.role == "learner" && arguments.index > 0);
  SetUpLogging(arguments.role, numbered ? static_cast<int>(arguments.index) : -1,
               session->folder().logs() + "/" + arguments.role +
                   (numbered ? "-" + std::to_string(arguments.index) : "") +
                   (arguments.rank > 0 ? "-" + std::to_string(arguments.rank) : "") + ".log");
  const Endpoints endpoints{arguments.sockets};
  RunOptions options = OptionsOf(arguments.resume, arguments.newest, arguments.quiet);
  if (arguments.role == "learner" && arguments.ranks > 1) {
    std::unique_ptr<learner::Ranks> ranks;
    const bool first = arguments.index == 0;
    try {
      ranks = learner::JoinInFolder(arguments.sockets, static_cast<int>(arguments.index),
                                    static_cast<int>(arguments.ranks), StallTime(session->config()),
                                    Stopped);
    } catch (const learner::JoinStopped&) {
      if (!first) return kExitFewerSteps;
      RealFileSystem().WriteFileAtomic(arguments.folder + "/" + kStoppedMark, "");
      return SayStopped();
    }
    options.ranks = ranks.get();
    options.ranks_here = static_cast<int>(arguments.ranks);
    return AsRank(ranks.get(), [&] {
      if (first) return Learner(*session, endpoints, options, arguments.quiet);
      RunLearnerRank(*session, options);
      return 0;
    });
  }
  if (arguments.role == "actor" && arguments.ranks > 1)
    return RunActorOfRanks(*session, endpoints, arguments.index,
                           {.rank = static_cast<int>(arguments.rank),
                            .size = static_cast<int>(arguments.ranks)},
                           options)
               ? 0
               : kExitFewerSteps;
  if (arguments.role == "replay") RunReplayRole(*session, endpoints, options);
  else if (arguments.role == "reward") RunRewardRole(*session, endpoints, arguments.index, options);
  else if (arguments.role == "actor") RunActorRole(*session, endpoints, arguments.index, options);
  else if (arguments.role == "learner")
    return Learner(*session, endpoints, options, arguments.quiet);
  else throw Error(ErrorCode::kInvalidArgument, "unknown role '" + arguments.role + "'");
  return 0;
}

}  // namespace

void AddRoleProcessCommand(CLI::App& app, CliResult& result) {
  auto role = std::make_shared<RoleArguments>();
  CLI::App* hidden =
      app.add_subcommand("role-process", "One role of a run in processes (started by train)");
  hidden->group("");  // not listed
  hidden->add_option("--run", role->folder)->required();
  hidden->add_option("--role", role->role)->required();
  hidden->add_option("--sockets", role->sockets)->required();
  hidden->add_option("--index", role->index);
  hidden->add_option("--ranks", role->ranks);    // of the learner, or of this actor
  hidden->add_option("--rank", role->rank);      // of this actor
  hidden->add_option("--called", role->called);  // how the user called train
  hidden->add_flag("--resume", role->resume);
  hidden->add_flag("--newest", role->newest);
  hidden->add_flag("--quiet", role->quiet);
  hidden->callback([role, &result] { result.exit_code = Role(*role); });
}

}  // namespace plumb::run
