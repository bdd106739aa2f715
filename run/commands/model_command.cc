// plumb model info DIR: what a model folder holds, what it costs, and why it would not load.
#include <cstdio>
#include <memory>

#include "run/commands/checked_numbers.h"
#include "run/commands/cli.h"
#include "run/models/model_report.h"

namespace plumb::run {

void AddModelCommand(CLI::App& app, CliResult& result) {
  struct Arguments {
    std::string folder;
    ModelReportOptions options;
    bool json = false;
  };
  auto a = std::make_shared<Arguments>();
  CLI::App* model = app.add_subcommand("model", "Model folders")->require_subcommand(1);
  CLI::App* info = model->add_subcommand(
      "info",
      "Family, size, context, tokenizer, memory to generate and to train, and everything "
      "for which it would not load");
  info->add_option("folder", a->folder, "a model folder, an adapter's, or a run's")->required();
  info->add_option("--rank", a->options.rank, "of the LoRA adapter that is reckoned (8)")
      ->check(WholeNumber(1, 1 << 16));
  info->add_option("--batch", a->options.batch, "sequences generated together (1)")
      ->check(WholeNumber(1, 1 << 20));
  info->add_option("--length", a->options.length, "tokens of each; 0: the context, at most 4096")
      ->check(WholeNumber(0));
  info->add_flag("--json", a->json, "one JSON object, memory in bytes");
  info->footer("Exit code 9: it would not load.");
  info->callback([a, &result] {
    const ModelReport report = ReportOnModel(a->folder, a->options);
    const std::string text =
        a->json
            ? report.Json().dump(1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) +
                  "\n"
            : report.Text();
    std::fwrite(text.data(), 1, text.size(), stdout);
    if (!report.problems.empty()) result.exit_code = ExitCodeOf(ErrorCode::kUnsupported);
  });
}

}  // namespace plumb::run
