// What the keys of a GGUF file say about a model, as the shape that config.json would give.
//
// Thread safety: pure functions of the reader. Errors: kCorruption for a key that is missing or of
// another type; kUnsupported for what is not computed here, by its name.
#pragma once

#include "policy_model/families/model_shape.h"
#include "policy_model/files/gguf_reader.h"

namespace plumb::policy_model {

// An architecture of GGUF files ("general.architecture") and the family that computes it.
struct GgufArchitecture {
  const char* name;
  const char* family;
  // The rows of q and k are interleaved, half by half of a head: llama.cpp turns neighbours.
  bool interleaved;
};
// kUnsupported: none of the known ones.
const GgufArchitecture& ArchitectureOf(const GgufReader& in);

ModelShape ShapeOf(const GgufReader& in);
// Tensors that hold no weights but frequencies, which ShapeOf reads.
bool IsRotaryTensor(const std::string& name);

}  // namespace plumb::policy_model
