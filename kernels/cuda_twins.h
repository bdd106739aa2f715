// The CUDA implementations behind the dispatchers: same names and arguments in namespace cuda, defined in the .cu files.
// Included by the dispatchers only.
#pragma once

#ifdef PLUMB_CUDA

#include "kernels/adamw.h"
#include "kernels/attention_paged.h"
#include "kernels/attention_varlen.h"
#include "kernels/decode_state.h"
#include "kernels/embedding.h"
#include "kernels/rms_norm.h"
#include "kernels/rope.h"
#include "kernels/sampling.h"
#include "kernels/swiglu.h"
#include "kernels/token_logprob.h"
#include "kernels/token_mask.h"

namespace plumb::kernels::cuda {

void RmsNormForward(const Launch&, const void* x, const void* w, int64_t rows, int64_t hidden, float eps, void* y, float* rstd);
void RmsNormBackward(const Launch&, const void* dy, const void* x, const void* w, const float* rstd, int64_t rows,
                     int64_t hidden, bool accumulate_dx, void* dx, float* dw, float* scratch);
void SwigluForward(const Launch&, const void* gate_up, int64_t rows, int64_t ffn, void* out);
void SwigluBackward(const Launch&, const void* dout, const void* gate_up, int64_t rows, int64_t ffn, void* dgate_up);
void RopeInPlace(const Launch&, void* qkv, const int32_t* position, const float* cos_sin, int64_t rows, int32_t heads,
                 int32_t kv_heads, int32_t head_dim, bool inverse);
void RopeAndWriteKv(const Launch&, void* qkv, const PagedRows& rows, const float* cos_sin, int32_t heads, int32_t layer,
                    const PagedKv& kv);
void AttentionPaged(const Launch&, const void* q, int64_t q_stride, const PagedRows& rows, int32_t heads, int32_t layer,
                    const PagedKv& kv, void* out);
void CopyPages(const Launch&, const int32_t* from, const int32_t* to, int32_t count, const PagedKv& kv);
void GatherRows(const Launch&, const void* table, const int32_t* index, int64_t rows, int64_t width, void* out);
void ScatterAddRows(const Launch&, const void* d, const int32_t* index, int64_t rows, int64_t width, float* grad);
void ScatterRows(const Launch&, const void* d, const int32_t* index, int64_t rows, int64_t width, void* out);
void SumRows(const Launch&, const void* d, const int32_t* index, const int32_t* begins, int64_t rows, int64_t width,
             int64_t out_stride, void* out);
void AddBias(const Launch&, void* x, const void* bias, int64_t rows, int64_t width);
void BiasBackward(const Launch&, const void* dx, int64_t rows, int64_t width, float* dbias);
void TokenLogprobForward(const Launch&, const float* logits, const int32_t* target, int64_t rows, int64_t vocab,
                         float temperature, float* logprob, float* entropy, float* lse);
void TokenLogprobBackward(const Launch&, const float* logits, const int32_t* target, const float* lse, const float* entropy,
                          const float* g_logprob, const float* g_entropy, int64_t rows, int64_t vocab, float temperature,
                          void* dlogits);
void SampleTokens(const Launch&, const float* logits, int64_t rows, int64_t vocab, const SamplingOptions& options,
                  const uint64_t* prompt, const uint32_t* sample, const int32_t* position, int32_t* token, float* logprob,
                  void* scratch, uint32_t* kept);
void DropTokens(const Launch&, float* logits, int64_t rows, int64_t vocab, const int32_t* ids,
                int64_t count);
void KeepTokens(const Launch&, float* logits, int64_t rows, int64_t vocab, const uint32_t* kept);
void GatherAddresses(const Launch&, const DecodeState& state, const int32_t* slots, int32_t rows, uint64_t* prompt_out,
                     uint32_t* sample_out, int32_t* position_out);
void AdvanceSlots(const Launch&, const DecodeState& state, const int32_t* slots, int32_t rows, const int32_t* token,
                  const float* logprob, const int32_t* eos, int32_t num_eos);
void AdamwUpdate(const Launch&, float* master, float* m, float* v, const float* grad, const uint8_t* decay_mask, int64_t n,
                 const AdamwOptions& options, void* param);
void SumOfSquares(const Launch&, const float* grad, int64_t n, double* scratch, double* out);

}  // namespace plumb::kernels::cuda

#endif  // PLUMB_CUDA
