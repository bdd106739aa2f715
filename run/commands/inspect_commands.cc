// The verb that only looks: report.
#include <cstdio>
#include <memory>

#include "run/commands/cli.h"
#include "run/report/report.h"

namespace plumb::run {

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
    WriteReport(arguments->run, out);
    std::printf("%s\n", out.c_str());
  });
}

}  // namespace plumb::run
