// Achieved memory bandwidth of the kernels against a plain copy on the same device.
//
//   kernels_bench [cpu|cuda]     default: cuda when this build has it and a device answers, else
//                                cpu
//
// Bytes are the fewest a kernel has to move: every input read once, every output written once. Each
// kernel's result is compared with the CPU reference on its first rows first, and a wrong one is
// not timed. Times are medians of 20 runs after 3 (5 after 1 on the CPU), by events of the device.
// Sizes exceed the caches of an H200; the CPU gets a 32nd of the rows.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "common/base/rng.h"
#include "kernels/attention_paged.h"
#include "kernels/device/device_memory.h"
#include "kernels/glu.h"
#include "kernels/rms_norm.h"
#include "kernels/rope.h"
#include "kernels/sampling.h"
#include "kernels/token_logprob.h"
#include "kernels/update/adamw.h"
#ifdef PLUMB_CUDA
#include <cuda_runtime_api.h>
#endif

namespace plumb::kernels {
namespace {

bool on_cuda = false;

// Where everything runs.
Stream TheStream() {
  if (!on_cuda) return Device::kCpu;
  static const OwnedStream stream(Device::Cuda(0));
  return stream;
}
#ifdef PLUMB_CUDA
cudaStream_t CudaStream() { return static_cast<cudaStream_t>(TheStream().handle()); }
#endif

void Check(bool ok, const char* what) {
  if (ok) return;
  std::fprintf(stderr, "kernels_bench: %s failed\n", what);
  std::exit(1);
}

// Memory of the device; every copy waits.
class Buffer {
 public:
  explicit Buffer(int64_t bytes) : bytes_(bytes) {
    if (!on_cuda)
      Check(
          (data_ = std::aligned_alloc(64, static_cast<size_t>((bytes + 127) / 64 * 64))) != nullptr,
          "allocation");
#ifdef PLUMB_CUDA
    else Check(cudaMalloc(&data_, static_cast<size_t>(bytes)) == cudaSuccess, "cudaMalloc");
#endif
  }
  ~Buffer() {
    if (!on_cuda) std::free(data_);
#ifdef PLUMB_CUDA
    else cudaFree(data_);
#endif
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  void Write(int64_t at, const void* from, int64_t n) {
    Move(static_cast<char*>(data_) + at, from, n);
  }
  template <class V>
  std::vector<V> Read(int64_t count, int64_t first = 0) const {
    std::vector<V> out(static_cast<size_t>(count));
    Move(out.data(), static_cast<char*>(data_) + first * static_cast<int64_t>(sizeof(V)),
         count * static_cast<int64_t>(sizeof(V)));
    return out;
  }
  template <class V = void>
  V* as() const {
    return static_cast<V*>(data_);
  }
  int64_t bytes() const { return bytes_; }

 private:
  static void Move(void* to, const void* from, int64_t n) {
    CopyAndWait(TheStream(), to, from, static_cast<size_t>(n));
  }
  void* data_ = nullptr;
  int64_t bytes_;
};
using Shared = std::shared_ptr<Buffer>;

template <class V>
Shared Upload(const std::vector<V>& values) {
  auto b = std::make_shared<Buffer>(static_cast<int64_t>(values.size() * sizeof(V)));
  b->Write(0, values.data(), b->bytes());
  return b;
}
template <class V>
Shared Empty(int64_t count) {
  return std::make_shared<Buffer>(count * static_cast<int64_t>(sizeof(V)));
}

// Normal numbers times `scale`: a block of them, repeated at every odd offset.
template <class V>
Shared Random(int64_t count, float scale = 1.0f) {
  static const std::vector<float> normals = [] {
    RandomStream random(1, 2);
    std::vector<float> x((1 << 20) + 7);
    for (float& v : x) v = random.NextNormal();
    return x;
  }();
  std::vector<V> block(normals.size());
  for (size_t i = 0; i < block.size(); ++i) block[i] = FromFloat<V>(normals[i] * scale);
  auto b = Empty<V>(count);
  for (int64_t at = 0; at < count; at += static_cast<int64_t>(block.size())) {
    const int64_t n = std::min<int64_t>(count - at, static_cast<int64_t>(block.size()));
    b->Write(at * static_cast<int64_t>(sizeof(V)), block.data(),
             n * static_cast<int64_t>(sizeof(V)));
  }
  return b;
}

// |a - b| / |b|.
template <class V>
double Distance(const std::vector<V>& a, const std::vector<V>& b) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double x = static_cast<double>(ToFloat(a[i])), y = static_cast<double>(ToFloat(b[i]));
    difference += (x - y) * (x - y);
    norm += y * y;
  }
  return std::sqrt(difference / norm);
}

double MedianSeconds(const std::function<void()>& run) {
  std::vector<double> seconds;
  const int warm = on_cuda ? 3 : 1, timed = on_cuda ? 20 : 5;
  for (int i = 0; i < warm + timed; ++i) {
    double taken = 0;
    if (!on_cuda) {
      const auto start = std::chrono::steady_clock::now();
      run();
      taken = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    }
#ifdef PLUMB_CUDA
    else {
      static cudaEvent_t begin = nullptr, end = nullptr;
      if (!begin)
        Check(cudaEventCreate(&begin) == cudaSuccess && cudaEventCreate(&end) == cudaSuccess,
              "cudaEventCreate");
      cudaEventRecord(begin, CudaStream());
      run();
      cudaEventRecord(end, CudaStream());
      Check(cudaEventSynchronize(end) == cudaSuccess, "a kernel");
      float ms = 0;
      cudaEventElapsedTime(&ms, begin, end);
      taken = static_cast<double>(ms) / 1e3;
    }
#endif
    if (i >= warm) seconds.push_back(taken);
  }
  std::sort(seconds.begin(), seconds.end());
  return seconds[seconds.size() / 2];
}

double copy_rate = 0;  // bytes a second

// `error`: distance from the CPU reference after one run.
void Report(const std::string& name, int64_t bytes, const std::function<void()>& run,
            const std::function<double()>& error, double allowed) {
  run();
  const double wrong = error();
  if (!(wrong <= allowed)) {
    std::printf("%-58s WRONG, not timed: distance %.3g from the CPU reference, allowed %.3g\n",
                name.c_str(), wrong, allowed);
    return;
  }
  const double seconds = MedianSeconds(run), rate = static_cast<double>(bytes) / seconds;
  if (copy_rate == 0) copy_rate = rate;
  std::printf("%-58s %9.3f ms %8.0f GB/s %5.0f%% of copy\n", name.c_str(), seconds * 1e3,
              rate / 1e9, 100 * rate / copy_rate);
  std::fflush(stdout);
}

constexpr double kBf16 = 1e-2, kFp32 = 1e-5;  // distances two correct implementations may have
using B = BFloat16;

void Run() {
  const int64_t cut = on_cuda ? 1 : 32;
  const Launch half{.stream = TheStream(), .dtype = DType::kBFloat16};
  const Launch host{.dtype = DType::kBFloat16};
  {
    const int64_t n = (int64_t{1} << 30) / cut;
    auto from = Random<float>(n / 4), to = Empty<float>(n / 4);
    Report(
        "copy", 2 * n, [&] { Copy(TheStream(), to->as(), from->as(), static_cast<size_t>(n)); },
        [&] { return Distance(to->Read<float>(1000), from->Read<float>(1000)); }, 0);
  }
  {
    const int64_t rows = 16384 / cut, h = 4096;
    auto x = Random<B>(rows * h), w = Random<B>(h), y = Empty<B>(rows * h),
         dy = Random<B>(rows * h, 0.5f);
    auto rstd = Empty<float>(rows), dw = Upload(std::vector<float>(h)),
         scratch = Empty<float>(kRmsNormScratchRows * h);
    Report(
        "rms_norm forward bf16 [" + std::to_string(rows) + ", 4096]", 4 * rows * h,
        [&] {
          Call(half, RmsNorm{.x = x->as(),
                             .w = w->as(),
                             .rows = rows,
                             .hidden = h,
                             .eps = 1e-5f,
                             .y = y->as(),
                             .rstd = rstd->as<float>()});
        },
        [&] {
          std::vector<B> want(static_cast<size_t>(2 * h));
          Call(host, RmsNorm{.x = x->Read<B>(2 * h).data(),
                             .w = w->Read<B>(h).data(),
                             .rows = 2,
                             .hidden = h,
                             .eps = 1e-5f,
                             .y = want.data()});
          return Distance(y->Read<B>(2 * h), want);
        },
        kBf16);
    Report(
        "rms_norm backward bf16, same shape", 6 * rows * h,
        [&] {
          Call(half, RmsNormBackward{.dy = dy->as(),
                                     .x = x->as(),
                                     .w = w->as(),
                                     .rstd = rstd->as<float>(),
                                     .rows = rows,
                                     .hidden = h,
                                     .dx = y->as(),
                                     .dw = dw->as<float>(),
                                     .scratch = scratch->as<float>()});
        },
        [&] {
          std::vector<B> want(static_cast<size_t>(2 * h));
          std::vector<float> want_dw(static_cast<size_t>(h)),
              work(static_cast<size_t>(kRmsNormScratchRows * h));
          Call(host, RmsNormBackward{.dy = dy->Read<B>(2 * h).data(),
                                     .x = x->Read<B>(2 * h).data(),
                                     .w = w->Read<B>(h).data(),
                                     .rstd = rstd->Read<float>(2).data(),
                                     .rows = 2,
                                     .hidden = h,
                                     .dx = want.data(),
                                     .dw = want_dw.data(),
                                     .scratch = work.data()});
          return Distance(y->Read<B>(2 * h), want);
        },
        kBf16);
  }
  {
    const int64_t rows = 16384 / cut, f = 8192;
    auto x = Random<B>(rows * 2 * f), y = Empty<B>(rows * f);
    Report(
        "swiglu forward bf16 [" + std::to_string(rows) + ", 2 x 8192]", 6 * rows * f,
        [&] { Call(half, Glu{.gate_up = x->as(), .rows = rows, .ffn = f, .out = y->as()}); },
        [&] {
          std::vector<B> want(static_cast<size_t>(f));
          Call(host,
               Glu{.gate_up = x->Read<B>(2 * f).data(), .rows = 1, .ffn = f, .out = want.data()});
          return Distance(y->Read<B>(f), want);
        },
        kBf16);
    auto dx = Empty<B>(rows * 2 * f);
    Report(
        "swiglu backward bf16, same shape", 10 * rows * f,
        [&] {
          Call(half, GluBackward{.dout = y->as(),
                                 .gate_up = x->as(),
                                 .rows = rows,
                                 .ffn = f,
                                 .dgate_up = dx->as()});
        },
        [&] {
          std::vector<B> want(static_cast<size_t>(2 * f));
          Call(host, GluBackward{.dout = y->Read<B>(f).data(),
                                 .gate_up = x->Read<B>(2 * f).data(),
                                 .rows = 1,
                                 .ffn = f,
                                 .dgate_up = want.data()});
          return Distance(dx->Read<B>(2 * f), want);
        },
        kBf16);
  }
  {  // one decode step of many sequences: 32 query heads, 8 KV heads of 128, contexts of 4096
    const int32_t rows = static_cast<int32_t>(256 / cut), heads = 32, kv_heads = 8, d = 128,
                  page = 16, length = 4096;
    const int32_t table_stride = length / page, width = (heads + 2 * kv_heads) * d;
    PagedKv kv{.dtype = DType::kBFloat16,
               .layers = 1,
               .num_pages = rows * table_stride,
               .page_tokens = page,
               .kv_heads = kv_heads,
               .head_dim = d};
    auto pages = Random<B>(kv.layer_stride()), qkv = Random<B>(int64_t{rows} * width),
         out = Empty<B>(int64_t{rows} * heads * d);
    kv.pages = pages->as();
    std::vector<int32_t> slot(static_cast<size_t>(rows)),
        position(static_cast<size_t>(rows), length - 1), table;
    for (int32_t r = 0; r < rows; ++r) slot[static_cast<size_t>(r)] = r;
    for (int64_t i = 0; i < kv.num_pages; ++i)
      table.push_back(static_cast<int32_t>(i * 7919 % kv.num_pages));
    auto dslot = Upload(slot), dposition = Upload(position), dtable = Upload(table);
    const PagedRows where{.rows = rows,
                          .slot = dslot->as<int32_t>(),
                          .position = dposition->as<int32_t>(),
                          .page_table = dtable->as<int32_t>(),
                          .page_table_stride = table_stride,
                          .single = rows};
    Report(
        "attention_paged decode bf16, " + std::to_string(rows) + " rows of 4096",
        int64_t{rows} * length * 2 * kv_heads * d * 2,
        [&] {
          Call(half, AttentionPaged{.q = qkv->as(),
                                    .q_stride = width,
                                    .rows = where,
                                    .heads = heads,
                                    .layer = 0,
                                    .kv = kv,
                                    .out = out->as()});
        },
        [&] {
          // The first row alone on the host, its pages gathered in order.
          PagedKv one = kv;
          one.num_pages = table_stride;
          std::vector<B> mine, want(static_cast<size_t>(heads * d));
          std::vector<int32_t> order(static_cast<size_t>(table_stride)), zero = {0},
                                                                         last = {length - 1};
          for (int32_t i = 0; i < table_stride; ++i) {
            order[static_cast<size_t>(i)] = i;
            const auto part =
                pages->Read<B>(kv.page_stride(), table[static_cast<size_t>(i)] * kv.page_stride());
            mine.insert(mine.end(), part.begin(), part.end());
          }
          one.pages = mine.data();
          Call(host, AttentionPaged{.q = qkv->Read<B>(width).data(),
                                    .q_stride = width,
                                    .rows = {.rows = 1,
                                             .slot = zero.data(),
                                             .position = last.data(),
                                             .page_table = order.data(),
                                             .page_table_stride = table_stride},
                                    .heads = heads,
                                    .layer = 0,
                                    .kv = one,
                                    .out = want.data()});
          return Distance(out->Read<B>(heads * d), want);
        },
        kBf16);
    // every sequence writes 64 prompt tokens
    const int32_t many = static_cast<int32_t>(int64_t{256} * 64 / cut);
    auto prompt = Random<B>(int64_t{many} * width);
    std::vector<int32_t> slots, positions;
    for (int32_t r = 0; r < many; ++r) {
      slots.push_back(r / 64);
      positions.push_back(r % 64 + 100);
    }
    auto dslots = Upload(slots), dpositions = Upload(positions);
    std::vector<float> angles(4096 * 128);
    std::vector<double> frequencies;
    for (int32_t i = 0; i < d / 2; ++i) frequencies.push_back(std::pow(10000.0, -2.0 * i / d));
    RopeTable(4096, frequencies, 1.0, angles.data());
    auto dangles = Upload(angles);
    const PagedRows fill{.rows = many,
                         .slot = dslots->as<int32_t>(),
                         .position = dpositions->as<int32_t>(),
                         .page_table = dtable->as<int32_t>(),
                         .page_table_stride = table_stride};
    const auto before = prompt->Read<B>(width);
    bool first = true;
    std::vector<B> turned;
    Report(
        "rope + kv write bf16, " + std::to_string(many) + " rows, 32 + 8 + 8 heads of 128",
        int64_t{many} * d * 2 * (heads + 2 * kv_heads + heads + kv_heads + 2 * kv_heads),
        [&] {
          Call(half, RopeAndWriteKv{.qkv = prompt->as(),
                                    .rows = fill,
                                    .cos_sin = dangles->as<float>(),
                                    .heads = heads,
                                    .layer = 0,
                                    .kv = kv});
          if (first) turned = prompt->Read<B>(width);
          first = false;
        },
        [&] {
          std::vector<B> want = before;
          Call(host, RopeInPlace{.qkv = want.data(),
                                 .position = positions.data(),
                                 .cos_sin = angles.data(),
                                 .rows = 1,
                                 .heads = heads,
                                 .kv_heads = kv_heads,
                                 .head_dim = d});
          return Distance(turned, want);
        },
        kBf16);
  }
  {
    const int64_t rows = 2048 / cut, v = 128256;
    auto x = Random<float>(rows * v, 2.0f), d = Empty<B>(rows * v);
    auto logprob = Empty<float>(rows), entropy = Empty<float>(rows), lse = Empty<float>(rows);
    std::vector<int32_t> target;
    for (int64_t r = 0; r < rows; ++r) target.push_back(static_cast<int32_t>(r * 31 % v));
    auto dtarget = Upload(target), g = Random<float>(rows), h = Random<float>(rows, 0.01f);
    Report(
        "token_logprob forward fp32 [" + std::to_string(rows) + ", 128256]", 4 * rows * v,
        [&] {
          Call(half, TokenLogprob{.logits = x->as<float>(),
                                  .target = dtarget->as<int32_t>(),
                                  .rows = rows,
                                  .vocab = v,
                                  .temperature = 1.0f,
                                  .logprob = logprob->as<float>(),
                                  .entropy = entropy->as<float>(),
                                  .lse = lse->as<float>()});
        },
        [&] {
          std::vector<float> want(2), e(2), l(2);
          Call(host, TokenLogprob{.logits = x->Read<float>(2 * v).data(),
                                  .target = target.data(),
                                  .rows = 2,
                                  .vocab = v,
                                  .temperature = 1.0f,
                                  .logprob = want.data(),
                                  .entropy = e.data(),
                                  .lse = l.data()});
          return std::max(Distance(logprob->Read<float>(2), want),
                          Distance(entropy->Read<float>(2), e));
        },
        kFp32);
    Report(
        "token_logprob backward to bf16, same shape", 6 * rows * v,
        [&] {
          Call(half, TokenLogprobBackward{.logits = x->as<float>(),
                                          .target = dtarget->as<int32_t>(),
                                          .lse = lse->as<float>(),
                                          .entropy = entropy->as<float>(),
                                          .g_logprob = g->as<float>(),
                                          .g_entropy = h->as<float>(),
                                          .rows = rows,
                                          .vocab = v,
                                          .temperature = 1.0f,
                                          .dlogits = d->as()});
        },
        [&] {
          std::vector<B> want(static_cast<size_t>(v));
          Call(host, TokenLogprobBackward{.logits = x->Read<float>(v).data(),
                                          .target = target.data(),
                                          .lse = lse->Read<float>(1).data(),
                                          .entropy = entropy->Read<float>(1).data(),
                                          .g_logprob = g->Read<float>(1).data(),
                                          .g_entropy = h->Read<float>(1).data(),
                                          .rows = 1,
                                          .vocab = v,
                                          .temperature = 1.0f,
                                          .dlogits = want.data()});
          return Distance(d->Read<B>(v), want);
        },
        kBf16);
    const int64_t drawn = 256 / cut;
    auto scratch = Empty<char>(SamplingScratch(drawn, v));
    auto prompt = Upload(std::vector<uint64_t>(static_cast<size_t>(drawn), 5)),
         token = Empty<int32_t>(drawn);
    std::vector<uint32_t> samples;
    for (int64_t r = 0; r < drawn; ++r) samples.push_back(static_cast<uint32_t>(r));
    auto sample = Upload(samples),
         position = Upload(std::vector<int32_t>(static_cast<size_t>(drawn), 9));
    for (const auto& [name, options] :
         std::vector<std::pair<std::string, SamplingOptions>>{{"temperature 1", {}},
                                                              {"top_p 0.9", {.top_p = 0.9f}},
                                                              {"top_k 50", {.top_k = 50}},
                                                              {"greedy", {.temperature = 0}}}) {
      Report(
          "sampling fp32 [" + std::to_string(drawn) + ", 128256], " + name, 4 * drawn * v,
          [&, o = options] {
            Call(half, SampleTokens{.logits = x->as<float>(),
                                    .rows = drawn,
                                    .vocab = v,
                                    .options = o,
                                    .prompt = prompt->as<uint64_t>(),
                                    .sample = sample->as<uint32_t>(),
                                    .position = position->as<int32_t>(),
                                    .token = token->as<int32_t>(),
                                    .logprob = logprob->as<float>(),
                                    .scratch = scratch->as()});
          },
          [&, o = options] {
            std::vector<int32_t> want(8);
            std::vector<float> want_logprob(8);
            std::vector<char> work(static_cast<size_t>(SamplingScratch(8, v)));
            Call(host, SampleTokens{.logits = x->Read<float>(8 * v).data(),
                                    .rows = 8,
                                    .vocab = v,
                                    .options = o,
                                    .prompt = std::vector<uint64_t>(8, 5).data(),
                                    .sample = samples.data(),
                                    .position = std::vector<int32_t>(8, 9).data(),
                                    .token = want.data(),
                                    .logprob = want_logprob.data(),
                                    .scratch = work.data()});
            if (token->Read<int32_t>(8) != want) return 1.0;
            return Distance(logprob->Read<float>(8), want_logprob);
          },
          kFp32);
    }
  }
  {
    const int64_t n = (int64_t{1} << 28) / cut;
    auto master = Random<float>(n), m = Random<float>(n, 0.1f),
         v = Upload(std::vector<float>(static_cast<size_t>(n), 0.5f));
    auto grad = Random<float>(n), param = Empty<B>(n), pieces = Empty<double>(kNormScratch),
         out = Empty<double>(1);
    AdamwOptions o{.learning_rate = 1e-3f, .weight_decay = 0.1f, .step = 10};
    auto before = master->Read<float>(4096), m1 = m->Read<float>(4096), v1 = v->Read<float>(4096);
    Call(host, AdamwUpdate{.master = before.data(),
                           .m = m1.data(),
                           .v = v1.data(),
                           .grad = grad->Read<float>(4096).data(),
                           .n = 4096,
                           .options = o,
                           .param = nullptr});
    bool first = true;
    std::vector<float> after;
    Report(
        "adamw fp32 + bf16 copy, 2^28 / " + std::to_string(cut) + " elements", 30 * n,
        [&] {
          Call(half, AdamwUpdate{.master = master->as<float>(),
                                 .m = m->as<float>(),
                                 .v = v->as<float>(),
                                 .grad = grad->as<float>(),
                                 .n = n,
                                 .options = o,
                                 .param = param->as()});
          if (first) after = master->Read<float>(4096);
          first = false;
        },
        [&] { return Distance(after, before); }, kFp32);
    Report(
        "sum of squares fp32, same size", 4 * n,
        [&] {
          Call(half, SumOfSquares{.grad = grad->as<float>(),
                                  .n = n,
                                  .scratch = pieces->as<double>(),
                                  .out = out->as<double>()});
        },
        [&] {
          double want = 0;
          std::vector<double> work(static_cast<size_t>(kNormScratch));
          Call(host, SumOfSquares{.grad = grad->Read<float>(n).data(),
                                  .n = n,
                                  .scratch = work.data(),
                                  .out = &want});
          return std::abs(out->Read<double>(1)[0] - want) / want;
        },
        1e-12);
  }
}

}  // namespace
}  // namespace plumb::kernels

int main(int argc, char** argv) {
  const std::string device =
      argc > 1 ? argv[1] : (plumb::kernels::CudaAvailable() ? "cuda" : "cpu");
  if ((device != "cpu" && device != "cuda") ||
      (device == "cuda" && !plumb::kernels::CudaAvailable())) {
    std::fprintf(stderr,
                 "kernels_bench: [cpu|cuda]; cuda needs a build with -DPLUMB_CUDA=ON and a device "
                 "that answers\n");
    return 2;
  }
  plumb::kernels::on_cuda = device == "cuda";
  plumb::kernels::Run();
}
