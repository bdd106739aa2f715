#include <algorithm>
#include <bit>
#include <cmath>
#include <vector>

#include "kernels/device/cpu_common.h"
#include "kernels/sparse/token_gate.h"

namespace plumb::kernels {
namespace {

template <class T>
void Forward(const TokenGate& k) {
  const auto* w = static_cast<const T*>(k.w);
#pragma omp parallel for schedule(static) if (k.rows * k.width > kParallelElements)
  for (int64_t r = 0; r < k.rows; ++r) {
    const T* x = static_cast<const T*>(k.x) + r * k.width;
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < k.width; ++i) sum += ToFloat(x[i]) * ToFloat(w[i]);
    k.gate[r] = sum;
  }
}

template <class T>
void Backward(const TokenGateBackward& k) {
  if (k.dw) {
    for (int64_t r = 0; r < k.rows; ++r) {
      const T* x = static_cast<const T*>(k.x) + r * k.width;
      const float d = k.dgate[r];
      if (d == 0) continue;  // never chosen
#pragma omp simd
      for (int64_t i = 0; i < k.width; ++i) k.dw[i] += d * ToFloat(x[i]);
    }
  }
  if (!k.dx) return;
  const auto* w = static_cast<const T*>(k.w);
#pragma omp parallel for schedule(static) if (k.rows * k.width > kParallelElements)
  for (int64_t r = 0; r < k.rows; ++r) {
    T* dx = static_cast<T*>(k.dx) + r * k.width;
    const float d = k.dgate[r];
#pragma omp simd
    for (int64_t i = 0; i < k.width; ++i) dx[i] = FromFloat<T>(ToFloat(dx[i]) + d * ToFloat(w[i]));
  }
}

// Up to `count` places in ascending order with their gates. `held` of them are there.
struct Chosen {
  float* gate;
  int32_t* place;
  int32_t held, count;

  // `next` lies behind all that are there.
  void Offer(int32_t next, float its) {
    if (held < count) {
      gate[held] = its;
      place[held++] = next;
      return;
    }
    // The lowest, of equal ones the latest. A NaN is the lowest of all.
    const auto below = [](float a, float b) {
      return std::isnan(a) ? !std::isnan(b) : a < b;  // b is a NaN: false
    };
    int32_t lowest = count - 1;
    for (int32_t i = count - 1; i-- > 0;) {
      if (below(gate[i], gate[lowest])) lowest = i;
    }
    if (!below(gate[lowest], its)) return;
    std::copy(gate + lowest + 1, gate + count, gate + lowest);
    std::copy(place + lowest + 1, place + count, place + lowest);
    gate[count - 1] = its;
    place[count - 1] = next;
  }
};

}  // namespace

void TokenGate::Cpu(const Launch& launch) const {
  ForDType(launch.dtype, [&]<class T>(T) { Forward<T>(*this); });
}

void TokenGateBackward::Cpu(const Launch& launch) const {
  ForDType(launch.dtype, [&]<class T>(T) { Backward<T>(*this); });
}

void ChooseTokens::Cpu(const Launch&) const {
#pragma omp parallel for schedule(dynamic, 1) if (shape.tokens > kParallelElements)
  for (int32_t b = 0; b < shape.sequences; ++b) {
    const int32_t begin = shape.cu_seqlens[b], own = shape.cu_seqlens[b + 1] - begin;
    const int32_t parent = shape.parents ? shape.parents[b] : -1;
    const int32_t prefix = parent < 0 ? begin : shape.cu_seqlens[parent],
                  base = parent < 0 ? 0 : shape.cu_seqlens[parent + 1] - prefix;
    std::vector<float> gates(static_cast<size_t>(count));
    std::vector<int32_t> tokens(static_cast<size_t>(count));
    Chosen set{gates.data(), tokens.data(), 0, count};
    for (int32_t i = 0; i < base + own; ++i) {
      if (i >= shape.window) {
        const int32_t j = i - shape.window, token = j < base ? prefix + j : begin + j - base;
        set.Offer(token, gate[token]);
      }
      if (i < base) continue;
      int32_t* to = chosen + int64_t{begin + i - base} * count;
      std::copy_n(tokens.begin(), set.held, to);
      std::fill(to + set.held, to + count, -1);
    }
  }
}

void ChooseTokensStep::Cpu(const Launch&) const {
  for (int32_t r = 0; r < rows.rows; ++r) {
    float* ring = states.data + rows.slot[r] * states.stride + offset;
    float *gates = ring + window, *places = gates + count;
    const int32_t position = rows.position[r];
    int32_t* to = chosen + int64_t{r} * count;
    float& place = ring[position % window];
    // Those before this row: as many as had left the window of the row before it.
    Chosen set{gates, to, std::clamp(position - window, 0, count), count};
    for (int32_t i = 0; i < set.held; ++i) to[i] = std::bit_cast<int32_t>(places[i]);
    if (position >= window) set.Offer(position - window, place);
    place = gate[r];
    for (int32_t i = 0; i < set.held; ++i) {
      places[i] = std::bit_cast<float>(to[i]);
      weight[int64_t{r} * count + i] = LogSigmoid(gates[i]);
    }
    for (int32_t i = set.held; i < count; ++i) {
      to[i] = -1;
      weight[int64_t{r} * count + i] = 0;
    }
  }
}

}  // namespace plumb::kernels
