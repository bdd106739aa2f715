// manifest.json of a checkpoint (learner/update/checkpoint.h): what it holds, written and read.
//
//   {"format": 1, "body": {"files": {name: SHA-256}, "state": {...}}, "body_sha256": of the body as
//   JSON without blanks}
//
// Reading trusts nothing: nested at most 64 deep, no key twice, whole numbers within their range,
// and the body matches its own hash. Whether the files match theirs is the caller's to see.
// Thread safety: pure functions. Errors: kCorruption naming `where`; kUnsupported for another
// format version.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "common/record/trajectory.h"
#include "learner/update/optimizer.h"

namespace plumb::learner {

inline constexpr int64_t kCheckpointFormat = 1;

struct CheckpointState {
  int64_t step = 0;      // updates batches consumed: the next batch is `step`
  PolicyVersion policy;  // version == step
  Optimizer::Counters counters;
  int64_t moment_steps = 0;  // updates that the moments have seen, whether it holds them or not
  // It holds what the optimizers need to go on: masters, and the moments unless that is false, too.
  // Without it there are the models alone.
  bool optimizer = true;
  // It holds the moments of all its models. Those of none that has seen an update are zero, held or
  // not. Never without `optimizer`.
  bool moments = true;
  // Of moments that were left out: MomentsDigest, so that a run which is taken up with nothing left
  // to do can say what it ended with. Save fills it; empty in checkpoints of before December 2026
  // and in those that were written beside the training.
  std::string moments_sha256 = {};
  // every random draw is keyed by it and by positions that follow from step
  uint64_t seed = 0;
  int64_t store_cursor = 0;  // first lease id that was not consumed
  int64_t tokens = 0;        // trained on so far
  double wall_s = 0;         // of the run so far
  Digest base_digest =
      {};  // of a base that is not trained and not in the checkpoint; Save fills it
  std::string state_json = "{}";      // eval results and the like, opaque here
  std::string algorithm_json = "{}";  // what the algorithm keeps, opaque here
  struct Model {
    Optimizer::Counters counters;
    int64_t moment_steps = 0;
    std::string moments_sha256 = {};
  };
  std::map<std::string, Model> models = {};  // of the models besides the policy; Save fills it

  // Moments were left out that a run which goes on exactly would need.
  bool LacksMoments() const;
};

struct CheckpointManifest {
  // name within the checkpoint's folder -> SHA-256 in hex
  std::map<std::string, std::string> files;
  std::optional<CheckpointState> state;  // none: of a model kept beside the checkpoints
};

std::string WriteManifest(const CheckpointManifest& manifest);
CheckpointManifest ReadManifest(std::string_view text, const std::string& where);

}  // namespace plumb::learner
