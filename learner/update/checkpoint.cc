#include "learner/update/checkpoint.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <utility>

#include "common/base/crash_point.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/hash/sha256.h"
#include "common/base/log.h"
#include "learner/update/optimizer_file.h"

namespace plumb::learner {
namespace {

namespace fs = std::filesystem;

constexpr char kManifest[] = "manifest.json";
constexpr char kOptimizer[] = "optimizer.safetensors";
constexpr char kStep[] = "step-", kWarmStart[] = "warm-start-", kReference[] = "reference-";
// In front of the name of a checkpoint that is being written, and of one that is on its way out.
constexpr char kNew[] = "new.", kOld[] = "old.";
constexpr size_t kMaxManifestBytes = 16 << 20;

std::string NameOf(const char* kind, int64_t step) {
  char name[48];
  std::snprintf(name, sizeof name, "%s%08lld", kind, static_cast<long long>(step));
  return name;
}

std::string HashFile(const std::string& path) {
  const auto mapped = MappedFile::Open(path);
  Sha256 hash;
  hash.Update(mapped->bytes());
  return hash.HexDigest();
}

// Every file of a checkpoint but the manifest, relative to its folder, sorted.
std::vector<std::string> FilesOf(const std::string& folder) {
  std::vector<std::string> files;
  try {
    for (const auto& entry : fs::recursive_directory_iterator(folder)) {
      if (!entry.is_regular_file()) continue;
      const std::string name = fs::relative(entry.path(), folder).string();
      if (name != kManifest) files.push_back(name);
    }
  } catch (const fs::filesystem_error& e) {
    ThrowFileError(e.code().value(), "cannot list", folder);
  }
  std::sort(files.begin(), files.end());
  return files;
}

// The manifest of a folder whose files are all there and synced; written last.
void PutManifest(const std::string& path, std::optional<CheckpointState> state) {
  CheckpointManifest manifest{.files = {}, .state = std::move(state)};
  for (const std::string& name : FilesOf(path)) manifest.files[name] = HashFile(path + "/" + name);
  RealFileSystem().WriteFileAtomic(path + "/" + kManifest, WriteManifest(manifest));
}

// Of a folder; it matches its own hash.
CheckpointManifest GetManifest(const std::string& path) {
  const std::string manifest = path + "/" + kManifest;
  return ReadManifest(RealFileSystem().ReadFile(manifest, kMaxManifestBytes), manifest);
}

// What a checkpoint without them says of the moments, if there are any.
std::string LeftOut(const CheckpointState& state, Optimizer& optimizer) {
  return state.moments || optimizer.moment_steps() == 0 ? "" : MomentsDigest(optimizer);
}

void LoadOptimizerOf(const std::string& path, const CheckpointState& state, int64_t steps,
                     const std::string& digest, Optimizer& optimizer) {
  if (state.optimizer) {
    LoadOptimizer(path, optimizer, state.moments);
  } else {
    optimizer.AdoptWeights();
    optimizer.ResetMoments();
  }
  if (state.moments) optimizer.set_moment_steps(steps);
  else if (steps > 0) optimizer.set_left_out(digest);
}

void CheckNames(const std::string& path, const CheckpointManifest& manifest) {
  std::vector<std::string> listed;
  for (const auto& [name, sha] : manifest.files) listed.push_back(name);
  if (listed != FilesOf(path))
    throw Error(ErrorCode::kCorruption, "files are missing or left over", path);
}

void CheckFiles(const std::string& path, const CheckpointManifest& manifest) {
  CheckNames(path, manifest);
  for (const auto& [name, sha] : manifest.files) {
    if (HashFile(path + "/" + name) != sha) {
      throw Error(ErrorCode::kCorruption, "the file does not match its SHA-256 in the manifest",
                  path + "/" + name);
    }
  }
}

CheckpointState StateIn(const CheckpointManifest& manifest, const std::string& path) {
  if (!manifest.state)
    throw Error(ErrorCode::kCorruption, "the manifest holds no state of a run", path);
  return *manifest.state;
}

// Reads and verifies one checkpoint folder; throws Error(kCorruption) naming what does not hold.
CheckpointState Verify(const std::string& path) {
  const CheckpointManifest manifest = GetManifest(path);
  CheckFiles(path, manifest);
  return StateIn(manifest, path);
}

// Whether a run can be taken up from it as if it had never ended.
bool HoldsOptimizer(const std::string& path) {
  try {
    return StateIn(GetManifest(path), path).optimizer;
  } catch (const Error&) {
    return false;
  }
}

// Of a model whose base is not trained: nothing of it is in a checkpoint but this.
Digest FixedBase(const policy_model::Weights& weights) {
  return weights.base().trained ? Digest() : weights.base().digest;
}

}  // namespace

Checkpoints::Checkpoints(std::string folder, int64_t keep, std::string tokenizer_source,
                         std::string base_model)
    : folder_(std::move(folder)),
      keep_(keep),
      tokenizer_source_(std::move(tokenizer_source)),
      base_model_(std::move(base_model)) {
  PLUMB_CHECK(keep_ >= 1, "keep_checkpoints was validated");
  RealFileSystem().CreateDirectories(folder_);
  const int descriptor = open(folder_.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) ThrowFileError(errno, "cannot open", folder_);
  held_ = std::shared_ptr<const int>(new int(descriptor), [](const int* held) {
    close(*held);
    delete held;
  });
}

void Checkpoints::CheckStillThere() const {
  struct stat held {
  }, there{};
  const bool same = fstat(*held_, &held) == 0 && stat(folder_.c_str(), &there) == 0 &&
                    held.st_dev == there.st_dev && held.st_ino == there.st_ino;
  if (same) return;
  throw Error(
      ErrorCode::kConflict,
      "the folder was moved, removed or replaced while the run went on: nothing is written there",
      folder_);
}

std::vector<std::string> Checkpoints::List(const std::string& kind) const {
  std::vector<std::string> names = RealFileSystem().List(folder_);  // sorted
  std::erase_if(names, [&](const std::string& name) {
    return !name.starts_with(kind) || !fs::is_directory(folder_ + "/" + name);
  });
  return names;
}

CheckpointState Checkpoints::Complete(CheckpointState state, const policy_model::Weights& weights,
                                      Optimizer& optimizer, std::span<const NamedModel> models,
                                      bool digests) {
  if (digests) state.moments_sha256 = LeftOut(state, optimizer);
  for (const NamedModel& model : models) {
    state.models[model.name] = {
        .counters = model.optimizer->counters(),
        .moment_steps = model.optimizer->moment_steps(),
        .moments_sha256 = digests ? LeftOut(state, *model.optimizer) : std::string()};
  }
  state.base_digest = FixedBase(weights);
  return state;
}

void Checkpoints::Write(const std::string& path, const CheckpointState& state,
                        std::span<const SavedModel> models) const {
  for (const SavedModel& model : models) {
    const bool policy = model.name.empty();
    const std::string folder = path + "/" + (policy ? "model" : model.name);
    CheckStillThere();  // what is gone would be made again, with all above it
    RealFileSystem().CreateDirectories(folder);
    policy_model::SaveModelDirectory(*model.weights, folder, tokenizer_source_,
                                     policy ? base_model_ : "");
    CRASH_POINT("checkpoint_model_written");
    if (!state.optimizer) continue;
    SaveOptimizer(path + "/" + (policy ? "" : model.name + ".") + kOptimizer, model.optimizer,
                  model.live, state.moments);
  }
  CRASH_POINT("checkpoint_before_manifest");
  PutManifest(path, state);  // reads every file back for its hash
  CheckNames(path, GetManifest(path));
}

// Folders without a manifest are remains of a crash.
void Checkpoints::Prune(const char* kind, const std::string& newest) const {
  std::error_code ignored;
  std::vector<std::string> whole;
  for (const std::string& each : List(kind)) {
    if (each > newest)
      continue;  // the run did not go on from it and comes to it again: it counts for nothing
    if (fs::exists(folder_ + "/" + each + "/" + kManifest)) whole.push_back(each);
    else fs::remove_all(folder_ + "/" + each, ignored);
  }
  int64_t newer = 0;
  bool resumable = false;  // a newer one holds the optimizers
  for (auto each = whole.rbegin(); each != whole.rend(); ++each, ++newer) {
    const bool holds = !resumable && HoldsOptimizer(folder_ + "/" + *each);
    if (newer >= keep_ && !holds) fs::remove_all(folder_ + "/" + *each, ignored);
    resumable = resumable || holds;
  }
}

void Checkpoints::Put(Kind of, const CheckpointState& state, std::span<const SavedModel> models) {
  CheckStillThere();
  try {
    PutThere(of, state, models);
  } catch (...) {
    CheckStillThere();  // says more than that a file is not there
    throw;
  }
}

void Checkpoints::PutThere(Kind of, const CheckpointState& state,
                           std::span<const SavedModel> models) {
  const char* kind = of == Kind::kStep ? kStep : kWarmStart;
  const std::string name = NameOf(kind, state.step);
  const std::string path = folder_ + "/" + name, beside = folder_ + "/" + kNew + name,
                    aside = folder_ + "/" + kOld + name;
  for (const char* of_a_crash : {kNew, kOld}) {
    for (const std::string& left : List(of_a_crash))
      RealFileSystem().RemoveAll(folder_ + "/" + left);
  }
  CRASH_POINT("checkpoint_begun");
  try {
    Write(beside, state, models);
  } catch (...) {
    std::error_code ignored;
    fs::remove_all(beside, ignored);  // its room may be what the next one lacks
    throw;
  }
  CRASH_POINT("checkpoint_written");
  CheckStillThere();  // another run's of the same step would be set aside
  // One of this step is there where the run went on from an older one, which stays until this one
  // is in its place.
  if (RealFileSystem().Exists(path)) {
    RealFileSystem().Rename(path, aside);
    CRASH_POINT("checkpoint_aside");
  }
  RealFileSystem().Rename(beside, path);
  RealFileSystem().SyncDirectory(folder_);
  CRASH_POINT("checkpoint_in_place");
  CheckStillThere();  // or another run's would be pruned
  RealFileSystem().RemoveAll(aside);
  Prune(kind, name);  // only now that the new one is whole
  if (of == Kind::kWarmStart) return;
  for (const std::string& left : List(kWarmStart))
    RealFileSystem().RemoveAll(folder_ + "/" + left);  // it is behind the run
}

namespace {

std::vector<SavedModel> Live(const policy_model::Weights& weights, Optimizer& optimizer,
                             std::span<const NamedModel> models) {
  std::vector<SavedModel> live = {
      {.name = "", .weights = &weights, .optimizer = optimizer.sets(), .live = &optimizer}};
  for (const NamedModel& model : models)
    live.push_back({.name = model.name,
                    .weights = model.weights,
                    .optimizer = model.optimizer->sets(),
                    .live = model.optimizer});
  return live;
}

}  // namespace

void Checkpoints::Save(const CheckpointState& state, const policy_model::Weights& weights,
                       Optimizer& optimizer, std::span<const NamedModel> models) {
  Put(Kind::kStep, Complete(state, weights, optimizer, models, /*digests=*/true),
      Live(weights, optimizer, models));
}

// In the order of Save: Complete, then Write.
void Checkpoints::Give(const CheckpointState& state, Optimizer& optimizer,
                       std::span<const NamedModel> models) {
  std::vector<Optimizer*> all = {&optimizer};
  for (const NamedModel& model : models) all.push_back(model.optimizer);
  std::erase_if(all, [](const Optimizer* each) { return !each->spread(); });
  for (Optimizer* each : all) LeftOut(state, *each);
  if (!state.optimizer) return;
  for (Optimizer* each : all) SaveOptimizer("", *each, state.moments);
}

void Checkpoints::SaveWarmStart(const CheckpointState& state, const policy_model::Weights& weights,
                                Optimizer& optimizer) {
  Put(Kind::kWarmStart, Complete(state, weights, optimizer, {}, /*digests=*/true),
      Live(weights, optimizer, {}));
}

std::optional<Checkpoints::Found> Checkpoints::Newest(const char* kind, bool any,
                                                      std::vector<std::string>& rejected,
                                                      std::vector<int64_t>& passed) const {
  std::vector<std::string> names = List(kind);
  std::reverse(names.begin(), names.end());
  for (const std::string& name : names) {
    const std::string path = folder_ + "/" + name;
    try {
      if (!any) {  // before its files are read
        const CheckpointState state = StateIn(GetManifest(path), path);
        if (!state.optimizer) {
          passed.push_back(state.step);
          continue;
        }
      }
      return Found{.path = path, .state = Verify(path), .rejected = rejected, .passed = passed};
    } catch (const Error& e) {
      if (e.code() == ErrorCode::kUnsupported) throw;
      rejected.push_back(e.what());
    }
  }
  return std::nullopt;
}

std::optional<Checkpoints::Found> Checkpoints::FindNewest() const {
  std::vector<std::string> rejected;
  std::vector<int64_t> passed;
  std::optional<Found> found = Newest(kStep, prefer_newest_, rejected, passed);
  if (found || (rejected.empty() && passed.empty())) return found;
  // Whole checkpoints were written and none can be trusted: starting over silently would lose the
  // run.
  const std::string why = rejected.empty() ? "none holds the optimizer" : rejected.front();
  for (const std::string& name : List(kStep)) {
    if (!fs::exists(folder_ + "/" + name + "/" + kManifest)) continue;
    throw Error(ErrorCode::kCorruption,
                "no checkpoint can be used (" + why + "); restore one from a copy, " +
                    (passed.empty() ? ""
                                    : "go on from the weights alone of step " +
                                          std::to_string(passed.front()) +
                                          " with --resume --newest, not bit for bit, ") +
                    "or start a new run in another folder",
                folder_);
  }
  return std::nullopt;
}

std::optional<Checkpoints::Found> Checkpoints::FindWarmStart(
    std::vector<std::string>& rejected) const {
  std::vector<int64_t> passed;
  return Newest(kWarmStart, /*any=*/true, rejected, passed);
}

void Checkpoints::Load(const Found& found, policy_model::Weights& weights,
                       Optimizer& optimizer) const {
  if (const Digest base = FixedBase(weights); base != found.state.base_digest) {
    throw Error(
        ErrorCode::kConflict,
        base.empty() ? "the checkpoint holds an adapter only, the recipe trains the whole model: "
                       "start a new run"
        : found.state.base_digest.empty()
            ? "the checkpoint holds a whole model, the recipe trains an adapter: start a new run"
            : "the adapter was trained on a base with digest " + found.state.base_digest +
                  ", the model that the recipe "
                  "names has " +
                  base + ": bring the old model folder back, or start a new run",
        found.path);
  }
  weights.LoadTrained(found.path + "/model");
  optimizer.TakeLoaded();
  LoadOptimizerOf(found.path + "/" + kOptimizer, found.state, found.state.moment_steps,
                  found.state.moments_sha256, optimizer);
  optimizer.Restore(found.state.counters);
  const Digest digest = weights.ComputeDigest();
  if (digest != found.state.policy.digest) {
    throw Error(
        ErrorCode::kCorruption,
        "the weights' digest is " + digest + ", the manifest says " + found.state.policy.digest,
        found.path);
  }
}

void Checkpoints::LoadModels(const Found& found, std::span<const NamedModel> models) const {
  for (const NamedModel& model : models) {
    const auto saved = found.state.models.find(model.name);
    if (saved == found.state.models.end()) {
      throw Error(
          ErrorCode::kConflict,
          "the checkpoint has no " + model.name + ", the recipe trains one: start a new run",
          found.path);
    }
    model.weights->LoadTrained(found.path + "/" + model.name);
    LoadOptimizerOf(found.path + "/" + model.name + "." + kOptimizer, found.state,
                    saved->second.moment_steps, saved->second.moments_sha256, *model.optimizer);
    model.optimizer->Restore(saved->second.counters);
  }
  if (found.state.models.size() != models.size()) {
    throw Error(ErrorCode::kConflict,
                "the checkpoint holds " + std::to_string(found.state.models.size()) +
                    " models besides the policy, the recipe "
                    "trains " +
                    std::to_string(models.size()) + ": start a new run",
                found.path);
  }
}

void Checkpoints::KeepReference(bool restored, policy_model::Weights& reference) const {
  const auto sets = reference.sets();
  // The base that the run names is the reference: the checkpoints hold its digest.
  if (std::none_of(sets.begin(), sets.end(), [](const auto& set) { return set->trained; })) return;
  const std::string path = folder_ + "/reference";
  if (restored) {
    if (RealFileSystem().Exists(path + "/" + kManifest)) {
      CheckFiles(path, GetManifest(path));
    } else {
      LogWarning(path + " was written by an earlier version, without hashes: used as it is");
    }
    reference.LoadTrained(path);
    return;
  }
  std::error_code ignored;
  fs::remove_all(path, ignored);  // of a life that came to no checkpoint
  RealFileSystem().CreateDirectories(path);
  policy_model::SaveModelDirectory(reference, path, tokenizer_source_, base_model_);
  PutManifest(path, std::nullopt);
  RealFileSystem().SyncDirectory(folder_);
}

void Checkpoints::KeepRenewedReference(int64_t step, policy_model::Weights& reference) const {
  CheckStillThere();
  const std::string path = folder_ + "/" + NameOf(kReference, step);
  RealFileSystem().RemoveAll(path);  // of a life that came no further
  WriteModel(reference, path);
  PutManifest(path, std::nullopt);
  RealFileSystem().SyncDirectory(folder_);
  // A run that is taken up from the oldest checkpoint needs the newest at or before it.
  const std::vector<std::string> steps = List(kStep);
  if (steps.empty()) return;
  const std::string oldest = kReference + steps.front().substr(std::string(kStep).size());
  std::string needed;
  for (const std::string& name : List(kReference)) {
    if (name > oldest) break;
    if (!needed.empty()) RealFileSystem().RemoveAll(folder_ + "/" + needed);
    needed = name;
  }
}

void Checkpoints::LoadRenewedReference(int64_t step, policy_model::Weights& reference) const {
  std::string newest;
  for (const std::string& name : List(kReference)) {
    if (name <= NameOf(kReference, step)) newest = name;
  }
  if (newest.empty()) return;
  const std::string path = folder_ + "/" + newest;
  CheckFiles(path, GetManifest(path));
  reference.LoadTrained(path);
}

void Checkpoints::WriteModel(const policy_model::Weights& weights,
                             const std::string& folder) const {
  CheckStillThere();
  RealFileSystem().CreateDirectories(folder);
  policy_model::SaveModelDirectory(weights, folder, tokenizer_source_, base_model_);
}

void Checkpoints::ShareModel(int64_t step, const std::string& to) const {
  const std::string from = folder_ + "/" + NameOf(kStep, step) + "/model", beside = to + ".new";
  RealFileSystem().RemoveAll(beside);
  RealFileSystem().CreateDirectories(beside);
  for (const std::string& name : FilesOf(from)) {
    const fs::path source = from + "/" + name, target = beside + "/" + name;
    RealFileSystem().CreateDirectories(target.parent_path().string());
    std::error_code error;
    // Only what is large and never edited by hand: what is done to a copied file is done to it.
    if (source.extension() == ".safetensors") fs::create_hard_link(source, target, error);
    if (fs::exists(target)) continue;
    fs::copy_file(source, target, error);  // another file system, or one without links
    if (error) ThrowFileError(error.value(), "cannot copy the model to", target.string());
  }
  RealFileSystem().RemoveAll(to);
  RealFileSystem().Rename(beside, to);
  RealFileSystem().SyncDirectory(fs::path(to).parent_path().string());
}

int64_t Checkpoints::OldestCursor() const {
  for (const std::string& name : List(kStep)) {
    const std::string path = folder_ + "/" + name;
    if (!fs::exists(path + "/" + kManifest)) continue;
    try {
      return StateIn(GetManifest(path), path).store_cursor;
    } catch (const Error& e) {
      // No run can go on from this one, so it holds nothing back; its number could be anything.
      LogWarning(std::string("passed over a checkpoint that cannot be used: ") + e.what());
    }
  }
  return 0;
}

}  // namespace plumb::learner
