// An optimizer's part of a checkpoint (learner/update/checkpoint.h), one safetensors file.
//
//   m.<tensor>, v.<tensor>   float32, the moments; not in every checkpoint
//   m8.<tensor>, v8.<tensor>   the same in 8 bits, four in an int32, and
//   m8_scales.<tensor>, v8_scales.<tensor>   float32: kernels/update/adamw_compact.h
//   residual.<tensor>        float32, what rounding between ranks lost of gradients so far
//                            (run.gradient_wire), with the moments
//   low.<tensor>             of a bfloat16 model: the lower halves of the float32 masters, two in
//                            an int32, the first one below; with the parameters, which the model's
//                            own file has, they say the masters exactly
//   ties.<tensor>            int64, where there are any: learner/update/master_halves.h
//   master.<tensor>          float32, instead of the two above where they would not be exact, and
//                            in files of before December 2026
// Where none of these is to be kept there is no file.
// Of several ranks that keep a part each (Optimizer::sharded) all call what is here, of the same
// models in the same order; the file is that of one.
// Thread safety: one thread. Errors: kCorruption and kConflict naming the file and the tensor;
// kNoSpace / kIo from the disk.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "common/base/hash/sha256.h"
#include "learner/update/optimizer.h"

namespace plumb::learner {

// Of live sets or of a copy (learner/update/checkpoint_copy.h). `optimizer`: whose live sets these
// are, where they may be spread over ranks; nullptr: a copy. `path` empty: of a rank that writes no
// file and gives the others what it keeps.
void SaveOptimizer(const std::string& path, std::span<Optimizer::SetState> sets,
                   const Optimizer* optimizer, bool moments);
inline void SaveOptimizer(const std::string& path, Optimizer& optimizer, bool moments) {
  SaveOptimizer(path, optimizer.sets(), &optimizer, moments);
}

// The parameters are those of the checkpoint by now. Without `moments` they become zero, as those
// of a new optimizer.
void LoadOptimizer(const std::string& path, Optimizer& optimizer, bool moments);

// SHA-256 of both moments of all that is trained, in hex; where they were left out of the
// checkpoint that this came from and no update was made since, what that said of them.
std::string MomentsDigest(Optimizer& optimizer);

// Of a buffer wherever it lies, a piece at a time.
void HashBuffer(const policy_model::FlatBuffer& flat, Sha256& hash);

// What SaveOptimizer writes, but for a header and ties, both small.
int64_t OptimizerBytes(Optimizer& optimizer, bool moments);

}  // namespace plumb::learner
