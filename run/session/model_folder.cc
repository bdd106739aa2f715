#include "run/session/model_folder.h"

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/json/strict_json.h"
#include "common/base/place.h"
#include "common/record/task_tokens.h"
#include "common/text/template/special_tokens.h"
#include "configs/places/run_start.h"
#include "policy_model/transformer.h"
#include "run/session/newest_checkpoint.h"
#include "run/session/run_folder.h"

namespace plumb::run {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kMaxConfigBytes = size_t{16} << 20;

Json ReadJsonOrNull(const std::string& path) {
  return RealFileSystem().Exists(path) ? ReadStrictJson(path, kMaxConfigBytes) : Json();
}

// "owner/name", as the hub calls its models.
bool IsHubName(const std::string& path) {
  const size_t slash = path.find('/');
  const auto word = [](std::string_view part) {
    return !part.empty() && part.front() != '.' &&
           std::all_of(part.begin(), part.end(), [](unsigned char c) {
             return std::isalnum(c) != 0 || c == '-' || c == '_' || c == '.';
           });
  };
  return slash != std::string::npos && word(path.substr(0, slash)) && word(path.substr(slash + 1));
}

// What to do where no model is at `path`; "" where that is not known.
std::string HowToGet(const std::string& path) {
  if (path.ends_with(".gguf"))
    return "; a GGUF file becomes a model folder by: `plumb convert " + path + " DIR`";
  // "runs/x" where there is a folder `runs` is a path that was misspelt.
  if (!IsHubName(path) || std::filesystem::exists(path.substr(0, path.find('/')))) return "";
  const std::string folder = "models/" + path.substr(path.find('/') + 1);
  return "; if it is a name of the Hugging Face hub: Plumb reads folders, not the hub. Fetch it "
         "with "
         "`hf download " +
         path + " --local-dir " + folder + "` (pip install huggingface_hub) and name " + folder;
}

// The folder that holds config.json and the tokenizer: an adapter's is the one that it names as its
// base.
std::string BaseOf(const std::string& path) {
  FileSystem& files = RealFileSystem();
  const std::string config = path + "/" + policy_model::kAdapterConfig;
  if (files.Exists(path + "/config.json") || !files.Exists(config)) return path;
  std::string base =
      configs::PlaceNamedInRun(policy_model::ReadAdapterConfig(path).base_model, path);
  if (!files.Exists(base + "/config.json")) {
    throw Error(ErrorCode::kNotFound,
                "the adapter's base is \"" + base +
                    "\", and no model is there: write into "
                    "base_model_name_or_path where it is now" +
                    HowToGet(base),
                config);
  }
  return base;
}

// A run's folder stands for the model that it trained.
std::string WithinRun(const std::string& path) {
  const RunFolder run{path};
  FileSystem& files = RealFileSystem();
  if (!files.Exists(run.identity()) || files.Exists(path + "/config.json")) return path;
  if (files.Exists(run.model())) return run.model();
  const std::optional<int64_t> newest = NewestCheckpoint(run.checkpoints());
  if (!newest)
    throw Error(ErrorCode::kNotFound, "this run has not ended, and has no checkpoint yet", path);
  char step[32];
  std::snprintf(step, sizeof step, "/step-%08lld", static_cast<long long>(*newest));
  throw Error(
      ErrorCode::kNotFound,
      "this run has not ended; its newest model so far: " + run.checkpoints() + step + "/model",
      path);
}

}  // namespace

// The dtype that config.json names; empty when it names none.
std::string StoredDtype(const std::string& folder) {
  const Json config = ReadJsonOrNull(folder + "/config.json");
  for (const char* key : {"torch_dtype", "dtype"}) {
    if (config.is_object() && config.contains(key) && config[key].is_string())
      return config[key].get<std::string>();
  }
  return "";
}

ModelPlace FindModel(const std::string& path) {
  if (path.empty())
    throw Error(ErrorCode::kInvalidArgument,
                "is empty: name a model folder, an adapter's, or a run's", "model");
  ModelPlace place;
  place.model = WithinRun(path);
  place.base = BaseOf(place.model);
  FileSystem& files = RealFileSystem();
  if (files.Exists(place.base + "/config.json")) return place;
  if (!files.Exists(place.model))
    throw Error(ErrorCode::kNotFound, "there is no such folder" + HowToGet(path), path);
  throw Error(
      ErrorCode::kNotFound,
      NotWhatIsWanted(place.model, "a model") +
          (PlaceOf(place.model) == Place::kFolder
               ? "; config.json is missing. A run's folder will do; `plumb convert` makes a "
                 "folder of a GGUF file"
               : ""),
      place.model);
}

bool WantsBos(const std::string& path, const policy_model::ModelShape& shape,
              const Tokenizer& tokenizer, const std::string& option) {
  if (option != "auto" && option != "yes" && option != "no") {
    throw Error(ErrorCode::kInvalidArgument, "is \"" + option + "\": use auto, yes or no", "--bos");
  }
  if (option == "no") return false;
  if (shape.bos_token < 0) {
    if (option == "yes")
      throw Error(ErrorCode::kInvalidArgument, "--bos yes, but config.json has no bos_token_id",
                  path);
    return false;
  }
  if (option == "yes") return true;
  // The post-processor decides; add_bos_token of tokenizer_config.json says nothing beside a
  // tokenizer.json.
  if (!tokenizer.surroundings().front.empty()) return true;
  // Models of earlier builds have the built-in vocabulary without a post-processor. A large
  // one is not read to see that it is another: nlohmann's parser is quadratic in it.
  const auto known = Tokenizer::BuiltIn("arithmetic");
  if (tokenizer.size() > 2 * known->size()) return false;
  const Json file = Json::parse(tokenizer.json(), nullptr, /*allow_exceptions=*/false);
  const Json built_in = Json::parse(known->json());
  return file.is_object() && file.value("model", Json()) == built_in.at("model");
}

void FillSpecialTokens(const std::string& path, const Tokenizer& tokenizer,
                       policy_model::ModelShape& shape) {
  const auto named = ReadSpecialTokens(path);
  const auto id_of = [&](const char* key) {
    const auto found = named.find(key);
    return found == named.end() ? -1 : tokenizer.Find(found->second);
  };
  if (shape.bos_token < 0) shape.bos_token = id_of("bos_token");
  if (const int32_t eos = id_of("eos_token"); shape.eos_tokens.empty() && eos >= 0)
    shape.eos_tokens = {eos};
}

std::string NoTemplate(const std::string& model) {
  return std::string("the model has no chat template") +
         (model.empty() ? ""
                        : ", which says how it reads a dialogue: put the chat_template.jinja of a "
                          "chat model of its family into " +
                              model +
                              ", or give rows whose prompt is a text (without data.system_prompt, "
                              "which makes messages of it)");
}

std::vector<int32_t> PromptEncoder::Text(const std::string& text) const {
  std::vector<int32_t> tokens = tokenizer.Encode(text);
  if (add_bos && (tokens.empty() || tokens.front() != shape.bos_token))
    tokens.insert(tokens.begin(), shape.bos_token);
  return tokens;
}

std::vector<int32_t> PromptEncoder::Encode(const Prompt& prompt, bool raw) const {
  const auto behind = [&](std::vector<int32_t> tokens) {
    if (!tokens.empty()) tokens.insert(tokens.begin(), front.begin(), front.end());
    return tokens;
  };
  if (prompt.messages.empty() && (raw || !chat_template)) return behind(Text(prompt.text));
  if (!chat_template) {
    throw Error(ErrorCode::kInvalidArgument,
                "the prompt is a list of messages but " + NoTemplate(model), model);
  }
  if (!prompt.messages.empty())
    return behind(
        tokenizer.Encode(chat_template->Render(prompt.messages, true, prompt.extra_json)));
  const Message user{.role = "user", .content = prompt.text};
  return behind(
      tokenizer.Encode(chat_template->Render(std::span(&user, 1), true, prompt.extra_json)));
}

std::vector<int32_t> PromptEncoder::Answer(const std::string& text) const {
  std::vector<int32_t> tokens = tokenizer.Encode(text);
  const auto& eos = shape.eos_tokens;
  const bool ended =
      !tokens.empty() && std::find(eos.begin(), eos.end(), tokens.back()) != eos.end();
  if (!ended && !eos.empty()) tokens.push_back(eos.front());
  return tokens;
}

ModelFolder LoadVocabulary(const std::string& folder, const std::string& bos) {
  const std::string path = BaseOf(folder);
  ModelFolder model;
  model.path = folder;
  model.base = path;
  model.shape = policy_model::ReadModelConfig(path);
  model.tokenizer = Tokenizer::Load(path);
  model.chat_template = ChatTemplate::LoadOrNull(path);
  if (model.tokenizer->size() > model.shape.vocab) {
    throw Error(ErrorCode::kConflict,
                "the tokenizer has " + std::to_string(model.tokenizer->size()) +
                    " tokens, the model only " + std::to_string(model.shape.vocab),
                path);
  }
  FillSpecialTokens(path, *model.tokenizer, model.shape);
  model.shape.unused_tokens =
      model.tokenizer->IdsWithoutToken(model.shape.vocab, model.shape.eos_tokens);
  model.add_bos = WantsBos(path, model.shape, *model.tokenizer, bos);
  return model;
}

namespace {

// Of a policy with tasks, the model of one.
void ChooseTask(const ModelOptions& options, ModelFolder& model) {
  const int gated = model.weights->gated();
  if (gated < 0) {
    if (options.task.empty()) return;
    throw Error(ErrorCode::kInvalidArgument, "is an adapter without tasks: leave --task away",
                model.path);
  }
  const policy_model::AdapterSpec& spec =
      model.weights->adapters()[static_cast<size_t>(gated)]->adapter->spec();
  if (options.task.empty()) {
    std::string known;
    for (const std::string& task : spec.tasks) known += (known.empty() ? "" : ", ") + task;
    throw Error(ErrorCode::kInvalidArgument,
                "holds adapters that are weighed by the task: say which, --task NAME of " + known,
                model.path);
  }
  if (options.merge && spec.task_tokens > 0) {
    throw Error(
        ErrorCode::kUnsupported,
        "has learned tokens in front of a task's prompts (policy.task_tokens), which are no "
        "part of a model folder or an adapter: leave --merge away; it cannot be converted",
        model.path);
  }
  *model.weights = model.weights->ForTask(options.task);
  if (spec.task_tokens > 0) model.front = TaskFront(0, spec.task_tokens);
}

}  // namespace

ModelFolder LoadModel(const std::string& given, const ModelOptions& options) {
  if (options.dtype != "auto" && options.dtype != "float32" && options.dtype != "bfloat16") {
    throw Error(ErrorCode::kInvalidArgument,
                "is \"" + options.dtype + "\": use auto, float32 or bfloat16", "--dtype");
  }
  const std::optional<Device> device = ParseDevice(options.device);
  if (!device) {
    throw Error(ErrorCode::kInvalidArgument,
                "is \"" + options.device + "\": use cpu, cuda or cuda:N", "--device");
  }
  const auto [path, base] = FindModel(given);
  ModelFolder model = LoadVocabulary(path, options.bos);
  if (model.shape.scalar_head && !options.scalar_head) {
    throw Error(ErrorCode::kInvalidArgument,
                "is a reward model or critic (config.json says ...ForSequenceClassification): it "
                "has no words to say",
                path);
  }
  kernels::CheckDevice(*device, "--device");
  model.stream = OwnedStream(*device);
  policy_model::SetThreads(static_cast<int>(options.threads));
  const std::string dtype = options.dtype == "auto" ? StoredDtype(base) : options.dtype;
  model.dtype = dtype == "float32" ? DType::kFloat32 : DType::kBFloat16;
  model.weights = std::make_unique<policy_model::Weights>(model.shape, model.stream, model.dtype);
  model.weights->Load(base);
  if (base != path) {
    model.weights->AddAdapter(policy_model::ReadAdapterConfig(path).spec, 0);
    model.weights->LoadTrained(path);
    ChooseTask(options, model);
    if (options.merge) model.weights->Merge();
  } else if (options.merge || !options.task.empty()) {
    throw Error(ErrorCode::kInvalidArgument,
                options.merge ? "is no adapter: there is nothing to merge"
                              : "is no adapter: it has no tasks",
                path);
  }
  return model;
}

void RefuseTaskTokens(const ModelFolder& model) {
  if (model.front.empty()) return;
  throw Error(
      ErrorCode::kUnsupported,
      "has learned tokens in front of its task's prompts, which only generate, chat and eval "
      "of prompts put there",
      model.path);
}

}  // namespace plumb::run
