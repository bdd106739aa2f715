#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <numeric>
#include <vector>

#include "kernels/device/cpu_common.h"
#include "kernels/experts.h"

namespace plumb::kernels {
namespace {

using Scores = std::array<float, kMaxExperts>;

// Softmax of logits / temperature; returns its log-sum-exp.
float Softmax(const float* logits, int32_t n, float temperature, float* p) {
  float most = -INFINITY;
  for (int32_t e = 0; e < n; ++e) most = std::max(most, logits[e] / temperature);
  float sum = 0;
  for (int32_t e = 0; e < n; ++e) p[e] = FastExp(logits[e] / temperature - most);
  for (int32_t e = 0; e < n; ++e) sum += p[e];
  for (int32_t e = 0; e < n; ++e) p[e] /= sum;
  return most + std::log(sum);
}

void ScoresOf(const RouterShape& s, const float* logits, float* p) {
  if (!s.sigmoid) {
    Softmax(logits, s.experts, s.temperature, p);
    return;
  }
  for (int32_t e = 0; e < s.experts; ++e)
    p[e] = 1.0f / (1.0f + FastExp(-logits[e] / s.temperature));
}

// The `count` largest of n values become 1 in `chosen`, which is 0 before; of equal ones the first.
// NaN is chosen last.
void Largest(const float* values, int32_t n, int32_t count, uint8_t* chosen) {
  for (int32_t k = 0; k < count; ++k) {
    int32_t best = -1;
    for (int32_t e = 0; e < n; ++e) {
      if (!chosen[e] && (best < 0 || values[e] > values[best] ||
                         (std::isnan(values[best]) && !std::isnan(values[e]))))
        best = e;
    }
    chosen[best] = 1;
  }
}

// Which experts a row goes to, in ascending order.
void Choose(const RouterShape& s, const float* choice, int32_t* expert) {
  std::array<uint8_t, kMaxExperts> chosen{};
  if (s.groups == 1 || s.groups_per_token >= s.groups) {
    Largest(choice, s.experts, s.per_token, chosen.data());
  } else {
    const int32_t size = s.experts / s.groups;
    Scores group{}, inside{};
    for (int32_t g = 0; g < s.groups; ++g) {
      float first = -INFINITY, second = -INFINITY;
      for (int32_t e = g * size; e < (g + 1) * size; ++e) {
        if (choice[e] > first) {
          second = first;
          first = choice[e];
        } else if (choice[e] > second) {
          second = choice[e];
        }
      }
      group[static_cast<size_t>(g)] = size > 1 && s.group_best > 1 ? first + second : first;
    }
    std::array<uint8_t, kMaxExperts> kept{};
    Largest(group.data(), s.groups, s.groups_per_token, kept.data());
    // NaN: behind every number of the groups that were kept
    for (int32_t e = 0; e < s.experts; ++e)
      inside[static_cast<size_t>(e)] = kept[static_cast<size_t>(e / size)] ? choice[e] : NAN;
    Largest(inside.data(), s.experts, s.per_token, chosen.data());
  }
  int32_t k = 0;
  for (int32_t e = 0; e < s.experts; ++e) {
    if (chosen[static_cast<size_t>(e)]) expert[k++] = e;
  }
}

constexpr float kSmallestSum = 1e-20f;

}  // namespace

void RouteTokens::Cpu(const Launch&) const {
  const RouterShape& s = shape;
  int64_t others = 0;
#pragma omp parallel for schedule(static) reduction(+ : others) \
    if (s.rows * s.experts > kParallelElements)
  for (int64_t r = 0; r < s.rows; ++r) {
    Scores score, choice;
    ScoresOf(s, logits + r * s.experts, score.data());
    int32_t* to = expert + r * s.per_token;
    const int32_t* take = given ? given + r * given_stride : nullptr;
    const bool taken = take && take[0] >= 0;
    if (!taken || otherwise) {
      for (int32_t e = 0; e < s.experts; ++e)
        choice[static_cast<size_t>(e)] = score[static_cast<size_t>(e)] + (bias ? bias[e] : 0.0f);
      Choose(s, choice.data(), to);
    }
    if (taken && otherwise) {
      for (int32_t k = 0; k < s.per_token; ++k)
        others += std::binary_search(to, to + s.per_token, take[k]) ? 0 : 1;
    }
    if (taken) std::copy_n(take, s.per_token, to);
    float sum = 0;
    for (int32_t k = 0; k < s.per_token; ++k) sum += score[static_cast<size_t>(to[k])];
    const float by = s.renormalize ? sum + kSmallestSum : 1.0f;
    for (int32_t k = 0; k < s.per_token; ++k)
      weight[r * s.per_token + k] = s.scale * (score[static_cast<size_t>(to[k])] / by);
  }
  if (otherwise) *otherwise += others;
}

void RouteTokensBackward::Cpu(const Launch&) const {
  const RouterShape& s = shape;
#pragma omp parallel for schedule(static) if (s.rows * s.experts > kParallelElements)
  for (int64_t r = 0; r < s.rows; ++r) {
    Scores score, d{}, softmax;
    const float* row = logits + r * s.experts;
    const int32_t* to = expert + r * s.per_token;
    const float* dw = dweight + r * s.per_token;
    float* out = dlogits + r * s.experts;
    ScoresOf(s, row, score.data());
    float sum = 0, mean = 0;
    for (int32_t k = 0; k < s.per_token; ++k) {
      sum += score[static_cast<size_t>(to[k])];
      mean += s.scale * dw[k] * score[static_cast<size_t>(to[k])];
    }
    sum += kSmallestSum;
    for (int32_t k = 0; k < s.per_token; ++k)
      d[static_cast<size_t>(to[k])] =
          s.renormalize ? (s.scale * dw[k] - mean / sum) / sum : s.scale * dw[k];
    if (dshare) {
      float all = 0, weighed = 0;
      for (int32_t e = 0; e < s.experts; ++e) {
        all += score[static_cast<size_t>(e)];
        weighed += dshare[e] * score[static_cast<size_t>(e)];
      }
      all += kSmallestSum;
      for (int32_t e = 0; e < s.experts; ++e)
        d[static_cast<size_t>(e)] += (dshare[e] - weighed / all) / all;
    }
    if (s.sigmoid) {
      for (int32_t e = 0; e < s.experts; ++e) {
        const float p = score[static_cast<size_t>(e)];
        out[e] = d[static_cast<size_t>(e)] * p * (1 - p) / s.temperature;
      }
    } else {
      float inner = 0;
      for (int32_t e = 0; e < s.experts; ++e)
        inner += d[static_cast<size_t>(e)] * score[static_cast<size_t>(e)];
      for (int32_t e = 0; e < s.experts; ++e)
        out[e] =
            score[static_cast<size_t>(e)] * (d[static_cast<size_t>(e)] - inner) / s.temperature;
    }
    if (z == 0) continue;
    const float lse = Softmax(row, s.experts, 1.0f, softmax.data());
    for (int32_t e = 0; e < s.experts; ++e) out[e] += 2 * z * lse * softmax[static_cast<size_t>(e)];
  }
}

void RouterSums::Cpu(const Launch&) const {
  const RouterShape& s = shape;
  Scores score;
  for (int64_t r = 0; r < s.rows; ++r) {
    const float* row = logits + r * s.experts;
    const auto lse = static_cast<double>(Softmax(row, s.experts, 1.0f, score.data()));
    *lse_squared += lse * lse;
    ScoresOf(s, row, score.data());
    double all = static_cast<double>(kSmallestSum);
    for (int32_t e = 0; e < s.experts; ++e)
      all += static_cast<double>(score[static_cast<size_t>(e)]);
    for (int32_t e = 0; e < s.experts; ++e) {
      const double p = static_cast<double>(score[static_cast<size_t>(e)]) / all;
      share[e] += p;
      if (p > 0) *entropy -= p * std::log(p);
    }
  }
}

void RouterLoad::Cpu(const Launch& launch) const {
  const auto experts = static_cast<size_t>(shape.experts);
  std::vector<double> share(experts);
  RouterSums{.shape = shape,
             .logits = logits,
             .share = share.data(),
             .entropy = entropy,
             .lse_squared = lse_squared}
      .Cpu(launch);
  std::vector<int64_t> chosen(experts);
  for (int64_t i = 0; i < shape.rows * shape.per_token; ++i)
    ++chosen[static_cast<size_t>(expert[i])];
  double sum = 0;
  for (size_t e = 0; e < experts; ++e) {
    tokens[e] += chosen[e];
    if (capacity) *dropped += std::max<int64_t>(0, chosen[e] - capacity[e]);
    sum += static_cast<double>(chosen[e]) * share[e];
  }
  if (shape.rows > 0)
    *aux += static_cast<double>(shape.experts) * sum / static_cast<double>(shape.rows);
}

void DispatchTokens::Cpu(const Launch&) const {
  const int64_t pairs = rows * per_token;
  std::fill_n(begin, experts + 1, 0);
  for (int64_t i = 0; i < pairs; ++i) ++begin[expert[i] + 1];
  std::fill_n(slot, pairs, 0);
  if (capacity) {
    std::vector<int64_t> there;
    for (int32_t e = 0; e < experts; ++e) {
      if (begin[e + 1] <= capacity[e]) continue;
      there.clear();
      for (int64_t i = 0; i < pairs; ++i) {
        if (expert[i] == e) there.push_back(i);
      }
      // Those that weigh most stay; of equal ones the first.
      std::stable_sort(there.begin(), there.end(),
                       [&](int64_t a, int64_t b) { return weight[a] > weight[b]; });
      for (auto i = there.begin() + capacity[e]; i != there.end(); ++i) slot[*i] = -1;
      begin[e + 1] = static_cast<int32_t>(capacity[e]);
    }
  }
  std::partial_sum(begin, begin + experts + 1, begin);
  std::vector<int32_t> next(begin, begin + experts);
  for (int64_t i = 0; i < pairs; ++i) {
    if (slot[i] < 0) continue;
    const int32_t at = next[static_cast<size_t>(expert[i])]++;
    slot[i] = at;
    token[at] = static_cast<int32_t>(i / per_token);
    slot_weight[at] = weight[i];
  }
}

namespace {

template <class T>
void Combine(const CombineExperts& c) {
  constexpr int64_t kBlock = 512;
#pragma omp parallel for schedule(static) if (c.rows * c.width > kParallelElements)
  for (int64_t r = 0; r < c.rows; ++r) {
    T* to = static_cast<T*>(c.out) + r * c.width;
    float sum[kBlock];
    for (int64_t first = 0; first < c.width; first += kBlock) {
      const int64_t n = std::min(kBlock, c.width - first);
      for (int64_t i = 0; i < n; ++i) sum[i] = 0;
      for (int64_t k = r * c.per_token; k < (r + 1) * c.per_token; ++k) {
        const int64_t at = c.slot ? c.slot[k] : k;
        if (at < 0) continue;
        const float w = c.weight ? c.weight[k] : 1.0f;
        const T* from = static_cast<const T*>(c.y) + at * c.width + first;
        for (int64_t i = 0; i < n; ++i) sum[i] += w * ToFloat(from[i]);
      }
      for (int64_t i = 0; i < n; ++i)
        to[first + i] = FromFloat<T>(c.accumulate ? ToFloat(to[first + i]) + sum[i] : sum[i]);
    }
  }
}

template <class T>
void Weigh(const WeighSlots& w) {
#pragma omp parallel for schedule(static) if (w.slots * w.width > kParallelElements)
  for (int64_t s = 0; s < w.slots; ++s) {
    T* act = static_cast<T*>(w.act) + s * w.width;
    T* dact = static_cast<T*>(w.dact) + s * w.width;
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < w.width; ++i) sum += ToFloat(act[i]) * ToFloat(dact[i]);
    w.dweight[s] = sum;
    for (int64_t i = 0; i < w.width; ++i) act[i] = FromFloat<T>(w.weight[s] * ToFloat(act[i]));
    for (int64_t i = 0; i < w.width; ++i) dact[i] = FromFloat<T>(w.weight[s] * ToFloat(dact[i]));
  }
}

template <class T>
void Clamped(const ClampedGlu& k) {
#pragma omp parallel for schedule(static) if (k.rows * k.ffn > kParallelElements)
  for (int64_t r = 0; r < k.rows; ++r) {
    const T* gate = static_cast<const T*>(k.gate_up) + r * 2 * k.ffn;
    const T* up = gate + k.ffn;
    T* to = static_cast<T*>(k.out) + r * k.ffn;
#pragma omp simd
    for (int64_t i = 0; i < k.ffn; ++i) {
      const float g = std::min(ToFloat(gate[i]), k.limit),
                  u = std::min(std::max(ToFloat(up[i]), -k.limit), k.limit);
      to[i] = FromFloat<T>((u + 1.0f) * g / (1.0f + FastExp(-k.alpha * g)));
    }
  }
}

template <class T>
void ClampedBack(const ClampedGluBackward& k) {
#pragma omp parallel for schedule(static) if (k.rows * k.ffn > kParallelElements)
  for (int64_t r = 0; r < k.rows; ++r) {
    const T* gate = static_cast<const T*>(k.gate_up) + r * 2 * k.ffn;
    const T* up = gate + k.ffn;
    const T* d = static_cast<const T*>(k.dout) + r * k.ffn;
    T* dgate = static_cast<T*>(k.dgate_up) + r * 2 * k.ffn;
    T* dup = dgate + k.ffn;
#pragma omp simd
    for (int64_t i = 0; i < k.ffn; ++i) {
      const float g0 = ToFloat(gate[i]), u0 = ToFloat(up[i]), di = ToFloat(d[i]);
      const float g = std::min(g0, k.limit), u = std::min(std::max(u0, -k.limit), k.limit),
                  s = 1.0f / (1.0f + FastExp(-k.alpha * g));
      dup[i] = FromFloat<T>(u == u0 ? di * g * s : 0.0f);
      dgate[i] =
          FromFloat<T>(g == g0 ? di * (u + 1.0f) * s * (1.0f + k.alpha * g * (1.0f - s)) : 0.0f);
    }
  }
}

template <class T>
void BiasBack(const ExpertBiasBackward& k) {
  const auto* bias = static_cast<const T*>(k.bias);
  for (int64_t s = 0; s < k.slots; ++s) {
    const T* dy = static_cast<const T*>(k.dy) + s * k.width;
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < k.width; ++i) sum += ToFloat(dy[i]) * ToFloat(bias[i]);
    k.dweight[s] += sum;
    if (!k.dbias) continue;
#pragma omp simd
    for (int64_t i = 0; i < k.width; ++i) k.dbias[i] += k.weight[s] * ToFloat(dy[i]);
  }
}

}  // namespace

void TakeSlots::Cpu(const Launch&) const {
  for (int64_t i = 0; i < pairs; ++i) {
    float sum = 0;
    for (int64_t p = 0; p < parts && slot[i] >= 0; ++p) sum += slot_dweight[p * slots + slot[i]];
    dweight[i] = sum;
  }
}

void CountChosen::Cpu(const Launch&) const {
  std::vector<int32_t> sum(static_cast<size_t>(experts));
  for (int64_t i = 0; i < pairs; ++i) ++sum[static_cast<size_t>(expert[i])];
  for (size_t e = 0; e < sum.size(); ++e) {
    if (count) count[e] = sum[e];
    if (share) share[e] = scale * static_cast<float>(sum[e]);
  }
}

void JoinParts::Cpu(const Launch& launch) const {
  ForDType(launch.dtype, [&]<class T>(T) {
    for (int64_t i = 0; i < n; ++i) {
      float sum = 0;
      for (int64_t p = parts - 1; p >= 0; --p)
        sum = ToFloat(static_cast<const T*>(x)[p * n + i]) + sum;
      out[i] = sum;
    }
  });
}

void ClampedGlu::Cpu(const Launch& launch) const {
  ForDType(launch.dtype, [&]<class T>(T) { Clamped<T>(*this); });
}

void ClampedGluBackward::Cpu(const Launch& launch) const {
  ForDType(launch.dtype, [&]<class T>(T) { ClampedBack<T>(*this); });
}

void ExpertBiasBackward::Cpu(const Launch& launch) const {
  ForDType(launch.dtype, [&]<class T>(T) { BiasBack<T>(*this); });
}

void CombineExperts::Cpu(const Launch& launch) const {
  ForDType(launch.dtype, [&]<class T>(T) { Combine<T>(*this); });
}

void WeighSlots::Cpu(const Launch& launch) const {
  ForDType(launch.dtype, [&]<class T>(T) { Weigh<T>(*this); });
}

}  // namespace plumb::kernels
