#include "policy_model/families/adapter_table.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/json/strict_json.h"

namespace plumb::policy_model {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kAllLinear[] = "all-linear";
constexpr std::string_view kWeight = ".weight";
constexpr size_t kMaxConfigBytes = size_t{1} << 20;

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

}  // namespace

AdapterTable::AdapterTable(const TensorTable& base, const AdapterSpec& spec) : spec_(spec) {
  PLUMB_CHECK(spec.rank > 0, "the rank was validated");
  const auto& targets = spec.targets;
  const bool all = targets == std::vector<std::string>{kAllLinear};
  std::set<std::string> there, used;
  for (const TensorEntry& e : base.entries()) {
    // The linear parts of layers: what is no norm, no bias, no embedding and no head.
    if (!e.name.starts_with("layers.") || e.shape.size() != 2) continue;
    std::vector<LowRank>& parts = parts_[e.offset];
    for (size_t first = 0, next = 0; first < e.parts.size(); first = next) {
      // Parts that a family keeps in one tensor are one module, with one adapter.
      const std::string& file = e.parts[first].file_tensor;
      while (next < e.parts.size() && e.parts[next].file_tensor == file) ++next;
      const int64_t begin = e.parts[first].row_begin, rows = e.parts[next - 1].row_end - begin;
      const std::string module = ModuleOf(file), name = LastName(module);
      there.insert(name);
      bool wanted = all;
      for (const std::string& target : targets) {
        if (module != target && !module.ends_with("." + target)) continue;
        used.insert(target);
        wanted = true;
      }
      if (!wanted) continue;
      const std::string ours = e.name.substr(0, e.name.rfind('.') + 1) + name;
      const auto add = [&](const char* which, std::vector<int64_t> shape, TensorInit init) {
        const int64_t n = shape[0];
        return Add(ours + which, std::move(shape), true, init,
                   {{std::string(kPeftPrefix) + module + which + std::string(kWeight), n,
                     SplitAxis::kNone}});
      };
      const int64_t a = add(".lora_A", {spec.rank, e.columns()}, TensorInit::kUniform);
      const int64_t b = add(".lora_B", {rows, spec.rank}, TensorInit::kZeros);
      parts.push_back({.a = a, .b = b, .row_begin = begin, .rows = rows});
    }
    if (parts.empty()) parts_.erase(e.offset);
  }
  EndBucket();
  for (const std::string& target : targets) {
    if (all || used.contains(target)) continue;
    throw Error(ErrorCode::kInvalidArgument,
                "'" + target + "' is no linear part of this model's layers: there are " +
                    Joined(there) + ", or " + kAllLinear + " for all of them",
                "policy.targets");
  }
}

void WriteAdapterConfig(const AdapterSpec& spec, const std::string& base_model,
                        const std::string& directory) {
  const Json targets =
      spec.targets == std::vector<std::string>{kAllLinear} ? Json(kAllLinear) : Json(spec.targets);
  const Json config = {{"peft_type", "LORA"},
                       {"task_type", "CAUSAL_LM"},
                       {"base_model_name_or_path", base_model},
                       {"r", spec.rank},
                       {"lora_alpha", spec.alpha},
                       {"lora_dropout", 0.0},
                       {"target_modules", targets},
                       {"bias", "none"},
                       {"fan_in_fan_out", false},
                       {"init_lora_weights", true},
                       {"modules_to_save", nullptr},
                       {"inference_mode", true}};
  RealFileSystem().WriteFileAtomic(directory + "/" + kAdapterConfig, config.dump(2) + "\n");
}

AdapterConfig ReadAdapterConfig(const std::string& directory) {
  const std::string path = directory + "/" + kAdapterConfig;
  const Json j = ParseStrictJson(RealFileSystem().ReadFile(path, kMaxConfigBytes), path);
  const auto corrupt = [&](const std::string& what) {
    throw Error(ErrorCode::kCorruption, what, path);
  };
  if (!j.is_object() || !j.contains("peft_type") || j["peft_type"] != "LORA") {
    throw Error(ErrorCode::kUnsupported, "peft_type is not LORA", path);
  }
  // What changes the function that A and B stand for.
  for (const char* key :
       {"use_dora", "use_rslora", "fan_in_fan_out", "lora_bias", "rank_pattern", "alpha_pattern",
        "modules_to_save", "layers_to_transform", "layer_replication", "trainable_token_indices",
        "exclude_modules", "target_parameters"}) {
    if (!j.contains(key)) continue;
    const Json& v = j[key];
    const bool off = v.is_null() || v == false || ((v.is_object() || v.is_array()) && v.empty());
    if (!off)
      throw Error(ErrorCode::kUnsupported, "'" + std::string(key) + "' is set: plain LoRA only",
                  path);
  }
  if (j.contains("bias") && j["bias"] != "none")
    throw Error(ErrorCode::kUnsupported, "'bias' is not \"none\"", path);
  AdapterConfig out;
  if (!j.contains("r") || !j["r"].is_number_integer() || j["r"] < 1 || j["r"] > (1 << 16))
    corrupt("'r' is no rank");
  out.spec.rank = j["r"].get<int64_t>();
  if (!j.contains("lora_alpha") || !j["lora_alpha"].is_number())
    corrupt("'lora_alpha' is no number");
  out.spec.alpha = j["lora_alpha"].get<double>();
  const Json targets = j.value("target_modules", Json());
  if (targets.is_string()) {
    if (targets != kAllLinear)
      throw Error(ErrorCode::kUnsupported, "'target_modules' is a pattern: name the modules", path);
  } else {
    out.spec.targets.clear();
    if (!targets.is_array() || targets.empty()) corrupt("'target_modules' names no module");
    for (const Json& name : targets) {
      if (!name.is_string()) corrupt("'target_modules' holds something else than names");
      out.spec.targets.push_back(name.get<std::string>());
    }
  }
  if (j.contains("base_model_name_or_path") && j["base_model_name_or_path"].is_string()) {
    out.base_model = j["base_model_name_or_path"].get<std::string>();
  }
  return out;
}

}  // namespace plumb::policy_model
