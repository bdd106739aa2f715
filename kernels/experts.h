// A mixture of experts: which experts a token goes to and with which weights, the way to them and
// back.
//
// Scores are a softmax or sigmoids of the router's logits over a temperature (Shazeer et al.,
// "Outrageously Large Neural Networks", 2017; sigmoids, groups and the balancing bias: DeepSeek-AI,
// "DeepSeek-V3", 2024). Experts are chosen by score plus bias; of equal ones the lower number is
// chosen; their weights are scores without the bias. A token's experts are listed in ascending
// order. A row's results do not depend on the other rows; Dispatch is the exception: with a
// capacity an expert drops the tokens that weigh least.
// On CUDA all arrays lie in the device's memory, and no host waits for what is in them.
// Thread safety, alignment, errors: kernels/device/launch.h. Letters: R rows (tokens), E experts, K
// experts of a token, S slots: a token at one of its experts, those of an expert one behind the
// other.
#pragma once

#include "kernels/device/launch.h"

namespace plumb::kernels {

inline constexpr int32_t kMaxExperts = 1024;

struct RouterShape {
  int64_t rows = 0;
  int32_t experts = 0, per_token = 0;  // E <= kMaxExperts, K <= E
  bool sigmoid = false;                // else softmax
  bool renormalize = true;             // weights of a token are divided by their sum
  float temperature = 1;
  float scale = 1;  // of the weights, after that
  // Experts stand in `groups` equal runs; a token's come from the groups_per_token runs whose
  // group_best best experts (1 or 2) are best together.
  int32_t groups = 1, groups_per_token = 1, group_best = 2;
};

struct RouteTokens {
  static constexpr const char* kName = "RouteTokens";
  RouterShape shape;
  const float* logits = nullptr;  // [R, E]
  const float* bias = nullptr;    // [E]; nullptr: none
  // K experts to take, in ascending order, of rows that do not begin with -1, given_stride from row
  // to row; nullptr: none
  const int32_t* given = nullptr;
  int64_t given_stride = 0;
  // Of rows with given experts: how many of these would not have been chosen; added, nullptr: not
  // asked.
  int64_t* otherwise = nullptr;
  int32_t* expert = nullptr;  // [R, K]
  float* weight = nullptr;    // [R, K]
  // What `expert` says once more, taken_stride from row to row; nullptr: not asked. CUDA only: the
  // host reads `expert` itself.
  int32_t* taken = nullptr;
  int64_t taken_stride = 0;
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

// The gradient of a loss with derivatives `dweight`, plus sum_e dshare[e] share[r, e] + z lse(r)^2
// for every row, where share is the row's scores over their sum, and lse the log-sum-exp of its
// logits.
struct RouteTokensBackward {
  static constexpr const char* kName = "RouteTokensBackward";
  RouterShape shape;
  const float* logits = nullptr;    // [R, E]
  const int32_t* expert = nullptr;  // [R, K]
  const float* dweight = nullptr;   // [R, K]
  const float* dshare = nullptr;    // [E]; nullptr: 0
  float z = 0;
  float* dlogits = nullptr;  // [R, E]
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

// Sums over all rows: shares by expert, the entropy of the shares (nats), lse^2. Added to what is
// there. CPU only: a GPU adds up what is made of them, too (RouterLoad).
struct RouterSums {
  static constexpr const char* kName = "RouterSums";
  RouterShape shape;
  const float* logits = nullptr;  // [R, E]
  double* share = nullptr;        // [E]
  double* entropy = nullptr;      // [1]
  double* lse_squared = nullptr;  // [1]
  void Cpu(const Launch& launch) const;
};

// What a pass adds to a layer's load: how many chose each expert, dropped ones too; of these how
// many are beyond its capacity; RouterSums' entropy and lse^2; and E / R times the sum over the
// experts of chosen times share. Added to what is there.
struct RouterLoad {
  static constexpr const char* kName = "RouterLoad";
  RouterShape shape;
  const float* logits = nullptr;      // [R, E]
  const int32_t* expert = nullptr;    // [R, K]
  const int64_t* capacity = nullptr;  // [E]; nullptr: no bound
  int64_t* tokens = nullptr;          // [E]
  int64_t* dropped = nullptr;         // [1]
  double* entropy = nullptr;          // [1]
  double* lse_squared = nullptr;      // [1]
  double* aux = nullptr;              // [1]
  void* scratch = nullptr;            // ScratchBytes(shape), of 8 bytes each; CUDA only
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;

  static constexpr int64_t kBlockRows = 64;
  static int64_t Blocks(const RouterShape& shape) {
    return (shape.rows + kBlockRows - 1) / kBlockRows;
  }
  static int64_t ScratchBytes(const RouterShape& shape) {
    return Blocks(shape) * (8 * (shape.experts + 2) + 4 * shape.experts);
  }
};

// Lays the tokens out by expert, each in the order of the rows. On CUDA slots behind begin[E] are
// token 0 with weight 0, where a capacity leaves some.
struct DispatchTokens {
  static constexpr const char* kName = "DispatchTokens";
  int64_t rows = 0;
  int32_t experts = 0, per_token = 0;
  const int32_t* expert = nullptr;    // [R, K]
  const float* weight = nullptr;      // [R, K]
  const int64_t* capacity = nullptr;  // [E] tokens at most; nullptr: no bound
  int32_t* begin = nullptr;           // [E + 1] slots of each expert
  int32_t* slot = nullptr;            // [R, K]; -1: dropped
  int32_t* token = nullptr;           // [S]
  float* slot_weight = nullptr;       // [S]
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

// out[r] = sum_k weight[r, k] y[slot[r, k]], in the order of k, added when `accumulate`.
struct CombineExperts {
  static constexpr const char* kName = "CombineExperts";
  const void* y = nullptr;        // T[S, width]
  const int32_t* slot = nullptr;  // [R, K]; nullptr: r K + k
  const float* weight = nullptr;  // [R, K]; nullptr: 1
  int64_t rows = 0, width = 0;
  int32_t per_token = 1;
  bool accumulate = false;
  void* out = nullptr;  // T[R, width]
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

// dweight[s] = <act[s], dact[s]>, then both are multiplied by weight[s].
struct WeighSlots {
  static constexpr const char* kName = "WeighSlots";
  const float* weight = nullptr;  // [S]
  int64_t slots = 0, width = 0;
  void* act = nullptr;       // T[S, width]
  void* dact = nullptr;      // T[S, width]
  float* dweight = nullptr;  // [S]
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

// gpt-oss' gated unit: with g = min(gate, limit), u = clamp(up, -limit, limit)
//   out = (u + 1) g sigmoid(alpha g)
struct ClampedGlu {
  static constexpr const char* kName = "ClampedGlu";
  const void* gate_up = nullptr;  // T[rows, 2 * ffn], gate first
  int64_t rows = 0, ffn = 0;
  float alpha = 1, limit = 1;
  void* out = nullptr;  // T[rows, ffn]
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

// What lies beyond a limit has no gradient.
struct ClampedGluBackward {
  static constexpr const char* kName = "ClampedGluBackward";
  const void* dout = nullptr;     // T[rows, ffn]
  const void* gate_up = nullptr;  // T[rows, 2 * ffn]
  int64_t rows = 0, ffn = 0;
  float alpha = 1, limit = 1;
  void* dgate_up = nullptr;  // T[rows, 2 * ffn]; may be gate_up itself
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

// dweight[i] = the sum of the parts of slot_dweight[slot[i]], 0 where the pair was dropped.
struct TakeSlots {
  static constexpr const char* kName = "TakeSlots";
  const float* slot_dweight = nullptr;  // [parts, S]
  const int32_t* slot = nullptr;        // [pairs]
  int64_t pairs = 0;
  float* dweight = nullptr;  // [pairs]
  int64_t parts = 1;
  int64_t slots = 0;  // S; read where there is more than one part
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

// How many of the pairs chose each expert, dropped ones too, and that times `scale`.
struct CountChosen {
  static constexpr const char* kName = "CountChosen";
  const int32_t* expert = nullptr;  // [pairs]
  int64_t pairs = 0;
  int32_t experts = 0;
  float scale = 1;
  int32_t* count = nullptr;  // [E]; nullptr: not asked
  float* share = nullptr;    // [E]; nullptr: not asked
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

// out[i] = x[0, i] + (x[1, i] + ...): what is kept in parts as one float.
struct JoinParts {
  static constexpr const char* kName = "JoinParts";
  const void* x = nullptr;  // T[parts, n]
  int64_t parts = 1, n = 0;
  float* out = nullptr;  // [n]
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

// Of a bias that is added to what an expert gives, before it is weighed: dweight[s] += <dy[s],
// bias>, dbias += sum_s weight[s] dy[s] in the order of s. CPU only: a GPU does all experts at once
// (products/expert_products.h).
struct ExpertBiasBackward {
  static constexpr const char* kName = "ExpertBiasBackward";
  const void* dy = nullptr;       // T[S, width]
  const void* bias = nullptr;     // T[width]
  const float* weight = nullptr;  // [S]
  int64_t slots = 0, width = 0;
  float* dweight = nullptr;  // [S]
  float* dbias = nullptr;    // [width]; nullptr: not trained
  void Cpu(const Launch& launch) const;
};

}  // namespace plumb::kernels
