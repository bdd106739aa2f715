// The gated delta rule over packed sequences, forward and backward, in tokens a processor second.
//
//   delta_bench --in FILE --out FILE [--tokens 2048] [--k-heads 4] [--v-heads 8] [--k-dim 128]
//               [--v-dim 128] [--rounds 1] [--threads 1]
//
// FILE holds floats: qkv [tokens, width], g and beta [tokens, v_heads], the gradient of the output.
// One sequence, float32. Prints one JSON object: medians of tokens a processor second of the
// forward alone and of forward and backward. Writes output, dqkv, dg and dbeta, for who compares
// them (bench/delta.py).
#include <omp.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "bench/bench_program.h"
#include "kernels/delta/gated_delta.h"

namespace plumb::kernels {
namespace {

using bench::Median;
using bench::ProcessorSeconds;

struct Arguments {
  int64_t tokens = 2048, k_heads = 4, v_heads = 8, k_dim = 128, v_dim = 128, rounds = 1,
          threads = 1;
  std::string in, out;
};

constexpr char kProgram[] = "delta_bench";

[[noreturn]] void Fail(const std::string& why) { bench::Fail(kProgram, why); }

Arguments Parse(int argc, char** argv) {
  Arguments a;
  bench::ReadOptions(kProgram, argc, argv, 1,
                     {{"--tokens", &a.tokens},
                      {"--k-heads", &a.k_heads},
                      {"--v-heads", &a.v_heads},
                      {"--k-dim", &a.k_dim},
                      {"--v-dim", &a.v_dim},
                      {"--rounds", &a.rounds},
                      {"--threads", &a.threads}},
                     [&](std::string_view name, const char* value) {
                       if (name != "--in" && name != "--out") return false;
                       (name == "--in" ? a.in : a.out) = value;
                       return true;
                     });
  if (a.in.empty() || a.out.empty()) Fail("--in and --out are needed");
  if (a.v_heads % a.k_heads != 0) Fail("--k-heads has to divide --v-heads");
  return a;
}

void Run(const Arguments& a) {
  const int32_t cu_seqlens[] = {0, static_cast<int32_t>(a.tokens)};
  const DeltaShape s{.tokens = a.tokens,
                     .sequences = 1,
                     .cu_seqlens = cu_seqlens,
                     .k_heads = static_cast<int32_t>(a.k_heads),
                     .v_heads = static_cast<int32_t>(a.v_heads),
                     .k_dim = static_cast<int32_t>(a.k_dim),
                     .v_dim = static_cast<int32_t>(a.v_dim)};
  const auto floats = [](int64_t n) { return std::vector<float>(static_cast<size_t>(n)); };
  std::vector<float> qkv = floats(s.tokens * s.width()), g = floats(s.tokens * s.v_heads), beta = g,
                     dout = floats(s.tokens * s.value_width()), out = dout, dqkv = qkv, dg = g,
                     dbeta = g, states = floats(s.slots(true) * s.v_heads * s.state());
  std::FILE* file = std::fopen(a.in.c_str(), "rb");
  if (!file) Fail("cannot read " + a.in);
  for (std::vector<float>* x : {&qkv, &g, &beta, &dout}) {
    if (std::fread(x->data(), 4, x->size(), file) != x->size()) Fail("too short: " + a.in);
  }
  std::fclose(file);
  const Launch launch{.stream = Device::kCpu, .dtype = DType::kFloat32};
  const auto forward = [&](bool keep) {
    Call(launch, GatedDelta{.shape = s,
                            .qkv = qkv.data(),
                            .g = g.data(),
                            .beta = beta.data(),
                            .keep = keep,
                            .states = states.data(),
                            .out = out.data()});
  };
  std::vector<double> alone, both;
  for (int64_t round = 0; round <= a.rounds; ++round) {  // the first warms up
    const double begin = ProcessorSeconds();
    forward(false);
    const double middle = ProcessorSeconds();
    forward(true);
    Call(launch, GatedDeltaBackward{.shape = s,
                                    .dout = dout.data(),
                                    .qkv = qkv.data(),
                                    .g = g.data(),
                                    .beta = beta.data(),
                                    .states = states.data(),
                                    .dqkv = dqkv.data(),
                                    .dg = dg.data(),
                                    .dbeta = dbeta.data()});
    const double end = ProcessorSeconds();
    if (round == 0) continue;
    alone.push_back(static_cast<double>(a.tokens) / (middle - begin));
    both.push_back(static_cast<double>(a.tokens) / (end - middle));
  }
  file = std::fopen(a.out.c_str(), "wb");
  if (!file) Fail("cannot write " + a.out);
  for (const std::vector<float>* x : {&out, &dqkv, &dg, &dbeta}) {
    if (std::fwrite(x->data(), 4, x->size(), file) != x->size()) Fail("cannot write " + a.out);
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
