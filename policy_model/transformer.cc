#include "policy_model/transformer.h"

#include <algorithm>
#include <vector>

#include "common/error.h"
#include "common/kept_tokens.h"
#include "kernels/attention_paged.h"
#include "kernels/embedding.h"
#include "kernels/rms_norm.h"
#include "kernels/rope.h"
#include "kernels/swiglu.h"
#include "kernels/token_logprob.h"
#include "kernels/token_mask.h"
#include "policy_model/arena.h"
#include "policy_model/attention.h"
#include "policy_model/ops.h"
#include "policy_model/staging.h"

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
  FlatBuffer unused;          // int32: shape.unused_tokens
  Arena saved, scratch, paged;

  // Saved by Forward(keep): offsets into `saved`, a layer's at [l]; T = tokens.
  struct LayerSaved {
    int64_t x;       // T[T, H] input of the layer
    int64_t rstd1;   // float[T]
    int64_t qkv;     // T[T, qkv] after the rotation
    int64_t attn;    // T[T, Nq D]
    int64_t lse;     // float[AttentionLseElements]
    int64_t mid;     // T[T, H] after attention's residual
    int64_t rstd2;   // float[T]
    int64_t gate_up; // T[T, 2F]
  };
  std::vector<LayerSaved> layers;
  int64_t final_x = 0, final_rstd = 0, normed = 0;  // normed: T[R, H] rows that the head sees
  int64_t logprob = 0, entropy = 0, lse = 0;        // float[R] each
  int64_t kept_tokens = -1, kept_rows = -1, last_rows = -1;
  float kept_temperature = 1;
  bool kept_entropy = false;

  // A call's small arrays in the device's memory.
  Staging staging;
  Staging set_staging;
  std::vector<uint32_t>
      drawn_sets;  // [rows, SetWords(vocab)] of a chunk of rows: what their targets were drawn from
  std::vector<int32_t> seen, cu_seen, places, place_begins;  // see AttentionShape; CUDA only
  struct Indices {
    const int32_t *tokens, *positions, *cu_seqlens, *rows, *targets, *seen, *cu_seen, *places, *place_begins;
    const float *g_first, *g_second, *g_third;
  };

  Impl(const ModelShape& s, Device d, DType t)
      : shape(s),
        device(d),
        dtype(t),
        launch{.device = d, .dtype = t},
        element(ElementSize(t)),
        cos_sin(d, DType::kFloat32, s.max_positions * s.head_dim),
        unused(d, DType::kInt32, static_cast<int64_t>(s.unused_tokens.size())),
        saved(d),
        scratch(d),
        paged(d),
        layers(static_cast<size_t>(s.layers)),
        staging(d),
        set_staging(d) {
    if (s.layers < 1) throw Error(ErrorCode::kInvalidArgument, "a model without layers cannot be run");
    if (d != Device::kCpu && !kernels::CudaAvailable()) {
      throw Error(ErrorCode::kUnsupported, "this build or machine has no CUDA device: use run.device = \"cpu\"");
    }
    std::vector<float> table(static_cast<size_t>(s.max_positions * s.head_dim));
    kernels::RopeTable(s.max_positions, s.head_dim, s.rope_theta, table.data());
    cos_sin.CopyFromHost(std::as_bytes(std::span<const float>(table)));
    if (!s.unused_tokens.empty())
      unused.CopyFromHost(std::as_bytes(std::span<const int32_t>(s.unused_tokens)));
  }

  int64_t T(int64_t elements) const { return elements * static_cast<int64_t>(element); }
  int64_t H() const { return shape.hidden; }
  int64_t Q() const { return shape.heads * shape.head_dim; }

  // `g_first`, `g_second` and `g_third`: gradients by row of a backward, or empty.
  Indices Stage(const PackedBatch& batch, std::span<const float> g_first = {}, std::span<const float> g_second = {},
                std::span<const float> g_third = {}) {
    staging.Begin();
    const int tokens = staging.Add(std::span<const int32_t>(batch.tokens));
    const int positions = staging.Add(std::span<const int32_t>(batch.positions));
    const int cu_seqlens = staging.Add(std::span<const int32_t>(batch.cu_seqlens));
    const int rows = staging.Add(std::span<const int32_t>(batch.rows));
    const int targets = staging.Add(std::span<const int32_t>(batch.targets));
    ListSeen(batch);
    const int seen_at = staging.Add(std::span<const int32_t>(seen)), cu_seen_at = staging.Add(std::span<const int32_t>(cu_seen));
    const int places_at = staging.Add(std::span<const int32_t>(places));
    const int place_begins_at = staging.Add(std::span<const int32_t>(place_begins));
    const int first = staging.Add(g_first), second = staging.Add(g_second), third = staging.Add(g_third);
    staging.Commit();
    return {staging.Ints(tokens), staging.Ints(positions), staging.Ints(cu_seqlens), staging.Ints(rows),
            staging.Ints(targets), staging.Ints(seen_at), staging.Ints(cu_seen_at), staging.Ints(places_at), staging.Ints(place_begins_at),
            g_first.empty() ? nullptr : staging.Floats(first),
            g_second.empty() ? nullptr : staging.Floats(second), g_third.empty() ? nullptr : staging.Floats(third)};
  }

  void ListSeen(const PackedBatch& batch) {
    for (auto* list : {&seen, &cu_seen, &places, &place_begins}) list->clear();
    if (device == Device::kCpu || !batch.shares()) return;
    cu_seen.push_back(0);
    const auto add = [&](size_t b) {
      for (int32_t i = batch.cu_seqlens[b]; i < batch.cu_seqlens[b + 1]; ++i) seen.push_back(i);
    };
    for (size_t b = 0; b < batch.parents.size(); ++b) {
      if (batch.parents[b] >= 0) add(static_cast<size_t>(batch.parents[b]));
      add(b);
      cu_seen.push_back(static_cast<int32_t>(seen.size()));
    }
    place_begins.assign(batch.tokens.size() + 1, 0);
    for (const int32_t token : seen) ++place_begins[static_cast<size_t>(token)];
    for (size_t t = 1; t < place_begins.size(); ++t) place_begins[t] += place_begins[t - 1];  // now each token's end
    places.resize(seen.size());
    for (size_t i = seen.size(); i-- > 0;) {
      places[static_cast<size_t>(--place_begins[static_cast<size_t>(seen[i])])] = static_cast<int32_t>(i);
    }
  }

  // The values in the model's type, in whole words for the staging area.
  std::vector<float> Rounded(std::span<const float> values) const {
    std::vector<float> words((values.size() * element + 3) / 4);
    ConvertFloat(values, dtype, words.data());
    return words;
  }

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

  // Leaves of the logits of the batch's rows [first, first + rows) what the tokens were drawn from.
  void KeepDrawn(const PackedBatch& batch, float* logits, int64_t first, int64_t rows) {
    if (!batch.filtered) return;
    const int64_t words = kernels::SetWords(shape.vocab);
    drawn_sets.resize(static_cast<size_t>(rows * words));
    for (int64_t r = 0; r < rows; ++r) {
      UnpackKeptTokens(batch.kept[static_cast<size_t>(first + r)], shape.vocab,
                       std::span(drawn_sets)
                           .subspan(static_cast<size_t>(r * words), static_cast<size_t>(words)));
    }
    set_staging.Begin();
    const int at = set_staging.Add(
        std::span(reinterpret_cast<const int32_t*>(drawn_sets.data()), drawn_sets.size()));
    set_staging.Commit();
    kernels::KeepTokens(launch, logits, rows, shape.vocab,
                        reinterpret_cast<const uint32_t*>(set_staging.Ints(at)));
  }

  // What of a head's product is a distribution over tokens.
  void DropUnused(float* logits, int64_t rows) const {
    if (unused.elements() == 0) return;
    kernels::DropTokens(launch, logits, rows, shape.vocab,
                        static_cast<const int32_t*>(unused.data()), unused.elements());
  }

  void CheckTargets(const PackedBatch& batch) const {
    if (shape.unused_tokens.empty()) return;
    for (int32_t t : batch.targets) {
      if (!std::binary_search(shape.unused_tokens.begin(), shape.unused_tokens.end(), t)) continue;
      throw Error(ErrorCode::kInvalidArgument,
                  "token id " + std::to_string(t) +
                      " is no token of this model's tokenizer: it has no log-prob");
    }
  }

  AttentionShape Varlen(const PackedBatch& batch, const Indices& at) const {
    return {{.tokens = batch.size(), .sequences = batch.sequences(), .cu_seqlens = at.cu_seqlens,
             .parents = batch.shares() ? batch.parents.data() : nullptr, .max_seqlen = batch.max_seqlen,
             .heads = static_cast<int32_t>(shape.heads), .kv_heads = static_cast<int32_t>(shape.kv_heads),
             .head_dim = static_cast<int32_t>(shape.head_dim)},
            static_cast<int64_t>(seen.size()), at.seen, at.cu_seen, at.places, at.place_begins};
  }

  // Everything up to the final hidden states; what is not kept shares one layer's memory.
  void Trunk(const Weights& w, const PackedBatch& batch, bool keep) {
    const int64_t n = batch.size(), h = H();
    const Indices at = Stage(batch);
    const AttentionShape varlen = Varlen(batch, at);
    const int64_t lse_elements = AttentionLseElements(launch, varlen);
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
      s.lse = saved.Take(4 * lse_elements);
      s.mid = saved.Take(T(n * h));
      s.rstd2 = saved.Take(4 * n);
      s.gate_up = saved.Take(T(n * 2 * shape.ffn));
    }
    final_x = keep ? saved.Take(T(n * h)) : -1;
    final_rstd = saved.Take(4 * n);
    const auto rows = static_cast<int64_t>(batch.rows.size());
    normed = saved.Take(T(rows * h));
    logprob = saved.Take(4 * rows);
    entropy = saved.Take(4 * rows);
    lse = saved.Take(4 * rows);
    saved.Commit();
    scratch.Begin();
    const int64_t norm_at = scratch.Take(T(n * h)), act_at = scratch.Take(T(n * shape.ffn));
    const int64_t gathered_at = scratch.Take(T(rows * h));
    scratch.Commit();
    void* norm = scratch.At(norm_at);
    void* act = scratch.At(act_at);

    void* x = saved.At(layers[0].x);
    kernels::GatherRows(launch, w.flat().at(table.embedding()), at.tokens, n, h, x);
    for (size_t l = 0; l < layers.size(); ++l) {
      const LayerSlices& slice = table.layer(static_cast<int64_t>(l));
      const LayerSaved& s = layers[l];
      kernels::RmsNormForward(launch, x, w.flat().at(slice.input_norm), n, h, Eps(), norm, F(saved, s.rstd1));
      void* qkv = saved.At(s.qkv);
      ops::Linear(launch, norm, w.flat().at(slice.qkv), n, shape.qkv_width(), h, false, qkv);
      if (slice.qkv_bias >= 0) kernels::AddBias(launch, qkv, w.flat().at(slice.qkv_bias), n, shape.qkv_width());
      kernels::RopeInPlace(launch, qkv, at.positions, cos_sin.f32(), n, varlen.heads, varlen.kv_heads,
                           varlen.head_dim, false);
      AttentionForward(launch, varlen, qkv, saved.At(s.attn), F(saved, s.lse));
      void* mid = keep ? saved.At(s.mid) : x;  // without a backward the residual stream stays in place
      if (keep) ops::Copy(launch, x, static_cast<size_t>(T(n * h)), mid);
      ops::Linear(launch, saved.At(s.attn), w.flat().at(slice.o), n, h, Q(), true, mid);
      kernels::RmsNormForward(launch, mid, w.flat().at(slice.post_norm), n, h, Eps(), norm, F(saved, s.rstd2));
      ops::Linear(launch, norm, w.flat().at(slice.gate_up), n, 2 * shape.ffn, h, false, saved.At(s.gate_up));
      kernels::SwigluForward(launch, saved.At(s.gate_up), n, shape.ffn, act);
      void* next = !keep ? x : saved.At(l + 1 < layers.size() ? layers[l + 1].x : final_x);
      if (keep) ops::Copy(launch, mid, static_cast<size_t>(T(n * h)), next);
      ops::Linear(launch, act, w.flat().at(slice.down), n, h, shape.ffn, true, next);
      x = next;
    }
    // Only the rows that are scored go on to the final norm and the head.
    void* gathered = scratch.At(gathered_at);
    kernels::GatherRows(launch, x, at.rows, rows, h, gathered);
    kernels::RmsNormForward(launch, gathered, w.flat().at(table.final_norm()), rows, h, Eps(), saved.At(normed),
                            F(saved, final_rstd));
  }

  struct BackwardPlan;
  BackwardPlan PlanBackward(const PackedBatch& batch, const Indices& at, int64_t chunk);
  void TrunkBackward(const Weights& weights, const PackedBatch& batch, const BackwardPlan& plan, FlatBuffer& grad);

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
  PLUMB_CHECK(!m.shape.scalar_head, "a model with a scalar head has no log-probs");
  PLUMB_CHECK(static_cast<int64_t>(logprob.size()) == rows);
  PLUMB_CHECK(!options.entropy || static_cast<int64_t>(entropy.size()) == rows);
  m.kept_tokens = -1;
  m.last_rows = rows;
  if (rows == 0) return;
  m.CheckBatch(batch);
  m.CheckTargets(batch);
  m.Trunk(weights, batch, keep);
  const Impl::Indices at = m.Stage(batch);
  const int64_t v = m.shape.vocab, h = m.H(), chunk = m.ChunkRows(rows);
  m.scratch.Begin();
  const int64_t logits_at = m.scratch.Take(4 * chunk * v);
  m.scratch.Commit();
  float* logits = Impl::F(m.scratch, logits_at);
  float* device_logprob = Impl::F(m.saved, m.logprob);
  float* device_entropy = Impl::F(m.saved, m.entropy);
  float* lse = Impl::F(m.saved, m.lse);
  const auto* normed = static_cast<const std::byte*>(m.saved.At(m.normed));
  for (int64_t r = 0; r < rows; r += chunk) {
    const int64_t n = std::min(chunk, rows - r);
    ops::LinearToFloat(m.launch, normed + m.T(r * h), weights.flat().at(weights.table().lm_head()), n, v, h, logits);
    m.DropUnused(logits, n);
    m.KeepDrawn(batch, logits, r, n);
    kernels::TokenLogprobForward(m.launch, logits, at.targets + r, n, v, options.temperature, device_logprob + r,
                                 device_entropy + r, lse + r);
  }
  ops::CopyToHost(m.launch, device_logprob, logprob.size_bytes(), logprob.data());
  if (options.entropy) ops::CopyToHost(m.launch, device_entropy, entropy.size_bytes(), entropy.data());
  if (keep) {
    m.kept_tokens = batch.size();
    m.kept_rows = rows;
    m.kept_temperature = options.temperature;
  }
}

void Transformer::HeadValues(const Weights& head, std::span<float> values) {
  Impl& m = *impl_;
  const auto rows = static_cast<int64_t>(values.size());
  if (rows == 0) return;
  PLUMB_CHECK(m.last_rows == rows, "HeadValues needs a Forward of the same batch");
  PLUMB_CHECK(head.shape().hidden == m.H() && head.flat().dtype() == m.dtype, "a head of this model");
  float* out = Impl::F(m.saved, m.logprob);  // the log-probs are with the caller already
  ops::LinearToFloat(m.launch, m.saved.At(m.normed), head.flat().at(head.table().score()), rows, 1, m.H(), out);
  ops::CopyToHost(m.launch, out, values.size_bytes(), values.data());
}

void Transformer::ForwardValues(const Weights& weights, const PackedBatch& batch, bool keep, std::span<float> values) {
  Impl& m = *impl_;
  const auto rows = static_cast<int64_t>(batch.rows.size());
  PLUMB_CHECK(m.shape.scalar_head, "values need a model with a scalar head");
  PLUMB_CHECK(static_cast<int64_t>(values.size()) == rows);
  m.kept_tokens = -1;
  if (rows == 0) return;
  m.CheckBatch(batch);
  m.Trunk(weights, batch, keep);
  float* out = Impl::F(m.saved, m.logprob);
  ops::LinearToFloat(m.launch, m.saved.At(m.normed), weights.flat().at(weights.table().score()), rows, 1, m.H(), out);
  ops::CopyToHost(m.launch, out, values.size_bytes(), values.data());
  if (keep) {
    m.kept_tokens = batch.size();
    m.kept_rows = rows;
  }
}

// The gradients that head and trunk pass each other, planned together so that a micro-batch needs one arena.
struct Transformer::Impl::BackwardPlan {
  AttentionShape varlen;
  Indices at;
  int64_t dx, norm, dnorm, dattn, dqkv, act, dact, partial, varlen_scratch, gathered, dgathered;
  int64_t dhead;            // T[R, H], the gradient of `normed`
  int64_t logits, dlogits;  // of a chunk of rows
};

Transformer::Impl::BackwardPlan Transformer::Impl::PlanBackward(const PackedBatch& batch, const Indices& at, int64_t chunk) {
  const int64_t n = batch.size(), h = H(), f = shape.ffn, q = Q();
  const auto rows = static_cast<int64_t>(batch.rows.size());
  BackwardPlan p;
  p.at = at;
  p.varlen = Varlen(batch, at);
  Arena& a = scratch;
  a.Begin();
  p.dx = a.Take(T(n * h));
  p.norm = a.Take(T(n * h));
  p.dnorm = a.Take(T(n * h));
  p.dattn = a.Take(T(n * q));
  p.dqkv = a.Take(T(n * shape.qkv_width()));
  p.act = a.Take(T(n * f));
  p.dact = a.Take(T(n * f));
  p.partial = a.Take(4 * kernels::kRmsNormScratchRows * h);
  p.varlen_scratch = a.Take(device == Device::kCpu ? 4 * kernels::AttentionVarlenScratch(p.varlen) : 0);
  p.logits = a.Take(4 * chunk * shape.vocab);
  p.dlogits = a.Take(T(chunk * shape.vocab));
  p.dhead = a.Take(T(rows * h));
  p.gathered = a.Take(T(rows * h));
  p.dgathered = a.Take(T(rows * h));
  a.Commit();
  return p;
}

void Transformer::Backward(const Weights& weights, const PackedBatch& batch, std::span<const float> g_logprob,
                           std::span<const float> g_entropy, FlatBuffer& grad, const SharedHead* shared) {
  Impl& m = *impl_;
  const int64_t h = m.H(), v = m.shape.vocab;
  const auto rows = static_cast<int64_t>(batch.rows.size());
  if (rows == 0) return;
  PLUMB_CHECK(m.kept_tokens == batch.size() && m.kept_rows == rows, "Backward needs Forward(keep = true) of the same batch");
  PLUMB_CHECK(static_cast<int64_t>(g_logprob.size()) == rows);
  const int64_t head = weights.table().lm_head(), chunk = m.ChunkRows(rows);
  std::vector<float> g_values;
  if (shared) {
    PLUMB_CHECK(static_cast<int64_t>(shared->g_values.size()) == rows);
    g_values = m.Rounded(shared->g_values);
  }
  const Impl::BackwardPlan p = m.PlanBackward(batch, m.Stage(batch, g_logprob, g_entropy, g_values), chunk);

  // Head: the logits of a chunk once more, their gradient, and both products.
  Arena& a = m.scratch;
  float* logits = Impl::F(a, p.logits);
  auto* normed = static_cast<std::byte*>(m.saved.At(m.normed));
  auto* dhead = static_cast<std::byte*>(a.At(p.dhead));
  const float* lse = Impl::F(m.saved, m.lse);
  const float* entropy = p.at.g_second ? Impl::F(m.saved, m.entropy) : nullptr;
  for (int64_t r = 0; r < rows; r += chunk) {
    const int64_t c = std::min(chunk, rows - r);
    ops::LinearToFloat(m.launch, normed + m.T(r * h), weights.flat().at(head), c, v, h, logits);
    m.DropUnused(logits, c);
    m.KeepDrawn(batch, logits, r, c);
    kernels::TokenLogprobBackward(m.launch, logits, p.at.targets + r, lse + r, entropy ? entropy + r : nullptr,
                                  p.at.g_first + r, entropy ? p.at.g_second + r : nullptr, c, v, m.kept_temperature,
                                  a.At(p.dlogits));
    ops::LinearBackwardInput(m.launch, a.At(p.dlogits), weights.flat().at(head), c, v, h, false, dhead + m.T(r * h));
    ops::LinearBackwardWeight(m.launch, a.At(p.dlogits), normed + m.T(r * h), c, v, h, grad.f32() + head);
  }
  if (shared) {
    const int64_t score = shared->head->table().score();
    ops::LinearBackwardInput(m.launch, p.at.g_third, shared->head->flat().at(score), rows, 1, h, true, dhead);
    ops::LinearBackwardWeight(m.launch, p.at.g_third, normed, rows, 1, h, shared->grad->f32() + score);
  }
  m.TrunkBackward(weights, batch, p, grad);
}

void Transformer::BackwardValues(const Weights& weights, const PackedBatch& batch, std::span<const float> g_values,
                                 FlatBuffer& grad) {
  Impl& m = *impl_;
  const auto rows = static_cast<int64_t>(batch.rows.size());
  if (rows == 0) return;
  PLUMB_CHECK(m.shape.scalar_head, "values need a model with a scalar head");
  PLUMB_CHECK(m.kept_tokens == batch.size() && m.kept_rows == rows,
              "BackwardValues needs ForwardValues(keep = true) of the same batch");
  PLUMB_CHECK(static_cast<int64_t>(g_values.size()) == rows);
  // The head is a product with one column; its gradient in the model's type.
  const std::vector<float> words = m.Rounded(g_values);
  const int64_t score = weights.table().score();
  const Impl::BackwardPlan p = m.PlanBackward(batch, m.Stage(batch, words), 0);
  ops::LinearBackwardInput(m.launch, p.at.g_first, weights.flat().at(score), rows, 1, m.H(), false, m.scratch.At(p.dhead));
  ops::LinearBackwardWeight(m.launch, p.at.g_first, m.saved.At(m.normed), rows, 1, m.H(), grad.f32() + score);
  m.TrunkBackward(weights, batch, p, grad);
}

// From the gradient of the normed rows down to the embedding.
void Transformer::Impl::TrunkBackward(const Weights& weights, const PackedBatch& batch, const BackwardPlan& p,
                                      FlatBuffer& grad) {
  const int64_t n = batch.size(), h = H(), f = shape.ffn, q = Q();
  const auto rows = static_cast<int64_t>(batch.rows.size());
  const TensorTable& table = weights.table();
  const auto g = [&](int64_t offset) { return grad.f32() + offset; };
  const auto w = [&](int64_t offset) { return weights.flat().at(offset); };
  Arena& a = scratch;
  float* partial = F(a, p.partial);
  // Final norm on the scored rows, scattered back over all tokens.
  void* dx = a.At(p.dx);
  kernels::GatherRows(launch, saved.At(final_x), p.at.rows, rows, h, a.At(p.gathered));
  kernels::RmsNormBackward(launch, a.At(p.dhead), a.At(p.gathered), w(table.final_norm()), F(saved, final_rstd), rows,
                           h, false, a.At(p.dgathered), g(table.final_norm()), partial);
  ops::Zero(launch, dx, static_cast<size_t>(T(n * h)));
  kernels::ScatterRows(launch, a.At(p.dgathered), p.at.rows, rows, h, dx);

  void* norm = a.At(p.norm);
  void* dnorm = a.At(p.dnorm);
  for (int64_t l = shape.layers - 1; l >= 0; --l) {
    const LayerSlices& slice = table.layer(l);
    const LayerSaved& s = layers[static_cast<size_t>(l)];
    // Feed-forward: dx is the gradient of the layer's output, and of `mid` through the residual.
    void* gate_up = saved.At(s.gate_up);
    kernels::SwigluForward(launch, gate_up, n, f, a.At(p.act));
    ops::LinearBackwardWeight(launch, dx, a.At(p.act), n, h, f, g(slice.down));
    ops::LinearBackwardInput(launch, dx, w(slice.down), n, h, f, false, a.At(p.dact));
    kernels::SwigluBackward(launch, a.At(p.dact), gate_up, n, f, gate_up);
    kernels::RmsNormForward(launch, saved.At(s.mid), w(slice.post_norm), n, h, Eps(), norm, nullptr);
    ops::LinearBackwardWeight(launch, gate_up, norm, n, 2 * f, h, g(slice.gate_up));
    ops::LinearBackwardInput(launch, gate_up, w(slice.gate_up), n, 2 * f, h, false, dnorm);
    kernels::RmsNormBackward(launch, dnorm, saved.At(s.mid), w(slice.post_norm), F(saved, s.rstd2), n, h, true,
                             dx, g(slice.post_norm), partial);
    // Attention.
    ops::LinearBackwardWeight(launch, dx, saved.At(s.attn), n, h, q, g(slice.o));
    ops::LinearBackwardInput(launch, dx, w(slice.o), n, h, q, false, a.At(p.dattn));
    void* dqkv = a.At(p.dqkv);
    AttentionBackward(launch, p.varlen, a.At(p.dattn), saved.At(s.qkv), saved.At(s.attn),
                                     F(saved, s.lse), dqkv, static_cast<float*>(a.At(p.varlen_scratch)));
    kernels::RopeInPlace(launch, dqkv, p.at.positions, cos_sin.f32(), n, p.varlen.heads, p.varlen.kv_heads,
                         p.varlen.head_dim, true);
    if (slice.qkv_bias >= 0) kernels::BiasBackward(launch, dqkv, n, shape.qkv_width(), g(slice.qkv_bias));
    kernels::RmsNormForward(launch, saved.At(s.x), w(slice.input_norm), n, h, Eps(), norm, nullptr);
    ops::LinearBackwardWeight(launch, dqkv, norm, n, shape.qkv_width(), h, g(slice.qkv));
    ops::LinearBackwardInput(launch, dqkv, w(slice.qkv), n, shape.qkv_width(), h, false, dnorm);
    kernels::RmsNormBackward(launch, dnorm, saved.At(s.x), w(slice.input_norm), F(saved, s.rstd1), n, h, true,
                             dx, g(slice.input_norm), partial);
  }
  kernels::ScatterAddRows(launch, dx, p.at.tokens, n, h, g(table.embedding()));
  kept_tokens = -1;  // the saved gate_up was overwritten: one Backward a Forward
}

void Transformer::Logits(const Weights& weights, const PackedBatch& batch, std::span<float> out) {
  Impl& m = *impl_;
  const auto rows = static_cast<int64_t>(batch.rows.size());
  const int64_t v = m.shape.vocab, h = m.H(), chunk = m.ChunkRows(rows);
  PLUMB_CHECK(!m.shape.scalar_head, "a model with a scalar head has no logits");
  PLUMB_CHECK(static_cast<int64_t>(out.size()) == rows * v);
  m.kept_tokens = -1;
  if (rows == 0) return;
  m.CheckBatch(batch);
  m.Trunk(weights, batch, false);
  m.scratch.Begin();
  const int64_t logits_at = m.scratch.Take(4 * chunk * v);
  m.scratch.Commit();
  const auto* normed = static_cast<const std::byte*>(m.saved.At(m.normed));
  for (int64_t r = 0; r < rows; r += chunk) {
    const int64_t n = std::min(chunk, rows - r);
    float* logits = Impl::F(m.scratch, logits_at);
    ops::LinearToFloat(m.launch, normed + m.T(r * h), weights.flat().at(weights.table().lm_head()), n, v, h, logits);
    m.DropUnused(logits, n);
    ops::CopyToHost(m.launch, logits, static_cast<size_t>(4 * n * v), out.data() + r * v);
  }
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
  m.staging.Begin();
  const int tokens_at = m.staging.Add(tokens), outputs_at = m.staging.Add(logit_rows);
  m.staging.Commit();
  const TensorTable& table = weights.table();
  const auto heads = static_cast<int32_t>(m.shape.heads);
  kernels::GatherRows(m.launch, weights.flat().at(table.embedding()), m.staging.Ints(tokens_at), n, h, x);
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
  kernels::GatherRows(m.launch, x, m.staging.Ints(outputs_at), outputs, h, gathered);
  kernels::RmsNormForward(m.launch, gathered, weights.flat().at(table.final_norm()), outputs, h, m.Eps(), gathered,
                          nullptr);
  ops::LinearRowsToFloat(m.launch, gathered, weights.flat().at(table.lm_head()), outputs, m.shape.vocab, h, logits);
  m.DropUnused(logits, outputs);
  return logits;
}

}  // namespace plumb::policy_model
