#include "run/session/recipe_proposal.h"

#include <algorithm>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <type_traits>

#include <nlohmann/json.hpp>

#include "common/base/error.h"
#include "configs/defaults.h"
#include "configs/paths.h"
#include "configs/recipe_text.h"
#include "policy_model/speed.h"
#include "replay/datasets/rows/row_parser.h"
#include "replay/datasets/rows/row_source.h"
#include "run/session/demonstration_data.h"
#include "run/session/generated_sums.h"
#include "run/session/offline_source.h"
#include "run/session/preference_data.h"
#include "run/session/recipe/python_function.h"
#include "run/session/recipe/usual_truth.h"
#include "run/session/session.h"

namespace plumb::run {
namespace {

using configs::AlgorithmName;
using configs::LrSchedule;

constexpr int64_t kLooked = 20'000;  // rows that are looked at
constexpr char kThinkFirst[] =
    "Think step by step inside <think></think>, then give the final answer inside "
    "<answer></answer>.";

int64_t Count(size_t n) { return static_cast<int64_t>(n); }

// The next power of two, between two bounds.
int64_t Room(int64_t tokens, int64_t least, int64_t most) {
  int64_t room = least;
  while (room < tokens) room *= 2;
  return std::min(room, most);
}

// Of a dataset of pairs and judged completions.
struct PairCounts {
  int64_t pairs = 0, judged = 0, others = 0;
  std::string other;  // what one of the others is, and its columns
  std::string columns;
  void Add(replay::RowKind kind) {
    using replay::RowKind;
    ++(kind == RowKind::kPairs ? pairs : kind == RowKind::kLabelled ? judged : others);
    if (kind != RowKind::kPairs && kind != RowKind::kLabelled) other = replay::KindName(kind);
  }
};

// "query, good, bad", of a row as JSON.
std::string ColumnsOf(std::string_view row) {
  const auto json = nlohmann::ordered_json::parse(row, nullptr, /*allow_exceptions=*/false);
  std::string names;
  for (auto at = json.begin(); json.is_object() && at != json.end(); ++at)
    names += (names.empty() ? "" : ", ") + at.key();
  return names;
}

// `look` sees each record of a file, and its line.
PairCounts CountPairs(
    const configs::DataConfig& data,
    const std::function<void(const PreferenceRecord&, const std::string&)>& look) {
  PairCounts counts;
  if (IsStoreFolder(data.train)) {
    const StoredRows from = OpenStoredRows(data);
    for (const PreferenceRecord& record : from.store->ReadPreferences(
             from.dataset, 0, std::min<uint64_t>(from.rows, static_cast<uint64_t>(kLooked)))) {
      counts.Add(record.kind == PreferenceKind::kPair       ? replay::RowKind::kPairs
                 : record.kind == PreferenceKind::kLabelled ? replay::RowKind::kLabelled
                                                            : replay::RowKind::kDemonstrations);
    }
    return counts;
  }
  const auto source = replay::RowSource::Open(data.train);
  replay::RowParser parser(
      {.map = data.map, .form = {}, .convert_numbers = source->all_text(), .as = {}});
  replay::SourceRow row;
  for (int64_t i = 0; i < kLooked && source->Next(row); ++i) {
    if (row.blank || row.too_long || !row.problem.empty()) continue;
    try {
      const replay::ParsedRow parsed = parser.Parse(row.text);
      const replay::RowKind kind = replay::KindOf(parsed.form);
      counts.Add(kind);
      if (kind == replay::RowKind::kPrompts && counts.columns.empty())
        counts.columns = ColumnsOf(row.text);
      if (kind == replay::RowKind::kPairs || kind == replay::RowKind::kLabelled)
        look(parsed.record, data.train + ":" + std::to_string(row.number));
    } catch (const replay::RowProblem& problem) {
      ++counts.others;
      if (counts.other.empty()) counts.other = problem.reason + ": " + problem.detail;
    }
  }
  return counts;
}

class Proposal {
 public:
  explicit Proposal(const RecipeRequest& request)
      : request_(request), c_(configs::DefaultsOf(request.algorithm)) {}

  const std::vector<std::string>& notes() const { return notes_; }

  std::string Write() {
    Set("run.seed", c_.run.seed, c_.run.seed);
    Set("algorithm.name", c_.algorithm.name, request_.algorithm);
    Set("data.train", c_.data.train, request_.data);
    if (!request_.map.empty()) Set("data.map", c_.data.map, request_.map);
    ChooseModel();
    if (!configs::IsOffline(c_)) ChooseRollouts();
    else if (request_.algorithm == AlgorithmName::kSft) ChooseDemonstrations();
    else ChoosePairs();
    Set("optimizer.micro_batch_tokens", c_.optimizer.micro_batch_tokens, large_ ? 2048 : 4096);
    // From here on nothing is read: as the recipe says them.
    for (std::string* path : {&c_.model.path, &c_.data.train, &c_.data.eval})
      *path = configs::PathInRecipe(*path, request_.recipe);
    remarks_[""] =
        Title() + "\n   plumb train RECIPE\n   plumb config show RECIPE     (every option)";
    const std::string text = configs::CommentedToml(c_, keys_, remarks_);
    configs::ParseRecipe(text, "the recipe for " + configs::NameOf(request_.algorithm));
    return text;
  }

 private:
  template <class T>
  void Set(const char* key, T& field, std::type_identity_t<T> value) {
    field = std::move(value);
    keys_.insert(key);
  }

  bool is_new() const { return request_.model.empty(); }
  bool sums() const { return request_.data == kArithmetic; }

  std::string Title() const {
    return configs::NameOf(request_.algorithm) + " of " +
           (is_new() ? "a new small model" : c_.model.path) + " on " +
           (sums() ? "generated sums" : c_.data.train) + (facts_.empty() ? "" : ": " + facts_) +
           ". Made by `plumb config new`; every line may be changed.";
  }

  void ChooseModel() {
    if (is_new()) {
      Set("model.layers", c_.model.layers, 2);
      Set("model.hidden", c_.model.hidden, 128);
      Set("model.heads", c_.model.heads, 4);
      Set("model.kv_heads", c_.model.kv_heads, 4);
      Set("model.ffn", c_.model.ffn, 256);
      Set("model.max_positions", c_.model.max_positions, 64);
      Set("model.init_std", c_.model.init_std, 0.05);
      Set("model.vocabulary", c_.model.vocabulary, c_.model.vocabulary);
    } else {
      Set("model.path", c_.model.path, request_.model);
      Set("model.dtype", c_.model.dtype, DType::kBFloat16);
    }
    session_ = Session::WithoutRun(c_);
    const int64_t parameters = policy_model::ParametersInProducts(session_->shape());
    small_ = parameters < 500'000'000;
    large_ = parameters >= 1'000'000'000;
    if (large_ && request_.algorithm != AlgorithmName::kRewardModel) {
      Set("policy.adapter", c_.policy.adapter, configs::Adapter::kLora);
      Set("policy.rank", c_.policy.rank, 16);
      Set("policy.alpha", c_.policy.alpha, 32);
      remarks_["policy"] = "All of a model of this size needs 16 bytes a parameter to train.";
    }
    if (session_->chat_template() != nullptr)
      Set("data.chat_template", c_.data.chat_template, true);
  }

  // Rates of a new model, of one below half a billion parameters, of a larger one, of an adapter.
  void ChooseRate(double fresh, double small, double usual, double adapter, LrSchedule schedule) {
    Set("optimizer.learning_rate", c_.optimizer.learning_rate,
        is_new()                                                 ? fresh
        : large_ && c_.policy.adapter != configs::Adapter::kNone ? adapter
        : small_                                                 ? small
                                                                 : usual);
    Set("optimizer.lr_schedule", c_.optimizer.lr_schedule, schedule);
    if (schedule != LrSchedule::kConstant)
      Set("optimizer.warmup_fraction", c_.optimizer.warmup_fraction, 0.05);
  }

  // `passes` over the rows, within what a first run should take.
  void ChooseSteps(int64_t rows, int64_t batch, int64_t passes) {
    const int64_t steps = std::clamp<int64_t>(passes * rows / std::max<int64_t>(batch, 1), 10, 500);
    Set("run.steps", c_.run.steps, steps);
    Set("run.checkpoint_every", c_.run.checkpoint_every, std::max<int64_t>(10, steps / 4));
    Set("eval.every", c_.eval.every, std::max<int64_t>(5, steps / 5));
  }

  // Another model could read the row.
  static bool OfTheModel(const Error& e) {
    return e.message().find("vocabulary") != std::string::npos ||
           e.message().find("chat template") != std::string::npos;
  }

  // A new model reads sums alone: of other data it would refuse every row.
  template <class Read>
  auto Reading(Read read) {
    try {
      return read();
    } catch (const Error& e) {
      if (!is_new() || sums() || !OfTheModel(e)) throw;
      const std::string why = e.message().substr(0, e.message().find(kNewModelReads));
      throw Error(e.code(), why + kNewModelReads + " with --model", e.where());
    }
  }

  void ChooseRollouts() {
    configs::Config probe = c_;
    probe.data.limit = sums() ? 0 : kLooked;
    probe.rollout.prompts_per_step = 1;
    probe.rollout.max_new_tokens = 1;
    probe.data.max_prompt_tokens = session_->shape().max_positions;
    PromptData data = Reading([&] { return LoadPrompts(*Session::WithoutRun(probe)); });
    if (const std::string column = UsualTruth(data.train); !column.empty()) {
      probe.data.map["ground_truth"] = column;
      PromptData mapped = LoadPrompts(*Session::WithoutRun(probe));
      if (AllTruths(mapped.train)) {
        Set("data.map", c_.data.map, probe.data.map);
        notes_.push_back("the column '" + column + "' is taken as the right answer (data.map)");
        data = std::move(mapped);
      }
    }
    NoteRejected(data.rows);
    NotePairs();
    const int64_t rows = Count(data.train.size());
    int64_t longest = 0;
    const int64_t known = CountTruths(data.train);
    const bool truths = known > 0;
    bool text = true;
    for (const Prompt& p : data.train) {
      longest = std::max(longest, Count(p.tokens.size()));
      text = text && p.messages.empty();
    }
    facts_ = std::to_string(rows) +
             (rows == kLooked ? " prompts or more"
              : rows == 1     ? " prompt"
                              : " prompts") +
             ", the longest of " + std::to_string(longest) + " tokens" +
             (known == rows ? ", all with a ground truth"
              : truths      ? ", " + std::to_string(known) + " with a ground truth"
                            : "");
    if (truths && known < rows) {
      notes_.push_back(
          std::to_string(rows - known) + " of " + std::to_string(rows) +
          (rows - known == 1 ? " rows has" : " rows have") + " no answer to compare with" +
          (request_.rewards.empty() ? ": the reward part 'correct' gives their answers no score"
                                    : ""));
    }
    if (!request_.rewards.empty()) TakeRewards();
    else ChooseReward(truths, truths && text && session_->chat_template() != nullptr);
    const int64_t positions = session_->shape().max_positions;
    // beside the words of a system prompt
    const int64_t prompt =
        is_new() ? positions / 2 : Room(longest + 64, 128, std::min<int64_t>(2048, positions / 2));
    Set("data.max_prompt_tokens", c_.data.max_prompt_tokens, prompt);
    Set("rollout.max_new_tokens", c_.rollout.max_new_tokens,
        is_new() ? 30 : std::min<int64_t>(256, positions - prompt));
    const bool one_answer = request_.algorithm == AlgorithmName::kPpo ||
                            request_.algorithm == AlgorithmName::kReinforcePlusPlus;
    const int64_t answers = is_new() ? 128 : 64, group = one_answer ? 2 : 8;
    const int64_t heldout = sums() || rows == kLooked ? 0 : std::min<int64_t>(50, rows / 10);
    Set("rollout.prompts_per_step", c_.rollout.prompts_per_step,
        std::min(answers / group, rows - heldout));
    Set("rollout.samples_per_prompt", c_.rollout.samples_per_prompt, group);
    Set("rollout.temperature", c_.rollout.temperature, 1.0);
    ChooseSteps(sums() && is_new() ? 200 : 100, 1, 1);
    HoldOutPrompts(rows, heldout);
    if (c_.algorithm.kl_coef > 0)
      Set("algorithm.kl_coef", c_.algorithm.kl_coef, c_.algorithm.kl_coef);
    // A new model forgets its warm start at more.
    ChooseRate(2e-4, 2e-6, 1e-6, 1e-5, LrSchedule::kConstant);
    if (request_.algorithm == AlgorithmName::kPpo)
      Set("critic.learning_rate", c_.critic.learning_rate, is_new() ? 1e-3 : 1e-5);
    if (!sums() || !is_new()) return;
    // From nothing: without the form there is no right answer to be rewarded. After 60 updates
    // there is none either; after these about a third of the held-out sums are right.
    Set("sft.steps", c_.sft.steps, 200);
    Set("sft.batch", c_.sft.batch, 64);
    Set("sft.learning_rate", c_.sft.learning_rate, 3e-3);
    Set("sft.lr_schedule", c_.sft.lr_schedule, LrSchedule::kCosine);
    Set("data.arithmetic_digits", c_.data.arithmetic_digits, 2);
    Set("data.arithmetic_sft_examples", c_.data.arithmetic_sft_examples, 270);
  }

  void NoteRejected(const std::map<std::string, int64_t>& counters) {
    int64_t rejected = 0;
    std::string why;
    constexpr std::string_view kDropped = "/dropped/";
    for (const auto& [name, count] : counters) {
      const size_t at = name.find(kDropped);
      if (at == std::string::npos || count == 0 || name.ends_with("equal_to_heldout")) continue;
      rejected += count;
      why += (why.empty() ? "" : ", ") + std::to_string(count) + " " +
             name.substr(at + kDropped.size());
    }
    if (rejected > 0)
      notes_.push_back(std::to_string(rejected) + (rejected == 1 ? " row" : " rows") +
                       " of the data cannot be used (" + why +
                       "): the first lines of a run name them");
  }

  // Of a file whose rows say more than a prompt.
  void NotePairs() {
    if (sums() || IsStoreFolder(request_.data)) return;
    const PairCounts counts =
        CountPairs(c_.data, [](const PreferenceRecord&, const std::string&) {});
    if (counts.pairs + counts.judged == 0 || counts.pairs + counts.judged < counts.others) return;
    const bool pairs = counts.pairs >= counts.judged;
    notes_.push_back(std::string("the rows are ") +
                     (pairs ? "preference pairs" : "judged completions") + ": " +
                     configs::NameOf(request_.algorithm) +
                     " answers their prompts anew and learns nothing of what stands beside them; "
                     "--algorithm dpo" +
                     (pairs ? " or reward_model" : "") + " trains on the rows themselves");
    remarks_["data"] = notes_.back() + ".";
    remarks_["data"].front() = 'T';
  }

  void HoldOutPrompts(int64_t rows, int64_t heldout) {
    if (sums()) {
      Set("data.eval", c_.data.eval, kArithmetic);
      Set("data.eval_prompts", c_.data.eval_prompts, 100);
    } else if (heldout > 0) {
      Set("data.limit", c_.data.limit, rows - heldout);
      Set("data.eval", c_.data.eval, request_.data);
      Set("data.eval_skip", c_.data.eval_skip, rows - heldout);
      Set("data.eval_prompts", c_.data.eval_prompts, heldout);
      if (heldout < 10) {
        remarks_["data"] += (remarks_["data"].empty() ? "" : " ") + std::to_string(heldout) +
                            (heldout == 1 ? " row is" : " rows are") +
                            " held out (eval_prompts): so few measure nothing; name a file with "
                            "more in eval, without eval_skip.";
      }
    } else {
      keys_.erase("eval.every");
      c_.eval.every = 0;
    }
  }

  // Prompts stay as they are: what the functions expect of an answer is their own business.
  void TakeRewards() {
    std::set<std::string> names;
    for (const std::string& given : request_.rewards) {
      const PythonFunction from = PythonFunctionOf(given);
      configs::RewardPartConfig part;
      part.kind = "python";
      part.path = configs::PathInRecipe(from.file, request_.recipe);
      if (!from.function.empty()) part.args = {"function=" + from.function};
      const std::string name =
          from.function.empty() ? std::filesystem::path(from.file).stem().string() : from.function;
      part.name = name;
      for (int i = 2; !names.insert(part.name).second; ++i)
        part.name = name + "_" + std::to_string(i);
      c_.reward.parts.push_back(std::move(part));
    }
    notes_.push_back("the reward was not run here: `plumb reward test " +
                     (request_.recipe.empty() ? std::string("RECIPE") : request_.recipe) +
                     "` calls it for a few answers and says where its file is no Python");
    for (const char* key : {"name", "kind", "weight", "path", "args"})
      keys_.insert(std::string("reward.parts.") + key);
    remarks_["reward"] =
        "`plumb reward test RECIPE` calls the function for a few answers; every column of a row "
        "reaches it. More than one part: weight says how much each counts.";
  }

  void ChooseReward(bool truths, bool think) {
    for (const char* key : {"name", "kind", "weight", "args", "target_tokens", "max_tokens"})
      keys_.insert(std::string("reward.parts.") + key);
    configs::RewardPartConfig part;
    if (truths) {
      part.name = "correct";
      part.kind = "answer";
      if (!think && !is_new()) part.args = {"fallback=last_number"};
      c_.reward.parts.push_back(part);
      if (think) {
        Set("data.system_prompt", c_.data.system_prompt, kThinkFirst);
        c_.reward.parts.push_back({.name = "form", .kind = "soft_format", .weight = 0.2});
        notes_.push_back(
            "the prompts get a system prompt that asks for <think> and <answer> "
            "(data.system_prompt), and a reward part 'form' likes these tags: take both out where "
            "the prompts say themselves how to answer");
      }
      remarks_["reward"] = "`plumb reward test RECIPE` shows what each part says to a few answers.";
      return;
    }
    part.name = "brief";
    part.kind = "length";
    part.target_tokens = is_new() ? 4 : 64;
    part.max_tokens = is_new() ? 24 : 256;
    c_.reward.parts.push_back(part);
    notes_.push_back(
        "the rows have no right answer: the reward part 'brief' is a placeholder that only likes "
        "short answers, an empty one most; put a reward of your own there and try it with `plumb "
        "reward test RECIPE`");
    remarks_["reward"] =
        "The rows have no right answer to compare with, so that this part is a stand-in: it only "
        "likes short answers. Write what is good as a function of yours, in Python as TRL, verl or "
        "OpenRLHF take it (docs/rewards.md has C, C++, programs, servers and reward models), and "
        "try it with `plumb reward test RECIPE`:\n"
        "   def reward(prompts, completions, **columns): return [number of each completion]\n"
        "   [[reward.parts]]\n   name = \"mine\"\n   kind = \"python\"\n   path = \"reward.py\"";
  }

  // Batch and steps for what is left to train on.
  void ChooseBatch(const char* key, int64_t& batch, int64_t left, int64_t passes) {
    Set(key, batch, std::min<int64_t>(is_new() ? 32 : 16, left));
    ChooseSteps(left, batch, passes);
    const double made = static_cast<double>(c_.run.steps * batch) / static_cast<double>(left);
    char text[160];
    std::snprintf(text, sizeof text,
                  "%lld steps of %lld rows are %.3g passes over the %lld that are trained on: one "
                  "pass is steps = %lld.",
                  static_cast<long long>(c_.run.steps), static_cast<long long>(batch), made,
                  static_cast<long long>(left), static_cast<long long>((left + batch - 1) / batch));
    remarks_["run"] = text;
  }

  void ChooseDemonstrations() {
    if (sums()) {
      Set("data.arithmetic_digits", c_.data.arithmetic_digits, 2);
      Set("data.arithmetic_sft_examples", c_.data.arithmetic_sft_examples, 400);
    }
    const DemonstrationData data = Reading([&] { return Demonstrations(); });
    NoteRejected(data.rows);
    int64_t longest = 0;
    for (const auto* list : {&data.train, &data.heldout}) {
      for (const Demonstration& d : *list) longest = std::max(longest, Count(d.tokens.size()));
    }
    const int64_t rows = Count(data.train.size() + data.heldout.size());
    facts_ = std::to_string(rows) +
             (rows >= kLooked ? " demonstrations or more" : " demonstrations") +
             ", the longest of " + std::to_string(longest) + " tokens";
    Set("sft.max_tokens", c_.sft.max_tokens,
        Room(longest, 64, std::min<int64_t>(2048, session_->shape().max_positions)));
    Set("sft.heldout", c_.sft.heldout, -1);
    ChooseBatch("sft.batch", c_.sft.batch, Count(data.train.size()), is_new() ? 20 : 2);
    ChooseRate(3e-3, 2e-5, 1e-5, 2e-4, LrSchedule::kCosine);
  }

  // Rows of questions and answers are demonstrations once data.map says so.
  DemonstrationData Demonstrations() {
    configs::Config probe = c_;
    probe.data.limit = kLooked;
    probe.sft.max_tokens = session_->shape().max_positions;
    probe.sft.heldout = -1;
    try {
      return LoadSftData(*Session::WithoutRun(probe));
    } catch (const Error& as_it_is) {
      if (sums() || IsStoreFolder(request_.data)) throw;
      if (!probe.data.map.emplace("completion", "answer").second) throw;
      std::optional<DemonstrationData> mapped;
      try {
        mapped = LoadSftData(*Session::WithoutRun(probe));
      } catch (const Error& mapped_too) {
        if (OfTheModel(mapped_too)) throw;  // the columns fit
      }                                     // else the first error says more
      if (!mapped) throw;
      Set("data.map", c_.data.map, probe.data.map);
      return std::move(*mapped);
    }
  }

  void CheckReads(const PreferenceRecord& record, const std::string& where) const {
    try {
      AnswerSequence(*session_, record, record.chosen);
      if (record.kind == PreferenceKind::kPair) AnswerSequence(*session_, record, record.rejected);
    } catch (const Error& e) {
      throw Error(e.code(), e.message(), where);
    }
  }

  void ChoosePairs() {
    const bool dpo = request_.algorithm == AlgorithmName::kDpo;
    if (sums()) {
      throw Error(ErrorCode::kInvalidArgument,
                  configs::NameOf(request_.algorithm) +
                      " trains on a file of preference pairs (or the folder of a store): name it "
                      "with --data");
    }
    const PairCounts counts = Reading([&] {
      return CountPairs(c_.data, [&](const PreferenceRecord& record, const std::string& where) {
        if (is_new()) CheckReads(record, where);
      });
    });
    const bool kto = dpo && counts.judged > counts.pairs;
    const int64_t rows = kto ? counts.judged + counts.pairs : counts.pairs;
    if (rows == 0) {
      throw Error(
          ErrorCode::kInvalidArgument,
          std::string("there are no preference pairs here") +
              (counts.judged > 0 ? ", but judged completions: dpo trains on them" : "") +
              (!counts.columns.empty()
                   ? ", but prompts: the rows have " + counts.columns +
                         ", and no column is "
                         "known as an answer. Name both, --map chosen=COLUMN,rejected=COLUMN"
               : counts.other.empty() ? ""
                                      : " (a row: " + counts.other + ")") +
              "; a pair has prompt, chosen and rejected (docs/preferences.md)",
          request_.data);
    }
    if (const int64_t left = counts.pairs + counts.judged + counts.others - rows; left > 0) {
      notes_.push_back(std::to_string(left) + (left == 1 ? " row" : " rows") +
                       " of the data cannot be used" +
                       (counts.other.empty() ? "" : " (one: " + counts.other + ")") +
                       ": the first lines of a run name them");
    }
    facts_ = std::to_string(rows) + (rows >= kLooked ? " rows or more of " : " rows of ") +
             (kto ? "judged completions" : "preference pairs");
    if (dpo) {
      Set("preference.loss", c_.preference.loss,
          kto ? configs::PreferenceLossKind::kKto : configs::PreferenceLossKind::kSigmoid);
      Set("preference.beta", c_.preference.beta, 0.1);
    } else {
      Set("preference.centering", c_.preference.centering, 0.01);
    }
    Set("preference.heldout", c_.preference.heldout, -1);
    Set("preference.max_tokens", c_.preference.max_tokens,
        std::min<int64_t>(1024, session_->shape().max_positions));
    ChooseBatch("preference.batch", c_.preference.batch,
                rows - Count(HeldOutRows(-1, static_cast<size_t>(rows))), 1);
    if (dpo) ChooseRate(1e-3, 5e-6, 1e-6, 1e-5, LrSchedule::kLinear);
    else ChooseRate(1e-3, 2e-5, 1e-5, 1e-5, LrSchedule::kLinear);
  }

  const RecipeRequest request_;
  configs::Config c_;
  std::set<std::string> keys_;
  std::map<std::string, std::string> remarks_;
  std::unique_ptr<Session> session_;
  std::string facts_;  // of the data
  std::vector<std::string> notes_;
  bool small_ = false, large_ = false;
};

}  // namespace

RecipeProposal ProposeRecipe(const RecipeRequest& request) {
  Proposal proposal(request);
  std::string text = proposal.Write();
  return {.text = std::move(text), .notes = proposal.notes()};
}

}  // namespace plumb::run
