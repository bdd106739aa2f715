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
#include "kernels/experts.h"
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

// dw_e += scale sum_s dy[s] (x) x[s] over the expert's rows; of an expert without rows that is 0.
struct ExpertWeightProduct {
  static constexpr const char* kName = "ExpertWeightProduct";
  ExpertGroups groups;
  const void* dy = nullptr;  // T[S, N]
  const void* x = nullptr;   // T[S, K]
  int64_t n = 0, k = 0;
  float scale = 1;
  float* dw = nullptr;                  // [E, N, K]
  int64_t dy_stride = 0, x_stride = 0;  // elements from row to row; 0: rows lie side by side
  bool written = false;                 // instead of added: what is in dw may be anything
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

// Backward through the second product y[s] = W_e act[s], whose rows are weighed by weight[s], and
// the gated unit that gave act. With dact[s] = W_e^T dout[token[s]]:
//   dweight[s] = <act[s], dact[s]>, the sum of the parts,
//   gate_up becomes its gradient, and act the unit's result times weight[s].
// GatherRows, ExpertProduct, Glu, WeighSlots and GluBackward in one, with their bits but for
// dweight's.
struct GatedExpertBackward {
  static constexpr const char* kName = "GatedExpertBackward";
  static constexpr int64_t kPartColumns = 128;
  ExpertGroups groups;
  const void* dout = nullptr;      // T[tokens, N]
  const int32_t* token = nullptr;  // [S]
  const void* w = nullptr;         // T[E, N, ffn]
  int64_t n = 0, ffn = 0;
  Activation activation = Activation::kSilu;
  const float* weight = nullptr;  // [S]
  void* gate_up = nullptr;        // T[S, 2 ffn]
  void* act = nullptr;            // T[S, ffn], written
  float* dweight = nullptr;       // [Parts(ffn), S], written
  void* rows = nullptr;           // T[S, N]; may be overwritten
  void* dact = nullptr;           // T[S, ffn]; likewise
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;

  static int64_t Parts(int64_t ffn) { return (ffn + kPartColumns - 1) / kPartColumns; }
  // Those, of the first `count` rows; of dweight's parts the first alone is written.
  template <class Body>
  void ForEachPart(int64_t count, const Body& body) const {
    body(GatherRows{.table = dout, .index = token, .rows = count, .width = n, .out = rows});
    body(ExpertProduct{
        .groups = groups, .x = rows, .w = w, .n = n, .k = ffn, .by_columns = true, .y = dact});
    body(Glu{.gate_up = gate_up, .rows = count, .ffn = ffn, .activation = activation, .out = act});
    body(WeighSlots{.weight = weight,
                    .slots = count,
                    .width = ffn,
                    .act = act,
                    .dact = dact,
                    .dweight = dweight});
    body(GluBackward{.dout = dact,
                     .gate_up = gate_up,
                     .rows = count,
                     .ffn = ffn,
                     .activation = activation,
                     .dgate_up = gate_up});
  }
};

// The gradients of both matrices of experts and of what went in, from what GatedExpertBackward
// leaves: dw_second_e += sum_s dout[token[s]] (x) act[s], dw_first_e += sum_s dgate_up[s] (x)
// x[token[s]], dx[s] = dgate_up[s] W_e. Gathers, two ExpertWeightProducts and an ExpertProduct in
// one, with their bits.
struct GatedExpertGradients {
  static constexpr const char* kName = "GatedExpertGradients";
  ExpertGroups groups;
  const void* dout = nullptr;      // T[tokens, N]
  const void* x = nullptr;         // T[tokens, N]
  const int32_t* token = nullptr;  // [S]
  const void* w = nullptr;         // T[E, 2 ffn, N], the first matrix
  int64_t n = 0, ffn = 0;
  const void* dgate_up = nullptr;  // T[S, 2 ffn]
  const void* act = nullptr;       // T[S, ffn], weighed
  float* dw_first = nullptr;       // [E, 2 ffn, N]; nullptr: not trained
  float* dw_second = nullptr;      // [E, N, ffn]; nullptr: not trained
  // Written instead of added to.
  bool first_written = false, second_written = false;
  void* dx = nullptr;    // T[S, N], written
  void* rows = nullptr;  // T[S, N]; may be overwritten
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;

  // Those, of the first `count` rows.
  template <class Body>
  void ForEachPart(int64_t count, const Body& body) const {
    if (dw_second) {
      body(GatherRows{.table = dout, .index = token, .rows = count, .width = n, .out = rows});
      body(ExpertWeightProduct{.groups = groups,
                               .dy = rows,
                               .x = act,
                               .n = n,
                               .k = ffn,
                               .dw = dw_second,
                               .written = second_written});
    }
    if (dw_first) {
      body(GatherRows{.table = x, .index = token, .rows = count, .width = n, .out = rows});
      body(ExpertWeightProduct{.groups = groups,
                               .dy = dgate_up,
                               .x = rows,
                               .n = 2 * ffn,
                               .k = n,
                               .dw = dw_first,
                               .written = first_written});
    }
    body(ExpertProduct{.groups = groups,
                       .x = dgate_up,
                       .w = w,
                       .n = 2 * ffn,
                       .k = n,
                       .by_columns = true,
                       .y = dx});
  }
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
