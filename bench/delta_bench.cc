// The gated delta rule over packed sequences, forward and backward, in tokens a processor second,
// or on a GPU in tokens a second.
//
//   delta_bench --in FILE --out FILE [--tokens 2048] [--sequences 1] [--k-heads 4] [--v-heads 8]
//               [--k-dim 128] [--v-dim 128] [--rounds 1] [--threads 1] [--bits 32] [--gpus 0]
//
// FILE holds floats: qkv [sequences, tokens, width], g and beta [.., v_heads], the gradient of the
// output. With --bits 16 queries, keys, values, outputs and gradients are bfloat16. --gpus 1: on
// the first GPU, by the clock from an idle stream to an idle stream, eight passes a measurement.
// Prints one JSON object: medians of tokens a second of the forward alone and of forward and
// backward. Writes output, dqkv, dg and dbeta as floats, for who compares them (bench/delta.py).
#include <omp.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "bench/bench_program.h"
#include "kernels/delta/gated_delta.h"
#include "kernels/device/device_memory.h"
#ifdef PLUMB_CUDA
#include <cuda_runtime_api.h>
#endif

namespace plumb::kernels {
namespace {

using bench::Median;
using bench::ProcessorSeconds;

struct Arguments {
  int64_t tokens = 2048, sequences = 1, k_heads = 4, v_heads = 8, k_dim = 128, v_dim = 128,
          rounds = 1, threads = 1, bits = 32, gpus = 0;
  std::string in, out;
};

constexpr char kProgram[] = "delta_bench";

[[noreturn]] void Fail(const std::string& why) { bench::Fail(kProgram, why); }

Arguments Parse(int argc, char** argv) {
  Arguments a;
  bench::ReadOptions(kProgram, argc, argv, 1,
                     {{"--tokens", &a.tokens},
                      {"--sequences", &a.sequences},
                      {"--k-heads", &a.k_heads},
                      {"--v-heads", &a.v_heads},
                      {"--k-dim", &a.k_dim},
                      {"--v-dim", &a.v_dim},
                      {"--rounds", &a.rounds},
                      {"--threads", &a.threads},
                      {"--bits", &a.bits},
                      {"--gpus", &a.gpus, 0}},
                     [&](std::string_view name, const char* value) {
                       if (name != "--in" && name != "--out") return false;
                       (name == "--in" ? a.in : a.out) = value;
                       return true;
                     });
  if (a.in.empty() || a.out.empty()) Fail("--in and --out are needed");
  if (a.v_heads % a.k_heads != 0) Fail("--k-heads has to divide --v-heads");
  if (a.bits != 16 && a.bits != 32) Fail("--bits is 16 or 32");
  if (a.gpus > 0 && !CudaAvailable()) Fail("--gpus: this build or machine has none");
  return a;
}

// Memory of the stream's device.
class Buffer {
 public:
  Buffer(const Stream& stream, size_t bytes) : stream_(stream), bytes_(bytes) {
    if (stream.device().is_cpu()) {
      data_ = std::aligned_alloc(64, (bytes + 127) / 64 * 64);
#ifdef PLUMB_CUDA
    } else if (cudaMalloc(&data_, bytes + 64) != cudaSuccess) {
      data_ = nullptr;
#endif
    }
    if (data_ == nullptr) Fail("no memory for " + std::to_string(bytes) + " bytes");
    Zero(stream_, data_, bytes);
  }
  ~Buffer() {
    if (stream_.device().is_cpu()) std::free(data_);
#ifdef PLUMB_CUDA
    else cudaFree(data_);
#endif
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  void* data() const { return data_; }
  float* floats() const { return static_cast<float*>(data_); }
  void Set(const void* from) { CopyAndWait(stream_, data_, from, bytes_); }
  void Get(void* to) const { CopyAndWait(stream_, to, data_, bytes_); }

 private:
  const Stream stream_;
  const size_t bytes_;
  void* data_ = nullptr;
};

void Run(const Arguments& a) {
  const OwnedStream stream(a.gpus > 0 ? Device::Cuda(0) : Device(Device::kCpu));
  const bool on_cpu = stream.device().is_cpu();
  const DType dtype = a.bits == 16 ? DType::kBFloat16 : DType::kFloat32;
  std::vector<int32_t> begins;
  for (int64_t i = 0; i <= a.sequences; ++i) begins.push_back(static_cast<int32_t>(i * a.tokens));
  const int64_t all = a.sequences * a.tokens;
  Buffer cu_seqlens(stream, begins.size() * sizeof(int32_t));
  cu_seqlens.Set(begins.data());
  const DeltaShape s{.tokens = all,
                     .sequences = static_cast<int32_t>(a.sequences),
                     .cu_seqlens = static_cast<const int32_t*>(cu_seqlens.data()),
                     .k_heads = static_cast<int32_t>(a.k_heads),
                     .v_heads = static_cast<int32_t>(a.v_heads),
                     .k_dim = static_cast<int32_t>(a.k_dim),
                     .v_dim = static_cast<int32_t>(a.v_dim)};
  struct Values {
    Buffer buffer;
    int64_t count;
    bool floats;
  };
  const auto values = [&](int64_t count, bool floats) {
    return Values{Buffer(stream, static_cast<size_t>(count) * (floats || a.bits == 32 ? 4 : 2)),
                  count, floats || a.bits == 32};
  };
  Values qkv = values(all * s.width(), false), g = values(all * s.v_heads, true),
         beta = values(all * s.v_heads, true), dout = values(all * s.value_width(), false),
         out = values(dout.count, false), dqkv = values(qkv.count, false),
         dg = values(g.count, true), dbeta = values(g.count, true),
         states = values(s.slots(true) * s.v_heads * s.state(), true),
         work =
             values(on_cpu ? 1 : std::max(GatedDeltaWork(s, false), GatedDeltaWork(s, true)), true);
  std::FILE* file = std::fopen(a.in.c_str(), "rb");
  if (!file) Fail("cannot read " + a.in);
  for (Values* x : {&qkv, &g, &beta, &dout}) {
    std::vector<float> read(static_cast<size_t>(x->count));
    if (std::fread(read.data(), 4, read.size(), file) != read.size()) Fail("too short: " + a.in);
    std::vector<BFloat16> narrow;
    if (!x->floats) {
      for (const float v : read) narrow.push_back(ToBFloat16(v));
    }
    x->buffer.Set(x->floats ? static_cast<const void*>(read.data()) : narrow.data());
  }
  std::fclose(file);
  const Launch launch{.stream = stream, .dtype = dtype};
  const auto forward = [&](bool keep) {
    Call(launch, GatedDelta{.shape = s,
                            .qkv = qkv.buffer.data(),
                            .g = g.buffer.floats(),
                            .beta = beta.buffer.floats(),
                            .keep = keep,
                            .states = states.buffer.floats(),
                            .out = out.buffer.data(),
                            .work = work.buffer.floats()});
  };
  const auto both_ways = [&] {
    forward(true);
    Call(launch, GatedDeltaBackward{.shape = s,
                                    .dout = dout.buffer.data(),
                                    .qkv = qkv.buffer.data(),
                                    .g = g.buffer.floats(),
                                    .beta = beta.buffer.floats(),
                                    .states = states.buffer.floats(),
                                    .dqkv = dqkv.buffer.data(),
                                    .dg = dg.buffer.floats(),
                                    .dbeta = dbeta.buffer.floats(),
                                    .work = work.buffer.floats()});
  };
  const auto now = [&] {
    if (on_cpu) return ProcessorSeconds();
    stream.Synchronize();
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch())
        .count();
  };
  const int passes = on_cpu ? 1 : 8;
  const auto rate = [&](const auto& pass) {
    const double begin = now();
    for (int i = 0; i < passes; ++i) pass();
    return static_cast<double>(passes * all) / (now() - begin);
  };
  std::vector<double> alone, both;
  for (int64_t round = 0; round <= a.rounds; ++round) {  // the first warms up
    const double first = rate([&] { forward(false); }), second = rate(both_ways);
    if (round == 0) continue;
    alone.push_back(first);
    both.push_back(second);
  }
  file = std::fopen(a.out.c_str(), "wb");
  if (!file) Fail("cannot write " + a.out);
  for (const Values* x : {&out, &dqkv, &dg, &dbeta}) {
    const auto count = static_cast<size_t>(x->count);
    std::vector<float> written(count);
    if (x->floats) {
      x->buffer.Get(written.data());
    } else {
      std::vector<BFloat16> narrow(count);
      x->buffer.Get(narrow.data());
      std::transform(narrow.begin(), narrow.end(), written.begin(),
                     [](BFloat16 v) { return ToFloat(v); });
    }
    if (std::fwrite(written.data(), 4, count, file) != count) Fail("cannot write " + a.out);
  }
  if (std::fclose(file) != 0) Fail("cannot write " + a.out);
  std::printf("{\"forward\": %.1f, \"train\": %.1f}\n", Median(alone), Median(both));
}

}  // namespace
}  // namespace plumb::kernels

int main(int argc, char** argv) {
  const plumb::kernels::Arguments a = plumb::kernels::Parse(argc, argv);
  omp_set_num_threads(static_cast<int>(a.threads));
  plumb::kernels::Run(a);
  return 0;
}
