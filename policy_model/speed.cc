#include "policy_model/speed.h"

#include <algorithm>
#include <chrono>

#include "policy_model/families/family.h"
#include "policy_model/layers/ops.h"
#include "policy_model/memory/weights.h"

namespace plumb::policy_model {

namespace {

int64_t OfAttention(const ModelShape& s) {
  const LatentShape& a = s.latent;
  if (!a.there()) return s.hidden * s.qkv_width() + s.heads * s.head_dim * s.hidden;
  const int64_t queries = s.heads * (a.nope + a.rope);
  return (a.query_rank > 0 ? a.query_rank * (s.hidden + queries) : s.hidden * queries) +
         s.hidden * (a.kv_rank + a.rope) + a.kv_rank * s.heads * (a.nope + a.value) +
         s.heads * a.value * s.hidden;
}

}  // namespace

int64_t ParametersInProducts(const ModelShape& s) {
  const int64_t attention = OfAttention(s);
  const ExpertsShape& e = s.experts;
  const ModelPlan plan = PlanOf(s);
  int64_t widths = 0, sum = s.hidden * (s.scalar_head ? 1 : s.vocab);
  for (int64_t i = 0; i < e.count; ++i) widths += e.width(i);
  for (int64_t l = 0; l < s.layers; ++l) {
    const LayerSpec& spec = plan.layers[static_cast<size_t>(l)];
    const DeltaSpec& delta = spec.delta;
    if (spec.conv.there()) sum += 4 * s.hidden * spec.conv.channels;
    else if (delta.there()) sum += s.hidden * (delta.in_width() + delta.value_width());
    else sum += attention + (s.attention_gate ? s.hidden * s.heads * s.head_dim : 0);
    if (!e.of(l)) {
      sum += 3 * s.hidden * s.ffn;
      continue;
    }
    sum += s.hidden * (e.count + 3 * e.shared_ffn + (e.shared_gate ? 1 : 0)) +
           3 * s.hidden * widths * e.per_token / e.count;
  }
  return sum;
}

double MeasureProductSpeed(const Stream& stream, DType dtype) {
  const kernels::Launch launch{.stream = stream, .dtype = dtype};
  double best = 0;
  for (int64_t n = 256; n <= 4096; n *= 2) {
    FlatBuffer x(stream, dtype, n * n), w(stream, dtype, n * n), y(stream, dtype, n * n);
    x.Zero();
    w.Zero();
    double fastest = 1e30;
    for (int round = 0; round < 3; ++round) {
      const auto begin = std::chrono::steady_clock::now();
      ops::Linear(launch, x.data(), w.data(), n, n, n, /*accumulate=*/false, y.data());
      stream.Synchronize();
      fastest = std::min(
          fastest, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    }
    const auto size = static_cast<double>(n);
    best = std::max(best, 2 * size * size * size / std::max(fastest, 1e-9));
    if (fastest >= 2e-3) break;
  }
  return best;
}

}  // namespace plumb::policy_model
