// The verbs that only look: config show, report.
#include <cstdio>
#include <memory>

#include "configs/config.h"
#include "run/commands/cli.h"
#include "run/report/report.h"

namespace plumb::run {

void AddConfigCommand(CLI::App& app, CliResult&) {
  struct Arguments {
    std::string recipe;
    std::vector<std::string> overrides;
    bool toml = false;
  };
  auto arguments = std::make_shared<Arguments>();
  CLI::App* config = app.add_subcommand("config", "Look at recipes");
  config->require_subcommand(1);
  CLI::App* show =
      config->add_subcommand("show", "Every option with value, origin, unit and advice");
  show->add_option("recipe", arguments->recipe, "TOML file")->required();
  show->add_option("--set", arguments->overrides, "section.key=value")->allow_extra_args(false);
  show->add_flag("--toml", arguments->toml, "the resolved recipe as TOML instead");
  show->callback([arguments] {
    const configs::Loaded loaded = configs::LoadRecipe(arguments->recipe, arguments->overrides);
    std::fputs(
        (arguments->toml ? configs::ToToml(loaded.config) : configs::Describe(loaded)).c_str(),
        stdout);
  });
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
    WriteReport(arguments->run, out);
    std::printf("%s\n", out.c_str());
  });
}

}  // namespace plumb::run
