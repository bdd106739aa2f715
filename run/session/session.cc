#include "run/session/session.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/record/task_tokens.h"
#include "common/text/columns.h"
#include "common/text/template/transcript.h"
#include "configs/paths.h"
#include "environment/environments.h"
#include "kernels/device/process_gpu.h"
#include "kernels/products/row_product.h"
#include "policy_model/families/family.h"
#include "policy_model/memory/key_table.h"
#include "policy_model/transformer.h"
#include "replay/datasets/rows/dataset_import.h"
#include "replay/datasets/rows/tiny_texts.h"
#include "reward/part/truth.h"
#include "reward/rules/rules.h"
#include "run/session/generated_sums.h"
#include "run/session/offline_source.h"
#include "run/session/prompt_room.h"
#include "run/session/recipe/missing_truths.h"
#include "run/session/row_counts.h"

namespace plumb::run {
namespace {

namespace fs = std::filesystem;
constexpr char kTaskPart[] = "task";  // of data.map
using Json = nlohmann::json;

// Tokens of the longest sequence that a run computes.
int64_t LongestSequence(const configs::Config& c) {
  if (!configs::IsOffline(c)) return c.data.max_prompt_tokens + c.rollout.max_new_tokens;
  return std::max(c.preference.max_tokens, c.sft.max_tokens);
}

// The simplest family that has what the options say: other systems read llama and mistral.
policy_model::ModelShape NewModelShape(const configs::ModelConfig& model, int32_t vocab) {
  policy_model::ModelShape shape = {.family = model.window > 0 ? "mistral" : "llama",
                                    .layers = model.layers,
                                    .hidden = model.hidden,
                                    .heads = model.heads,
                                    .kv_heads = model.kv_heads,
                                    .head_dim = model.hidden / model.heads,
                                    .ffn = model.ffn,
                                    .vocab = vocab,
                                    .max_positions = model.max_positions,
                                    .rope_theta = model.rope_theta,
                                    .tied = model.tied,
                                    .sinks = model.sinks,
                                    .window = model.window,
                                    .global_every = model.global_every};
  bool layer_norms = false;
  for (int64_t l = 0; l < model.layers; ++l) {
    const bool layer_norm = model.norms[static_cast<size_t>(l) % model.norms.size()] == "layernorm";
    shape.layer_norms.push_back(layer_norm ? 1 : 0);
    shape.final_layer_norm = layer_norm;  // as the last layer's
    layer_norms = layer_norms || layer_norm;
  }
  if (!layer_norms) shape.layer_norms.clear();
  if (layer_norms || model.global_every > 0 || model.sinks) shape.family = "plumb";
  if (model.attention == configs::AttentionKind::kLatent) {
    const int64_t head = shape.head_dim;
    shape.family = "plumb";
    shape.kv_heads = shape.heads;
    shape.latent = {.kv_rank = model.kv_rank,
                    .query_rank = model.query_rank,
                    .nope = head,
                    .rope = model.rope_dim,
                    .value = head,
                    .norm_eps = shape.norm_eps};
    shape.head_dim = shape.latent.head();
  }
  shape.gate_top_k = model.gate_top_k;
  if (!model.memory_table.empty())
    shape.table = policy_model::DescribeKeyTable(model.memory_table, shape.head_dim);
  policy_model::SetScales(model.scales, "model.scales", shape);
  if (model.gate_top_k > 0 || !model.scales.empty()) shape.family = "plumb";
  return shape;
}

// A new model with experts is one of Plumb's own family.
void AddExperts(const configs::ModelConfig& model, const configs::ExpertsConfig& experts,
                policy_model::ModelShape& shape) {
  if (experts.count == 0) return;
  policy_model::ExpertsShape& e = shape.experts;
  shape.family = "plumb";
  e.count = experts.count;
  e.per_token = experts.per_token;
  for (const std::string& width : experts.widths) e.widths.push_back(std::stoll(width));
  if (e.widths.empty()) e.widths = {model.ffn};
  for (int64_t l = 0; experts.first_dense > 0 && l < model.layers; ++l)
    e.dense.push_back(l < experts.first_dense ? 1 : 0);
  e.sigmoid = experts.router == configs::Router::kSigmoid;
  e.renormalize = experts.renormalize;
  e.temperature = experts.temperature;
  e.groups = experts.groups;
  e.groups_per_token = experts.groups_per_token;
  e.bias = true;  // always there, so that experts.bias_rate may begin in the middle of a run
  e.shared_ffn = experts.shared * e.widths[0];
  e.shared_gate = experts.shared_gate;
}

}  // namespace

std::unique_ptr<Session> Session::Open(const std::string& path, const DeviceOf& device_of) {
  std::unique_ptr<Session> session(new Session);
  Session& s = *session;
  s.folder_.path = path;
  s.config_ = configs::LoadRecipe(s.folder_.config()).config;
  s.run_id_ = ReadRunId(s.folder_);
  policy_model::SetThreads(static_cast<int>(s.config_.run.threads));
  kernels::SetExactProducts(s.config_.run.exact);
  s.dtype_ = s.config_.model.dtype;
  std::optional<Device> device = ParseDevice(s.config_.run.device);
  PLUMB_CHECK(device.has_value(), "recipes are checked when they are read");
  device = device_of ? device_of(s.config_) : kernels::OfThisProcess(*device);
  kernels::CheckDevice(*device, device_of ? "rollout.device" : "run.device");
  s.stream_ = OwnedStream(*device);
  s.ReadModel();
  return session;
}

std::unique_ptr<Session> Session::WithoutRun(const configs::Config& config, bool scalar_head) {
  std::unique_ptr<Session> session(new Session);
  session->config_ = config;
  policy_model::SetThreads(static_cast<int>(config.run.threads));
  kernels::SetExactProducts(config.run.exact);
  session->ReadModel(scalar_head);
  return session;
}

void Session::MeetEnvironment(const std::string& model) {
  const std::string tools = environment::ToolsJsonOf(config_.environment, template_.get(),
                                                     config_.reward.allow_unsandboxed);
  if (!template_) return;
  tools_json_ = tools;
  if (config_.data.chat_template)
    environment::CheckTemplate(config_.environment, template_.get(), tools_json_, model);
}

void Session::ReadModel(bool scalar_head) {
  Session& s = *this;
  const auto& model = s.config_.model;
  if (!model.path.empty()) {
    s.shape_ = policy_model::ReadModelConfig(model.path, LongestSequence(s.config_));
    if (s.shape_.scalar_head && !scalar_head) {
      throw Error(ErrorCode::kInvalidArgument,
                  "is a reward model or critic (config.json says ...ForSequenceClassification): it "
                  "cannot answer; name a language model",
                  model.path);
    }
    s.tokenizer_ = Tokenizer::Load(model.path);
    s.template_ = ChatTemplate::LoadOrNull(model.path);
    s.tokenizer_source_ = model.path;
    if (s.tokenizer_->size() > s.shape_.vocab) {
      throw Error(ErrorCode::kConflict,
                  "the tokenizer has " + std::to_string(s.tokenizer_->size()) +
                      " tokens, the model only " + std::to_string(s.shape_.vocab),
                  model.path);
    }
    FillSpecialTokens(model.path, *s.tokenizer_, s.shape_);
    s.shape_.unused_tokens = s.tokenizer_->IdsWithoutToken(s.shape_.vocab, s.shape_.eos_tokens);
    s.add_bos_ = WantsBos(model.path, s.shape_, *s.tokenizer_, "auto");
    s.MeetEnvironment(model.path);
    return;
  }
  s.tokenizer_ = Tokenizer::BuiltIn(NameOf(model.vocabulary));
  s.shape_ = NewModelShape(model, s.tokenizer_->size());
  AddExperts(model, s.config_.experts, s.shape_);
  s.shape_.bos_token = s.tokenizer_->Find("<bos>");
  s.shape_.eos_tokens = {s.tokenizer_->Find("<eos>")};
  if (model.vocabulary == configs::Vocabulary::kBytes) s.template_ = ChatTemplate::BuiltIn("bytes");
  s.add_bos_ = s.shape_.bos_token >= 0;
  policy_model::Validate(s.shape_, "[model]");
  s.MeetEnvironment("vocabulary " + NameOf(model.vocabulary));
  if (s.folder_.path.empty()) return;
  s.tokenizer_source_ = s.folder_.tokenizer();
  RealFileSystem().CreateDirectories(s.tokenizer_source_);
  // What transformers' AutoTokenizer asks for.
  Json config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                 {"bos_token", "<bos>"},
                 {"eos_token", "<eos>"},
                 {"pad_token", "<pad>"},
                 {"clean_up_tokenization_spaces", false},
                 {"model_max_length", model.max_positions}};
  if (s.template_) config["chat_template"] = s.template_->source();
  // Each looked for by itself: a life before may have ended between the two.
  const auto put = [&](const char* name, const std::string& text) {
    const std::string path = s.tokenizer_source_ + name;
    if (!fs::exists(path)) RealFileSystem().WriteFileAtomic(path, text);
  };
  put("/tokenizer.json", s.tokenizer_->json());
  put("/tokenizer_config.json", config.dump(2) + "\n");
}

std::vector<int32_t> Session::Tokenize(const Prompt& given) const {
  Prompt with_tools;  // where the environment has some
  if (!tools_json_.empty()) {
    with_tools = given;
    with_tools.extra_json = WithTools(given.extra_json, tools_json_);
  }
  const Prompt& prompt = tools_json_.empty() ? given : with_tools;
  std::vector<int32_t> tokens = encoder().Encode(prompt, /*raw=*/!config_.data.chat_template);
  if (tokens.empty()) return tokens;
  const std::vector<int32_t> front = TaskFront(prompt.extra_json, "");
  tokens.insert(tokens.begin(), front.begin(), front.end());
  return tokens;
}

std::vector<int32_t> Session::TaskFront(std::string_view columns_json,
                                        const std::string& where) const {
  const configs::PolicyConfig& policy = config_.policy;
  if (policy.tasks.empty()) return {};
  const std::string& column = config_.data.map.at(kTaskPart);
  const Json columns = Json::parse(columns_json.empty() ? "{}" : columns_json, nullptr, false);
  std::string known;
  for (const std::string& task : policy.tasks) known += (known.empty() ? "" : ", ") + task;
  const auto refuse = [&](const std::string& why) {
    throw Error(ErrorCode::kInvalidArgument, "the row " + why + "; policy.tasks knows: " + known,
                where);
  };
  if (!columns.is_object() || !columns.contains(column) || columns[column].is_null())
    refuse("has no column '" + column + "' (data.map.task), which names its task");
  const Json& value = columns[column];
  const std::string name = value.is_string() ? value.get<std::string>() : value.dump();
  const auto found = std::find(policy.tasks.begin(), policy.tasks.end(), name);
  if (found == policy.tasks.end())
    refuse("is of the task '" + name + "' (column '" + column + "')");
  return plumb::TaskFront(static_cast<int32_t>(found - policy.tasks.begin()), policy.task_tokens);
}

void Session::PutTask(std::string_view columns_json, const std::string& where,
                      Demonstration& row) const {
  const std::vector<int32_t> front = TaskFront(columns_json, where);
  if (front.empty() || row.tokens.empty()) return;
  row.loss_mask[0] = 0;
  row.tokens.insert(row.tokens.begin(), front.begin(), front.end());
  row.loss_mask.insert(row.loss_mask.begin(), front.size(), 0);
}

std::vector<std::string> Session::TextNotes() const {
  std::vector<std::string> notes;
  if (config_.model.path.empty()) {
    if (shape_.family == "plumb") {
      notes.emplace_back(
          "model: of a form that only Plumb has (model_type \"plumb\"): its folders are read by "
          "plumb, not by transformers");
    }
    if (!template_) return notes;  // a vocabulary without one: nothing could become of text
  }
  notes.emplace_back(
      !template_ ? "prompts: text as it is (the model has no chat template)"
      : config_.data.chat_template
          ? "prompts: text through the model's chat template (data.chat_template = false: as it is)"
          : "prompts: text as it is, without the model's chat template (data.chat_template = "
            "false)");
  return notes;
}

namespace {

// Of data.train or data.eval, which name the folder of a store.
replay::ImportedPrompts StoredPrompts(const configs::DataConfig& data, const std::string& folder,
                                      const replay::ImportOptions& options) {
  // The rows that are held out of those that train are of the same dataset.
  const bool trains = options.dataset == "train" || (folder == data.train && data.eval_skip > 0);
  const StoredRows from =
      OpenStoredPrompts(folder, trains ? data.dataset : "", trains ? "train" : options.dataset);
  return replay::TakePrompts(folder, options, from.rows, [&](uint64_t row) {
    return from.store->ReadPrompt(from.dataset, row);
  });
}

}  // namespace

PromptData LoadPrompts(const Session& session, std::atomic<int64_t>* rows) {
  const auto& config = session.config();
  const auto tokenize = [&](const Prompt& p) {
    if (rows != nullptr) ++*rows;
    return session.Tokenize(p);
  };
  PromptData data{.notes = session.TextNotes()};
  const PromptRoom room = RoomForPrompts(config, session.shape());
  std::map<std::string, std::string> left_out;  // dataset -> why rows are missing, for an error
  const auto count = [&](const std::string& dataset, int64_t read, int64_t used,
                         const std::map<std::string, int64_t>& dropped) {
    RowCounts counts(dataset);
    counts.Read(read);
    counts.Used(used);
    for (const auto& [why, n] : dropped) counts.Dropped(why, n);
    data.rows.insert(counts.counters().begin(), counts.counters().end());
  };
  const bool generated_train = configs::IsGenerated(config.data.train),
             generated_eval = configs::IsGenerated(config.data.eval);
  if (generated_train || generated_eval) {
    if (config.data.train == kArithmetic || config.data.eval == kArithmetic) {
      replay::ArithmeticSets sets = GeneratedSums(config);
      if (config.data.train == kArithmetic) data.train = std::move(sets.train);
      if (config.data.eval == kArithmetic) data.eval = std::move(sets.eval);
    }
    const uint64_t seed = config.run.seed;
    if (config.data.train == replay::kTinyTexts)
      data.train = replay::TinyPrompts(seed, /*heldout=*/false, config.data.limit);
    if (config.data.eval == replay::kTinyTexts)
      data.eval = replay::TinyPrompts(seed, /*heldout=*/true, config.data.eval_prompts);
    const std::string kind =
        config.data.train == replay::kTinyTexts || config.data.eval == replay::kTinyTexts
            ? "generated prompts"
            : "generated sums";
    FitCounts overlong;
    for (auto* list : {&data.train, &data.eval}) {
      for (Prompt& p : *list) p.tokens = tokenize(p);
      const FitCounts n = FitPrompts(room, config.data.overlong, kind, *list);
      if (n.left_out > 0)
        left_out[list == &data.train ? "train" : "eval"] =
            std::to_string(n.left_out) + " are longer: " + room.bound;
      if (!list->empty()) {
        const auto used = static_cast<int64_t>(list->size());
        count(list == &data.train ? "train" : "eval", used + n.left_out, used,
              {{"overlong", n.left_out}});
      }
      overlong.left_out += n.left_out;
      overlong.cut += n.cut;
    }
    data.notes.push_back(kind + ": " + std::to_string(data.train.size()) + " to train on, " +
                         std::to_string(data.eval.size()) + " held out" +
                         (overlong.left_out + overlong.cut > 0
                              ? ", " + std::to_string(overlong.left_out) + " left out and " +
                                    std::to_string(overlong.cut) + " cut: " + room.bound
                              : ""));
  }
  const auto import = [&](const std::string& file, const std::string& dataset) {
    replay::ImportOptions options = replay::ImportOptionsOf(config.data, dataset);
    options.tokenize = tokenize;
    options.max_prompt_tokens = room.tokens;
    options.max_prompt_bound = room.bound;
    if (dataset == "eval" && config.data.eval_prompts > 0) options.limit = config.data.eval_prompts;
    replay::ImportedPrompts imported = IsStoreFolder(file)
                                           ? StoredPrompts(config.data, file, options)
                                           : replay::ImportPrompts(file, options);
    for (const std::string& note : imported.ledger.Notes(file)) data.notes.push_back(note);
    if (imported.ledger.TotalRejected() > 0) {
      left_out[dataset] = imported.ledger.Describe() +
                          (imported.ledger.rejected.contains("overlong") ? ": " + room.bound : "");
    }
    count(dataset, imported.ledger.read, imported.ledger.used, imported.ledger.rejected);
    return std::move(imported.prompts);
  };
  if (!generated_train) data.train = import(config.data.train, "train");
  if (!generated_eval && !config.data.eval.empty()) data.eval = import(config.data.eval, "eval");
  const auto why = [&](const char* dataset) {
    return left_out.contains(dataset) ? " (" + left_out.at(dataset) + ")" : "";
  };
  if (static_cast<int64_t>(data.train.size()) < config.rollout.prompts_per_step) {
    throw Error(ErrorCode::kInvalidArgument,
                "rollout.prompts_per_step is " + std::to_string(config.rollout.prompts_per_step) +
                    " but " + config.data.train + " has only " + std::to_string(data.train.size()) +
                    " usable rows" + why("train") + ": " +
                    (data.train.empty()
                         ? ""
                         : "set it to " + std::to_string(data.train.size()) + " or less, or ") +
                    "add rows",
                "data.train");
  }
  if (!config.data.eval.empty() && data.eval.empty()) {
    throw Error(ErrorCode::kInvalidArgument,
                config.data.eval + " has no usable row" + why("eval") +
                    "; set data.eval = \"\" to do without",
                "data.eval");
  }
  return data;
}

void CheckTruths(const configs::Config& config, PromptData& data) {
  for (std::string& note : TruthsMissedByPython(config.reward, data.train))
    data.notes.push_back(std::move(note));
  const auto& parts = config.reward.parts;
  const auto part = std::find_if(parts.begin(), parts.end(), reward::ComparesWithTruth);
  if (part == parts.end()) return;
  const auto lacks = [](const Prompt& p) {
    return p.ground_truth.find_first_not_of(" \t\r\n") == std::string::npos;
  };
  const auto without = std::count_if(data.train.begin(), data.train.end(), lacks);
  if (without == 0) return;
  const Prompt& first = *std::find_if(data.train.begin(), data.train.end(), lacks);
  const std::string likely = reward::TruthAdvice(first);
  const std::string asks = "reward part '" + (part->name.empty() ? part->kind : part->name) +
                           "' (kind = \"" + part->kind + "\") compares with it";
  if (without < std::ssize(data.train)) {
    data.notes.push_back(std::to_string(without) + " of " + std::to_string(data.train.size()) +
                         " prompts have no ground truth, and " + asks +
                         ": their answers get no score" + likely);
    return;
  }
  const Json columns = Json::parse(first.extra_json, nullptr, false);
  std::string names;
  if (columns.is_object()) {
    for (const auto& [name, value] : columns.items())
      names += (names.empty() ? "" : ", ") + PrintableLine(name);
  }
  throw Error(ErrorCode::kInvalidArgument,
              "no row has a ground truth, and " + asks + ", so that no answer would get a score" +
                  (!likely.empty()
                       ? likely
                       : ": name its column, data.map = { answer = \"COLUMN\" }" +
                             (names.empty() ? "" : " (the first row also has: " + names + ")")) +
                  ", or take another reward part",
              config.data.train);
}

}  // namespace plumb::run
