#include <algorithm>
#include <vector>

#include "kernels/device/cpu_common.h"
#include "kernels/products/expert_products.h"

namespace plumb::kernels {
namespace {

int32_t ExpertOf(const ExpertGroups& groups, int64_t row) {
  int32_t e = 0;
  while (groups.begin[e + 1] <= row) ++e;
  return e;
}

template <class T>
void Rows(const ExpertProduct& p) {
  const int64_t inputs = p.by_columns ? p.n : p.k, outputs = p.by_columns ? p.k : p.n,
                there = p.groups.begin[p.groups.experts];
#pragma omp parallel for schedule(static) if (there * p.n * p.k > kParallelElements)
  for (int64_t s = p.groups.begin[0]; s < there; ++s) {
    const int64_t e = ExpertOf(p.groups, s);
    const T* x = static_cast<const T*>(p.x) + s * (p.x_stride ? p.x_stride : inputs);
    const T* w = static_cast<const T*>(p.w) + e * p.n * p.k;
    T* y = static_cast<T*>(p.y) + s * (p.y_stride ? p.y_stride : outputs);
    for (int64_t j = 0; j < outputs; ++j) {
      float sum = 0;
      for (int64_t i = 0; i < inputs; ++i)
        sum += ToFloat(x[i]) * ToFloat(p.by_columns ? w[i * p.k + j] : w[j * p.k + i]);
      sum *= p.scale;
      if (p.bias) sum += ToFloat(static_cast<const T*>(p.bias)[e * p.n + j]);
      y[j] = FromFloat<T>(p.accumulate ? ToFloat(y[j]) + sum : sum);
    }
  }
}

template <class T>
void WeightRows(const ExpertWeightProduct& p) {
  const int64_t all = p.groups.experts * p.n, dy_stride = p.dy_stride ? p.dy_stride : p.n,
                x_stride = p.x_stride ? p.x_stride : p.k;
#pragma omp parallel for schedule(dynamic, 16) if (all * p.k > kParallelElements)
  for (int64_t row = 0; row < all; ++row) {
    const int64_t e = row / p.n, j = row % p.n;
    std::vector<float> sum(static_cast<size_t>(p.k));
    for (int64_t s = p.groups.begin[e]; s < p.groups.begin[e + 1]; ++s) {
      const float d = ToFloat(static_cast<const T*>(p.dy)[s * dy_stride + j]);
      const T* x = static_cast<const T*>(p.x) + s * x_stride;
      for (int64_t i = 0; i < p.k; ++i) sum[static_cast<size_t>(i)] += d * ToFloat(x[i]);
    }
    for (int64_t i = 0; i < p.k; ++i) {
      float& to = p.dw[row * p.k + i];
      to = (p.written ? 0.0f : to) + p.scale * sum[static_cast<size_t>(i)];
    }
  }
}

template <class T>
void Biases(const ExpertBiasSums& p) {
  for (int64_t s = p.groups.begin[0]; s < p.groups.begin[p.groups.experts]; ++s) {
    const int64_t e = ExpertOf(p.groups, s);
    const T* dy = static_cast<const T*>(p.dy) + s * p.n;
    const float weight = p.weight ? p.weight[s] : 1.0f;
    for (int64_t j = 0; p.dbias && j < p.n; ++j) p.dbias[e * p.n + j] += weight * ToFloat(dy[j]);
    if (!p.dweight) continue;
    const T* bias = static_cast<const T*>(p.bias) + e * p.n;
    float sum = 0;
    for (int64_t j = 0; j < p.n; ++j) sum += ToFloat(dy[j]) * ToFloat(bias[j]);
    p.dweight[s] += sum;
  }
}

}  // namespace

void ExpertProduct::Cpu(const Launch& launch) const {
  ForDType(launch.dtype, [&]<class T>(T) { Rows<T>(*this); });
}

void GatedExpertProduct::Cpu(const Launch& launch) const {
  ForEachPart(groups.begin[groups.experts], [&](const auto& part) { part.Cpu(launch); });
}

void GatedExpertBackward::Cpu(const Launch& launch) const {
  ForEachPart(groups.begin[groups.experts], [&](const auto& part) { part.Cpu(launch); });
  std::fill(dweight + groups.rows, dweight + Parts(ffn) * groups.rows, 0.0f);
}

void GatedExpertGradients::Cpu(const Launch& launch) const {
  ForEachPart(groups.begin[groups.experts], [&](const auto& part) { part.Cpu(launch); });
}

void ExpertWeightProduct::Cpu(const Launch& launch) const {
  ForDType(launch.dtype, [&]<class T>(T) { WeightRows<T>(*this); });
}

void ExpertBiasSums::Cpu(const Launch& launch) const {
  ForDType(launch.dtype, [&]<class T>(T) { Biases<T>(*this); });
}

void SplitByExpert::Cpu(const Launch& launch) const {
  ForDType(launch.dtype, [&]<class T>(T) {
    for (int64_t i = 0; i < count; ++i) {
      for (int32_t e = 0; e < experts; ++e)
        static_cast<T*>(out)[e * count + i] = static_cast<const T*>(x)[i * experts + e];
    }
  });
}

void JoinByExpert::Cpu(const Launch&) const {
  for (int64_t i = 0; i < count; ++i) {
    for (int32_t e = 0; e < experts; ++e) out[i * experts + e] += x[e * count + i];
  }
}

}  // namespace plumb::kernels
