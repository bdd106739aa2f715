#include "replay/table/step_planner.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>

#include "common/base/error.h"

namespace plumb::replay {
namespace {

constexpr size_t kPlansKept = 64;

uint64_t HashOf(const std::string& text) {
  uint64_t hash = 0xCBF29CE484222325u;
  for (const char c : text) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001B3u;
  return hash;
}

nlohmann::json ColumnOf(const Prompt& prompt, const std::string& column) {
  const auto extra = prompt.extra_json.empty() ? nlohmann::json::object()
                                               : nlohmann::json::parse(prompt.extra_json, nullptr,
                                                                       /*allow_exceptions=*/false);
  if (!extra.is_object() || !extra.contains(column)) {
    throw Error(ErrorCode::kInvalidArgument,
                "row " + std::to_string(prompt.row) + " has no column '" + column +
                    "', which [replay] names",
                "dataset " + prompt.dataset);
  }
  return extra[column];
}

}  // namespace

StepPlanner::StepPlanner(Store* store, const PlannerOptions& options, uint64_t seed, bool shuffle,
                         int64_t steps, const configs::BatchRamp& batches, int64_t version_base,
                         uint32_t max_rounds)
    : store_(store),
      options_(options),
      steps_(steps),
      version_base_(version_base),
      batches_(batches),
      max_rounds_(max_rounds),
      order_(std::make_unique<PromptOrder>(seed, store->PromptCount(kTrainDataset), shuffle)),
      remover_(options.remover),
      limiter_(options.limiter) {
  SamplerOptions shared = options.sampler;
  shared.seed = seed;
  if (options.prompts != PromptSampler::kPasses) {
    shared.kind =
        *configs::FromName<SamplerKind>(NameOf(options.prompts));  // a name means the same in both
    prompts_ = MakeSampler(shared);
  }
  if (options.groups_per_step > 0) {
    shared.kind = options.sampler.kind;
    shared.seed = seed ^ 0x9E3779B97F4A7C15u;  // draws of groups and of prompts are unrelated
    sampler_ = MakeSampler(shared);
  }
  if (options.history_steps < 1)
    throw Error(ErrorCode::kInvalidArgument, "history_steps has to be at least 1");
}

int64_t StepPlanner::StepsToKeep(const PlannerOptions& options) {
  int64_t keep = 0;
  if (options.groups_per_step > 0) keep = std::max(keep, options.remover.max_steps);
  if (options.prompts == PromptSampler::kDifficulty) keep = std::max(keep, options.history_steps);
  return keep;
}

void StepPlanner::Columns(const Prompt& prompt, SampleItem& item) const {
  if (!options_.stratum.empty()) {
    const auto value = ColumnOf(prompt, options_.stratum);
    item.stratum = HashOf(value.is_string() ? value.get<std::string>() : value.dump());
  }
  if (options_.difficulty.empty()) {
    size_t length = prompt.tokens.size();
    if (length == 0) length = prompt.text.size();
    item.difficulty = static_cast<double>(length);
    return;
  }
  const auto value = ColumnOf(prompt, options_.difficulty);
  if (!value.is_number()) {
    throw Error(ErrorCode::kInvalidArgument,
                "row " + std::to_string(prompt.row) + ": column '" + options_.difficulty +
                    "' (replay.difficulty) is " + value.dump() + ", no number",
                "dataset " + prompt.dataset);
  }
  item.difficulty = value.get<double>();
}

StepPlanner::GroupFacts StepPlanner::FactsOf(const TrajectoryGroup& group) const {
  GroupFacts facts;
  facts.row = group.lease.prompt.row;
  SampleItem& item = facts.item;
  item.key = group.lease.lease_id;
  item.group = facts.row;
  double sum = 0, squares = 0, n = 0;
  facts.oldest_version = group.policy.version;
  for (const Trajectory& t : group.trajectories) {
    for (const int64_t version : t.policy_versions) {
      if (version >= 0) facts.oldest_version = std::min(facts.oldest_version, version);
    }
    if (!t.scored || t.finish == FinishReason::kAborted) continue;
    sum += t.reward;
    squares += t.reward * t.reward;
    ++n;
    for (const RewardPart& part : t.rewards) {
      if (part.scope != RewardScope::kTrajectory ||
          (!options_.success_part.empty() && part.name != options_.success_part))
        continue;
      item.solved += part.value >= 0.5 ? 1 : 0;
      ++item.tried;
      break;
    }
  }
  facts.usable = n > 0;
  if (n > 0) item.priority = std::sqrt(std::max(0.0, squares / n - (sum / n) * (sum / n)));
  Columns(group.lease.prompt, item);
  return facts;
}

const std::vector<StepPlanner::GroupFacts>& StepPlanner::StepFacts(int64_t step) {
  if (const auto found = facts_.find(step); found != facts_.end()) return found->second;
  std::vector<GroupFacts> facts;
  for (const uint64_t id : OwnGroups(step)) {
    const auto stored = store_->Read(Purpose::kTrain, id, /*texts=*/false);
    if (!stored) {
      throw Error(ErrorCode::kCorruption,
                  "the group of lease " + std::to_string(id) +
                      " is needed to draw from, but it is not in the "
                      "store (was the run started with another [replay]?)",
                  store_->path());
    }
    if (stored->kind == GroupKind::kGroup) facts.push_back(FactsOf(stored->group));
  }
  return facts_.emplace(step, std::move(facts)).first->second;
}

std::vector<SampleItem> StepPlanner::PromptItems(int64_t from) {
  const uint64_t rows = order_->rows();
  if (prompt_items_.empty()) {
    for (uint64_t row = 0; row < rows; ++row) {
      const Prompt prompt = store_->ReadPrompt(kTrainDataset, row);
      SampleItem item;
      item.key = row;
      item.priority = std::max(0.0, prompt.weight);
      Columns(prompt, item);
      item.group = item.stratum;
      prompt_items_.push_back(item);
    }
  }
  std::vector<SampleItem> items = prompt_items_;
  if (options_.prompts != PromptSampler::kDifficulty) return items;
  const int64_t first = std::max<int64_t>(0, from - options_.history_steps);
  for (int64_t step = first; step < from; ++step) {
    for (const GroupFacts& facts : StepFacts(step)) {
      if (facts.row >= rows) continue;
      items[facts.row].solved += facts.item.solved;
      items[facts.row].tried += facts.item.tried;
    }
  }
  facts_.erase(facts_.begin(),
               facts_.lower_bound(std::min(first, sampler_ ? remover_.FirstStep(from) : first)));
  return items;
}

void StepPlanner::PlanPrompts(int64_t from, int64_t end) {
  if (!SamplesPrompts()) return;
  MutexLock lock(mu_);
  std::vector<SampleItem> items;
  for (int64_t step = from; step < end; ++step) {
    if (rows_.contains(step)) continue;
    StepPlan plan = store_->ReadPlan(step).value_or(StepPlan{});
    const int64_t wanted = batches_.Of(step);
    if (plan.prompt_rows.empty()) {
      if (items.empty()) items = PromptItems(from);
      const SampleCursor cursor{.draw = static_cast<uint64_t>(step),
                                .progress = static_cast<double>(step) /
                                            static_cast<double>(std::max<int64_t>(1, steps_))};
      for (const size_t i : prompts_->Sample(items, static_cast<size_t>(wanted), cursor))
        plan.prompt_rows.push_back(items[i].key);
      if (static_cast<int64_t>(plan.prompt_rows.size()) < wanted) {
        throw Error(ErrorCode::kInvalidArgument,
                    "a step takes " + std::to_string(wanted) + " prompts, but the sampler '" +
                        NameOf(options_.prompts) + "' finds only " +
                        std::to_string(plan.prompt_rows.size()) + " of weight above 0");
      }
      store_->PutPlan(step, plan);
    }
    if (static_cast<int64_t>(plan.prompt_rows.size()) != wanted) {
      throw Error(ErrorCode::kConflict,
                  "step " + std::to_string(step) + " was planned with " +
                      std::to_string(plan.prompt_rows.size()) +
                      " prompts: keep rollout.prompts_per_step as it was",
                  store_->path());
    }
    rows_[step] = std::move(plan.prompt_rows);
    while (rows_.size() > kPlansKept) rows_.erase(rows_.begin());
  }
}

std::optional<uint64_t> StepPlanner::RowOf(uint64_t lease_id, uint32_t round) const {
  if (round > 0 && !SamplesPrompts()) {
    const auto run = static_cast<uint64_t>(batches_.Before(steps_));
    return order_->RowOf(run + lease_id * max_rounds_ + round - 1);
  }
  if (!SamplesPrompts()) return order_->RowOf(lease_id);
  const auto number = static_cast<int64_t>(lease_id);
  const int64_t step = batches_.StepOf(number);
  const auto at = static_cast<size_t>(number - batches_.Before(step));
  MutexLock lock(mu_);
  auto found = rows_.find(step);
  if (found == rows_.end()) {
    const auto plan = store_->ReadPlan(step);
    if (!plan || plan->prompt_rows.size() <= at) return std::nullopt;
    found = rows_.emplace(step, plan->prompt_rows).first;
  }
  return found->second[at];
}

std::vector<uint64_t> StepPlanner::OwnGroups(int64_t step) const {
  if (auto plan = store_->ReadPlan(step); plan && !plan->chosen.empty())
    return std::move(plan->chosen);
  std::vector<uint64_t> ids(static_cast<size_t>(batches_.Of(step)));
  std::iota(ids.begin(), ids.end(), static_cast<uint64_t>(batches_.Before(step)));
  return ids;
}

bool StepPlanner::Chosen(int64_t step) const {
  const auto plan = store_->ReadPlan(step);
  return plan && !plan->chosen.empty();
}

void StepPlanner::Choose(int64_t step, std::vector<uint64_t> lease_ids) {
  MutexLock lock(mu_);
  StepPlan plan = store_->ReadPlan(step).value_or(StepPlan{});
  plan.chosen = std::move(lease_ids);
  store_->PutPlan(step, plan);
}

std::vector<uint64_t> StepPlanner::DrawReplayed(int64_t step, uint64_t before_total) {
  const int64_t granted = limiter_.Grant(batches_.Before(step), static_cast<int64_t>(before_total),
                                         options_.groups_per_step);
  const int64_t first = remover_.FirstStep(step);
  std::map<uint64_t, int64_t> drawn;
  for (int64_t earlier = first; earlier < step; ++earlier) {
    if (const auto plan = store_->ReadPlan(earlier)) {
      for (const uint64_t id : plan->replayed) ++drawn[id];
    }
  }
  std::vector<SampleItem> items;
  int64_t stale = 0;
  for (int64_t earlier = first; earlier < step; ++earlier) {
    for (const GroupFacts& facts : StepFacts(earlier)) {
      if (!facts.usable) continue;
      if (!limiter_.Fresh(facts.oldest_version, step + version_base_)) {
        ++stale;
        continue;
      }
      items.push_back(facts.item);
      if (const auto found = drawn.find(facts.item.key); found != drawn.end())
        items.back().times_sampled = found->second;
    }
  }
  items = remover_.Apply(std::move(items));
  const SampleCursor cursor{
      .draw = static_cast<uint64_t>(step),
      .progress = static_cast<double>(step) / static_cast<double>(std::max<int64_t>(1, steps_))};
  std::vector<uint64_t> ids;
  for (const size_t i : sampler_->Sample(items, static_cast<size_t>(granted), cursor))
    ids.push_back(items[i].key);
  std::sort(ids.begin(), ids.end());
  const int64_t history = options_.prompts == PromptSampler::kDifficulty
                              ? std::max<int64_t>(0, step - options_.history_steps)
                              : first;
  facts_.erase(facts_.begin(), facts_.lower_bound(std::min(first, history)));
  store_->Count("replay/drawn", static_cast<int64_t>(ids.size()));
  store_->Count("replay/short", options_.groups_per_step - static_cast<int64_t>(ids.size()));
  if (stale > 0) store_->Count("replay/stale", stale);
  return ids;
}

std::vector<uint64_t> StepPlanner::Replayed(int64_t step) {
  if (!sampler_) return {};
  MutexLock lock(mu_);
  StepPlan plan = store_->ReadPlan(step).value_or(StepPlan{});
  if (plan.drawn) return plan.replayed;
  uint64_t total = 0;
  if (const auto before = step > 0 ? store_->ReadPlan(step - 1) : std::nullopt)
    total = before->total_replayed;
  plan.replayed = DrawReplayed(step, total);
  plan.total_replayed = total + plan.replayed.size();
  plan.drawn = true;
  store_->PutPlan(step, plan);
  return plan.replayed;
}

void StepPlanner::Forget(int64_t step) {
  MutexLock lock(mu_);
  facts_.erase(facts_.lower_bound(step), facts_.end());
  for (int64_t each = step; each < steps_; ++each) {
    auto plan = store_->ReadPlan(each);
    if (!plan) {
      if (each > step) break;  // plans are made in order
      continue;
    }
    StepPlan kept = *plan;
    kept.chosen.clear();
    if (each > step) {  // a step draws from those before it
      kept.drawn = false;
      kept.replayed.clear();
      kept.total_replayed = 0;
    }
    if (kept != *plan) store_->PutPlan(each, kept);
  }
}

}  // namespace plumb::replay
