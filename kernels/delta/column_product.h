// y = a b, element by element, of columns that lie in wider rows: the gates of short convolutions.
// Its gradients are two products of the same kind.
//
// Thread safety, alignment: kernels/device/launch.h.
#pragma once

#include "kernels/device/launch.h"

namespace plumb::kernels {

struct ColumnProduct {
  static constexpr const char* kName = "ColumnProduct";
  const void* a = nullptr;  // T[rows, width], rows a_stride apart
  const void* b = nullptr;  // T[rows, width], rows b_stride apart
  int64_t rows = 0, width = 0;
  int64_t a_stride = 0, b_stride = 0, y_stride = 0;
  void* y = nullptr;  // T[rows, width], rows y_stride apart; may be a or b
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

}  // namespace plumb::kernels
