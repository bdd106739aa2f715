#include "policy_model/families/adapter_table.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/json/strict_json.h"
#include "common/record/task_tokens.h"
#include "common/text/name_pattern.h"

namespace plumb::policy_model {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kAllLinear[] = "all-linear";
constexpr std::string_view kWeight = ".weight";
constexpr double kLargestAlpha = 1e6;  // of a file; beyond it float32 ends soon
constexpr size_t kMaxConfigBytes = size_t{1} << 20;
constexpr int kMostRank = 1 << 16;
constexpr size_t kMostPatterns = 1 << 13;  // of a file; each costs some kilobytes
constexpr int kMostAdapters = 64;
// Of adapters with tasks. PEFT refuses a type that it does not know, and so do readers of an
// earlier Plumb.
constexpr char kTaskType[] = "PLUMB_TASKS";

// "model.layers.3.self_attn.q_proj.weight" -> "model.layers.3.self_attn.q_proj" -> "q_proj".
std::string ModuleOf(const std::string& file_tensor) {
  return file_tensor.substr(0, file_tensor.size() - kWeight.size());
}
std::string LastName(const std::string& module) { return module.substr(module.rfind('.') + 1); }

std::string Joined(const auto& names) {
  std::string out;
  for (const std::string& name : names) out += (out.empty() ? "" : ", ") + name;
  return out;
}

// The numbers that patterns give to modules, and which of them some module matched.
template <class Number>
class Overrides {
 public:
  Overrides(const std::vector<std::pair<std::string, Number>>& patterns, Number otherwise,
            const char* option)
      : otherwise_(otherwise), option_(option), used_(patterns.size()) {
    for (const auto& [pattern, number] : patterns) {
      patterns_.emplace_back(pattern, NamePattern::Where::kEnd, option);
      numbers_.push_back(number);
    }
  }
  Number Of(const std::string& module) {
    std::optional<Number> found;
    for (size_t i = 0; i < patterns_.size(); ++i) {
      if (!patterns_[i].Matches(module)) continue;
      used_[i] = true;
      if (!found) found = numbers_[i];
    }
    return found.value_or(otherwise_);
  }
  void CheckUsed() const {
    for (size_t i = 0; i < patterns_.size(); ++i) {
      if (used_[i]) continue;
      throw Error(ErrorCode::kInvalidArgument,
                  "'" + patterns_[i].text() +
                      "' matches no module that the adapter has: it is looked for at the end of "
                      "paths like model.layers.0.self_attn.q_proj, from a dot on",
                  option_);
    }
  }

 private:
  std::vector<NamePattern> patterns_;
  std::vector<Number> numbers_;
  Number otherwise_;
  const char* option_;
  std::vector<bool> used_;
};

// What of a model an adapter stands on.
class Targets {
 public:
  explicit Targets(const AdapterSpec& spec)
      : names_(spec.targets), all_(spec.targets == std::vector<std::string>{kAllLinear}) {
    if (!spec.target_pattern.empty())
      pattern_.emplace(spec.target_pattern, NamePattern::Where::kAll, kOption);
  }
  bool Wants(const std::string& module) {
    there_.insert(LastName(module));
    if (pattern_) {
      const bool matches = pattern_->Matches(module);
      if (matches) used_.insert(pattern_->text());
      return matches;
    }
    bool wanted = all_;
    for (const std::string& target : names_) {
      if (module != target && !module.ends_with("." + target)) continue;
      used_.insert(target);
      wanted = true;
    }
    return wanted;
  }
  bool all() const { return all_; }
  const std::set<std::string>& there() const { return there_; }
  // `refused`: tensors that are linear and have no adapters.
  void CheckUsed(const std::vector<std::string>& refused) const {
    if (pattern_ && used_.empty()) {
      throw Error(ErrorCode::kInvalidArgument,
                  "'" + pattern_->text() +
                      "' matches no linear part of this model's layers, whose whole paths are like "
                      "model.layers.0.self_attn.q_proj and end in " +
                      Joined(there_),
                  kOption);
    }
    for (const std::string& target : names_) {
      if (pattern_ || all_ || used_.contains(target)) continue;
      for (const std::string& tensor : refused) {
        const std::string module = tensor.ends_with(kWeight) ? ModuleOf(tensor) : tensor;
        if (module != target && !module.ends_with("." + target) &&
            module.find("." + target + ".") == std::string::npos)
          continue;
        const bool latent = module.ends_with(".kv_b_proj");
        throw Error(
            ErrorCode::kUnsupported,
            "'" + target + "' names " + module + ", which has no adapter in a model with " +
                (latent ? "latent attention" : "experts") + ": there are " + Joined(there_) +
                ", or " + kAllLinear + " for all of them" +
                (latent ? ""
                        : "; and experts.gate_up_proj, experts.down_proj for the experts of "
                          "a layer together"),
            kOption);
      }
      throw Error(ErrorCode::kInvalidArgument,
                  "'" + target + "' is no linear part of this model's layers: there are " +
                      Joined(there_) + ", or " + kAllLinear + " for all of them",
                  kOption);
    }
  }

 private:
  static constexpr char kOption[] = "policy.targets";
  const std::vector<std::string>& names_;
  const bool all_;
  std::optional<NamePattern> pattern_;
  std::set<std::string> there_, used_;
};

bool IsOfExperts(const std::string& target) {
  for (const std::string_view end : {"experts.gate_up_proj", "experts.down_proj"}) {
    if (target == end || target.ends_with("." + std::string(end))) return true;
  }
  return false;
}

}  // namespace

void SetTargets(const std::vector<std::string>& all, AdapterSpec& spec) {
  std::vector<std::string> targets;
  spec.parameters.clear();
  for (const std::string& target : all)
    (IsOfExperts(target) ? spec.parameters : targets).push_back(target);
  const auto pattern = std::find_if_not(targets.begin(), targets.end(),
                                        [](const auto& t) { return IsPlainName(t); });
  spec.targets.clear();
  spec.target_pattern.clear();
  if (pattern == targets.end()) {
    spec.targets = targets;
  } else if (targets.size() == 1) {
    spec.target_pattern = *pattern;
  } else {
    throw Error(
        ErrorCode::kInvalidArgument,
        "'" + *pattern +
            "' is a pattern of whole paths, and stands alone: write all that is wanted into "
            "it, like \".*layers\\.[0-3]\\..*(q|v)_proj\"",
        "policy.targets");
  }
}

std::string AdapterSpec::Text() const {
  const auto list = [](const char* name, const auto& patterns) {
    std::string out;
    for (const auto& [pattern, number] : patterns) {
      char text[32];
      std::snprintf(text, sizeof text, "=%g", static_cast<double>(number));
      out += (out.empty() ? std::string(", ") + name + " " : " ") + pattern + text;
    }
    return out;
  };
  char text[80];
  std::snprintf(text, sizeof text, "rank %lld and alpha %g", static_cast<long long>(rank), alpha);
  std::string of_tasks;
  if (!tasks.empty()) {
    of_tasks =
        ", " + std::to_string(adapters) + " adapters weighed by task (" + Joined(tasks) + ")";
    if (task_tokens > 0) of_tasks += ", " + std::to_string(task_tokens) + " tokens a task";
  }
  return text + std::string(rslora ? ", rslora" : "") + list("rank_pattern", rank_pattern) +
         list("alpha_pattern", alpha_pattern) + of_tasks;
}

AdapterSpec AdapterSpec::ForTask(size_t task) const {
  AdapterSpec out = *this;
  // alpha / rank, or alpha / sqrt(rank), stays what it was.
  const auto k = static_cast<double>(adapters);
  const double more = rslora ? std::sqrt(k) : k;
  out.rank = adapters * rank;
  out.alpha = more * alpha;
  for (auto& [pattern, number] : out.rank_pattern) number *= adapters;
  for (auto& [pattern, number] : out.alpha_pattern) number *= more;
  out.adapters = 1;
  out.tasks.clear();
  if (task_tokens > 0) out.tasks = {tasks.at(task)};
  return out;
}

int32_t AdapterSpec::TaskNamed(const std::string& name, const std::string& where) const {
  const auto found = std::find(tasks.begin(), tasks.end(), name);
  if (found != tasks.end()) return static_cast<int32_t>(found - tasks.begin());
  throw Error(ErrorCode::kInvalidArgument,
              "the task '" + name + "' is none of this policy's: " + Joined(tasks), where);
}

AdapterTable::AdapterTable(const TensorTable& base, const AdapterSpec& spec) : spec_(spec) {
  PLUMB_CHECK(spec.rank > 0 && spec.adapters > 0, "rank and adapters were validated");
  PLUMB_CHECK(!spec.tasks.empty() || (spec.adapters == 1 && spec.task_tokens == 0),
              "what weighs adapters was validated");
  Targets targets(spec);
  Overrides<int64_t> ranks(spec.rank_pattern, spec.rank, "policy.rank_pattern");
  Overrides<double> alphas(spec.alpha_pattern, spec.alpha, "policy.alpha_pattern");
  std::vector<std::string> refused;  // tensors that are linear and have no adapters
  for (const TensorEntry& e : base.entries()) {
    // The linear parts of layers: what is no norm, no bias, no embedding and no head.
    if (!e.name.starts_with("layers.") || e.shape.size() != 2) continue;
    if (!e.adapts) {
      for (const TensorPart& part : e.parts) refused.push_back(part.file_tensor);
      continue;
    }
    std::vector<LowRank>& parts = parts_[e.offset];
    for (size_t first = 0, next = 0; first < e.parts.size(); first = next) {
      // Parts that a family keeps in one tensor are one module, with one adapter.
      const std::string& file = e.parts[first].file_tensor;
      while (next < e.parts.size() && e.parts[next].file_tensor == file) ++next;
      const int64_t begin = e.parts[first].row_begin, rows = e.parts[next - 1].row_end - begin;
      const std::string module = ModuleOf(file);
      if (!targets.Wants(module)) continue;
      const int64_t rank = ranks.Of(module), all = spec.adapters * rank;
      PLUMB_CHECK(rank > 0, "the ranks of patterns were validated");
      const double by = static_cast<double>(rank), alpha = alphas.Of(module);
      const std::string ours = e.name.substr(0, e.name.rfind('.') + 1) + LastName(module);
      const auto add = [&](const char* which, std::vector<int64_t> shape, TensorInit init) {
        const int64_t n = shape[0];
        return Add(ours + which, std::move(shape), true, init,
                   {{std::string(kPeftPrefix) + module + which + std::string(kWeight), n,
                     SplitAxis::kNone}});
      };
      const int64_t a = add(".lora_A", {all, e.columns()}, TensorInit::kUniform);
      const int64_t b = add(".lora_B", {rows, all}, TensorInit::kZeros);
      parts.push_back({.a = a,
                       .b = b,
                       .row_begin = begin,
                       .rows = rows,
                       .rank = all,
                       .groups = static_cast<int32_t>(spec.adapters),
                       .scale = static_cast<float>(alpha / (spec.rslora ? std::sqrt(by) : by))});
    }
    if (parts.empty()) parts_.erase(e.offset);
  }
  if (!spec.parameters.empty()) AddExperts(base);
  if (!spec.tasks.empty()) AddTasks(base.shape().hidden);
  EndBucket();
  targets.CheckUsed(refused);
  ranks.CheckUsed();
  alphas.CheckUsed();
  // PEFT's all-linear would reach experts and kv_b_proj, too.
  if (targets.all() && !refused.empty())
    spec_.targets.assign(targets.there().begin(), targets.there().end());
}

// PEFT wraps a module of experts once for each of its parameters, the first innermost: its keys do
// not say which parameter is which.
void AdapterTable::AddExperts(const TensorTable& base) {
  const auto unsupported = [](const std::string& what) {
    throw Error(ErrorCode::kUnsupported, "adapters of experts' parameters " + what,
                "policy.targets");
  };
  if (spec_.dropout > 0) unsupported("drop nothing, as in PEFT: set policy.dropout = 0");
  if (!spec_.tasks.empty()) unsupported("are not weighed by tasks: take policy.tasks out");
  if (!spec_.rank_pattern.empty() || !spec_.alpha_pattern.empty())
    unsupported("have one rank and one alpha: take policy.rank_pattern and alpha_pattern out");
  std::set<std::string> used;
  const auto wanted = [&](const std::string& path) {
    bool any = false;
    for (const std::string& name : spec_.parameters) {
      if (path != name && !path.ends_with("." + name)) continue;
      used.insert(name);
      any = true;
    }
    return any;
  };
  const double by = static_cast<double>(spec_.rank);
  for (const TensorEntry& e : base.entries()) {
    if (e.experts == 0 || !wanted(e.parameter)) continue;
    const std::string module = e.parameter.substr(0, e.parameter.rfind('.')),
                      ours = e.name.substr(0, e.name.rfind('.') + 1) + "experts.";
    const bool inner = e.parameter.ends_with(".gate_up_proj") && wanted(module + ".down_proj");
    const int64_t rows = e.shape[0] / e.experts, all = spec_.rank * e.experts;
    const auto add = [&](const char* which, std::vector<int64_t> shape, TensorInit init) {
      const int64_t n = shape[0];
      return Add(ours + LastName(e.parameter) + which, std::move(shape), true, init,
                 {{std::string(kPeftPrefix) + module + (inner ? ".base_layer" : "") + which +
                       std::string(kWeight),
                   n, SplitAxis::kNone}});
    };
    const int64_t a = add(".lora_A", {all, e.columns()}, TensorInit::kUniform);
    const int64_t b = add(".lora_B", {rows, all}, TensorInit::kZeros);
    parts_[e.offset].push_back(
        {.a = a,
         .b = b,
         .rows = e.shape[0],
         .rank = spec_.rank,
         .experts = e.experts,
         .scale = static_cast<float>(spec_.alpha / (spec_.rslora ? std::sqrt(by) : by))});
  }
  for (const std::string& name : spec_.parameters) {
    if (used.contains(name)) continue;
    throw Error(ErrorCode::kInvalidArgument,
                "'" + name +
                    "' is no parameter of experts in this model: they are gate_up_proj and "
                    "down_proj of layers with experts of one width, under paths like "
                    "model.layers.0.mlp.experts.down_proj",
                "policy.targets");
  }
}

// Behind the low-rank parts: whatever of them stays is where it is without a gate. No weight decay,
// which would pull the tasks together.
void AdapterTable::AddTasks(int64_t hidden) {
  const auto add = [&](const std::string& name, int64_t rows, int64_t columns) {
    return Add(name, {rows, columns}, /*decay=*/false, TensorInit::kUniform,
               {{std::string(kPeftPrefix) + "plumb." + name + std::string(kWeight), rows,
                 SplitAxis::kNone}});
  };
  const auto tasks = static_cast<int64_t>(spec_.tasks.size());
  tasks_.embedding = add("task_embedding", tasks, kTaskDim);
  tasks_.gate = add("task_gate", spec_.adapters, kTaskDim);
  if (spec_.task_tokens > 0) tasks_.tokens = add("task_tokens", tasks * spec_.task_tokens, hidden);
}

void WriteAdapterConfig(const AdapterSpec& spec, const std::string& base_model,
                        const std::string& directory) {
  Json parameters;  // null: none
  if (!spec.parameters.empty()) parameters = spec.parameters;
  Json targets = spec.targets, ranks = Json::object(), alphas = Json::object();
  if (!spec.target_pattern.empty()) targets = spec.target_pattern;
  else if (spec.targets == std::vector<std::string>{kAllLinear}) targets = kAllLinear;
  // In their order: of two that match PEFT takes the first of the file. A pattern that stands there
  // twice is taken at its first number, here as there.
  for (const auto& [pattern, rank] : spec.rank_pattern) ranks.emplace(pattern, rank);
  for (const auto& [pattern, alpha] : spec.alpha_pattern) alphas.emplace(pattern, alpha);
  Json config = {{"peft_type", spec.tasks.empty() ? "LORA" : kTaskType},
                 {"task_type", "CAUSAL_LM"},
                 {"base_model_name_or_path", base_model},
                 {"r", spec.rank},
                 {"lora_alpha", spec.alpha},
                 {"lora_dropout", spec.dropout},
                 {"use_rslora", spec.rslora},
                 {"rank_pattern", ranks},
                 {"alpha_pattern", alphas},
                 {"target_modules", targets},
                 {"target_parameters", parameters},
                 {"bias", "none"},
                 {"fan_in_fan_out", false},
                 {"init_lora_weights", true},
                 {"modules_to_save", nullptr},
                 {"inference_mode", true}};
  if (!spec.tasks.empty())
    config["plumb_tasks"] = {
        {"adapters", spec.adapters}, {"tasks", spec.tasks}, {"task_tokens", spec.task_tokens}};
  RealFileSystem().WriteFileAtomic(directory + "/" + kAdapterConfig, config.dump(2) + "\n");
}

namespace {

void ReadTasks(const Json& j, const std::string& path, AdapterSpec& spec) {
  const auto check = [&](bool fine, const char* what) {
    if (!fine) throw Error(ErrorCode::kCorruption, std::string("'plumb_tasks' ") + what, path);
  };
  const auto count = [&](const char* key, int64_t least, int64_t most) {
    check(j.contains(key) && j[key].is_number_integer() && j[key] >= least && j[key] <= most,
          key == std::string_view("adapters") ? "has no number of adapters from 1 to 64"
                                              : "has no number of task_tokens from 0 to 256");
    return j[key].get<int64_t>();
  };
  check(j.is_object(), "is missing: it says which tasks the adapters are weighed by");
  spec.adapters = count("adapters", 1, kMostAdapters);
  spec.task_tokens = count("task_tokens", 0, kMostTaskTokens);
  check(j.contains("tasks") && j["tasks"].is_array() && !j["tasks"].empty() &&
            j["tasks"].size() <= kMostTasks,
        "has no list of tasks, at most 4096 of them");
  for (const Json& name : j["tasks"]) {
    check(name.is_string() && !name.get<std::string>().empty(), "holds a task without a name");
    spec.tasks.push_back(name.get<std::string>());
  }
  const std::set<std::string> once(spec.tasks.begin(), spec.tasks.end());
  check(once.size() == spec.tasks.size(), "holds a task twice");
}

}  // namespace

AdapterConfig ReadAdapterConfig(const std::string& directory) {
  const std::string path = directory + "/" + kAdapterConfig;
  const Json j = ParseStrictJson(RealFileSystem().ReadFile(path, kMaxConfigBytes), path);
  const auto corrupt = [&](const std::string& what) {
    throw Error(ErrorCode::kCorruption, what, path);
  };
  const bool of_tasks = j.is_object() && j.contains("peft_type") && j["peft_type"] == kTaskType;
  if (!j.is_object() || !j.contains("peft_type") || (j["peft_type"] != "LORA" && !of_tasks)) {
    throw Error(ErrorCode::kUnsupported, "peft_type is not LORA", path);
  }
  // What changes the function that A and B stand for.
  for (const char* key : {"use_dora", "fan_in_fan_out", "lora_bias", "modules_to_save",
                          "layers_to_transform", "layer_replication", "trainable_token_indices",
                          "exclude_modules", "alora_invocation_tokens", "use_qalora", "use_bdlora",
                          "arrow_config", "kasa_config", "monteclora_config", "velora_config"}) {
    if (!j.contains(key)) continue;
    const Json& v = j[key];
    const bool off = v.is_null() || v == false || ((v.is_object() || v.is_array()) && v.empty());
    if (!off)
      throw Error(ErrorCode::kUnsupported,
                  "'" + std::string(key) + "' is set: no such adapters are computed here", path);
  }
  if (j.contains("bias") && j["bias"] != "none")
    throw Error(ErrorCode::kUnsupported, "'bias' is not \"none\"", path);
  AdapterConfig out;
  const auto is_rank = [](const Json& v) {
    return v.is_number_integer() && v >= 1 && v <= kMostRank;
  };
  if (!j.contains("r") || !is_rank(j["r"])) corrupt("'r' is no rank");
  out.spec.rank = j["r"].get<int64_t>();
  if (!j.contains("lora_alpha") || !j["lora_alpha"].is_number())
    corrupt("'lora_alpha' is no number");
  out.spec.alpha = j["lora_alpha"].get<double>();
  if (!(std::abs(out.spec.alpha) <= kLargestAlpha)) corrupt("'lora_alpha' is out of range");
  const auto given = [&](const char* key) { return j.contains(key) && !j[key].is_null(); };
  if (given("use_rslora")) {
    if (!j["use_rslora"].is_boolean()) corrupt("'use_rslora' is neither true nor false");
    out.spec.rslora = j["use_rslora"].get<bool>();
  }
  if (given("lora_dropout")) {
    if (!j["lora_dropout"].is_number() || j["lora_dropout"] < 0 || j["lora_dropout"] >= 1)
      corrupt("'lora_dropout' is not in [0, 1)");
    out.spec.dropout = j["lora_dropout"].get<double>();
  }
  const auto patterns = [&](const char* key) {
    if (!given(key)) return Json(Json::object());
    if (!j[key].is_object()) corrupt("'" + std::string(key) + "' is no object");
    if (j[key].size() > kMostPatterns)
      corrupt("'" + std::string(key) + "' has more than " + std::to_string(kMostPatterns) +
              " patterns");
    return j[key];
  };
  const Json ranks = patterns("rank_pattern"), alphas = patterns("alpha_pattern");
  for (const auto& [pattern, rank] : ranks.items()) {
    if (!is_rank(rank)) corrupt("'rank_pattern' gives '" + pattern + "' no rank");
    out.spec.rank_pattern.emplace_back(pattern, rank.get<int64_t>());
  }
  for (const auto& [pattern, alpha] : alphas.items()) {
    if (!alpha.is_number()) corrupt("'alpha_pattern' gives '" + pattern + "' no number");
    out.spec.alpha_pattern.emplace_back(pattern, alpha.get<double>());
  }
  const Json targets = j.value("target_modules", Json()),
             parameters = j.value("target_parameters", Json());
  out.spec.targets.clear();
  if (!parameters.is_null() && !parameters.is_array())
    corrupt("'target_parameters' is no list of names");
  for (const Json& name : parameters) {
    if (!name.is_string()) corrupt("'target_parameters' holds something else than names");
    out.spec.parameters.push_back(name.get<std::string>());
  }
  if (targets == kAllLinear) {
    out.spec.targets = {kAllLinear};
  } else if (targets.is_string() && !targets.get<std::string>().empty()) {
    out.spec.target_pattern = targets.get<std::string>();
  } else {
    const bool none = targets.is_null() || (targets.is_array() && targets.empty());
    if ((none && out.spec.parameters.empty()) || (!none && !targets.is_array()))
      corrupt("'target_modules' names no module");
    for (const Json& name : targets) {
      if (!name.is_string()) corrupt("'target_modules' holds something else than names");
      out.spec.targets.push_back(name.get<std::string>());
    }
  }
  if (of_tasks) ReadTasks(j.value("plumb_tasks", Json()), path, out.spec);
  if (j.contains("base_model_name_or_path") && j["base_model_name_or_path"].is_string()) {
    out.base_model = j["base_model_name_or_path"].get<std::string>();
  }
  return out;
}

}  // namespace plumb::policy_model
