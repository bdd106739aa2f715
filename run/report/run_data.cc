#include "run/report/run_data.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <fstream>
#include <functional>
#include <limits>
#include <string_view>
#include <utility>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/metrics/missing_steps.h"
#include "common/base/place.h"
#include "common/record/json_text.h"

namespace plumb::run {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kMaxFileBytes = size_t{64} << 20;  // of the files that are read whole

std::optional<std::string> ReadIfThere(const std::string& path) {
  FileSystem& files = RealFileSystem();
  if (!files.Exists(path)) return std::nullopt;
  return files.ReadFile(path, kMaxFileBytes);
}

// The numbers of one flat JSON object; what is nested is passed over.
class NumberReader final : public nlohmann::json_sax<nlohmann::json> {
 public:
  // False for a line that is no object with an integer "step".
  bool Read(const std::string& line) {
    values_.clear();
    step_.reset();
    depth_ = 0;
    return nlohmann::json::sax_parse(line, this) && step_.has_value();
  }
  int64_t step() const { return *step_; }
  const std::vector<std::pair<std::string, double>>& values() const { return values_; }

  bool null() override { return Take(std::numeric_limits<double>::quiet_NaN()); }
  bool boolean(bool) override { return true; }
  bool number_integer(int64_t v) override { return Integer(v); }
  bool number_unsigned(uint64_t v) override { return Integer(static_cast<int64_t>(v)); }
  bool number_float(double v, const std::string&) override { return Take(v); }
  bool string(std::string&) override { return true; }
  bool binary(nlohmann::json::binary_t&) override { return true; }
  bool start_object(size_t) override { return ++depth_ > 0; }
  bool end_object() override { return --depth_ >= 0; }
  bool start_array(size_t) override { return ++depth_ > 1; }  // a line is an object
  bool end_array() override { return --depth_ >= 0; }
  bool key(std::string& name) override {
    if (depth_ == 1) key_ = name;
    return true;
  }
  bool parse_error(size_t, const std::string&, const nlohmann::json::exception&) override {
    return false;
  }

 private:
  bool Integer(int64_t v) {
    if (depth_ == 1 && key_ == "step") {
      step_ = v;
      return true;
    }
    return Take(static_cast<double>(v));
  }
  bool Take(double v) {
    if (depth_ == 0) return false;
    if (depth_ == 1 && key_ != "step") values_.emplace_back(key_, v);
    return true;
  }

  std::vector<std::pair<std::string, double>> values_;
  std::optional<int64_t> step_;
  std::string key_;
  int depth_ = 0;
};

// Calls `take` with each line that is not empty; lines for which it returns false are counted and
// said: a killed run can leave a torn last one.
void ForEachLine(const std::string& folder, const std::string& name,
                 std::vector<std::string>& notes,
                 const std::function<bool(const std::string&)>& take) {
  const std::string path = folder + "/" + name;
  if (!RealFileSystem().Exists(path)) {
    notes.push_back(name + " is missing, so what it holds is left out.");
    return;
  }
  std::ifstream in(path, std::ios::binary);
  if (!in) ThrowFileError(errno, "cannot read", path);
  int64_t unreadable = 0;
  for (std::string line; std::getline(in, line);) {
    if (!line.empty()) unreadable += !take(line);
  }
  if (in.bad()) ThrowFileError(errno, "cannot read", path);
  if (unreadable > 0) {
    notes.push_back(name + ": " + std::to_string(unreadable) +
                    (unreadable == 1 ? " line is" : " lines are") + " not readable and left out.");
  }
}

void ReadMetrics(const std::string& folder, RunData& data) {
  NumberReader reader;
  MissingSteps missing;
  ForEachLine(folder, "metrics.jsonl", data.notes, [&](const std::string& line) {
    if (!reader.Read(line)) return false;
    ++data.lines;
    missing.Step(reader.step());
    data.last_step = std::max(data.last_step, reader.step());
    for (const auto& [name, value] : reader.values()) {
      if (name == "wall_s") {
        if (data.first_wall_s == 0) data.first_wall_s = value;
        continue;
      }
      auto column = data.columns.find(name);
      if (column == data.columns.end()) column = data.columns.emplace(name, MetricColumn{}).first;
      column->second.step.push_back(reader.step());
      column->second.value.push_back(value);
    }
    return true;
  });
  if (missing.count() > 0) {
    data.notes.push_back("metrics.jsonl lacks " + std::to_string(missing.count()) +
                         (missing.count() == 1 ? " step: " : " steps: ") + missing.Text() +
                         ". Curves pass over them, and what they counted is in no sum.");
  }
}

// Keeps every n-th group, with n twice as large each time that there are too many, and the last.
class GroupSelection {
 public:
  void Take(Json answer) {
    const int64_t step = answer["step"].get<int64_t>();
    const Json lease = answer.value("lease_id", Json(nullptr));
    if (count_ == 0 || step != group_.step || lease != lease_) {
      Close();
      group_ = SampleGroup{.step = step};
      lease_ = lease;
      ++count_;
    }
    ++group_.answers_in_all;
    if (group_.answers.size() < RunData::kAnswers) {
      group_.answers.push_back(std::move(answer));
      return;
    }
    // The best and the worst of all stay, whenever they came.
    const double reward = Score(answer);
    const auto [least, most] =
        std::minmax_element(group_.answers.begin(), group_.answers.end(),
                            [](const Json& a, const Json& b) { return Score(a) < Score(b); });
    if (reward > Score(*most) || reward < Score(*least)) {
      const auto middle =
          std::find_if(group_.answers.begin(), group_.answers.end(),
                       [&](const Json& a) { return &a != &*least && &a != &*most; });
      *middle = std::move(answer);
    }
  }
  void Finish(RunData& data) {
    data.sample_groups = count_;
    if (count_ > 0) kept_.push_back(std::move(group_));
    data.samples = std::move(kept_);
  }

 private:
  static double Score(const Json& answer) {
    const Json* reward = FindIn(answer, {"reward"});
    return reward && reward->is_number() ? reward->get<double>()
                                         : -std::numeric_limits<double>::infinity();
  }
  // `group_` is whole.
  void Close() {
    if (count_ == 0 || (count_ - 1) % stride_ != 0) return;
    kept_.push_back(std::move(group_));
    if (kept_.size() < RunData::kGroups) return;
    for (size_t i = 1; 2 * i < kept_.size(); ++i) kept_[i] = std::move(kept_[2 * i]);
    kept_.resize((kept_.size() + 1) / 2);
    stride_ *= 2;
  }

  std::vector<SampleGroup> kept_;
  SampleGroup group_;
  Json lease_;
  int64_t count_ = 0, stride_ = 1;
};

void ReadSamples(const std::string& folder, RunData& data) {
  GroupSelection selection;
  ForEachLine(folder, "samples.jsonl", data.notes, [&](const std::string& line) {
    Json answer = Json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!answer.is_object() || !answer.contains("step") || !answer["step"].is_number_integer())
      return false;
    selection.Take(std::move(answer));
    return true;
  });
  selection.Finish(data);
}

void ReadChanges(const std::string& folder, RunData& data) {
  if (!RealFileSystem().Exists(folder + "/changes.jsonl")) return;
  ForEachLine(folder, "changes.jsonl", data.notes, [&](const std::string& line) {
    const Json change = Json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!change.is_object()) return false;
    const auto part = [&](const char* name) {
      return change.contains(name) ? DumpJson(change[name]) : std::string("?");
    };
    data.notes.push_back("Resumed with another recipe: from step " + part("step") + " on " +
                         part("option") + " is " + part("now") + ", before it was " +
                         part("before") + ".");
    return true;
  });
}

}  // namespace

RunData LoadRun(const std::string& folder) {
  RunData data;
  data.config = ReadIfThere(folder + "/config.toml");
  const auto summary = ReadIfThere(folder + "/summary.json");
  if (!data.config && !summary && !RealFileSystem().Exists(folder + "/metrics.jsonl")) {
    const bool unknown = PlaceOf(folder) == Place::kFolder;
    throw Error(ErrorCode::kNotFound,
                unknown ? "no run here: config.toml, metrics.jsonl and summary.json are all "
                          "missing; give the folder that `plumb train` wrote"
                        : NotWhatIsWanted(folder, "a run's folder"),
                folder);
  }
  ReadMetrics(folder, data);
  ReadSamples(folder, data);
  ReadChanges(folder, data);
  if (data.config) data.recipe = ReadRecipeValues(*data.config);
  else data.notes.push_back("config.toml is missing, so the recipe is left out.");
  if (!summary) {
    data.notes.push_back(
        "summary.json is missing: the run has not ended, or was stopped at once or killed.");
  } else {
    data.summary = Json::parse(*summary, nullptr, /*allow_exceptions=*/false);
    if (!data.summary.is_object()) {
      data.notes.push_back("summary.json is not readable and left out.");
      data.summary = nullptr;
    }
  }
  if (const auto identity = ReadIfThere(folder + "/run.json")) {
    data.identity = Json::parse(*identity, nullptr, /*allow_exceptions=*/false);
    if (!data.identity.is_object()) data.identity = nullptr;
  }
  return data;
}

const Json* FindIn(const Json& object, std::initializer_list<const char*> path) {
  const Json* at = &object;
  for (const char* key : path) {
    if (!at->is_object()) return nullptr;
    const auto it = at->find(key);
    if (it == at->end() || it->is_null()) return nullptr;
    at = &*it;
  }
  return at;
}

double NumberIn(const Json* value, double otherwise) {
  return value && value->is_number() ? value->get<double>() : otherwise;
}

std::string TextIn(const Json* value) {
  if (!value) return "";
  return value->is_string() ? value->get<std::string>() : DumpJson(*value);
}

}  // namespace plumb::run
