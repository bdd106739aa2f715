// Packed attention's forward and backward on a GPU: the kernels of kernels/attention beside
// LibTorch's variable-length flash attention, in one run.
//
//   packed_attention_bench [--sequences 8] [--length 1024] [--rounds 20]
//
// Shapes are those of models: query heads over KV heads of so many numbers, bfloat16, queries and
// keys turned. LibTorch's side is what a layer's backward takes besides its operator: its sums over
// query heads, and a pass that turns gradients back and lays them side by side. Times are medians
// after 3 calls; both sides take turns. The error of each is the distance of its results from those
// of the CPU in float32, over their norm, on a batch of 2 sequences of 200 and 150 tokens. Rates
// count 4 D and 10 D operations a query head and a pair of a row and a key, whatever is computed.
#include <ATen/ATen.h>

#include <cmath>
#include <cstring>
#include <tuple>

#include "bench/bench_program.h"
#include "common/base/rng.h"
#include "kernels/attention/packed_attention.h"
#include "kernels/device/device_memory.h"
#include "kernels/rope.h"
#include "policy_model/memory/torch_stream.h"
#ifdef PLUMB_CUDA
#include <cuda_runtime_api.h>
#endif

namespace plumb::bench {
namespace {

using kernels::Launch;

constexpr const char* kProgram = "packed_attention_bench";

struct Model {
  const char* name;
  int32_t heads, kv_heads, d;
};

at::Tensor OnGpu(const void* from, at::IntArrayRef sizes, at::ScalarType type) {
  return at::from_blob(const_cast<void*>(from), sizes, at::TensorOptions().dtype(type))
      .to(policy_model::TorchDevice(Device::Cuda(0)));
}

class Batch {
 public:
  Batch(const Model& m, const std::vector<int32_t>& lengths, const Stream& stream)
      : model(m), launch{.stream = stream, .dtype = DType::kBFloat16} {
    for (const int32_t n : lengths) {
      for (int32_t i = 0; i < n; ++i) position.push_back(i);
      cu.push_back(cu.back() + n);
      longest = std::max(longest, n);
      pairs += 0.5 * n * (n + 1.0) * m.heads;
    }
    const int64_t t = cu.back(), w = int64_t{m.heads + 2 * m.kv_heads} * m.d;
    RandomStream random(3, 4);
    for (int64_t i = 0; i < t * w; ++i) qkv.push_back(ToBFloat16(random.NextNormal()));
    for (int64_t i = 0; i < t * m.heads * m.d; ++i) dout.push_back(ToBFloat16(random.NextNormal()));
    std::vector<double> frequencies;
    for (int32_t i = 0; i < m.d / 2; ++i) frequencies.push_back(std::pow(1e4, -2.0 * i / m.d));
    cos_sin.resize(static_cast<size_t>(int64_t{longest} * m.d));
    kernels::RopeTable(longest, frequencies, 1.0, cos_sin.data());
    there_cu = OnGpu(cu.data(), {static_cast<int64_t>(cu.size())}, at::kInt);
    there_position = OnGpu(position.data(), {t}, at::kInt);
    there_cos_sin = OnGpu(cos_sin.data(), {static_cast<int64_t>(cos_sin.size())}, at::kFloat);
    there_qkv = OnGpu(qkv.data(), {t, w}, at::kBFloat16);
    there_dout = OnGpu(dout.data(), {t, m.heads, m.d}, at::kBFloat16);
    out = at::empty_like(there_dout);
    dqkv = at::empty_like(there_qkv);
    lse = at::empty({m.heads, t}, there_cos_sin.options());
    shape = {.tokens = t,
             .sequences = static_cast<int32_t>(lengths.size()),
             .cu_seqlens = there_cu.const_data_ptr<int32_t>(),
             .max_seqlen = longest,
             .heads = m.heads,
             .kv_heads = m.kv_heads,
             .head_dim = m.d,
             .scale = 1 / std::sqrt(static_cast<float>(m.d))};
    scratch = at::empty({kernels::PackedAttentionScratch(shape)}, there_cos_sin.options());
  }

  kernels::TurnTable Turn() const {
    return {there_position.const_data_ptr<int32_t>(), there_cos_sin.const_data_ptr<float>(),
            model.d, false};
  }
  void OwnForward() {
    kernels::Call(launch, kernels::PackedAttention{.shape = shape,
                                                   .qkv = there_qkv.const_data_ptr(),
                                                   .out = out.data_ptr(),
                                                   .lse = lse.data_ptr<float>()});
  }
  void OwnBackward() {
    kernels::Call(launch, kernels::PackedAttentionBackward{.shape = shape,
                                                           .dout = there_dout.const_data_ptr(),
                                                           .qkv = there_qkv.const_data_ptr(),
                                                           .out = out.const_data_ptr(),
                                                           .lse = lse.const_data_ptr<float>(),
                                                           .turn = Turn(),
                                                           .dqkv = dqkv.data_ptr(),
                                                           .scratch = scratch.data_ptr<float>()});
  }
  at::Tensor Heads(int64_t first, int64_t count) const {
    return there_qkv.narrow(1, first * model.d, count * model.d)
        .unflatten(1, {count, int64_t{model.d}});
  }
  void TorchForward() {
    auto [o, l, state, unused, mask] = at::_flash_attention_forward(
        Heads(0, model.heads), Heads(model.heads, model.kv_heads),
        Heads(model.heads + model.kv_heads, model.kv_heads), there_cu, there_cu, longest, longest,
        0.0, true, false, static_cast<double>(shape.scale), {}, {});
    out.copy_(o);
    lse.copy_(l);
  }
  void TorchBackward() {
    const at::Tensor none = at::empty({2}, there_cu.options().dtype(at::kUInt64)),
                     unused = at::empty({}, there_cu.options().dtype(at::kUInt64));
    auto [dq, dk, dv] = at::_flash_attention_backward(
        there_dout, Heads(0, model.heads), Heads(model.heads, model.kv_heads),
        Heads(model.heads + model.kv_heads, model.kv_heads), out, lse, there_cu, there_cu, longest,
        longest, 0.0, true, none, unused, static_cast<double>(shape.scale), {}, {});
    const at::Tensor q = dq.contiguous(), k = dk.contiguous(), v = dv.contiguous();
    kernels::Call(launch, kernels::RopeBackward{.dq = q.const_data_ptr(),
                                                .dk = k.const_data_ptr(),
                                                .dv = v.const_data_ptr(),
                                                .position = Turn().position,
                                                .cos_sin = Turn().cos_sin,
                                                .rows = shape.tokens,
                                                .heads = model.heads,
                                                .kv_heads = model.kv_heads,
                                                .head_dim = model.d,
                                                .dims = model.d,
                                                .dqkv = dqkv.data_ptr()});
  }

  // Of the CPU in float32: out and dqkv.
  std::pair<at::Tensor, at::Tensor> Reference() const {
    const at::Tensor x = there_qkv.cpu().to(at::kFloat), d = there_dout.cpu().to(at::kFloat);
    at::Tensor o = at::empty_like(d), l = at::empty(lse.sizes(), d.options()),
               dx = at::empty_like(x);
    kernels::VarlenShape here = shape;
    here.cu_seqlens = cu.data();
    const Launch cpu;
    kernels::Call(cpu, kernels::PackedAttention{.shape = here,
                                                .qkv = x.const_data_ptr(),
                                                .out = o.data_ptr(),
                                                .lse = l.data_ptr<float>()});
    std::vector<float> memory(static_cast<size_t>(kernels::AttentionVarlenScratch(here)) + 1);
    kernels::Call(cpu, kernels::PackedAttentionBackward{
                           .shape = here,
                           .dout = d.const_data_ptr(),
                           .qkv = x.const_data_ptr(),
                           .out = o.const_data_ptr(),
                           .lse = l.const_data_ptr<float>(),
                           .turn = {position.data(), cos_sin.data(), model.d, false},
                           .dqkv = dx.data_ptr(),
                           .scratch = memory.data()});
    return {o, dx};
  }

  Model model;
  Launch launch;
  std::vector<int32_t> cu = {0}, position;
  int32_t longest = 0;
  double pairs = 0;
  std::vector<BFloat16> qkv, dout;
  std::vector<float> cos_sin;
  at::Tensor there_cu, there_position, there_cos_sin, there_qkv, there_dout, out, dqkv, lse,
      scratch;
  kernels::VarlenShape shape;
};

double Distance(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor x = a.cpu().to(at::kDouble), y = b.to(at::kDouble);
  return ((x - y).norm() / y.norm()).item<double>();
}

double Seconds([[maybe_unused]] const Stream& stream, const std::function<void()>& run) {
#ifdef PLUMB_CUDA
  static cudaEvent_t begin = nullptr, end = nullptr;
  auto* on = static_cast<cudaStream_t>(stream.handle());
  if (!begin && (cudaEventCreate(&begin) != cudaSuccess || cudaEventCreate(&end) != cudaSuccess))
    Fail(kProgram, "no event");
  cudaEventRecord(begin, on);
  run();
  cudaEventRecord(end, on);
  if (cudaEventSynchronize(end) != cudaSuccess) Fail(kProgram, "a kernel failed");
  float ms = 0;
  cudaEventElapsedTime(&ms, begin, end);
  return static_cast<double>(ms) / 1e3;
#else
  run();
  return 0;
#endif
}

void RunModel(const Model& model, int64_t sequences, int64_t length, int64_t rounds,
              const Stream& stream) {
  {
    Batch small(model, {200, 150}, stream);
    const auto [o, dx] = small.Reference();
    for (const bool own : {true, false}) {
      if (own) small.OwnForward(), small.OwnBackward();
      else small.TorchForward(), small.TorchBackward();
      stream.Synchronize();
      std::printf("%-6s %-5s error     forward %.2e  backward %.2e\n", model.name,
                  own ? "own" : "torch", Distance(small.out, o), Distance(small.dqkv, dx));
    }
  }
  Batch batch(model,
              std::vector<int32_t>(static_cast<size_t>(sequences), static_cast<int32_t>(length)),
              stream);
  const std::vector<std::function<void()>> calls = {
      [&] { batch.OwnForward(); }, [&] { batch.OwnBackward(); }, [&] { batch.TorchForward(); },
      [&] { batch.TorchBackward(); }};
  std::vector<std::vector<double>> seconds(calls.size());
  for (int64_t round = -3; round < rounds; ++round) {
    for (size_t i = 0; i < calls.size(); ++i) {
      const double taken = Seconds(stream, calls[i]);
      if (round >= 0) seconds[i].push_back(taken);
    }
  }
  for (size_t side = 0; side < 2; ++side) {
    const double forward = Median(seconds[2 * side]), backward = Median(seconds[2 * side + 1]),
                 one = 2.0 * batch.pairs * model.d;
    std::printf("%-6s %-5s ms        forward %.3f (%.0f TFLOP/s)  backward %.3f (%.0f TFLOP/s)\n",
                model.name, side == 0 ? "own" : "torch", forward * 1e3, 2 * one / forward / 1e12,
                backward * 1e3, 5 * one / backward / 1e12);
  }
}

}  // namespace
}  // namespace plumb::bench

int main(int argc, char** argv) {
  using namespace plumb;
  int64_t sequences = 8, length = 1024, rounds = 20;
  bench::ReadOptions(bench::kProgram, argc, argv, 1,
                     {{"--sequences", &sequences}, {"--length", &length}, {"--rounds", &rounds}});
  if (!kernels::CudaAvailable()) {
    std::fprintf(stderr, "%s: no GPU answers; nothing was measured\n", bench::kProgram);
    return 1;
  }
  const c10::InferenceMode guard;
  const OwnedStream stream(Device::Cuda(0));
  const policy_model::OnStream on(stream);
  std::printf("%lld sequences of %lld tokens, bfloat16\n", static_cast<long long>(sequences),
              static_cast<long long>(length));
  for (const bench::Model& model : {bench::Model{"135M", 9, 3, 64}, bench::Model{"0.5B", 14, 2, 64},
                                    bench::Model{"1.5B", 12, 2, 128},
                                    bench::Model{"7B", 28, 4, 128}, bench::Model{"8B", 32, 8, 128}})
    bench::RunModel(model, sequences, length, rounds, stream);
  return 0;
}
