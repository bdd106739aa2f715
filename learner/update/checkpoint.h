// Checkpoints: everything a run needs to go on bit for bit.
//
//   checkpoints/step-00000050/
//     model/                 an HF directory: config.json, model.safetensors, tokenizer files;
//     where an
//                            adapter is trained, a PEFT directory: adapter_config.json,
//                            adapter_model.safetensors, and the manifest holds the base's digest
//     optimizer.safetensors  masters (unless the model is float32) and, where the manifest says so,
//                            moments of what is trained: learner/update/optimizer_file.h; none in a
//                            checkpoint of the models alone (state.optimizer)
//     <name>/, <name>.optimizer.safetensors   the same for each model trained besides the policy
//     manifest.json          written last: format version, step, counters, policy version, store
//                            cursor, SHA-256 of each file
//   checkpoints/warm-start-00000020/   the same after 20 updates of a warm start, until there is
//                                      a step-00000000
//   checkpoints/reference/             the KL reference, unless it is the base that the run names;
//   checkpoints/reference-00000020/    as it was renewed behind 20 steps
//
// Goals: a checkpoint without a manifest, or whose files do not hash to it, does not exist; the
// newest verified one stays until a newer one is complete and synced; the manifest's cursor is the
// authority on what was consumed. One is written beside the others (new.step-...), its files are
// read back for their hashes, and only then it gets its name: whatever ends the process in between,
// the ones that were there are there. A run is taken up from the newest that has the optimizers,
// and that one stays whatever is pruned. Non-goal: loading another format version.
// Thread safety: one save at a time, on any thread (learner/update/checkpoint_writer.h); what only
// reads may be called beside it, and sees what was whole before it or after it. Errors: kCorruption
// with the file, kNoSpace / kIo from the disk (the old ones stay).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "learner/update/checkpoint_manifest.h"
#include "learner/update/optimizer.h"
#include "policy_model/memory/weights.h"

namespace plumb::learner {

// A model that is trained besides the policy. Borrowed.
struct NamedModel {
  std::string name;  // a file name: "critic"
  policy_model::Weights* weights = nullptr;
  Optimizer* optimizer = nullptr;
};

// What is written of a model, live or a copy. Borrowed.
struct SavedModel {
  std::string name;  // "": the policy
  const policy_model::Weights* weights = nullptr;
  std::span<Optimizer::SetState> optimizer;
  const Optimizer* live = nullptr;  // whose they are; of a copy nullptr
};

class Checkpoints {
 public:
  enum class Kind : uint8_t { kStep, kWarmStart };

  // `folder` is created, and has to stay what it is: once it was moved or replaced, nothing is
  // written (kConflict): what lies there may be another run's. `keep` >= 1 newest verified ones of
  // each kind stay; older are pruned after a new one is complete. `base_model`: the folder that
  // adapters name as their base.
  Checkpoints(std::string folder, int64_t keep, std::string tokenizer_source,
              std::string base_model = "");

  // With the optimizers and moments of all models, or of none: state.optimizer, state.moments.
  void Save(const CheckpointState& state, const policy_model::Weights& weights,
            Optimizer& optimizer, std::span<const NamedModel> models = {});

  // What Save and SaveWarmStart ask of the ranks that do not write, while the first one saves the
  // same: their parts of what is spread over all (Optimizer::spread). Writes nothing.
  static void Give(const CheckpointState& state, Optimizer& optimizer,
                   std::span<const NamedModel> models = {});

  // Of a warm start: `state.step` counts its updates. They go with the first Save.
  void SaveWarmStart(const CheckpointState& state, const policy_model::Weights& weights,
                     Optimizer& optimizer);

  // Both in two parts: what the manifest says of the models besides `state`, while they are what
  // they are to be saved as (`digests`: also of moments that are left out, which reads them all);
  // then the files. `models`: the policy, then the others.
  static CheckpointState Complete(CheckpointState state, const policy_model::Weights& weights,
                                  Optimizer& optimizer, std::span<const NamedModel> models,
                                  bool digests);
  // A folder that goes away or is replaced at any moment of it is kConflict, too.
  void Put(Kind kind, const CheckpointState& completed, std::span<const SavedModel> models);

  // Go on from the newest of all, with or without its optimizers.
  void PreferNewest() { prefer_newest_ = true; }
  // The newest that verifies and has the optimizers, unless PreferNewest was called; skipped ones
  // are named in `rejected`. `passed`: steps of newer ones without optimizers, newest first.
  // nullopt: none.
  struct Found {
    std::string path;
    CheckpointState state;
    std::vector<std::string> rejected;
    std::vector<int64_t> passed = {};
  };
  std::optional<Found> FindNewest() const;
  // Of a warm start. None that can be used is no error: it can be made anew. `rejected` names the
  // others.
  std::optional<Found> FindWarmStart(std::vector<std::string>& rejected) const;
  // Fills what is trained of the weights, and the optimizer, from a found checkpoint; moments that
  // it does not hold begin anew. kConflict for
  // a model of another shape, and for an adapter of another base.
  void Load(const Found& found, policy_model::Weights& weights, Optimizer& optimizer) const;
  // Fills the models besides the policy. A model that the checkpoint has not, or one left over, is
  // kConflict.
  void LoadModels(const Found& found, std::span<const NamedModel> models) const;
  // The KL reference of the run, kept beside the checkpoints with a manifest of its own: a resumed
  // run (`restored`) verifies it and reads it into `reference`, a new one writes it.
  void KeepReference(bool restored, policy_model::Weights& reference) const;
  // The same of a reference that was renewed at the end of `step` steps: written beside those
  // before it, of which go that no kept checkpoint needs any more; and the newest of a run that is
  // taken up behind `step`, verified, where there is one besides KeepReference's.
  void KeepRenewedReference(int64_t step, policy_model::Weights& reference) const;
  void LoadRenewedReference(int64_t step, policy_model::Weights& reference) const;
  // A model folder as that of a checkpoint, made anew.
  void WriteModel(const policy_model::Weights& weights, const std::string& folder) const;
  // The model of the checkpoint of that step in a folder of its own, in place of what lies there:
  // its weights are the same files where the file system can do that (hard links), so that they
  // take their room once. REQUIRES: there is one.
  void ShareModel(int64_t step, const std::string& to) const;
  const std::string& folder() const { return folder_; }
  // Lowest store cursor over the kept checkpoints whose manifest holds: the store may trim below
  // it.
  int64_t OldestCursor() const;

 private:
  // Names that begin so, in ascending step.
  std::vector<std::string> List(const std::string& kind) const;
  std::optional<Found> Newest(const char* kind, bool any, std::vector<std::string>& rejected,
                              std::vector<int64_t>& passed) const;
  void Write(const std::string& path, const CheckpointState& state,
             std::span<const SavedModel> models) const;
  void PutThere(Kind kind, const CheckpointState& completed, std::span<const SavedModel> models);
  void Prune(const char* kind, const std::string& newest) const;
  void CheckStillThere() const;
  std::string folder_;
  std::shared_ptr<const int> held_;  // a descriptor of the folder
  int64_t keep_;
  bool prefer_newest_ = false;
  std::string tokenizer_source_, base_model_;
};

}  // namespace plumb::learner
