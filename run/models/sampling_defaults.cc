#include "run/models/sampling_defaults.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/json/strict_json.h"

namespace plumb::run {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kMaxBytes = size_t{1} << 20;

// What changes answers and is not done here, with the value that means "off".
struct NotDone {
  const char* key;
  double off;
};
constexpr NotDone kNotDone[] = {{"repetition_penalty", 1}, {"no_repeat_ngram_size", 0},
                                {"typical_p", 1},          {"epsilon_cutoff", 0},
                                {"eta_cutoff", 0},         {"num_beams", 1}};

}  // namespace

SamplingDefaults ReadSamplingDefaults(const std::string& folder) {
  SamplingDefaults out;
  const std::string path = folder + "/generation_config.json";
  if (!RealFileSystem().Exists(path)) return out;
  const Json json = ReadStrictJson(path, kMaxBytes);
  if (!json.is_object()) throw Error(ErrorCode::kCorruption, "is not a JSON object", path);
  const auto number = [&](const char* key, double low, double high) -> std::optional<double> {
    if (!json.contains(key) || json.at(key).is_null()) return std::nullopt;
    const double value =
        json.at(key).is_number() ? json.at(key).get<double>() : std::nan("no number");
    if (!(value >= low && value <= high)) {
      throw Error(ErrorCode::kCorruption,
                  "'" + std::string(key) + "' is " + json.at(key).dump() + ", which it cannot be",
                  path);
    }
    return value;
  };
  out.temperature = number("temperature", 0, 100);
  out.top_p = number("top_p", 0, 1);
  out.min_p = number("min_p", 0, 1);
  // transformers also writes -1 for "off"
  if (const auto k = number("top_k", -1, 1e9)) out.top_k = std::max<int64_t>(0, std::llround(*k));
  const bool greedy = json.contains("do_sample") && json.at("do_sample") == false;
  if (greedy && out.empty()) out.temperature = 0;
  for (const NotDone& option : kNotDone) {
    if (json.contains(option.key) && json.at(option.key).is_number() &&
        json.at(option.key).get<double>() != option.off)
      out.not_done.push_back(std::string(option.key) + " = " + json.at(option.key).dump());
  }
  return out;
}

}  // namespace plumb::run
