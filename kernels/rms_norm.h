// RMSNorm (Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019): y = x * rstd * w, rstd = (mean(x^2)+eps)^-1/2.
#pragma once

#include "kernels/launch.h"

namespace plumb::kernels {

// x, y: T[rows, hidden]; w: T[hidden]; rstd: float[rows], may be nullptr. y may be x.
void RmsNormForward(const Launch& launch, const void* x, const void* w, int64_t rows, int64_t hidden, float eps,
                    void* y, float* rstd);

// dx: T[rows, hidden] is added to when `accumulate_dx` (the residual's gradient), else written; dw: float[hidden] is
// added to. Summation order of dw over rows is fixed for a given number of rows (not of threads).
// scratch: float[kRmsNormScratchRows * hidden].
inline constexpr int64_t kRmsNormScratchRows = 64;
void RmsNormBackward(const Launch& launch, const void* dy, const void* x, const void* w, const float* rstd, int64_t rows,
                     int64_t hidden, bool accumulate_dx, void* dx, float* dw, float* scratch);

}  // namespace plumb::kernels
