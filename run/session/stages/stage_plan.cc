#include "run/session/stages/stage_plan.h"

#include <algorithm>
#include <concepts>
#include <filesystem>
#include <map>
#include <set>
#include <utility>

#include "common/base/error.h"
#include "configs/checks/distill_check.h"
#include "configs/fields.h"
#include "configs/paths.h"
#include "configs/value_text.h"
#include "run/session/recipe/recipe_check.h"

namespace plumb::run {
namespace {

namespace fs = std::filesystem;

bool Given(const configs::Origins& origins, const std::string& key) {
  const auto found = origins.find(key);
  return found != origins.end() && !found->second.starts_with("default");
}

// Options that make a new model: a stage that has one to go on from has them from there.
bool MakesModel(const std::string& key) {
  static const std::set<std::string> kOfEveryStage = {"model.dtype",      "experts.bias_rate",
                                                      "experts.aux_coef", "experts.z_coef",
                                                      "experts.capacity", "experts.capacity_noise"};
  return (key.starts_with("model.") || key.starts_with("experts.")) && !kOfEveryStage.contains(key);
}

// Key and value of every option that a recipe gives, in the order of the sections.
struct GivenValues {
  const configs::Origins& origins;
  std::string prefix;
  std::vector<std::pair<std::string, std::string>>& out;
  template <class Field>
  void operator()(const configs::FieldInfo& info, Field& field) {
    if constexpr (!std::same_as<Field, std::vector<configs::RewardPartConfig>>) {
      const std::string key = prefix + info.name;
      if (Given(origins, key)) out.emplace_back(key, configs::Text(field));
    }
  }
  template <class Table>
  void Section(const char* name, Table& table) {
    GivenValues inner{origins, std::string(name) + ".", out};
    table.Visit(inner);
  }
};

std::vector<std::pair<std::string, std::string>> ValuesGiven(const configs::Loaded& recipe) {
  std::vector<std::pair<std::string, std::string>> out;
  configs::Config config = recipe.config;
  GivenValues values{recipe.origins, "", out};
  config.Visit(values);
  return out;
}

// Every file and folder of an option that is an earlier stage's model, as "key=path".
struct StageModels {
  const std::vector<Stage>& before;
  std::string prefix;
  std::vector<std::string>& overrides;
  template <class Field>
  void operator()(const configs::FieldInfo& info, Field& field) {
    if constexpr (std::same_as<Field, std::string>) {
      if (field.starts_with(configs::kOfStage))
        overrides.push_back(prefix + info.name + "=" + configs::Quote(ModelOf(info, field)));
    } else if constexpr (std::same_as<Field, std::vector<std::string>>) {
      if (std::string_view(info.unit) != "models") return;
      bool any = false;
      std::string list;
      for (const std::string& each : field) {  // "stage:NAME" or "dataset=stage:NAME"
        const size_t at = each.find(configs::kOfStage);
        const bool of_stage = at == 0 || (at != std::string::npos && each[at - 1] == '=');
        any = any || of_stage;
        list +=
            (list.empty() ? "" : ", ") +
            configs::Quote(of_stage ? each.substr(0, at) + ModelOf(info, each.substr(at)) : each);
      }
      if (any) overrides.push_back(prefix + info.name + "=[" + list + "]");
    } else if constexpr (std::same_as<Field, std::vector<configs::RewardPartConfig>>) {
      for (size_t i = 0; i < field.size(); ++i) {
        StageModels inner{before, prefix + info.name + "." + std::to_string(i) + ".", overrides};
        field[i].Visit(inner);
      }
    }
  }
  // Of "stage:NAME".
  std::string ModelOf(const configs::FieldInfo& info, const std::string& field) const {
    const std::string name = field.substr(configs::kOfStage.size());
    const auto found = std::find_if(before.rbegin(), before.rend(),
                                    [&](const Stage& stage) { return stage.name == name; });
    if (found == before.rend()) {
      std::string known;
      for (const Stage& stage : before) known += (known.empty() ? "" : ", ") + stage.name;
      throw Error(ErrorCode::kInvalidArgument,
                  "is \"" + field + "\", and no stage before has that name" +
                      (known.empty() ? "" : "; there are: " + known),
                  prefix + info.name);
    }
    return found->model();
  }
  template <class Table>
  void Section(const char* name, Table& table) {
    StageModels inner{before, std::string(name) + ".", overrides};
    table.Visit(inner);
  }
};

// What the recipes' names have in common up to a "_" is not said again by each.
std::vector<std::string> NamesOf(const std::vector<std::string>& recipes) {
  std::vector<std::string> names;
  for (const std::string& recipe : recipes) names.push_back(fs::path(recipe).stem().string());
  size_t common = 0;
  if (names.size() > 1) {
    const std::string& first = names.front();
    for (size_t end = first.find('_'); end != std::string::npos; end = first.find('_', end + 1)) {
      const std::string head = first.substr(0, end + 1);
      const auto has = [&](const std::string& name) {
        return name.starts_with(head) && name.size() > head.size();
      };
      if (std::all_of(names.begin(), names.end(), has)) common = head.size();
    }
  }
  for (std::string& name : names) name.erase(0, common);
  return names;
}

bool IsModelOf(const std::vector<Stage>& stages, const std::string& path) {
  return std::any_of(stages.begin(), stages.end(),
                     [&](const Stage& stage) { return stage.model() == path; });
}

// One of its teachers is the model of an earlier stage: its student is a model of its own.
bool HasStageAsTeacher(const configs::Config& config, const std::vector<Stage>& stages) {
  const auto names = configs::ReadTeachers(config.distill.teachers);
  return std::any_of(names.begin(), names.end(), [&](const configs::TeacherName& name) {
    return name.where.starts_with(configs::kOfStage) || IsModelOf(stages, name.where);
  });
}

// Teachers that earlier stages make.
void DropTeachers(configs::Config& config, const std::vector<Stage>& before) {
  std::erase_if(config.distill.teachers, [&](const std::string& text) {
    return IsModelOf(before, configs::ReadTeachers({text}).front().where);
  });
}

// For the check of files: what earlier stages make is not missing.
configs::Config WithoutStageFiles(const configs::Config& config, const std::vector<Stage>& before) {
  configs::Config out = config;
  const auto made = [&](const std::string& path) {
    return std::any_of(before.begin(), before.end(),
                       [&](const Stage& stage) { return stage.model() == path; });
  };
  if (made(out.model.path)) out.model.path.clear();
  if (made(out.critic.path)) out.critic.path.clear();
  DropTeachers(out, before);
  std::erase_if(out.reward.parts,
                [&](const configs::RewardPartConfig& part) { return made(part.path); });
  return out;
}

}  // namespace

bool Stage::answers() const {
  return config.algorithm.name != configs::AlgorithmName::kRewardModel;
}

std::string StageName(const std::vector<Stage>& stages, size_t which) {
  return "stage " + std::to_string(which + 1) + " of " + std::to_string(stages.size()) + " (" +
         stages[which].name + ", " + stages[which].recipe + ")";
}

std::vector<Stage> PlanStages(const configs::Loaded& recipe, const std::string& run_folder,
                              bool resume) {
  const auto find_files = [&](configs::Config& config) {
    if (resume) configs::FindWhereRunBegan(config, run_folder);
  };
  const std::vector<std::string>& recipes = recipe.config.run.stages;
  const std::vector<std::string> names = NamesOf(recipes);
  const auto given = ValuesGiven(recipe);
  std::vector<Stage> stages;
  for (size_t i = 0; i < recipes.size(); ++i) {
    Stage stage{.name = names[i],
                .recipe = recipes[i],
                .folder = run_folder + "/" + std::to_string(i + 1) + "-" + names[i]};
    const auto last = std::find_if(stages.rbegin(), stages.rend(),
                                   [](const Stage& before) { return before.answers(); });
    for (const auto& [key, value] : given) {
      if (key == "run.stages" || key == "run.out") continue;
      if (last != stages.rend() && MakesModel(key)) continue;
      stage.overrides.push_back(key + "=" + value);
    }
    try {
      // First as it is written, for what it says of other stages.
      std::vector<std::string> of_stages;
      configs::Config written = CheckedRecipe(
                                    stage.recipe, {},
                                    [](const configs::Loaded&) {
                                      configs::Config none;
                                      none.data.train = "arithmetic";
                                      return none;
                                    },
                                    find_files, Surroundings::kIgnored)
                                    .config;
      if (!written.run.stages.empty()) {
        throw Error(ErrorCode::kInvalidArgument,
                    "has stages of its own: write them into the one recipe", "run.stages");
      }
      StageModels models{stages, "", of_stages};
      written.Visit(models);
      const bool own_model = HasStageAsTeacher(written, stages);
      if (!own_model)
        std::erase_if(of_stages, [](const std::string& s) { return s.starts_with("model.path="); });
      stage.overrides.insert(stage.overrides.end(), of_stages.begin(), of_stages.end());
      if (last != stages.rend() && !own_model)
        stage.overrides.push_back("model.path=" + configs::Quote(last->model()));
      const auto read_of = [&](const configs::Loaded& l) {
        return WithoutStageFiles(l.config, stages);
      };
      stage.config = CheckedRecipe(stage.recipe, stage.overrides, read_of, find_files).config;
    } catch (const Error& error) {
      stages.push_back(stage);
      stages.resize(recipes.size());
      throw Error(error.code(), StageName(stages, i) + ": " + error.what());
    }
    stages.push_back(std::move(stage));
  }
  return stages;
}

std::string GivenOptions(const configs::Loaded& recipe) {
  std::string out, section;
  configs::Loaded placed = recipe;  // in whatever folder the run is taken up again
  for (std::string& stage : placed.config.run.stages)
    stage = fs::absolute(stage).lexically_normal().string();
  for (const auto& [key, value] : ValuesGiven(placed)) {
    const size_t dot = key.find('.');
    if (key.substr(0, dot) != section) {
      section = key.substr(0, dot);
      out += (out.empty() ? "[" : "\n[") + section + "]\n";
    }
    out += key.substr(dot + 1) + " = " + value + "\n";
  }
  return out;
}

configs::Config WithFirstModel(const std::vector<Stage>& stages, size_t which) {
  configs::Config config = stages[which].config;
  if (which == 0) return config;
  const bool own_model = HasStageAsTeacher(config, stages);
  DropTeachers(config, stages);
  if (own_model && !IsModelOf(stages, config.model.path)) return config;
  const DType dtype = config.model.dtype;
  const configs::ExpertsConfig trained = config.experts;
  config.model = stages[0].config.model;
  config.model.dtype = dtype;
  config.experts = stages[0].config.experts;
  config.experts.bias_rate = trained.bias_rate;
  config.experts.aux_coef = trained.aux_coef;
  config.experts.z_coef = trained.z_coef;
  config.experts.capacity = trained.capacity;
  config.experts.capacity_noise = trained.capacity_noise;
  return config;
}

}  // namespace plumb::run
