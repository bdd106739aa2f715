#include "run/commands/stages/train_stages.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <system_error>
#include <utility>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/program_call.h"
#include "run/commands/cli.h"
#include "run/report/html.h"
#include "run/report/report.h"
#include "run/report/stage_page.h"
#include "run/roles/observer.h"
#include "run/session/interrupt.h"
#include "run/session/run_folder.h"

namespace plumb::run {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr size_t kMaxJsonBytes = size_t{16} << 20;
constexpr char kStages[] = "stages";  // of run.json and summary.json

Json ReadJson(const std::string& path) {
  if (!fs::exists(path)) return nullptr;
  return Json::parse(RealFileSystem().ReadFile(path, kMaxJsonBytes), nullptr,
                     /*allow_exceptions=*/false);
}

Json At(const Json& json, const char* pointer) {
  const Json::json_pointer at(pointer);
  return json.is_object() && json.contains(at) ? json[at] : Json();
}

std::string Folder(const Stage& stage) { return fs::path(stage.folder).filename().string(); }

// What a stage came to, as the run's own summary says it.
Json StageJson(const Stage& stage, const std::string& state) {
  const Json summary = ReadJson(RunFolder{stage.folder}.summary());
  return {{"folder", Folder(stage)},
          {"name", stage.name},
          {"recipe", stage.recipe},
          {"algorithm", configs::NameOf(stage.config.algorithm.name)},
          {"state", state},
          {"steps", At(summary, "/steps")},
          {"wanted_steps", stage.config.run.steps},
          {"wall_s", At(summary, "/wall_s")},
          {"measure", BarName(stage.config)},
          {"bar", stage.config.eval.bar},
          {"eval", At(summary, "/eval")}};
}

// "accuracy 0.931"; empty: not measured.
std::string Measure(const Json& stage, const char* when) {
  const Json eval = At(stage, (std::string("/eval/") + when).c_str());
  const Json perplexity = At(eval, "/perplexity"), accuracy = At(eval, "/accuracy");
  if (!perplexity.is_number() && !accuracy.is_number()) return "";
  const double value =
      perplexity.is_number() ? 1 / perplexity.get<double>() : accuracy.get<double>();
  const Json name = At(stage, "/measure");
  return (name.is_string() ? name.get<std::string>() + " " : "") + Format("%.3f", value);
}

std::vector<StageRow> Rows(const Json& summary) {
  std::vector<StageRow> rows;
  for (const Json& stage : At(summary, "/stages")) {
    const auto text = [&](const char* pointer) {
      const Json value = At(stage, pointer);
      return value.is_string() ? value.get<std::string>() : std::string();
    };
    const auto number = [&](const char* pointer) {
      const Json value = At(stage, pointer);
      return value.is_number() ? value.get<double>() : 0;
    };
    StageRow row{.name = text("/folder"),
                 .algorithm = text("/algorithm"),
                 .steps = {},
                 .seconds = {},
                 .before = Measure(stage, "before"),
                 .after = Measure(stage, "after"),
                 .bar = number("/bar") > 0 ? Format("%.2f", number("/bar")) : "",
                 .state = text("/state")};
    if (At(stage, "/steps").is_number()) {
      row.steps =
          Format("%.0f", number("/steps")) + " of " + Format("%.0f", number("/wanted_steps"));
      row.seconds = DurationText(number("/wall_s"));
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

// A folder of the same files, which take their place on the disk once where it can be.
void ShareFolder(const std::string& from, const std::string& to) {
  const std::string made = to + ".tmp.stage";
  std::error_code failed;
  fs::remove_all(made, failed);
  fs::copy(from, made, fs::copy_options::recursive | fs::copy_options::create_hard_links, failed);
  if (failed) {
    fs::remove_all(made, failed);
    failed.clear();
    fs::copy(from, made, fs::copy_options::recursive, failed);
  }
  if (failed) {
    throw Error(ErrorCode::kIo, "could not be copied from " + from + ": " + failed.message(), to);
  }
  RealFileSystem().RemoveAll(to);
  RealFileSystem().Rename(made, to);
}

std::vector<std::string> NamesIn(const std::string& identity) {
  std::vector<std::string> names;
  for (const Json& name : At(ReadJson(identity), "/stages")) {
    if (name.is_string()) names.push_back(name.get<std::string>());
  }
  return names;
}

class StagedRun {
 public:
  StagedRun(const StagesRequest& request, std::string folder)
      : request_(request),
        folder_{std::move(folder)},
        stages_(PlanStages(request.loaded, folder_.path, request.resume)) {}

  int Run(const TrainStage& train) {
    lock_ = Begin();
    if (!request_.quiet) {
      std::printf("run folder %s, %zu stages\n%s", folder_.path.c_str(), stages_.size(),
                  ListOfStages(stages_).c_str());
      std::fflush(stdout);
    }
    states_.assign(stages_.size(), "not begun");
    for (size_t i = 0; i < stages_.size(); ++i) {
      if (StopRequested().load()) return Stopped(i);
      const int code = RunOne(i, train);
      // What it replaces is not put back any more: there is something in its place.
      if (i == 0) ReplacedRunGoes(folder_);
      if (code != 0) return StopRequested().load() ? Stopped(i) : Failed(i, code);
    }
    const auto last = std::find_if(stages_.rbegin(), stages_.rend(),
                                   [](const Stage& stage) { return stage.answers(); });
    if (last != stages_.rend() && fs::exists(last->model()))
      ShareFolder(last->model(), folder_.model());
    Save();
    if (!request_.quiet) {
      std::printf("\n%sreport: %s\n", Table().c_str(), folder_.report().c_str());
      if (fs::exists(folder_.model())) {
        std::printf("model:  %s\ntry:    %s generate %s --prompt '...'\n", folder_.model().c_str(),
                    ProgramCall().c_str(), folder_.path.c_str());
      }
      std::fflush(stdout);
    }
    return 0;
  }

 private:
  // The folder of a new run, or of the one that goes on.
  RunLock Begin() {
    std::vector<std::string> names;
    for (const Stage& stage : stages_) names.push_back(Folder(stage));
    RunLock lock = BeginStagedRun(folder_, {.recipe = request_.recipe,
                                            .stages = names,
                                            .resume = request_.resume,
                                            .overwrite = request_.overwrite});
    if (request_.resume) {
      if (NamesIn(folder_.identity()) != names) {
        std::string then;
        for (const std::string& name : NamesIn(folder_.identity()))
          then += (then.empty() ? "" : ", ") + name;
        throw Error(ErrorCode::kConflict,
                    "the run has other stages than the recipe (" + (then.empty() ? "none" : then) +
                        "): choose another --out",
                    folder_.path);
      }
    }
    RealFileSystem().WriteFileAtomic(folder_.config(), GivenOptions(request_.loaded));
    return lock;
  }

  int RunOne(size_t i, const TrainStage& train) {
    const Stage& stage = stages_[i];
    if (!request_.quiet) {
      std::printf("\n%s\n", StageName(stages_, i).c_str());
      std::fflush(stdout);
    }
    states_[i] = "broken off";
    try {
      const int code = train(stage, /*resume=*/fs::exists(RunFolder{stage.folder}.config()));
      if (code == 0) states_[i] = "done";
      Save();
      return code;
    } catch (const Error& error) {
      Save();
      // Nothing of a run that was to be replaced is lost by a first stage that cannot begin.
      if (i == 0 && fs::exists(folder_.replaced())) PutBackReplacedRun(folder_);
      throw Error(error.code(), StageName(stages_, i) + ": " + error.what());
    }
  }

  int Stopped(size_t i) const {
    std::fprintf(stderr, "plumb: stopped in %s; all stages go on with %s train --resume --out %s\n",
                 StageName(stages_, i).c_str(), ProgramCall().c_str(), folder_.path.c_str());
    return kExitFewerSteps;
  }

  int Failed(size_t i, int code) {
    const Json after = At(ReadJson(RunFolder{stages_[i].folder}.summary()), "/eval/after");
    if (code == kExitFewerSteps && !after.is_null()) states_[i] = "below its bar";
    Save();
    if (!request_.quiet) std::printf("\n%s", Table().c_str());
    std::fflush(stdout);
    std::fprintf(stderr, "plumb: error: %s ended with exit code %d%s\n",
                 StageName(stages_, i).c_str(), code,
                 i + 1 < stages_.size() ? "; the stages behind it were not begun" : "");
    return code;
  }

  void Save() const {
    Json stages = Json::array();
    for (size_t i = 0; i < stages_.size(); ++i) stages.push_back(StageJson(stages_[i], states_[i]));
    const Json summary = {{kStages, std::move(stages)}};
    RealFileSystem().WriteFileAtomic(
        folder_.summary(), summary.dump(1, ' ', false, Json::error_handler_t::replace) + "\n");
    WriteStagesReport(folder_.path, folder_.report());
  }
  std::string Table() const { return StageTable(Rows(ReadJson(folder_.summary()))); }

  const StagesRequest& request_;
  const RunFolder folder_;
  const std::vector<Stage> stages_;
  std::vector<std::string> states_;
  RunLock lock_;
};

}  // namespace

int TrainStages(const StagesRequest& request, const TrainStage& train) {
  std::string out = request.out;
  if (out.empty()) out = request.loaded.config.run.out;
  if (out.empty()) out = "runs/" + fs::path(request.recipe).stem().string();
  std::string folder = fs::absolute(out).lexically_normal().string();
  while (folder.size() > 1 && folder.back() == '/') folder.pop_back();
  return StagedRun(request, folder).Run(train);
}

bool HasStages(const std::string& run_folder) {
  return At(ReadJson(RunFolder{run_folder}.identity()), "/stages").is_array();
}

void WriteStagesReport(const std::string& run_folder, const std::string& output_html) {
  const RunFolder folder{run_folder};
  RealFileSystem().WriteFileAtomic(output_html, StagePage(fs::path(run_folder).filename().string(),
                                                          Rows(ReadJson(folder.summary()))));
}

std::string ListOfStages(const std::vector<Stage>& stages) {
  std::string out;
  for (size_t i = 0; i < stages.size(); ++i) {
    const configs::Config& config = stages[i].config;
    out += "  " + Folder(stages[i]) + ": " + configs::NameOf(config.algorithm.name) + ", " +
           std::to_string(config.run.steps) + " steps" +
           (config.eval.bar > 0 ? ", bar " + BarName(config) + " " + Format("%.2f", config.eval.bar)
                                : "") +
           " (" + stages[i].recipe + ")\n";
  }
  return out;
}

}  // namespace plumb::run
