// The verbs that look at runs and only read. plumb board [RUNS]: a page in the browser that shows
// runs and follows them. plumb watch RUN: the same of one run in a terminal. plumb report RUN: one
// page.
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <memory>
#include <thread>

#include "common/base/place.h"
#include "run/board/board_server.h"
#include "run/board/run_catalog.h"
#include "run/board/watch.h"
#include "run/commands/checked_numbers.h"
#include "run/commands/cli.h"
#include "run/commands/stages/train_stages.h"
#include "run/report/report.h"

namespace plumb::run {
namespace {

constexpr char kDefaultRuns[] = "runs";
constexpr std::chrono::milliseconds kNap{100};

struct BoardArguments {
  std::vector<std::string> runs;
  BoardOptions options;
};

void Board(const BoardArguments& a) {
  const bool unsaid = a.runs.empty();
  // no folder yet where the first run is about to be: the page waits for it
  RunCatalog runs(unsaid ? std::vector<std::string>{kDefaultRuns} : a.runs, unsaid);
  const BoardServer server(runs, a.options);
  NowBusy(Busy::kInOrder);
  std::printf("board: %s (%zu runs; Ctrl-C ends it)\n", server.url().c_str(), runs.Runs().size());
  if (!IsLoopback(a.options.host))
    std::printf("board: whoever reaches this address can read these runs\n");
  std::fflush(stdout);
  while (!StopRequested()) std::this_thread::sleep_for(kNap);
}

void Watch(const std::string& run, double hertz) {
  if (!IsRunFolder(run)) {
    const bool unknown = PlaceOf(run) == Place::kFolder;
    throw Error(ErrorCode::kNotFound,
                unknown ? "no run here: give the folder that `plumb train` wrote, with run.json or "
                          "metrics.jsonl in it"
                        : NotWhatIsWanted(run, "a run's folder"),
                run);
  }
  NowBusy(Busy::kInOrder);
  const WatchOptions options{.hertz = hertz, .stop = &StopRequested()};
  if (isatty(STDOUT_FILENO) != 0) WatchOnTerminal(run, options);
  else WatchAsLines(run, options, stdout);
}

}  // namespace

void AddBoardCommand(CLI::App& app, CliResult&) {
  auto a = std::make_shared<BoardArguments>();
  a->options.port = 8642;
  CLI::App* board =
      app.add_subcommand("board", "A web page of runs: curves, samples, the ring; follows them");
  board->add_option("runs", a->runs,
                    "folders of runs, or folders that runs lie in (default: runs)");
  board
      ->add_option("--host", a->options.host,
                   "address to listen on; others than loopback are open to whoever reaches them")
      ->capture_default_str();
  board->add_option("--port", a->options.port, "0 takes a free one")
      ->check(WholeNumber(0, 65535))
      ->capture_default_str();
  board
      ->add_option("--name", a->options.names,
                   "a name that browsers may call this machine by, besides its addresses")
      ->allow_extra_args(false);
  board->callback([a] { Board(*a); });
}

void AddWatchCommand(CLI::App& app, CliResult&) {
  struct Arguments {
    std::string run;
    double hertz = 2;
  };
  auto a = std::make_shared<Arguments>();
  CLI::App* watch = app.add_subcommand(
      "watch", "A run in the terminal, as it goes on; a line a step where there is no terminal");
  watch->add_option("run", a->run, "run folder, e.g. runs/demo")->required();
  watch->add_option("--rate", a->hertz, "times a second that it looks")
      ->check(NumberFrom(0.1, 10))
      ->capture_default_str();
  watch->callback([a] { Watch(a->run, a->hertz); });
}

void AddReportCommand(CLI::App& app, CliResult&) {
  struct Arguments {
    std::string run, out;
  };
  auto arguments = std::make_shared<Arguments>();
  CLI::App* report = app.add_subcommand("report", "One self-contained HTML page of a run");
  report->add_option("run", arguments->run, "run folder, e.g. runs/demo")->required();
  report->add_option("--out", arguments->out, "HTML file (default: <run>/report.html)");
  report->callback([arguments] {
    const std::string out =
        arguments->out.empty() ? arguments->run + "/report.html" : arguments->out;
    if (HasStages(arguments->run)) WriteStagesReport(arguments->run, out);
    else WriteReport(arguments->run, out);
    std::printf("%s\n", out.c_str());
  });
}

}  // namespace plumb::run
