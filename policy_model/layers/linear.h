// A linear part of a layer with what adapters add: y = W x + scale B (A x), in training, scoring
// and generation. Of several adapters with tasks each adds its product times the weight of the
// row's task (TaskGate). Where Pass::dropout says so, A sees x through a mask of its own.
//
// Purpose: where weights that are not trained cost no gradient, and where adapters are: stages need
// not know either. Protocol: stage.h; Plan takes what adapters need of an arena, before each of the
// three ways of use. Thread safety: of its stage. Shapes: x T[n, columns], y T[n, rows]; W [rows,
// columns].
#pragma once

#include "policy_model/layers/fp16/fp16_linear.h"
#include "policy_model/layers/fp8/fp8_linear.h"
#include "policy_model/layers/stage.h"

namespace plumb::policy_model {

class LinearLayer {
 public:
  LinearLayer(int64_t weight, int64_t rows, int64_t columns)
      : weight_(weight), rows_(rows), columns_(columns), fp8_(rows, columns) {}

  void Plan(const Pass& pass, int64_t n, Arena& scratch);
  void Plan(const PackedPass& pass, int64_t n, Arena& scratch);
  // y = ..., or y += ... when `accumulate`.
  void Forward(const PackedPass& pass, const void* x, bool accumulate, void* y) const;
  void Step(const PagedPass& pass, const void* x, bool accumulate, void* y) const;
  // dx = the gradient of x (added when `accumulate`; not dy's memory); parameters' into pass.grad
  // where they are trained.
  void Backward(const PackedPass& pass, const void* dy, const void* x, bool accumulate,
                void* dx) const;
  // The same in two halves, in either order. REQUIRES: no adapter has a part in it.
  bool HasParts(const Pass& pass) const;
  void BackwardInput(const PackedPass& pass, const void* dy, bool accumulate, void* dx) const;
  void BackwardWeight(const PackedPass& pass, const void* dy, const void* x) const;

 private:
  // `product`: (x, w, m, n, k, accumulate, y), as ops::Linear.
  template <class Product>
  void Apply(const Product& product, const Pass& pass, int64_t n, Arena& scratch, const void* x,
             bool accumulate, void* y) const;
  // Those of ops.h, whose operands are float16 where the pass says so.
  void Times(const PackedPass& pass, const void* x, const void* w, int64_t m, int64_t n, int64_t k,
             bool accumulate, void* y) const;
  void TimesBack(const PackedPass& pass, const void* dy, const void* w, int64_t m, int64_t n,
                 int64_t k, bool accumulate, void* dx) const;
  void TimesOuter(const PackedPass& pass, const void* dy, const void* x, int64_t m, int64_t n,
                  int64_t k, float* dw, bool accumulate = true) const;

  // All parts of all adapters as one low-rank matrix B A, where the product takes it along
  // (ops::JoinsLowRank) and nothing is dropped: A's rows follow each other, B has each part's
  // columns beside the others', zeros outside its rows.
  struct Joined {
    int64_t rank = 0;
    void *a = nullptr, *b = nullptr;       // T[rank, columns], T[rows, rank]
    void *low = nullptr, *dlow = nullptr;  // T[n, rank]: scale A x, and its gradient times scale
    float* grad = nullptr;                 // of a or of b
  };
  bool Joins(const Pass& pass) const;
  Joined Join(const Pass& pass, Arena& scratch) const;
  void ScaleParts(const Pass& pass, int64_t n, void* low) const;
  void BackwardJoined(const PackedPass& pass, const void* dy, const void* x, bool accumulate,
                      void* dx) const;

  const int64_t weight_, rows_, columns_;
  Fp8Linear fp8_;    // of a pass whose products read FP8
  Fp16Linear fp16_;  // the same of float16
  // Offsets of the last plan: T[n, rank] twice, T[n, rows of a part] where a part is not all of the
  // tensor, and T[n, columns] where something is dropped.
  int64_t low_ = 0, dlow_ = 0, part_ = 0, dropped_ = 0;
  // And of all parts as one.
  int64_t rank_ = 0, joined_low_ = 0, joined_dlow_ = 0, joined_a_ = 0, joined_b_ = 0,
          joined_grad_ = 0;
};

}  // namespace plumb::policy_model
