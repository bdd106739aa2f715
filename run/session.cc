#include "run/session.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>
#include <set>

#include "common/error.h"
#include "common/file.h"
#include "kernels/launch.h"
#include "policy_model/transformer.h"
#include "replay/arithmetic.h"
#include "replay/dataset_import.h"
#include "run/answer_text.h"
#include "run/overlong.h"
#include "run/prompt_room.h"

namespace plumb::run {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr char kArithmetic[] = "arithmetic";
constexpr size_t kMaxIdentityBytes = 1 << 16;

std::string NewRunId() {
  std::random_device random;
  char id[17];
  std::snprintf(id, sizeof id, "%08x%08x", random(), random());
  return id;
}

// Lines of a resolved config that may differ between the parts of one run.
bool MayDiffer(const std::string& key) {
  static const std::set<std::string> kFree = {"run.steps", "run.out", "run.roles", "run.checkpoint_every",
                                              "run.keep_checkpoints", "run.actors", "run.reward_workers",
                                              "run.stall_seconds", "metrics.tensorboard", "metrics.prometheus_port",
                                              "metrics.samples_every"};
  return kFree.count(key) > 0;
}

// "section.key" -> the rest of the line, of TOML that ToToml wrote (one key a line).
std::map<std::string, std::string> Flatten(const std::string& toml) {
  std::map<std::string, std::string> out;
  std::string section;
  int part = -1;
  size_t at = 0;
  while (at < toml.size()) {
    size_t end = toml.find('\n', at);
    if (end == std::string::npos) end = toml.size();
    const std::string line = toml.substr(at, end - at);
    at = end + 1;
    if (line.rfind("[[", 0) == 0) {
      section = line.substr(2, line.find(']') - 2) + "." + std::to_string(++part);
    } else if (line.rfind("[", 0) == 0) {
      section = line.substr(1, line.find(']') - 1);
    } else if (const size_t eq = line.find(" ="); eq != std::string::npos && line[0] != '#') {
      out[section + "." + line.substr(0, eq)] = line.substr(eq + 2);
    }
  }
  return out;
}

void CheckSameRecipe(const configs::Config& now, const std::string& stored_path) {
  const auto stored = Flatten(RealFileSystem().ReadFile(stored_path, size_t{16} << 20));
  const auto fresh = Flatten(configs::ToToml(now));
  std::string differences;
  for (const auto& [key, value] : fresh) {
    const auto found = stored.find(key);
    if (MayDiffer(key) || (found != stored.end() && found->second == value)) continue;
    differences += "\n  " + key + ": the run has" + (found == stored.end() ? " nothing" : found->second) +
                   ", the recipe says" + value;
  }
  if (!differences.empty()) {
    throw Error(ErrorCode::kConflict,
                "this run was started with other options; resume it with the same recipe or use another --out:" + differences,
                stored_path);
  }
}

// What is learned of demonstrations, and how many were left out.
class Demonstrations {
 public:
  explicit Demonstrations(const Session& session)
      : session_(session), overlong_(session.config().data.overlong, session.shape().max_positions, "model.max_positions") {}

  std::vector<Demonstration> Encode(const std::vector<replay::TextDemonstration>& texts) {
    std::vector<Demonstration> out;
    for (const auto& text : texts) {
      const std::string where = "demonstration " + std::to_string(&text - texts.data() + 1);
      std::optional<Demonstration> d = EncodeOne(text, where);
      if (!d) ++unwritten_;
      Demonstration* one[] = {d ? &*d : nullptr};
      if (d && overlong_.Fit(one, where)) out.push_back(std::move(*d));
    }
    return out;
  }
  std::string LeftOut() const {
    return overlong_.Describe() + (unwritten_ == 0 ? "" : ", " + std::to_string(unwritten_) + " that call tools left out: the chat " +
                                                              "template does not write the calls");
  }

 private:
  // Through the chat template, as a rollout asks and as the template writes an answer; without one, and where nothing is asked,
  // the text as it stands with an end token.
  std::optional<Demonstration> EncodeOne(const replay::TextDemonstration& text, const std::string& where) {
    const bool asked = !text.messages.empty() || !text.prompt.empty();
    if (session_.chat_template() != nullptr && asked) {
      std::vector<Message> prompt = text.messages;
      if (prompt.empty()) prompt.push_back({.role = "user", .content = text.prompt});
      const Message answer{.role = "assistant", .content = text.completion, .fields_json = text.fields_json};
      return AnswerTokens(session_.tokenizer(), *session_.chat_template(), prompt, std::span(&answer, 1), text.columns_json, where);
    }
    Prompt prompt;
    prompt.text = text.messages.empty() ? text.prompt : "";
    prompt.messages = text.messages;
    return Joined(asked ? session_.Tokenize(prompt) : session_.encoder().Text(""), session_.encoder().Answer(text.completion));
  }

  const Session& session_;
  Overlong overlong_;
  int64_t unwritten_ = 0;
};

replay::ArithmeticSets Arithmetic(const configs::Config& config) {
  return replay::GenerateArithmetic({.seed = config.run.seed, .digits = config.data.arithmetic_digits,
                                     .sft_examples = config.data.arithmetic_sft_examples,
                                     .eval_prompts = config.data.eval_prompts, .train_prompts = config.data.limit});
}

}  // namespace

RunFolder PrepareRunFolder(configs::Config& config, const std::string& recipe_path, bool resume, bool overwrite) {
  if (config.run.out.empty()) config.run.out = "runs/" + fs::path(recipe_path).stem().string();
  RunFolder folder{fs::absolute(config.run.out).lexically_normal().string()};
  while (folder.path.size() > 1 && folder.path.back() == '/') folder.path.pop_back();
  const bool exists = fs::exists(folder.identity());
  if (exists && overwrite && !resume) {
    fs::remove_all(folder.path);
  } else if (exists && !resume) {
    throw Error(ErrorCode::kConflict, "there is a run in this folder already: go on with --resume, start anew with " \
                                      "--overwrite, or choose another --out", folder.path);
  } else if (!exists && fs::exists(folder.path) && !fs::is_empty(folder.path)) {
    throw Error(ErrorCode::kConflict, "this folder is not empty and is not a run: choose another --out", folder.path);
  }
  if (exists && resume) {
    CheckSameRecipe(config, folder.config());
  } else {
    FileSystem& files = RealFileSystem();
    files.CreateDirectories(folder.path);
    files.WriteFileAtomic(folder.identity(), Json{{"run_id", NewRunId()}, {"format", 1}}.dump(1) + "\n");
  }
  for (const std::string& path : {folder.logs(), folder.checkpoints(), folder.tensorboard()}) {
    RealFileSystem().CreateDirectories(path);
  }
  RealFileSystem().WriteFileAtomic(folder.config(), configs::ToToml(config));
  return folder;
}

std::unique_ptr<Session> Session::Open(const std::string& path) {
  std::unique_ptr<Session> session(new Session);
  Session& s = *session;
  s.folder_.path = path;
  s.config_ = configs::LoadRecipe(s.folder_.config()).config;
  const std::string identity = RealFileSystem().ReadFile(s.folder_.identity(), kMaxIdentityBytes);
  try {
    s.run_id_ = Json::parse(identity).at("run_id").get<std::string>();
  } catch (const Json::exception& e) {
    throw Error(ErrorCode::kCorruption, std::string("malformed: ") + e.what(), s.folder_.identity());
  }
  policy_model::SetThreads(static_cast<int>(s.config_.run.threads));
  s.dtype_ = s.config_.model.dtype == "bfloat16" ? DType::kBFloat16 : DType::kFloat32;
  if (s.config_.run.device == "cuda") {
    if (!kernels::CudaAvailable()) {
      throw Error(ErrorCode::kUnsupported, "run.device = \"cuda\", but this build has no CUDA or no GPU answers: use the " \
                                           "cuda preset on a machine with a GPU, or run.device = \"cpu\"");
    }
    s.device_ = Device::kCuda;
  }
  s.ReadModel();
  return session;
}

std::unique_ptr<Session> Session::WithoutRun(const configs::Config& config) {
  std::unique_ptr<Session> session(new Session);
  session->config_ = config;
  policy_model::SetThreads(static_cast<int>(config.run.threads));
  session->ReadModel();
  return session;
}

void Session::ReadModel() {
  Session& s = *this;
  const auto& model = s.config_.model;
  if (!model.path.empty()) {
    s.shape_ = policy_model::ReadModelConfig(model.path);
    if (s.shape_.scalar_head) {
      throw Error(ErrorCode::kInvalidArgument, "is a reward model or critic (config.json says ...ForSequenceClassification): it " \
                                               "cannot answer; name a language model", model.path);
    }
    s.tokenizer_ = policy_model::Tokenizer::Load(model.path);
    s.template_ = policy_model::ChatTemplate::LoadOrNull(model.path);
    s.tokenizer_source_ = model.path;
    if (s.tokenizer_->size() > s.shape_.vocab) {
      throw Error(ErrorCode::kConflict, "the tokenizer has " + std::to_string(s.tokenizer_->size()) +
                                            " tokens, the model only " + std::to_string(s.shape_.vocab), model.path);
    }
    FillSpecialTokens(model.path, *s.tokenizer_, s.shape_);
    s.shape_.unused_tokens = s.tokenizer_->IdsWithoutToken(s.shape_.vocab, s.shape_.eos_tokens);
    s.add_bos_ = WantsBos(model.path, s.shape_, *s.tokenizer_, "auto");
    return;
  }
  s.tokenizer_ = policy_model::Tokenizer::BuiltIn(model.vocabulary);
  s.shape_ = {.family = "llama", .layers = model.layers, .hidden = model.hidden, .heads = model.heads,
              .kv_heads = model.kv_heads, .head_dim = model.hidden / model.heads, .ffn = model.ffn,
              .vocab = s.tokenizer_->size(), .max_positions = model.max_positions, .rope_theta = model.rope_theta,
              .tied = model.tied};
  s.shape_.bos_token = s.tokenizer_->Find("<bos>");
  s.shape_.eos_tokens = {s.tokenizer_->Find("<eos>")};
  s.add_bos_ = s.shape_.bos_token >= 0;
  policy_model::Validate(s.shape_, "[model]");
  if (s.folder_.path.empty()) return;
  s.tokenizer_source_ = s.folder_.tokenizer();
  if (!fs::exists(s.tokenizer_source_ + "/tokenizer.json")) {
    RealFileSystem().CreateDirectories(s.tokenizer_source_);
    RealFileSystem().WriteFileAtomic(s.tokenizer_source_ + "/tokenizer.json", s.tokenizer_->json());
    // What transformers' AutoTokenizer asks for.
    const Json config = {{"tokenizer_class", "PreTrainedTokenizerFast"}, {"bos_token", "<bos>"}, {"eos_token", "<eos>"},
                         {"pad_token", "<pad>"}, {"clean_up_tokenization_spaces", false}, {"model_max_length", model.max_positions}};
    RealFileSystem().WriteFileAtomic(s.tokenizer_source_ + "/tokenizer_config.json", config.dump(2) + "\n");
  }
}

PromptData LoadPrompts(const Session& session, std::atomic<int64_t>* rows) {
  const auto& config = session.config();
  const auto tokenize = [&](const Prompt& p) {
    if (rows != nullptr) ++*rows;
    return session.Tokenize(p);
  };
  PromptData data;
  const PromptRoom room = RoomForPrompts(config, session.shape());
  std::map<std::string, std::string> left_out;  // dataset -> why rows are missing, for an error
  const bool generated_train = config.data.train == kArithmetic, generated_eval = config.data.eval == kArithmetic;
  if (generated_train || generated_eval) {
    replay::ArithmeticSets sets = Arithmetic(config);
    if (generated_train) data.train = std::move(sets.train);
    if (generated_eval) data.eval = std::move(sets.eval);
    FitCounts overlong;
    for (auto* list : {&data.train, &data.eval}) {
      for (Prompt& p : *list) p.tokens = tokenize(p);
      const FitCounts n = FitPrompts(room, config.data.overlong, "generated sums", *list);
      if (n.left_out > 0) left_out[list == &data.train ? "train" : "eval"] = std::to_string(n.left_out) + " are longer: " + room.bound;
      overlong.left_out += n.left_out;
      overlong.cut += n.cut;
    }
    data.notes.push_back("generated sums: " + std::to_string(data.train.size()) + " to train on, " +
                         std::to_string(data.eval.size()) + " held out" +
                         (overlong.left_out + overlong.cut > 0 ? ", " + std::to_string(overlong.left_out) + " left out and " +
                                                                     std::to_string(overlong.cut) + " cut: " + room.bound
                                                               : ""));
  }
  const auto import = [&](const std::string& file, const std::string& dataset) {
    replay::ImportOptions options = replay::ImportOptionsOf(config.data, dataset);
    options.tokenize = tokenize;
    options.max_prompt_tokens = room.tokens;
    options.max_prompt_bound = room.bound;
    if (dataset == "eval" && config.data.eval_prompts > 0) options.limit = config.data.eval_prompts;
    replay::ImportedPrompts imported = replay::ImportPrompts(file, options);
    for (const std::string& note : imported.ledger.Notes(file)) data.notes.push_back(note);
    if (imported.ledger.TotalRejected() > 0) {
      left_out[dataset] = imported.ledger.Describe() + (imported.ledger.rejected.contains("overlong") ? ": " + room.bound : "");
    }
    return std::move(imported.prompts);
  };
  if (!generated_train) data.train = import(config.data.train, "train");
  if (!generated_eval && !config.data.eval.empty()) data.eval = import(config.data.eval, "eval");
  const auto why = [&](const char* dataset) { return left_out.contains(dataset) ? " (" + left_out.at(dataset) + ")" : ""; };
  if (static_cast<int64_t>(data.train.size()) < config.rollout.prompts_per_step) {
    throw Error(ErrorCode::kInvalidArgument,
                "rollout.prompts_per_step is " + std::to_string(config.rollout.prompts_per_step) + " but " +
                    config.data.train + " has only " + std::to_string(data.train.size()) + " usable rows" + why("train"),
                "data.train");
  }
  if (!config.data.eval.empty() && data.eval.empty()) {
    throw Error(ErrorCode::kInvalidArgument, config.data.eval + " has no usable row" + why("eval") + "; set data.eval = \"\" to do without",
                "data.eval");
  }
  return data;
}

DemonstrationData LoadDemonstrations(const Session& session) {
  DemonstrationData data;
  const auto& config = session.config();
  if (config.sft.steps <= 0) return data;
  std::vector<replay::TextDemonstration> train, heldout;
  if (config.sft.data.empty()) {
    if (config.data.train != kArithmetic) {
      throw Error(ErrorCode::kInvalidArgument, "sft.steps > 0 needs sft.data (a file of demonstrations) unless data.train is "
                                               "\"arithmetic\"", "sft.data");
    }
    replay::ArithmeticSets sets = Arithmetic(config);
    train = std::move(sets.sft);
    heldout = std::move(sets.sft_eval);
  } else {
    auto imported = replay::ImportDemonstrations(config.sft.data, replay::ImportOptionsOf(config.data, "sft"));
    for (const std::string& note : imported.ledger.Notes(config.sft.data))
      data.notes.push_back(note);
    train = std::move(imported.demonstrations);
    // Every 20th row is held out, at most 200: enough to see the loss go flat.
    std::vector<replay::TextDemonstration> kept;
    for (size_t i = 0; i < train.size(); ++i) {
      auto& list = i % 20 == 19 && heldout.size() < 200 ? heldout : kept;
      list.push_back(std::move(train[i]));
    }
    train = std::move(kept);
  }
  Demonstrations demonstrations(session);
  data.train = demonstrations.Encode(train);
  data.heldout = demonstrations.Encode(heldout);
  data.notes.push_back("warm start: " + std::to_string(data.train.size()) + " demonstrations, " +
                       std::to_string(data.heldout.size()) + " held out, " + demonstrations.LeftOut());
  return data;
}

}  // namespace plumb::run
