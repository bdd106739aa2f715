#include "run/cli.h"

#include <csignal>
#include <cstdio>
#include <cstring>

#include "common/log.h"
#include "reward/plugin_host.h"

namespace plumb::run {
namespace {

std::atomic<bool> stop_requested{false};

void OnSignal(int) { stop_requested.store(true); }

}  // namespace

const std::atomic<bool>& StopRequested() { return stop_requested; }

int ExitCodeOf(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument:
    case ErrorCode::kConflict: return 2;
    case ErrorCode::kNotFound: return 3;
    case ErrorCode::kCorruption: return 4;
    case ErrorCode::kIo:
    case ErrorCode::kNoSpace: return 5;
    case ErrorCode::kDeadline:
    case ErrorCode::kUnavailable: return 6;
    case ErrorCode::kNonFinite: return 8;
    case ErrorCode::kUnsupported: return 9;
  }
  return 1;
}

int RunCli(int argc, char** argv) {
  // The host process of reward code is this program too; nothing else of it may be set up there.
  if (argc > 1 && std::strcmp(argv[1], "reward-host") == 0) return reward::RewardHostMain(argc - 1, argv + 1);

  struct sigaction action {};
  action.sa_handler = OnSignal;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  signal(SIGPIPE, SIG_IGN);

  CLI::App app{"Plumb aligns language models with reinforcement learning, in one native program."};
  app.require_subcommand(1);
  app.footer("Exit codes: 0 done, 1 internal, 2 invalid input, 3 not found, 4 corrupted data, 5 disk, 6 peer or deadline,\n"
             "7 fewer steps than asked or below eval.bar, 8 not finite, 9 not supported by this build,\n"
             "10 a reward part failed on every sample.");
  CliResult result;
  AddTrainCommand(app, result);
  AddDataCommand(app, result);
  AddConfigCommand(app, result);
  AddStoreCommand(app, result);
  AddReportCommand(app, result);
  AddDoctorCommand(app, result);
  AddGenerateCommand(app, result);
  AddConvertCommand(app, result);
  AddEvalCommand(app, result);
  AddScoreCommand(app, result);
  AddRewardServeCommand(app, result);  // behind whoever else adds the verb "reward"
  AddRewardTestCommand(app, result);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    const int code = app.exit(e);
    return code == 0 ? 0 : 2;
  } catch (const Error& e) {
    LogError(e.what());
    std::fprintf(stderr, "plumb: error: %s\n", e.what());
    return ExitCodeOf(e.code());
  } catch (const std::exception& e) {
    std::fprintf(stderr, "plumb: internal error: %s\n", e.what());
    return 1;
  }
  return result.exit_code;
}

}  // namespace plumb::run
