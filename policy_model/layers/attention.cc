#include "policy_model/layers/attention.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <optional>

#include "common/base/error.h"
#include "kernels/attention/packed_attention.h"
#include "kernels/attention/tensor_attention.h"
#include "kernels/embedding.h"
#include "kernels/products/row_product.h"
#include "kernels/rope.h"
#include "kernels/sparse/attention_window.h"
#include "kernels/sparse/chosen_attention.h"
#include "policy_model/memory/torch_stream.h"

namespace plumb::policy_model {
namespace {

using kernels::Launch;

// mask type of the memory-efficient operators: the last query sees the last key
constexpr int64_t kCausalFromBottomRight = 2;
constexpr int64_t kLseAlign = 32;  // they pad the rows of a sequence to this

at::TensorOptions Options(const Launch& launch, at::ScalarType type) {
  return at::TensorOptions().dtype(type).device(TorchDevice(launch.device()));
}

at::ScalarType TypeOf(const Launch& launch) {
  return launch.dtype == DType::kFloat32 ? at::kFloat : at::kBFloat16;
}

// [T, heads, D] of the merged rows, from head `first` on; strided.
at::Tensor Heads(const Launch& launch, const AttentionShape& s, const void* qkv, int64_t first,
                 int64_t heads) {
  const int64_t width = int64_t{s.heads + 2 * s.kv_heads} * s.head_dim;
  const at::Tensor all =
      at::from_blob(const_cast<void*>(qkv), {s.tokens, width}, Options(launch, TypeOf(launch)));
  return all.narrow(1, first * s.head_dim, heads * s.head_dim)
      .unflatten(1, {heads, int64_t{s.head_dim}});
}

at::Tensor Rows(const Launch& launch, const AttentionShape& s, const void* out) {
  return at::from_blob(const_cast<void*>(out), {s.tokens, s.heads, s.head_dim},
                       Options(launch, TypeOf(launch)));
}

at::Tensor Lengths(const Launch& launch, const AttentionShape& s) {
  return at::from_blob(const_cast<int32_t*>(s.cu_seqlens), {s.sequences + 1},
                       Options(launch, at::kInt));
}

// The queries are the tokens of a sequence, its keys and values those that it sees; both causal
// from the end.
at::Tensor KeyLengths(const Launch& launch, const AttentionShape& s) {
  return s.parents ? at::from_blob(const_cast<int32_t*>(s.cu_seen), {s.sequences + 1},
                                   Options(launch, at::kInt))
                   : Lengths(launch, s);
}

// Keys and values of the tokens that each sequence sees: [K, Nkv, D] both.
std::pair<at::Tensor, at::Tensor> KeysAndValues(const Launch& launch, const AttentionShape& s,
                                                const void* qkv) {
  at::Tensor both = Heads(launch, s, qkv, s.heads, 2 * int64_t{s.kv_heads});
  if (s.parents)
    both = both.index_select(
        0, at::from_blob(const_cast<int32_t*>(s.seen), {s.all_seen}, Options(launch, at::kInt)));
  return {both.narrow(1, 0, s.kv_heads), both.narrow(1, s.kv_heads, s.kv_heads)};
}

// Their gradients, summed for each token that several sequences see, into heads `first` and on.
void PutGradient(const Launch& launch, const AttentionShape& s, const at::Tensor& rows,
                 int64_t first, void* dqkv) {
  const int64_t dim = s.head_dim, stride = int64_t{s.heads + 2 * s.kv_heads} * dim;
  auto* out =
      static_cast<std::byte*>(dqkv) + first * dim * static_cast<int64_t>(ElementSize(launch.dtype));
  kernels::Call(launch, kernels::SumRows{.d = rows.contiguous().const_data_ptr(),
                                         .index = s.places,
                                         .begins = s.place_begins,
                                         .rows = s.tokens,
                                         .width = s.kv_heads * dim,
                                         .out_stride = stride,
                                         .out = out});
}

int64_t PaddedLength(const kernels::VarlenShape& s) {
  return (s.max_seqlen + kLseAlign - 1) / kLseAlign * kLseAlign;
}

at::Tensor Lse(const Launch& launch, const AttentionShape& s, const float* lse) {
  auto* data = const_cast<float*>(lse);
  if (launch.dtype == DType::kFloat32) {
    return at::from_blob(data, {s.sequences, s.heads, PaddedLength(s)},
                         Options(launch, at::kFloat));
  }
  return at::from_blob(data, {s.heads, s.tokens}, Options(launch, at::kFloat));
}

// Each key and value head once for every query head of its group: [1, T, Nq, D].
at::Tensor Spread(const at::Tensor& kv, int64_t group) {
  const int64_t tokens = kv.size(0), heads = kv.size(1), dim = kv.size(2);
  return kv.unsqueeze(2)
      .expand({tokens, heads, group, dim})
      .reshape({1, tokens, heads * group, dim});
}

// Both operators refuse heads that are not whole 16 bytes. Zeros behind them change no product.
at::Tensor Filled(const at::Tensor& x) {
  const int64_t whole = 16 / static_cast<int64_t>(x.element_size()),
                more = (whole - x.size(-1) % whole) % whole;
  return more == 0 ? x : at::constant_pad_nd(x, {0, more});
}

double Scale(const AttentionShape& s) { return static_cast<double>(s.scale); }

// As LibTorch's flash attention counts a window: without the own token.
std::optional<int64_t> TokensBefore(const AttentionShape& s) {
  return s.window > 0 ? std::optional<int64_t>(s.window - 1) : std::nullopt;
}
std::optional<int64_t> TokensBehind(const AttentionShape& s) {
  return s.window > 0 ? std::optional<int64_t>(0) : std::nullopt;
}

// LibTorch's memory-efficient operator has wrong gradients under a window where a sequence has more
// keys than queries.
bool ByOwnKernel(const Launch& launch, const kernels::VarlenShape& s) {
  return launch.device().is_cuda() && launch.dtype == DType::kFloat32 && s.window > 0;
}

kernels::WindowShape WindowOf(const AttentionShape& s, const at::Tensor& q, const at::Tensor& keys,
                              const at::Tensor& lengths, const at::Tensor& key_lengths) {
  return {.queries = s.tokens,
          .keys = keys.size(0),
          .sequences = s.sequences,
          .cu_q = lengths.const_data_ptr<int32_t>(),
          .cu_k = key_lengths.const_data_ptr<int32_t>(),
          .q_stride = q.stride(0),
          .k_stride = keys.stride(0),
          .heads = s.heads,
          .kv_heads = s.kv_heads,
          .head_dim = s.head_dim,
          .scale = s.scale,
          .window = s.window};
}

// Their sequences where the device reads them.
kernels::VarlenShape There(const AttentionShape& s) {
  kernels::VarlenShape there = s;
  there.parents = s.parents_there;
  return there;
}

// Adds what is seen one by one beside a window.
void AddSinglePositions(const Launch& launch, const AttentionShape& s, const void* qkv, void* out,
                        float* lse) {
  if (s.global_every == 0) return;
  kernels::Call(launch, kernels::ChosenAttention{.shape = There(s),
                                                 .qkv = qkv,
                                                 .out = out,
                                                 .lse = lse,
                                                 .layout = AttentionLseLayout(launch, s)});
}

bool Aligned(std::initializer_list<const void*> all) {
  return std::all_of(all.begin(), all.end(),
                     [](const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; });
}

// Where kernels/attention has a kernel of its own: with the bits of generation, and gradients that
// are the same in every run.
bool ByPackedKernel(const Launch& launch, const AttentionShape& s,
                    std::initializer_list<const void*> all) {
  return (!s.parents || s.parents_there) && Aligned(all) &&
         kernels::PackedAttentionFits(launch, There(s));
}

void CudaForward(const Launch& launch, const AttentionShape& s, const void* qkv, void* out,
                 float* lse) {
  if (ByPackedKernel(launch, s, {qkv, out})) {
    kernels::Call(launch,
                  kernels::PackedAttention{.shape = There(s), .qkv = qkv, .out = out, .lse = lse});
    AddSinglePositions(launch, s, qkv, out, lse);
    return;
  }
  const c10::InferenceMode guard;
  const OnStream on(launch.stream);
  const at::Tensor q = Filled(Heads(launch, s, qkv, 0, s.heads));
  const auto [keys, values] = KeysAndValues(launch, s, qkv);
  const at::Tensor k = Filled(keys), v = Filled(values);
  const at::Tensor lengths = Lengths(launch, s), key_lengths = KeyLengths(launch, s);
  if (ByOwnKernel(launch, s)) {
    const at::Tensor rows = Heads(launch, s, qkv, 0, s.heads);
    kernels::Call(launch,
                  kernels::AttentionWindow{.shape = WindowOf(s, rows, keys, lengths, key_lengths),
                                           .q = rows.const_data_ptr<float>(),
                                           .k = keys.const_data_ptr<float>(),
                                           .v = values.const_data_ptr<float>(),
                                           .out = static_cast<float*>(out),
                                           .lse = lse});
    AddSinglePositions(launch, s, qkv, out, lse);
    return;
  }
  at::Tensor result, sums;
  if (launch.dtype == DType::kFloat32) {
    const int64_t group = s.heads / s.kv_heads;
    auto [o, l, seed, offset, max_q, max_k] = at::_efficient_attention_forward(
        q.unsqueeze(0), Spread(k, group), Spread(v, group), {}, lengths, key_lengths, s.max_seqlen,
        s.max_seqlen, 0.0, kCausalFromBottomRight, true, Scale(s));
    result = o.squeeze(0);
    sums = l;
  } else {
    auto [o, l, state, unused, mask] =
        at::_flash_attention_forward(q, k, v, lengths, key_lengths, s.max_seqlen, s.max_seqlen, 0.0,
                                     true, false, Scale(s), TokensBefore(s), TokensBehind(s));
    result = o;
    sums = l;
  }
  at::Tensor kept = Lse(launch, s, lse);
  PLUMB_CHECK(sums.sizes() == kept.sizes(), "layout of LibTorch's log-sum-exp");
  Rows(launch, s, out).copy_(result.narrow(-1, 0, s.head_dim));
  kept.copy_(sums);
  AddSinglePositions(launch, s, qkv, out, lse);
}

// What single positions add comes as the queries and keys were compared: turned.
void AddSingleGradients(const Launch& launch, const AttentionShape& s, const void* dout,
                        const void* qkv, const void* out, const float* lse, void* dqkv) {
  if (s.global_every == 0) return;
  kernels::Call(launch, kernels::ChosenAttentionBackward{.shape = There(s),
                                                         .dout = dout,
                                                         .qkv = qkv,
                                                         .out = out,
                                                         .lse = lse,
                                                         .dqkv = dqkv,
                                                         .layout = AttentionLseLayout(launch, s)});
}

bool PackedBackward(const Launch& launch, const AttentionShape& s, const void* dout,
                    const void* qkv, const void* out, const float* lse, void* dqkv,
                    const Turned* turned) {
  const kernels::VarlenShape shape = There(s);
  kernels::TurnTable turn;
  if (turned && s.global_every == 0)
    turn = {turned->position, turned->cos_sin, turned->dims, turned->interleaved};
  if (!kernels::TurnsOnTheWay(shape, turn)) turn = {};
  const at::Tensor scratch =
      at::empty({kernels::PackedAttentionScratch(shape)}, Options(launch, at::kFloat));
  kernels::Call(launch, kernels::PackedAttentionBackward{.shape = shape,
                                                         .dout = dout,
                                                         .qkv = qkv,
                                                         .out = out,
                                                         .lse = lse,
                                                         .turn = turn,
                                                         .dqkv = dqkv,
                                                         .scratch = scratch.data_ptr<float>()});
  AddSingleGradients(launch, s, dout, qkv, out, lse, dqkv);
  return turn.dims > 0;
}

bool CudaBackward(const Launch& launch, const AttentionShape& s, const void* dout, const void* qkv,
                  const void* out, const float* lse, void* dqkv, const Turned* turned) {
  const c10::InferenceMode guard;
  const OnStream on(launch.stream);
  if (ByPackedKernel(launch, s, {dout, qkv, out, dqkv}))
    return PackedBackward(launch, s, dout, qkv, out, lse, dqkv, turned);
  const at::Tensor q = Filled(Heads(launch, s, qkv, 0, s.heads));
  const auto [keys, values] = KeysAndValues(launch, s, qkv);
  const at::Tensor k = Filled(keys), v = Filled(values);
  const at::Tensor lengths = Lengths(launch, s), key_lengths = KeyLengths(launch, s);
  const at::Tensor own = Filled(Rows(launch, s, out)), d_own = Filled(Rows(launch, s, dout));
  at::Tensor dq, dk, dv;
  if (ByOwnKernel(launch, s)) {
    const at::TensorOptions floats = Options(launch, at::kFloat);
    const at::Tensor rows = Heads(launch, s, qkv, 0, s.heads),
                     both = at::empty({s.heads, s.tokens}, floats);
    dq = at::empty({s.tokens, s.heads, s.head_dim}, floats);
    dk = at::empty({keys.size(0), s.kv_heads, s.head_dim}, floats);
    dv = at::empty_like(dk);
    kernels::Call(launch, kernels::AttentionWindowBackward{
                              .shape = WindowOf(s, rows, keys, lengths, key_lengths),
                              .q = rows.const_data_ptr<float>(),
                              .k = keys.const_data_ptr<float>(),
                              .v = values.const_data_ptr<float>(),
                              .out = static_cast<const float*>(out),
                              .lse = lse,
                              .dout = static_cast<const float*>(dout),
                              .dq = dq.data_ptr<float>(),
                              .dk = dk.data_ptr<float>(),
                              .dv = dv.data_ptr<float>(),
                              .scratch = both.data_ptr<float>()});
  } else if (launch.dtype == DType::kFloat32) {
    const int64_t group = s.heads / s.kv_heads;
    const at::Tensor none =
        at::zeros({}, Options(launch, at::kLong));  // random state of a dropout that is off
    auto [gq, gk, gv, bias] = at::_efficient_attention_backward(
        d_own.unsqueeze(0), q.unsqueeze(0), Spread(k, group), Spread(v, group), {},
        own.unsqueeze(0), lengths, key_lengths, s.max_seqlen, s.max_seqlen, Lse(launch, s, lse),
        0.0, none, none, kCausalFromBottomRight, false, Scale(s));
    const auto gather = [&](const at::Tensor& g) {
      return g.reshape({-1, s.kv_heads, group, g.size(-1)}).sum(2);
    };
    dq = gq.squeeze(0);
    dk = gather(gk);
    dv = gather(gv);
  } else {
    // The random state of a dropout that is off, which nothing reads: no kernel to fill it.
    const at::Tensor none = at::empty({2}, Options(launch, at::kUInt64)),
                     unused = at::empty({}, Options(launch, at::kUInt64));
    std::tie(dq, dk, dv) = at::_flash_attention_backward(
        d_own, q, k, v, own, Lse(launch, s, lse), lengths, key_lengths, s.max_seqlen, s.max_seqlen,
        0.0, true, none, unused, Scale(s), TokensBefore(s), TokensBehind(s));
  }
  for (at::Tensor* d : {&dq, &dk, &dv}) *d = d->narrow(-1, 0, s.head_dim);
  if (!s.parents) {
    if (s.global_every > 0) turned = nullptr;
    const Turned how = turned ? *turned : Turned{};
    const at::Tensor q_rows = dq.contiguous(), k_rows = dk.contiguous(), v_rows = dv.contiguous();
    kernels::Call(launch, kernels::RopeBackward{.dq = q_rows.const_data_ptr(),
                                                .dk = k_rows.const_data_ptr(),
                                                .dv = v_rows.const_data_ptr(),
                                                .position = how.position,
                                                .cos_sin = how.cos_sin,
                                                .rows = s.tokens,
                                                .heads = s.heads,
                                                .kv_heads = s.kv_heads,
                                                .head_dim = s.head_dim,
                                                .dims = how.dims,
                                                .interleaved = how.interleaved,
                                                .dqkv = dqkv});
    AddSingleGradients(launch, s, dout, qkv, out, lse, dqkv);
    return turned != nullptr;
  }
  Heads(launch, s, dqkv, 0, s.heads).copy_(dq);
  PutGradient(launch, s, dk, s.heads, dqkv);
  PutGradient(launch, s, dv, s.heads + s.kv_heads, dqkv);
  AddSingleGradients(launch, s, dout, qkv, out, lse, dqkv);
  return false;
}

}  // namespace

int64_t AttentionLseElements(const Launch& launch, const kernels::VarlenShape& s) {
  const int64_t packed = int64_t{s.heads} * s.tokens;
  if (AttentionLseLayout(launch, s).pitch == 0) return packed;
  return int64_t{s.sequences} * s.heads * PaddedLength(s);
}

kernels::LseLayout AttentionLseLayout(const Launch& launch, const kernels::VarlenShape& s) {
  if (launch.device().is_cpu() || launch.dtype != DType::kFloat32 || ByOwnKernel(launch, s))
    return {};
  return {.pitch = PaddedLength(s), .sequences = s.sequences, .cu_seqlens = s.cu_seqlens};
}

kernels::AttentionPaged PackedAsPaged(const Launch& launch, const AttentionShape& s,
                                      const void* qkv, void* out, float* lse) {
  PLUMB_CHECK(s.begins && s.positions, "what generation's attention looks at");
  const int64_t queries = int64_t{s.heads} * s.head_dim,
                width = queries + 2 * int64_t{s.kv_heads} * s.head_dim;
  // Nothing of them is written. Without rows it is a question of sizes alone.
  const int64_t before = qkv ? queries * static_cast<int64_t>(ElementSize(launch.dtype)) : 0;
  auto* keys = static_cast<std::byte*>(const_cast<void*>(qkv)) + before;
  return {.q = qkv,
          .q_stride = width,
          .rows = {.rows = static_cast<int32_t>(s.tokens),
                   .slot = s.begins,
                   .position = s.positions,
                   .page_table = s.seen,
                   .page_table_stride = 1},
          .heads = s.heads,
          .kv = {.pages = keys,
                 .dtype = launch.dtype,
                 .layers = 1,
                 .num_pages = static_cast<int32_t>(s.tokens),
                 .page_tokens = 1,
                 .kv_heads = s.kv_heads,
                 .head_dim = s.head_dim,
                 .page_gap = queries},
          .scale = s.scale,
          .window = s.window,
          .out = out,
          .lse = lse};
}

bool AttendsAsGenerated(const Launch& launch, const AttentionShape& shape) {
  if (!shape.begins || shape.global_every > 0 || !kernels::ExactOn(launch.device())) return false;
  return launch.device().is_cpu() ||
         kernels::TensorAttentionFits(launch.dtype,
                                      PackedAsPaged(launch, shape, nullptr, nullptr, nullptr));
}

void AttentionForward(const Launch& launch, const AttentionShape& shape, const void* qkv, void* out,
                      float* lse) {
  if (AttendsAsGenerated(launch, shape))
    kernels::Call(launch, PackedAsPaged(launch, shape, qkv, out, lse));
  else if (launch.device().is_cuda()) CudaForward(launch, shape, qkv, out, lse);
  else
    kernels::Call(launch,
                  kernels::AttentionVarlen{.shape = shape, .qkv = qkv, .out = out, .lse = lse});
}

bool AttentionBackward(const Launch& launch, const AttentionShape& shape, const void* dout,
                       const void* qkv, const void* out, const float* lse, void* dqkv,
                       float* scratch, const Turned* turned) {
  if (launch.device().is_cuda())
    return CudaBackward(launch, shape, dout, qkv, out, lse, dqkv, turned);
  kernels::Call(launch, kernels::AttentionVarlenBackward{.shape = shape,
                                                         .dout = dout,
                                                         .qkv = qkv,
                                                         .out = out,
                                                         .lse = lse,
                                                         .dqkv = dqkv,
                                                         .scratch = scratch});
  return false;
}

}  // namespace plumb::policy_model
