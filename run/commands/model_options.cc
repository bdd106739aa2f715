#include "run/commands/model_options.h"
#include "run/commands/checked_numbers.h"

#include <algorithm>
#include <limits>

#include "common/base/error.h"
#include "common/base/place.h"
#include "configs/config.h"
#include "run/session/run_folder.h"

namespace plumb::run {
namespace {

constexpr int kMostThreads = 1024;  // more than any machine computes a product with

std::string Number(double v) {
  char text[32];
  std::snprintf(text, sizeof text, "%g", v);
  return text;
}

}  // namespace

void AddModelOptions(CLI::App* verb, ModelOptions& options) {
  verb->add_option("--dtype", options.dtype, "auto | float32 | bfloat16");
  verb->add_option("--device", options.device, "cpu | cuda | cuda:N");
  verb->add_option("--bos", options.bos, "auto | yes | no: begin token in front of raw text");
  verb->add_flag("--merge", options.merge,
                 "an adapter's folder: make it a part of the base first, which is faster");
  verb->add_option("--task", options.task, "of adapters that are weighed by the task: which");
  verb->add_option("--threads", options.threads, "0: one a core")
      ->check(WholeNumber(0, kMostThreads));
}

void AddSamplingOptions(CLI::App* verb, SamplingArguments& a) {
  verb->add_option("--max-new-tokens", a.max_new_tokens, "limit of an answer (256)")
      ->check(WholeNumber(1, 1 << 20));
  verb->add_option("--temperature", a.temperature,
                   "1: the model's own distribution; 0: greedy; default: the model's "
                   "generation_config.json, else 1")
      ->check(NumberFrom(0, 100));
  verb->add_flag("--greedy", a.greedy, "the likeliest token every time");
  verb->add_option("--top-p", a.top_p, "smallest set with this mass; 1: off")
      ->check(NumberFrom(0, 1));
  verb->add_option("--top-k", a.top_k, "the k likeliest; 0: off")
      ->check(WholeNumber(0, std::numeric_limits<int32_t>::max()));
  verb->add_option("--min-p", a.min_p, "at least this share of the likeliest; 0: off")
      ->check(NumberFrom(0, 1));
  verb->add_option("--seed", a.seed, "same seed, same answers")
      ->check(WholeNumber(0, std::numeric_limits<uint64_t>::max()));
  verb->add_option("--stop", a.stop, "end an answer at this text; any number of times")
      ->allow_extra_args(false);
}

Sampling ResolveSampling(const SamplingArguments& a, const SamplingDefaults& defaults) {
  Sampling out;
  std::string taken;
  const auto choose = [&](const char* name, const auto& asked, const auto& file, auto otherwise) {
    if (asked) return static_cast<decltype(otherwise)>(*asked);
    if (!file) return otherwise;
    taken +=
        (taken.empty() ? "" : ", ") + std::string(name) + " " + Number(static_cast<double>(*file));
    return static_cast<decltype(otherwise)>(*file);
  };
  // Filters change nothing of greedy decoding: they are not named.
  const bool greedy = a.greedy || (a.temperature && *a.temperature == 0);
  out.options.seed = a.seed;
  out.options.temperature =
      greedy ? 0.0f : choose("temperature", a.temperature, defaults.temperature, 1.0f);
  if (out.options.temperature != 0) {
    out.options.top_k = choose("top_k", a.top_k, defaults.top_k, 0);
    out.options.top_p = choose("top_p", a.top_p, defaults.top_p, 1.0f);
    out.options.min_p = choose("min_p", a.min_p, defaults.min_p, 0.0f);
  }
  std::string in_vain;
  for (const std::string& option : defaults.not_done)
    in_vain += (in_vain.empty() ? "" : ", ") + option;
  if (!taken.empty()) out.said = "sampling: " + taken + " (the model's generation_config.json)";
  if (!in_vain.empty()) {
    out.said += (out.said.empty() ? "" : "; ") + std::string("generation_config.json asks for ") +
                in_vain + ", which is not done here";
  }
  return out;
}

std::map<std::string, std::string> ColumnsOfRun(const std::string& model) {
  if (PlaceOf(model) != Place::kRun) return {};
  try {
    return configs::LoadRecipe(RunFolder{model}.config()).config.data.map;
  } catch (const Error&) {  // a recipe of another Plumb: who needs it says so
    return {};
  }
}

void SayColumnsOfRun(const std::map<std::string, std::string>& map) {
  std::string list;
  for (const auto& [part, column] : map) list += (list.empty() ? "" : ",") + part + "=" + column;
  std::fprintf(stderr, "columns as the run's recipe names them: --map %s\n", list.c_str());
}

std::map<std::string, std::string> ReadMap(const std::vector<std::string>& entries) {
  std::map<std::string, std::string> map;
  for (const std::string& entry : entries) {
    size_t begin = 0;
    while (begin <= entry.size()) {
      const size_t end = std::min(entry.find(',', begin), entry.size());
      const std::string pair = entry.substr(begin, end - begin);
      const size_t equal = pair.find('=');
      if (equal == std::string::npos || equal == 0 || equal + 1 == pair.size()) {
        throw Error(
            ErrorCode::kInvalidArgument,
            "--map takes part=column, e.g. prompt=task,answer=solution; not '" + pair + "'");
      }
      if (!map.emplace(pair.substr(0, equal), pair.substr(equal + 1)).second) {
        throw Error(ErrorCode::kInvalidArgument,
                    "--map names '" + pair.substr(0, equal) + "' twice");
      }
      begin = end + 1;
    }
  }
  return map;
}

}  // namespace plumb::run
