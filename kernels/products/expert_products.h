// Products of rows that lie by expert, each with its own expert's matrix (DispatchTokens of
// kernels/experts.h lays them so): what a GPU does in one launch where the CPU goes from expert to
// expert.
//
// Where an expert's rows begin is read where it lies, by the kernel: no host waits for it, nothing
// is padded, and rows from begin[E] on are neither read nor written. All matrices have one shape
// and lie one behind the other. A row's result does not depend on the other rows; sums are taken in
// an order that depends on the sizes alone. In bfloat16 the tensor cores multiply, sums stay
// float32; in float32 no product is rounded to fewer bits. The CPU's are the reference.
// Thread safety, alignment, errors: kernels/device/launch.h. Letters: S rows, E experts, N and K of
// a matrix.
#pragma once

#include "kernels/device/launch.h"
#include "kernels/embedding.h"
#include "kernels/glu.h"

namespace plumb::kernels {

// The rows of expert e are [begin[e], begin[e + 1]).
struct ExpertGroups {
  const int32_t* begin = nullptr;  // [E + 1], in the device's memory
  int32_t experts = 0;
  int64_t rows = 0;  // S: most that begin[E] may be
};

// y[s] = W_e x[s] + bias_e, or y[s] = x[s] W_e when `by_columns` (the gradient of x); added to y
// when `accumulate`.
struct ExpertProduct {
  static constexpr const char* kName = "ExpertProduct";
  ExpertGroups groups;
  const void* x = nullptr;  // T[S, K]; by columns T[S, N]
  const void* w = nullptr;  // T[E, N, K]
  int64_t n = 0, k = 0;
  bool by_columns = false, accumulate = false;
  const void* bias = nullptr;          // T[E, N]; nullptr: none; not by columns
  float scale = 1;                     // of the product, not of the bias
  void* y = nullptr;                   // T[S, N]; by columns T[S, K]
  int64_t x_stride = 0, y_stride = 0;  // elements from row to row; 0: rows lie side by side
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

// gate_up[s] = W_e x[token[s]], gates first, and act[s] = Glu of that: GatherRows, ExpertProduct
// and Glu in one, with their bits.
struct GatedExpertProduct {
  static constexpr const char* kName = "GatedExpertProduct";
  ExpertGroups groups;
  const void* x = nullptr;         // T[tokens, K]
  const int32_t* token = nullptr;  // [S]
  const void* w = nullptr;         // T[E, 2 ffn, K]
  int64_t ffn = 0, k = 0;
  Activation activation = Activation::kSilu;
  void* rows = nullptr;     // T[S, K]; may be overwritten
  void* gate_up = nullptr;  // T[S, 2 ffn]
  void* act = nullptr;      // T[S, ffn]
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;

  // The three, of the first `count` rows.
  template <class Body>
  void ForEachPart(int64_t count, const Body& body) const {
    body(GatherRows{.table = x, .index = token, .rows = count, .width = k, .out = rows});
    body(ExpertProduct{.groups = groups, .x = rows, .w = w, .n = 2 * ffn, .k = k, .y = gate_up});
    body(Glu{.gate_up = gate_up, .rows = count, .ffn = ffn, .activation = activation, .out = act});
  }
};

// dw_e += scale sum_s dy[s] (x) x[s] over the expert's rows.
struct ExpertWeightProduct {
  static constexpr const char* kName = "ExpertWeightProduct";
  ExpertGroups groups;
  const void* dy = nullptr;  // T[S, N]
  const void* x = nullptr;   // T[S, K]
  int64_t n = 0, k = 0;
  float scale = 1;
  float* dw = nullptr;                  // [E, N, K]
  int64_t dy_stride = 0, x_stride = 0;  // elements from row to row; 0: rows lie side by side
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

// Of biases: dbias_e += sum_s weight[s] dy[s], and dweight[s] += <dy[s], bias_e>.
struct ExpertBiasSums {
  static constexpr const char* kName = "ExpertBiasSums";
  ExpertGroups groups;
  const void* dy = nullptr;       // T[S, N]
  const float* weight = nullptr;  // [S]; nullptr: 1
  int64_t n = 0;
  float* dbias = nullptr;      // [E, N]; nullptr: not trained
  const void* bias = nullptr;  // T[E, N]; read where dweight is wanted
  float* dweight = nullptr;    // [S]; nullptr: not wanted
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

// What adapters of experts keep interleaved: out[e, i] = x[i, e], and back, added.
struct SplitByExpert {
  static constexpr const char* kName = "SplitByExpert";
  const void* x = nullptr;  // T[count, E]
  int64_t count = 0;
  int32_t experts = 0;
  void* out = nullptr;  // T[E, count]
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

struct JoinByExpert {
  static constexpr const char* kName = "JoinByExpert";
  const float* x = nullptr;  // [E, count]
  int64_t count = 0;
  int32_t experts = 0;
  float* out = nullptr;  // [count, E], added to
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

}  // namespace plumb::kernels
