// Muon: the update of a matrix is its momentum with all singular values brought near 1.
//
// Purpose: Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024:
//   m <- momentum m + (1 - momentum) g,   u = momentum m + (1 - momentum) g    (Nesterov)
//   o = NewtonSchulz(u), W <- (1 - rate decay) W - rate max(1, rows / columns)^(1/2) o
// NewtonSchulz: u / |u|, then five times X <- a X + (b A + c A^2) X with A = X X', (a, b, c) =
// (3.4445, -4.7750, 2.0315), on the side with fewer rows. Computed in the type of the momentum
// (float32 in training, double in tests) with LibTorch's products, on the CPU and on a GPU.
// Shapes: row-major [rows, columns]. Thread safety: one thread. Ownership: borrows everything.
#pragma once

#include <cstdint>
#include <vector>

#include "common/base/dtype.h"
#include "kernels/device/stream.h"
#include "policy_model/families/tensor_table.h"

namespace plumb::learner {

struct MuonOptions {
  double learning_rate = 0.02;
  double momentum = 0.95;
  double weight_decay = 0;
  double grad_scale = 1;  // of clipping
};

// One matrix; `weight` and `momentum` are updated. T: float or double.
template <class T>
void MuonUpdate(const Stream& stream, int64_t rows, int64_t columns, T* weight, T* momentum,
                const T* grad, const MuonOptions& options);

// The weights that a model reads, from the masters; same device.
void RoundToBFloat16(const Stream& stream, const float* from, BFloat16* to, int64_t n);

// The rows of one matrix of a tensor of a layer that Muon updates.
struct MuonMatrix {
  int64_t row_begin = 0, rows = 0;
};
// Matrices inside the layers: q, k and v by themselves, each expert by itself; none of embeddings,
// heads, vectors, and taps of convolutions.
std::vector<MuonMatrix> MuonMatrices(const policy_model::TensorEntry& entry);

}  // namespace plumb::learner
