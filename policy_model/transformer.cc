#include "policy_model/transformer.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "common/error.h"
#include "kernels/attention_paged.h"
#include "kernels/attention_varlen.h"
#include "kernels/embedding.h"
#include "kernels/rms_norm.h"
#include "kernels/rope.h"
#include "kernels/swiglu.h"
#include "kernels/token_logprob.h"
#include "policy_model/arena.h"
#include "policy_model/ops.h"

namespace plumb::policy_model {

using kernels::Launch;

void SetThreads(int threads) { ops::SetThreads(threads); }
int Threads() { return ops::Threads(); }

namespace {

constexpr int64_t kLogitChunkBytes = int64_t{32} << 20;  // of float logits at a time

}  // namespace

struct Transformer::Impl {
  const ModelShape shape;
  const Device device;
  const DType dtype;
  const Launch launch;
  const size_t element;
  FlatBuffer cos_sin;         // float[max_positions, D]
  Arena saved, scratch, paged;

  // Saved by Forward(keep): offsets into `saved`, a layer's at [l]; T = tokens.
  struct LayerSaved {
    int64_t x;       // T[T, H] input of the layer
    int64_t rstd1;   // float[T]
    int64_t qkv;     // T[T, qkv] after the rotation
    int64_t attn;    // T[T, Nq D]
    int64_t lse;     // float[Nq, T]
    int64_t mid;     // T[T, H] after attention's residual
    int64_t rstd2;   // float[T]
    int64_t gate_up; // T[T, 2F]
  };
  std::vector<LayerSaved> layers;
  int64_t final_x = 0, final_rstd = 0, normed = 0;  // normed: T[R, H] rows that the head sees
  int64_t kept_tokens = -1, kept_rows = -1;
  float kept_temperature = 1;
  bool kept_entropy = false;
  std::vector<float> lse, entropy;                  // [R]

  Impl(const ModelShape& s, Device d, DType t)
      : shape(s), device(d), dtype(t), launch{.device = d, .dtype = t}, element(ElementSize(t)),
        cos_sin(d, DType::kFloat32, s.max_positions * s.head_dim), saved(d), scratch(d), paged(d),
        layers(static_cast<size_t>(s.layers)) {
    if (d != Device::kCpu) throw Error(ErrorCode::kUnsupported, "this build computes on the CPU only: run.device = \"cpu\"");
    std::vector<float> table(static_cast<size_t>(s.max_positions * s.head_dim));
    kernels::RopeTable(s.max_positions, s.head_dim, s.rope_theta, table.data());
    cos_sin.CopyFromHost(std::as_bytes(std::span<const float>(table)));
  }

  int64_t T(int64_t elements) const { return elements * static_cast<int64_t>(element); }
  int64_t H() const { return shape.hidden; }
  int64_t Q() const { return shape.heads * shape.head_dim; }

  void CheckBatch(const PackedBatch& batch) const {
    for (int32_t t : batch.tokens) {
      if (t < 0 || t >= shape.vocab) {
        throw Error(ErrorCode::kInvalidArgument, "token id " + std::to_string(t) + " is outside the vocabulary of " +
                                                     std::to_string(shape.vocab));
      }
    }
    if (batch.max_seqlen > shape.max_positions) {
      throw Error(ErrorCode::kInvalidArgument, "a sequence of " + std::to_string(batch.max_seqlen) +
                                                   " tokens is longer than the model's " +
                                                   std::to_string(shape.max_positions) + " positions");
    }
  }

  kernels::VarlenShape Varlen(const PackedBatch& batch) const {
    return {.tokens = batch.size(), .sequences = batch.sequences(), .cu_seqlens = batch.cu_seqlens.data(),
            .max_seqlen = batch.max_seqlen, .heads = static_cast<int32_t>(shape.heads),
            .kv_heads = static_cast<int32_t>(shape.kv_heads), .head_dim = static_cast<int32_t>(shape.head_dim)};
  }

  // Everything up to the final hidden states; what is not kept shares one layer's memory.
  void Trunk(const Weights& w, const PackedBatch& batch, bool keep) {
    const int64_t n = batch.size(), h = H();
    const TensorTable& table = w.table();
    saved.Begin();
    for (size_t l = 0; l < layers.size(); ++l) {
      LayerSaved& s = layers[l];
      if (l > 0 && !keep) {
        s = layers[0];
        continue;
      }
      s.x = saved.Take(T(n * h));
      s.rstd1 = saved.Take(4 * n);
      s.qkv = saved.Take(T(n * shape.qkv_width()));
      s.attn = saved.Take(T(n * Q()));
      s.lse = saved.Take(4 * n * shape.heads);
      s.mid = saved.Take(T(n * h));
      s.rstd2 = saved.Take(4 * n);
      s.gate_up = saved.Take(T(n * 2 * shape.ffn));
    }
    final_x = keep ? saved.Take(T(n * h)) : -1;
    final_rstd = saved.Take(4 * n);
    normed = saved.Take(T(static_cast<int64_t>(batch.rows.size()) * h));
    saved.Commit();
    scratch.Begin();
    const int64_t norm_at = scratch.Take(T(n * h)), act_at = scratch.Take(T(n * shape.ffn));
    const int64_t gathered_at = scratch.Take(T(static_cast<int64_t>(batch.rows.size()) * h));
    scratch.Commit();
    void* norm = scratch.At(norm_at);
    void* act = scratch.At(act_at);

    const kernels::VarlenShape varlen = Varlen(batch);
    void* x = saved.At(layers[0].x);
    kernels::GatherRows(launch, w.flat().at(table.embedding()), batch.tokens.data(), n, h, x);
    for (size_t l = 0; l < layers.size(); ++l) {
      const LayerSlices& slice = table.layer(static_cast<int64_t>(l));
      const LayerSaved& s = layers[l];
      kernels::RmsNormForward(launch, x, w.flat().at(slice.input_norm), n, h, Eps(), norm, F(saved, s.rstd1));
      void* qkv = saved.At(s.qkv);
      ops::Linear(launch, norm, w.flat().at(slice.qkv), n, shape.qkv_width(), h, false, qkv);
      if (slice.qkv_bias >= 0) kernels::AddBias(launch, qkv, w.flat().at(slice.qkv_bias), n, shape.qkv_width());
      kernels::RopeInPlace(launch, qkv, batch.positions.data(), cos_sin.f32(), n, varlen.heads, varlen.kv_heads,
                           varlen.head_dim, false);
      kernels::AttentionVarlenForward(launch, varlen, qkv, saved.At(s.attn), F(saved, s.lse));
      void* mid = keep ? saved.At(s.mid) : x;  // without a backward the residual stream stays in place
      if (keep) std::memcpy(mid, x, static_cast<size_t>(T(n * h)));
      ops::Linear(launch, saved.At(s.attn), w.flat().at(slice.o), n, h, Q(), true, mid);
      kernels::RmsNormForward(launch, mid, w.flat().at(slice.post_norm), n, h, Eps(), norm, F(saved, s.rstd2));
      ops::Linear(launch, norm, w.flat().at(slice.gate_up), n, 2 * shape.ffn, h, false, saved.At(s.gate_up));
      kernels::SwigluForward(launch, saved.At(s.gate_up), n, shape.ffn, act);
      void* next = !keep ? x : saved.At(l + 1 < layers.size() ? layers[l + 1].x : final_x);
      if (keep) std::memcpy(next, mid, static_cast<size_t>(T(n * h)));
      ops::Linear(launch, act, w.flat().at(slice.down), n, h, shape.ffn, true, next);
      x = next;
    }
    // Only the rows that are scored go on to the final norm and the head.
    const auto rows = static_cast<int64_t>(batch.rows.size());
    void* gathered = scratch.At(gathered_at);
    kernels::GatherRows(launch, x, batch.rows.data(), rows, h, gathered);
    kernels::RmsNormForward(launch, gathered, w.flat().at(table.final_norm()), rows, h, Eps(), saved.At(normed),
                            F(saved, final_rstd));
  }

  float Eps() const { return static_cast<float>(shape.norm_eps); }
  static float* F(Arena& arena, int64_t at) { return static_cast<float*>(arena.At(at)); }
  int64_t ChunkRows(int64_t rows) const {
    return std::clamp<int64_t>(kLogitChunkBytes / (4 * shape.vocab), 1, std::max<int64_t>(1, rows));
  }
};

Transformer::Transformer(const ModelShape& shape, Device device, DType dtype)
    : impl_(std::make_unique<Impl>(shape, device, dtype)) {}
Transformer::~Transformer() = default;
const ModelShape& Transformer::shape() const { return impl_->shape; }
Device Transformer::device() const { return impl_->device; }
DType Transformer::dtype() const { return impl_->dtype; }
int64_t Transformer::arena_bytes() const { return impl_->saved.bytes() + impl_->scratch.bytes() + impl_->paged.bytes(); }

void Transformer::Forward(const Weights& weights, const PackedBatch& batch, const ScoreOptions& options, bool keep,
                          std::span<float> logprob, std::span<float> entropy) {
  Impl& m = *impl_;
  const auto rows = static_cast<int64_t>(batch.rows.size());
  PLUMB_CHECK(static_cast<int64_t>(logprob.size()) == rows);
  PLUMB_CHECK(!options.entropy || static_cast<int64_t>(entropy.size()) == rows);
  m.kept_tokens = -1;
  if (rows == 0) return;
  m.CheckBatch(batch);
  m.Trunk(weights, batch, keep);
  const int64_t v = m.shape.vocab, h = m.H(), chunk = m.ChunkRows(rows);
  m.lse.resize(static_cast<size_t>(rows));
  m.entropy.resize(static_cast<size_t>(rows));
  m.scratch.Begin();
  const int64_t logits_at = m.scratch.Take(4 * chunk * v);
  m.scratch.Commit();
  auto* logits = static_cast<float*>(m.scratch.At(logits_at));
  const auto* normed = static_cast<const std::byte*>(m.saved.At(m.normed));
  for (int64_t r = 0; r < rows; r += chunk) {
    const int64_t n = std::min(chunk, rows - r);
    ops::LinearToFloat(m.launch, normed + m.T(r * h), weights.flat().at(weights.table().lm_head()), n, v, h, logits);
    kernels::TokenLogprobForward(m.launch, logits, batch.targets.data() + r, n, v, options.temperature,
                                 logprob.data() + r, m.entropy.data() + r, m.lse.data() + r);
  }
  if (options.entropy) std::copy(m.entropy.begin(), m.entropy.end(), entropy.begin());
  if (keep) {
    m.kept_tokens = batch.size();
    m.kept_rows = rows;
    m.kept_temperature = options.temperature;
  }
}

void Transformer::Backward(const Weights& weights, const PackedBatch& batch, std::span<const float> g_logprob,
                           std::span<const float> g_entropy, FlatBuffer& grad) {
  Impl& m = *impl_;
  const int64_t n = batch.size(), h = m.H(), v = m.shape.vocab, f = m.shape.ffn, q = m.Q();
  const auto rows = static_cast<int64_t>(batch.rows.size());
  if (rows == 0) return;
  PLUMB_CHECK(m.kept_tokens == n && m.kept_rows == rows, "Backward needs Forward(keep = true) of the same batch");
  PLUMB_CHECK(static_cast<int64_t>(g_logprob.size()) == rows);
  const TensorTable& table = weights.table();
  const auto g = [&](int64_t offset) { return grad.f32() + offset; };
  const auto w = [&](int64_t offset) { return weights.flat().at(offset); };
  const kernels::VarlenShape varlen = m.Varlen(batch);
  const int64_t chunk = m.ChunkRows(rows);

  Arena& a = m.scratch;
  a.Begin();
  const int64_t dx_at = a.Take(m.T(n * h)), norm_at = a.Take(m.T(n * h)), dnorm_at = a.Take(m.T(n * h));
  const int64_t dattn_at = a.Take(m.T(n * q)), dqkv_at = a.Take(m.T(n * m.shape.qkv_width()));
  const int64_t act_at = a.Take(m.T(n * f)), dact_at = a.Take(m.T(n * f));
  const int64_t partial_at = a.Take(4 * kernels::kRmsNormScratchRows * h);
  const int64_t varlen_at = a.Take(4 * kernels::AttentionVarlenScratch(varlen));
  const int64_t logits_at = a.Take(4 * chunk * v), dlogits_at = a.Take(m.T(chunk * v));
  const int64_t dhead_at = a.Take(m.T(rows * h)), gathered_at = a.Take(m.T(rows * h)), dgathered_at = a.Take(m.T(rows * h));
  a.Commit();
  auto* partial = static_cast<float*>(a.At(partial_at));

  // Head: the logits of a chunk once more, their gradient, and both products.
  auto* logits = static_cast<float*>(a.At(logits_at));
  auto* normed = static_cast<std::byte*>(m.saved.At(m.normed));
  auto* dhead = static_cast<std::byte*>(a.At(dhead_at));
  for (int64_t r = 0; r < rows; r += chunk) {
    const int64_t c = std::min(chunk, rows - r);
    ops::LinearToFloat(m.launch, normed + m.T(r * h), w(table.lm_head()), c, v, h, logits);
    kernels::TokenLogprobBackward(m.launch, logits, batch.targets.data() + r, m.lse.data() + r,
                                  g_entropy.empty() ? nullptr : m.entropy.data() + r, g_logprob.data() + r,
                                  g_entropy.empty() ? nullptr : g_entropy.data() + r, c, v, m.kept_temperature,
                                  a.At(dlogits_at));
    ops::LinearBackwardInput(m.launch, a.At(dlogits_at), w(table.lm_head()), c, v, h, false, dhead + m.T(r * h));
    ops::LinearBackwardWeight(m.launch, a.At(dlogits_at), normed + m.T(r * h), c, v, h, g(table.lm_head()));
  }
  // Final norm on the scored rows, scattered back over all tokens.
  void* dx = a.At(dx_at);
  kernels::GatherRows(m.launch, m.saved.At(m.final_x), batch.rows.data(), rows, h, a.At(gathered_at));
  kernels::RmsNormBackward(m.launch, dhead, a.At(gathered_at), w(table.final_norm()), Impl::F(m.saved, m.final_rstd), rows,
                           h, false, a.At(dgathered_at), g(table.final_norm()), partial);
  std::memset(dx, 0, static_cast<size_t>(m.T(n * h)));
  kernels::ScatterRows(m.launch, a.At(dgathered_at), batch.rows.data(), rows, h, dx);

  void* norm = a.At(norm_at);
  void* dnorm = a.At(dnorm_at);
  for (int64_t l = m.shape.layers - 1; l >= 0; --l) {
    const LayerSlices& slice = table.layer(l);
    const Impl::LayerSaved& s = m.layers[static_cast<size_t>(l)];
    // Feed-forward: dx is the gradient of the layer's output, and of `mid` through the residual.
    void* gate_up = m.saved.At(s.gate_up);
    kernels::SwigluForward(m.launch, gate_up, n, f, a.At(act_at));
    ops::LinearBackwardWeight(m.launch, dx, a.At(act_at), n, h, f, g(slice.down));
    ops::LinearBackwardInput(m.launch, dx, w(slice.down), n, h, f, false, a.At(dact_at));
    kernels::SwigluBackward(m.launch, a.At(dact_at), gate_up, n, f, gate_up);
    kernels::RmsNormForward(m.launch, m.saved.At(s.mid), w(slice.post_norm), n, h, m.Eps(), norm, nullptr);
    ops::LinearBackwardWeight(m.launch, gate_up, norm, n, 2 * f, h, g(slice.gate_up));
    ops::LinearBackwardInput(m.launch, gate_up, w(slice.gate_up), n, 2 * f, h, false, dnorm);
    kernels::RmsNormBackward(m.launch, dnorm, m.saved.At(s.mid), w(slice.post_norm), Impl::F(m.saved, s.rstd2), n, h, true,
                             dx, g(slice.post_norm), partial);
    // Attention.
    ops::LinearBackwardWeight(m.launch, dx, m.saved.At(s.attn), n, h, q, g(slice.o));
    ops::LinearBackwardInput(m.launch, dx, w(slice.o), n, h, q, false, a.At(dattn_at));
    void* dqkv = a.At(dqkv_at);
    kernels::AttentionVarlenBackward(m.launch, varlen, a.At(dattn_at), m.saved.At(s.qkv), m.saved.At(s.attn),
                                     Impl::F(m.saved, s.lse), dqkv, static_cast<float*>(a.At(varlen_at)));
    kernels::RopeInPlace(m.launch, dqkv, batch.positions.data(), m.cos_sin.f32(), n, varlen.heads, varlen.kv_heads,
                         varlen.head_dim, true);
    if (slice.qkv_bias >= 0) kernels::BiasBackward(m.launch, dqkv, n, m.shape.qkv_width(), g(slice.qkv_bias));
    kernels::RmsNormForward(m.launch, m.saved.At(s.x), w(slice.input_norm), n, h, m.Eps(), norm, nullptr);
    ops::LinearBackwardWeight(m.launch, dqkv, norm, n, m.shape.qkv_width(), h, g(slice.qkv));
    ops::LinearBackwardInput(m.launch, dqkv, w(slice.qkv), n, m.shape.qkv_width(), h, false, dnorm);
    kernels::RmsNormBackward(m.launch, dnorm, m.saved.At(s.x), w(slice.input_norm), Impl::F(m.saved, s.rstd1), n, h, true,
                             dx, g(slice.input_norm), partial);
  }
  kernels::ScatterAddRows(m.launch, dx, batch.tokens.data(), n, h, g(table.embedding()));
  m.kept_tokens = -1;  // the saved gate_up was overwritten: one Backward a Forward
}

void Transformer::Logits(const Weights& weights, const PackedBatch& batch, std::span<float> out) {
  Impl& m = *impl_;
  const auto rows = static_cast<int64_t>(batch.rows.size());
  PLUMB_CHECK(static_cast<int64_t>(out.size()) == rows * m.shape.vocab);
  m.kept_tokens = -1;
  if (rows == 0) return;
  m.CheckBatch(batch);
  m.Trunk(weights, batch, false);
  ops::LinearToFloat(m.launch, m.saved.At(m.normed), weights.flat().at(weights.table().lm_head()), rows, m.shape.vocab,
                     m.H(), out.data());
}

const float* Transformer::ForwardPaged(const Weights& weights, std::span<const int32_t> tokens,
                                       const kernels::PagedRows& rows, const kernels::PagedKv& kv,
                                       std::span<const int32_t> logit_rows) {
  Impl& m = *impl_;
  PLUMB_CHECK(tokens.size() == static_cast<size_t>(rows.rows) && rows.rows > 0);
  const int64_t n = rows.rows, h = m.H(), f = m.shape.ffn;
  const auto outputs = static_cast<int64_t>(logit_rows.size());
  Arena& a = m.paged;
  a.Begin();
  const int64_t x_at = a.Take(m.T(n * h)), norm_at = a.Take(m.T(n * h));
  const int64_t qkv_at = a.Take(m.T(n * m.shape.qkv_width())), attn_at = a.Take(m.T(n * m.Q()));
  const int64_t gate_up_at = a.Take(m.T(n * 2 * f)), act_at = a.Take(m.T(n * f));
  const int64_t gathered_at = a.Take(m.T(outputs * h)), logits_at = a.Take(4 * outputs * m.shape.vocab);
  a.Commit();
  void* x = a.At(x_at);
  void* norm = a.At(norm_at);
  void* qkv = a.At(qkv_at);
  void* attn = a.At(attn_at);
  const TensorTable& table = weights.table();
  const auto heads = static_cast<int32_t>(m.shape.heads);
  kernels::GatherRows(m.launch, weights.flat().at(table.embedding()), tokens.data(), n, h, x);
  for (int64_t l = 0; l < m.shape.layers; ++l) {
    const LayerSlices& slice = table.layer(l);
    const auto w = [&](int64_t offset) { return weights.flat().at(offset); };
    kernels::RmsNormForward(m.launch, x, w(slice.input_norm), n, h, m.Eps(), norm, nullptr);
    ops::LinearRows(m.launch, norm, w(slice.qkv), n, m.shape.qkv_width(), h, false, qkv);
    if (slice.qkv_bias >= 0) kernels::AddBias(m.launch, qkv, w(slice.qkv_bias), n, m.shape.qkv_width());
    kernels::RopeAndWriteKv(m.launch, qkv, rows, m.cos_sin.f32(), heads, static_cast<int32_t>(l), kv);
    kernels::AttentionPaged(m.launch, qkv, m.shape.qkv_width(), rows, heads, static_cast<int32_t>(l), kv, attn);
    ops::LinearRows(m.launch, attn, w(slice.o), n, h, m.Q(), true, x);
    kernels::RmsNormForward(m.launch, x, w(slice.post_norm), n, h, m.Eps(), norm, nullptr);
    ops::LinearRows(m.launch, norm, w(slice.gate_up), n, 2 * f, h, false, a.At(gate_up_at));
    kernels::SwigluForward(m.launch, a.At(gate_up_at), n, f, a.At(act_at));
    ops::LinearRows(m.launch, a.At(act_at), w(slice.down), n, h, f, true, x);
  }
  auto* logits = static_cast<float*>(a.At(logits_at));
  if (outputs == 0) return logits;
  void* gathered = a.At(gathered_at);
  kernels::GatherRows(m.launch, x, logit_rows.data(), outputs, h, gathered);
  kernels::RmsNormForward(m.launch, gathered, weights.flat().at(table.final_norm()), outputs, h, m.Eps(), gathered,
                          nullptr);
  ops::LinearRowsToFloat(m.launch, gathered, weights.flat().at(table.lm_head()), outputs, m.shape.vocab, h, logits);
  return logits;
}

}  // namespace plumb::policy_model
