// Paged attention as generation calls it, on a GPU (or a 64th of it on the CPU).
//
//   attention_bench [cpu|cuda]     default: cuda when this build has it and a device answers
//
// Three cases, 32 query heads over 8 KV heads of 128, bfloat16, pages of 16 in scrambled order:
//   decode    256 sequences of 4,096 keys. Bytes: every key and value once,
//             256 x 4,096 x 2 x 8 x 128 x 2 = 4.29 GB; queries and results are 4 MB.
//   group     the same, of 32 prompts of 3,840 shared tokens with 8 answers each. Bytes: the shared
//             part once a prompt and a tile of 16 rows, 32 x 3,840 keys, and 256 x 256 own ones:
//             0.77 GB. Unshared it would be the 4.29 GB of the first case.
//   prefill   16 prompts of 1,024 tokens. Operations: 4 x 128 a query head, row and key that it
//             sees: 32 x 16 x 1,024 x 1,025 / 2 x 512 = 0.138 TFLOP.
// The first row's result, and the last prompt's, are compared with the CPU's first; a wrong one is
// not timed. Times are medians of 20 runs after 3. A copy of 2 GB beside them gives the bound.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

#include "common/base/rng.h"
#include "kernels/attention_paged.h"
#include "kernels/device/device_memory.h"
#ifdef PLUMB_CUDA
#include <cuda_runtime_api.h>
#endif

namespace plumb::kernels {
namespace {

constexpr int32_t kHeads = 32, kKvHeads = 8, kHead = 128, kPage = 16;
constexpr int64_t kWidth = (kHeads + 2 * kKvHeads) * kHead;

bool on_cuda = false;

Stream TheStream() {
  if (!on_cuda) return Device::kCpu;
  static const OwnedStream stream(Device::Cuda(0));
  return stream;
}

void Check(bool ok, const char* what) {
  if (ok) return;
  std::fprintf(stderr, "attention_bench: %s failed\n", what);
  std::exit(1);
}

class Buffer {
 public:
  explicit Buffer(size_t bytes) {
    if (!on_cuda) data_ = std::aligned_alloc(64, (bytes + 127) / 64 * 64);
#ifdef PLUMB_CUDA
    else Check(cudaMalloc(&data_, bytes) == cudaSuccess, "cudaMalloc");
#endif
    Check(data_ != nullptr, "allocation");
  }
  template <class V>
  explicit Buffer(const std::vector<V>& x) : Buffer(std::max<size_t>(16, x.size() * sizeof(V))) {
    CopyAndWait(TheStream(), data_, x.data(), x.size() * sizeof(V));
  }
  ~Buffer() {
    if (!on_cuda) std::free(data_);
#ifdef PLUMB_CUDA
    else cudaFree(data_);
#endif
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  template <class V = void>
  V* as() const {
    return static_cast<V*>(data_);
  }

 private:
  void* data_ = nullptr;
};

double MedianSeconds(const std::function<void()>& run) {
  std::vector<double> seconds;
  const int warm = on_cuda ? 3 : 1, timed = on_cuda ? 20 : 3;
  for (int i = 0; i < warm + timed; ++i) {
    TheStream().Synchronize();
    double taken = 0;
#ifdef PLUMB_CUDA
    if (on_cuda) {
      static cudaEvent_t begin = nullptr, end = nullptr;
      auto* stream = static_cast<cudaStream_t>(TheStream().handle());
      if (!begin)
        Check(cudaEventCreate(&begin) == cudaSuccess && cudaEventCreate(&end) == cudaSuccess,
              "cudaEventCreate");
      cudaEventRecord(begin, stream);
      run();
      cudaEventRecord(end, stream);
      Check(cudaEventSynchronize(end) == cudaSuccess, "a kernel");
      float ms = 0;
      cudaEventElapsedTime(&ms, begin, end);
      taken = static_cast<double>(ms) / 1e3;
    }
#endif
    if (!on_cuda) {
      const auto start = std::chrono::steady_clock::now();
      run();
      taken = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    }
    if (i >= warm) seconds.push_back(taken);
  }
  std::sort(seconds.begin(), seconds.end());
  return seconds[seconds.size() / 2];
}

// Normal numbers; a block of them, repeated at an odd offset.
std::vector<BFloat16> Random(int64_t count) {
  static const std::vector<BFloat16> block = [] {
    RandomStream random(1, 2);
    std::vector<BFloat16> x((1 << 20) + 7);
    for (BFloat16& v : x) v = ToBFloat16(random.NextNormal());
    return x;
  }();
  std::vector<BFloat16> out(static_cast<size_t>(count));
  for (size_t at = 0; at < out.size(); at += block.size()) {
    std::copy_n(block.begin(), std::min(block.size(), out.size() - at),
                out.begin() + static_cast<ptrdiff_t>(at));
  }
  return out;
}

struct Case {
  std::vector<int32_t> slot, position, table, with = {}, shared = {};
  int32_t stride = 0, single = 0;
};

// Seconds of a call; checks the first and the last row against the CPU.
double Time(const char* name, const Case& c, const std::vector<BFloat16>& pages,
            const Buffer& device_pages) {
  const auto rows = static_cast<int32_t>(c.slot.size());
  const std::vector<BFloat16> q = Random(rows * kWidth);
  const Buffer dq(q), slot(c.slot), position(c.position), table(c.table), with(c.with),
      shared(c.shared), out(static_cast<size_t>(rows) * kHeads * kHead * 2);
  AttentionPaged k{
      .q = dq.as(),
      .q_stride = kWidth,
      .rows = {rows, slot.as<int32_t>(), position.as<int32_t>(), table.as<int32_t>(), c.stride},
      .heads = kHeads,
      .kv = {.pages = device_pages.as(),
             .dtype = DType::kBFloat16,
             .layers = 1,
             .num_pages = static_cast<int32_t>(pages.size() / (2 * kPage * kKvHeads * kHead)),
             .page_tokens = kPage,
             .kv_heads = kKvHeads,
             .head_dim = kHead},
      .scale = 1 / std::sqrt(static_cast<float>(kHead)),
      .out = out.as()};
  k.rows.single = c.single;
  if (!c.with.empty()) {
    k.rows.shared_with = with.as<int32_t>();
    k.rows.shared_tokens = shared.as<int32_t>();
  }
  const Launch launch{.stream = TheStream(), .dtype = DType::kBFloat16};
  const Buffer scratch(static_cast<size_t>(AttentionPagedScratch(launch, k)) + 16);
  k.scratch = scratch.as();
  Call(launch, k);
  for (const int32_t r : {0, rows - 1}) {
    std::vector<BFloat16> got(kHeads * kHead), want(kHeads * kHead);
    CopyAndWait(TheStream(), got.data(), out.as<BFloat16>() + int64_t{r} * kHeads * kHead,
                got.size() * 2);
    AttentionPaged one = k;
    one.q = q.data() + r * kWidth;
    one.rows = {1, &c.slot[static_cast<size_t>(r)], &c.position[static_cast<size_t>(r)],
                c.table.data(), c.stride};
    one.kv.pages = const_cast<BFloat16*>(pages.data());
    one.scratch = nullptr;
    one.out = want.data();
    Call({.dtype = DType::kBFloat16}, one);
    double difference = 0, norm = 0;
    for (size_t i = 0; i < got.size(); ++i) {
      const double x = static_cast<double>(ToFloat(got[i])),
                   y = static_cast<double>(ToFloat(want[i]));
      difference += (x - y) * (x - y);
      norm += y * y;
    }
    const double distance = std::sqrt(difference / norm);
    if (!(distance < 1e-2)) {
      std::printf("%-8s WRONG, not timed: row %d is %.3g from the CPU's\n", name, r, distance);
      return 0;
    }
  }
  return MedianSeconds([&] { Call(launch, k); });
}

void Run() {
  const int32_t cut = on_cuda ? 1 : 64;
  const int32_t rows = 256 / cut, length = 4096, shared = 3840, stride = length / kPage;
  const int64_t page = int64_t{2} * kPage * kKvHeads * kHead;
  const int32_t pages_there = rows * stride;
  const std::vector<BFloat16> pages = Random(pages_there * page);
  const Buffer device_pages(pages);
  double copy = 0;
  {
    const size_t bytes = (size_t{1} << 31) / static_cast<size_t>(cut);
    const Buffer from(bytes), to(bytes);
    if (on_cuda) {
#ifdef PLUMB_CUDA
      cudaMemset(from.as(), 1, bytes);
#endif
    } else {
      std::memset(from.as(), 1, bytes);
    }
    copy = 2 * static_cast<double>(bytes) /
           MedianSeconds([&] { Copy(TheStream(), to.as(), from.as(), bytes); });
    std::printf("copy     %8.0f GB/s\n", copy / 1e9);
  }
  const double key_bytes = 2.0 * kKvHeads * kHead * 2;
  Case decode{.stride = stride, .single = rows};
  for (int32_t r = 0; r < rows; ++r) {
    decode.slot.push_back(r);
    decode.position.push_back(length - 1);
  }
  for (int64_t i = 0; i < pages_there; ++i)
    decode.table.push_back(static_cast<int32_t>(i * 7919 % pages_there));
  const auto report = [&](const char* name, double bytes, double seconds) {
    if (seconds == 0) return;
    std::printf("%-8s %9.3f ms %8.0f GB/s %5.0f%% of copy\n", name, seconds * 1e3,
                bytes / seconds / 1e9, 100 * bytes / seconds / copy);
  };
  report("decode", static_cast<double>(rows) * length * key_bytes,
         Time("decode", decode, pages, device_pages));

  Case group = decode;
  const int32_t answers = std::min(8, rows);
  for (int32_t r = 0; r < rows; ++r) {
    const int32_t of = r / answers * answers;
    for (int32_t p = 0; p < shared / kPage; ++p) {
      group.table[static_cast<size_t>(r * stride + p)] =
          group.table[static_cast<size_t>(of * stride + p)];
    }
    group.with.push_back(of);
    group.shared.push_back(shared);
  }
  report("group",
         (static_cast<double>(rows) / answers * shared +
          static_cast<double>(rows) * (length - shared)) *
             key_bytes,
         Time("group", group, pages, device_pages));
  Case apart = group;
  apart.with.clear();
  apart.shared.clear();
  report("apart", static_cast<double>(rows) * length * key_bytes,
         Time("apart", apart, pages, device_pages));

  Case prefill{.table = decode.table, .stride = stride};
  const int32_t prompts = std::max(1, 16 / cut), tokens = 1024;
  for (int32_t p = 0; p < prompts; ++p) {
    for (int32_t i = 0; i < tokens; ++i) {
      prefill.slot.push_back(p);
      prefill.position.push_back(i);
    }
  }
  const double operations = 4.0 * kHead * kHeads * prompts * tokens * (tokens + 1) / 2;
  const double seconds = Time("prefill", prefill, pages, device_pages);
  if (seconds > 0)
    std::printf("%-8s %9.3f ms %8.1f TFLOP/s\n", "prefill", seconds * 1e3,
                operations / seconds / 1e12);
}

}  // namespace
}  // namespace plumb::kernels

int main(int argc, char** argv) {
  using namespace plumb::kernels;
  on_cuda = argc > 1 ? std::strcmp(argv[1], "cuda") == 0 : CudaAvailable();
  if (on_cuda && !CudaAvailable()) {
    std::fprintf(stderr, "attention_bench: no GPU answers; try: attention_bench cpu\n");
    return 1;
  }
  std::printf("paged attention on %s, %d heads over %d of %d, bfloat16\n",
              on_cuda ? "CUDA device 0" : "the CPU", kHeads, kKvHeads, kHead);
  Run();
  return 0;
}
