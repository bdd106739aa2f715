// A learned gate on tokens: one number a token, by which those beyond a window are chosen.
//
// A query sees its window and, of the tokens before the window, the `count` of highest gate; of
// equal ones the earlier. The set depends on tokens before the query alone, and changes by one
// token at a time: the one that leaves the window comes in, the lowest goes. So a packed pass and
// paged steps go through the same sets. A set is listed in the order of positions.
// The gate of a token is one sum in a fixed order: it does not depend on the other rows. A gate
// that is NaN is never chosen over another. On CUDA the arrays of a shape, `parents` too, lie in
// the device's memory. Thread safety, alignment, errors: kernels/device/launch.h.
#pragma once

#include <cmath>

#include "kernels/attention_varlen.h"
#include "kernels/delta/sequence_states.h"
#include "kernels/paged_kv.h"

namespace plumb::kernels {

// gate[r] = w . x[r]
struct TokenGate {
  static constexpr const char* kName = "TokenGate";
  const void* x = nullptr;  // T[rows, width]
  const void* w = nullptr;  // T[width]
  int64_t rows = 0, width = 0;
  float* gate = nullptr;  // [rows]
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

struct TokenGateBackward {
  static constexpr const char* kName = "TokenGateBackward";
  const float* dgate = nullptr;  // [rows]
  const void* x = nullptr;
  const void* w = nullptr;
  int64_t rows = 0, width = 0;
  float* dw = nullptr;  // [width], added to in the order of rows; nullptr: not wanted
  void* dx = nullptr;   // T[rows, width], added to; nullptr: not wanted
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

struct ChooseTokens {
  static constexpr const char* kName = "ChooseTokens";
  VarlenShape shape;  // sequences and window
  const float* gate = nullptr;
  int32_t count = 0;
  int32_t* chosen = nullptr;  // [tokens, count] tokens of the batch; -1 behind the last
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

// Floats of a slot's state: gates of the window, gates and positions of those chosen.
constexpr int64_t ChoiceState(int64_t window, int64_t count) { return window + 2 * count; }

// The rows of a slot lie together, in ascending position.
struct ChooseTokensStep {
  static constexpr const char* kName = "ChooseTokensStep";
  PagedRows rows;
  SequenceStates states;
  int64_t offset = 0;  // of this layer's ChoiceState within a row
  int32_t window = 0, count = 0;
  const float* gate = nullptr;  // [rows]
  int32_t* chosen = nullptr;    // [rows, count] positions; -1 behind the last
  float* weight = nullptr;      // [rows, count] log sigmoid(gate) of each
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

// log sigmoid(x), what the gate adds to a score.
PLUMB_HOST_DEVICE inline float LogSigmoid(float x) {
  return x < 0 ? x - log1pf(expf(x)) : -log1pf(expf(-x));
}

}  // namespace plumb::kernels
