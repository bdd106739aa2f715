// The command line: verbs, exit codes, signals.
//
// Exit codes (do not change the values of existing entries):
//   0 done   1 internal error   2 invalid input or usage   3 not found   4 corrupted data   5 disk
//                                                          or operating system
//   6 a peer or deadline   7 stopped before its end (Ctrl-C, SIGTERM), fewer steps than asked, rows
//                          of a file left out that were to be answered, or ended below eval.bar
//   8 not finite   9 not supported by this build
//   10 a reward part failed on every sample (plumb reward test) or answer (plumb eval), or no
//      answer of three steps in a row, or of all steps of a run, got a score (plumb train)
//   11 of a learner of several ranks: another rank was lost, or computes something else
// Thread safety: RunCli is called once, by main.
#pragma once

#include <CLI/CLI.hpp>

#include <string>

#include "common/base/error.h"
#include "run/session/interrupt.h"

namespace plumb::run {

inline constexpr int kExitFewerSteps = 7;
inline constexpr int kExitRewardFailed = 10;
inline constexpr int kExitRankLost = 11;

int ExitCodeOf(ErrorCode code);
int ExitCodeOf(const Error& error);  // learner::RewardFailed has a code of its own

// The words of `wanted` that are not among those of `have`, each behind a blank.
std::string WordsMissing(const std::string& wanted, const std::string& have);
// Throws kUnsupported where the processor lacks what the numeric folders were compiled to use: a
// sentence instead of the signal of an unknown instruction.
void CheckProcessor();
// `plumb --version`: version, commit, compiler, processor, CUDA, LibTorch; for reports of errors.
std::string VersionText();

// Parses, runs the verb, prints "plumb: error: ..." on standard error, returns the exit code.
int RunCli(int argc, char** argv);

// Each verb adds itself and leaves its exit code here.
struct CliResult {
  int exit_code = 0;
};

void AddTrainCommand(CLI::App& app, CliResult& result);
void AddDataCommand(CLI::App& app, CliResult& result);
void AddReplayCommands(CLI::App& data, CliResult& result);  // data mine, data rescore
void AddConfigCommand(CLI::App& app, CliResult& result);
void AddStoreCommand(CLI::App& app, CliResult& result);
void AddReportCommand(CLI::App& app, CliResult& result);
void AddBoardCommand(CLI::App& app, CliResult& result);
void AddWatchCommand(CLI::App& app, CliResult& result);
void AddDoctorCommand(CLI::App& app, CliResult& result);
void AddGenerateCommand(CLI::App& app, CliResult& result);
void AddChatCommand(CLI::App& app, CliResult& result);
void AddServeCommand(CLI::App& app, CliResult& result);
void AddModelCommand(CLI::App& app, CliResult& result);
void AddScoreCommand(CLI::App& app, CliResult& result);
void AddEvalCommand(CLI::App& app, CliResult& result);
void AddConvertCommand(CLI::App& app, CliResult& result);
void AddRewardServeCommand(CLI::App& app, CliResult& result);  // reward serve, keys generate
void AddRewardTestCommand(CLI::App& app, CliResult& result);

}  // namespace plumb::run
