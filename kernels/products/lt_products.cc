#include "kernels/products/lt_products.h"

#ifdef PLUMB_CUDA
#include <cublasLt.h>

#include <algorithm>
#include <memory>
#include <set>
#include <unordered_map>
#include <utility>
#include <vector>

#include "common/base/log.h"
#include "common/base/mutex.h"
#include "kernels/device/cuda_check.h"
#include "kernels/device/device_memory.h"
#include "kernels/products/product_timing.h"

namespace plumb::kernels {
namespace {

cudaStream_t StreamOf(const Launch& launch) {
  return static_cast<cudaStream_t>(launch.stream.handle());
}

constexpr size_t kWorkspaceBytes = 32 << 20;  // what the library asks for on this generation

void CheckLt(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw Error(ErrorCode::kIo,
              std::string("cuBLASLt refused ") + what + ": " + cublasLtGetStatusString(status));
}

ProductKey KeyOf(const Launch& launch, const RowProduct& p) {
  return {.rows = RowBucket(p.m),
          .n = p.n,
          .k = p.k,
          .float_in = launch.dtype == DType::kFloat32,
          .float_out = p.y_dtype == DType::kFloat32,
          .residual = p.residual != nullptr,
          .bias = p.bias != nullptr};
}

cudaDataType_t InType(const ProductKey& key) { return key.float_in ? CUDA_R_32F : CUDA_R_16BF; }
cudaDataType_t OutType(const ProductKey& key) { return key.float_out ? CUDA_R_32F : CUDA_R_16BF; }
int64_t InBytes(const ProductKey& key) { return key.float_in ? 4 : 2; }
int64_t OutBytes(const ProductKey& key) { return key.float_out ? 4 : 2; }

// The product as the library sees it, by columns: y^T[n, m] = (w^T[k, n])^T x^T[k, m]. Its
// descriptions lie here, so nothing is taken for a call.
class Problem {
 public:
  Problem(const ProductKey& key, int64_t m, const void* bias) {
    CheckLt(cublasLtMatmulDescInit(&op_, CUBLAS_COMPUTE_32F, CUDA_R_32F), "a product");
    Set(CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T);
    if (key.bias) {
      Set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
      Set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
    }
    const auto n = static_cast<uint64_t>(key.n), k = static_cast<uint64_t>(key.k),
               rows = static_cast<uint64_t>(m);
    CheckLt(cublasLtMatrixLayoutInit(&w_, InType(key), k, n, key.k), "a matrix");
    CheckLt(cublasLtMatrixLayoutInit(&x_, InType(key), k, rows, key.k), "a matrix");
    CheckLt(cublasLtMatrixLayoutInit(&y_, OutType(key), n, rows, key.n), "a matrix");
  }

  // Whether the algorithm can do it, and what it wants to.
  bool Takes(cublasLtHandle_t library, const cublasLtMatmulAlgo_t& algorithm,
             size_t* workspace) const {
    cublasLtMatmulHeuristicResult_t result{};
    const cublasStatus_t status =
        cublasLtMatmulAlgoCheck(library, op(), w(), x(), y(), y(), &algorithm, &result);
    *workspace = result.workspaceSize;
    return status == CUBLAS_STATUS_SUCCESS && result.workspaceSize <= kWorkspaceBytes;
  }

  // Best first, by the library's own guess.
  std::vector<cublasLtMatmulHeuristicResult_t> Guesses(cublasLtHandle_t library) const {
    cublasLtMatmulPreferenceOpaque_t preference;
    CheckLt(cublasLtMatmulPreferenceInit(&preference), "a preference");
    const size_t most = kWorkspaceBytes;
    CheckLt(cublasLtMatmulPreferenceSetAttribute(
                &preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &most, sizeof most),
            "a workspace's size");
    const uint32_t alignment = 16;  // what RowProduct asks for; the library supposes 256
    for (const auto attribute :
         {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
          CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
      CheckLt(cublasLtMatmulPreferenceSetAttribute(&preference, attribute, &alignment,
                                                   sizeof alignment),
              "an alignment");
    }
    std::vector<cublasLtMatmulHeuristicResult_t> results(24);
    int found = 0;
    if (cublasLtMatmulAlgoGetHeuristic(library, op(), w(), x(), y(), y(), &preference,
                                       static_cast<int>(results.size()), results.data(),
                                       &found) != CUBLAS_STATUS_SUCCESS)
      found = 0;
    results.resize(static_cast<size_t>(found));
    return results;
  }

  cublasStatus_t Run(cublasLtHandle_t library, const void* weights, const void* rows,
                     const void* residual, void* out, const cublasLtMatmulAlgo_t& algorithm,
                     void* workspace, size_t workspace_bytes, cudaStream_t stream) const {
    const float one = 1, beta = residual ? 1 : 0;
    return cublasLtMatmul(library, op(), &one, weights, w(), rows, x(), &beta,
                          residual ? residual : out, y(), out, y(), &algorithm, workspace,
                          workspace_bytes, stream);
  }

 private:
  template <class V>
  void Set(cublasLtMatmulDescAttributes_t attribute, V value) {
    CheckLt(cublasLtMatmulDescSetAttribute(&op_, attribute, &value, sizeof value), "a product");
  }
  // The library reads these and takes them by a pointer that is not const.
  cublasLtMatmulDesc_t op() const { return const_cast<cublasLtMatmulDesc_t>(&op_); }
  cublasLtMatrixLayout_t w() const { return const_cast<cublasLtMatrixLayout_t>(&w_); }
  cublasLtMatrixLayout_t x() const { return const_cast<cublasLtMatrixLayout_t>(&x_); }
  cublasLtMatrixLayout_t y() const { return const_cast<cublasLtMatrixLayout_t>(&y_); }

  cublasLtMatmulDescOpaque_t op_;
  cublasLtMatrixLayoutOpaque_t w_, x_, y_;
};

struct Plan {
  ProductChoice choice;
  cublasLtMatmulAlgo_t algorithm{};
  size_t workspace = 0;  // bytes
};

struct Tile {
  uint32_t id;
  int32_t n, m;  // outputs and rows
};
// Those that won somewhere when all tiles of the library were tried on an H200, and their
// neighbours.
constexpr Tile kTiles[] = {
    {CUBLASLT_MATMUL_TILE_64x8, 64, 8},      {CUBLASLT_MATMUL_TILE_64x16, 64, 16},
    {CUBLASLT_MATMUL_TILE_64x24, 64, 24},    {CUBLASLT_MATMUL_TILE_64x32, 64, 32},
    {CUBLASLT_MATMUL_TILE_64x48, 64, 48},    {CUBLASLT_MATMUL_TILE_64x64, 64, 64},
    {CUBLASLT_MATMUL_TILE_128x8, 128, 8},    {CUBLASLT_MATMUL_TILE_128x16, 128, 16},
    {CUBLASLT_MATMUL_TILE_192x8, 192, 8},    {CUBLASLT_MATMUL_TILE_192x16, 192, 16},
    {CUBLASLT_MATMUL_TILE_256x8, 256, 8},    {CUBLASLT_MATMUL_TILE_320x8, 320, 8},
    {CUBLASLT_MATMUL_TILE_320x16, 320, 16},  {CUBLASLT_MATMUL_TILE_16x64, 16, 64},
    {CUBLASLT_MATMUL_TILE_32x64, 32, 64},    {CUBLASLT_MATMUL_TILE_56x64, 56, 64},
    {CUBLASLT_MATMUL_TILE_80x64, 80, 64},    {CUBLASLT_MATMUL_TILE_88x64, 88, 64},
    {CUBLASLT_MATMUL_TILE_96x64, 96, 64},    {CUBLASLT_MATMUL_TILE_112x64, 112, 64},
    {CUBLASLT_MATMUL_TILE_64x96, 64, 96},    {CUBLASLT_MATMUL_TILE_64x128, 64, 128},
    {CUBLASLT_MATMUL_TILE_96x128, 96, 128},  {CUBLASLT_MATMUL_TILE_112x128, 112, 128},
    {CUBLASLT_MATMUL_TILE_128x64, 128, 64},  {CUBLASLT_MATMUL_TILE_128x128, 128, 128},
    {CUBLASLT_MATMUL_TILE_144x128, 144, 128}};
constexpr struct {
  uint32_t id;
  const char* name;
} kClusters[] = {{CUBLASLT_CLUSTER_SHAPE_1x1x1, "1x1"}, {CUBLASLT_CLUSTER_SHAPE_2x1x1, "2x1"},
                 {CUBLASLT_CLUSTER_SHAPE_1x2x1, "1x2"}, {CUBLASLT_CLUSTER_SHAPE_2x2x1, "2x2"},
                 {CUBLASLT_CLUSTER_SHAPE_4x1x1, "4x1"}, {CUBLASLT_CLUSTER_SHAPE_4x2x1, "4x2"},
                 {CUBLASLT_CLUSTER_SHAPE_2x4x1, "2x4"}};
// Above, the library's guesses are hard to beat, but where there are so few outputs that the tiles
// of its guesses leave multiprocessors idle: without splits that is as many blocks as there are.
constexpr int64_t kMostTiledRows = 384, kFewOutputs = int64_t{132} * 128 * 128;

class Event {
 public:
  Event() { CheckCuda(cudaEventCreate(&event_), "an event"); }
  ~Event() { cudaEventDestroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  void Record(cudaStream_t stream) { CheckCuda(cudaEventRecord(event_, stream), "an event"); }
  float MillisecondsSince(const Event& begin) const {
    float ms = 0;
    CheckCuda(cudaEventSynchronize(event_), "products that are timed");
    CheckCuda(cudaEventElapsedTime(&ms, begin.event_, event_), "the time between events");
    return ms;
  }

 private:
  cudaEvent_t event_ = nullptr;
};

// Memory for one tuning, where the device has twice as much: others may take some at the moment.
class Scratch {
 public:
  ~Scratch() {
    if (data_) cudaFree(data_);
  }
  bool Take(size_t bytes) {
    size_t free = 0, total = 0;
    if (cudaMemGetInfo(&free, &total) == cudaSuccess && bytes <= free / 2 &&
        cudaMalloc(&data_, bytes) == cudaSuccess)
      return true;
    cudaGetLastError();  // that there is too little shows in the return value alone
    data_ = nullptr;
    return false;
  }
  std::byte* data() const { return static_cast<std::byte*>(data_); }

 private:
  void* data_ = nullptr;
};

// The library on one device.
class Library {
 public:
  explicit Library(Device device) {
    CheckLt(cublasLtCreate(&handle_), "a handle");
    cudaDeviceProp properties{};
    CheckCuda(cudaGetDeviceProperties(&properties, device.ordinal), "the device's properties");
    owner_ = {.device = std::string(properties.name) + ", " +
                        std::to_string(properties.multiProcessorCount) + " multiprocessors",
              .library = static_cast<int64_t>(cublasLtGetVersion())};
    path_ = ChoicesPath(owner_);
    for (const auto& [key, choice] : ReadChoices(path_, owner_)) {
      Plan plan{.choice = choice};
      // What this library does not take after all is found anew.
      if (Build(key, &plan)) plans_.emplace(key, plan);
    }
  }

  cublasLtHandle_t handle() const { return handle_; }
  const ChoicesOwner& owner() const { return owner_; }

  // nullptr: no algorithm qualifies. `tuned`: it is the one to keep.
  const Plan* PlanOf(const Launch& launch, const RowProduct& product, const ProductKey& key,
                     bool* tuned) PLUMB_EXCLUDES(mu_) {
    const MutexLock lock(mu_);
    *tuned = true;
    if (const auto at = plans_.find(key); at != plans_.end()) return &at->second;
    const Plan* standing = StandingOf(key);
    if (!standing) return nullptr;
    // What could not be tuned once for want of memory is not tried with each call.
    if (untuned_.count(key)) return UntunedOf(key, *standing);
    if (launch.stream.capturing()) {
      *tuned = false;
      return UntunedOf(key, *standing);
    }
    const std::optional<Plan> best = Tune(launch, product, key, *standing);
    if (!best) {
      untuned_.insert(key);
      return UntunedOf(key, *standing);
    }
    AddChoices(path_, owner_, {{key, best->choice}});
    return &plans_.emplace(key, *best).first->second;
  }

  std::optional<ProductChoice> Chosen(const ProductKey& key) PLUMB_EXCLUDES(mu_) {
    const MutexLock lock(mu_);
    const auto at = plans_.find(key);
    if (at == plans_.end()) return std::nullopt;
    return at->second.choice;
  }

  void* WorkspaceOf(const Stream& stream) PLUMB_EXCLUDES(mu_) {
    const MutexLock lock(mu_);
    void*& memory = workspaces_[stream.handle()];
    if (memory) return memory;
    if (stream.capturing()) {
      throw Error(ErrorCode::kUnsupported,
                  "a product needs a workspace, which cannot be taken while a stream is recorded: "
                  "run the step once before it is recorded");
    }
    CheckCuda(cudaMalloc(&memory, kWorkspaceBytes), "a workspace of products");
    return memory;
  }

 private:
  // Fills in the plan of its choice. false: the library does not take it.
  bool Build(const ProductKey& key, Plan* plan) const {
    const ProductChoice& c = plan->choice;
    if (!KeepsBits(c.algorithm) ||
        cublasLtMatmulAlgoInit(handle_, CUBLAS_COMPUTE_32F, CUDA_R_32F, InType(key), InType(key),
                               OutType(key), OutType(key), static_cast<int>(c.algorithm),
                               &plan->algorithm) != CUBLAS_STATUS_SUCCESS)
      return false;
    const auto set = [&](cublasLtMatmulAlgoConfigAttributes_t attribute, auto value) {
      return cublasLtMatmulAlgoConfigSetAttribute(&plan->algorithm, attribute, &value,
                                                  sizeof value) == CUBLAS_STATUS_SUCCESS;
    };
    // What is 0 is so from the beginning; older algorithms know no clusters.
    const auto set_short = [&](cublasLtMatmulAlgoConfigAttributes_t attribute, uint32_t value) {
      return value == 0 || set(attribute, static_cast<uint16_t>(value));
    };
    return set(CUBLASLT_ALGO_CONFIG_TILE_ID, c.tile) &&
           (c.stages == 0 || set(CUBLASLT_ALGO_CONFIG_STAGES_ID, c.stages)) &&
           set(CUBLASLT_ALGO_CONFIG_SPLITK_NUM, int32_t{1}) &&
           set(CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME,
               static_cast<uint32_t>(CUBLASLT_REDUCTION_SCHEME_NONE)) &&
           (c.swizzle == 0 || set(CUBLASLT_ALGO_CONFIG_CTA_SWIZZLING, c.swizzle)) &&
           (c.option == 0 || set(CUBLASLT_ALGO_CONFIG_CUSTOM_OPTION, c.option)) &&
           set_short(CUBLASLT_ALGO_CONFIG_INNER_SHAPE_ID, c.inner) &&
           set_short(CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID, c.cluster) &&
           Problem(key, key.rows, Unused()).Takes(handle_, plan->algorithm, &plan->workspace);
  }

  static ProductChoice ChoiceOf(const cublasLtMatmulAlgo_t& algorithm) {
    const auto get = [&]<class V>(cublasLtMatmulAlgoConfigAttributes_t attribute, V) {
      V value{};
      size_t written = 0;
      const cublasStatus_t status = cublasLtMatmulAlgoConfigGetAttribute(
          &algorithm, attribute, &value, sizeof value, &written);
      return status == CUBLAS_STATUS_SUCCESS ? static_cast<uint32_t>(value) : 0u;
    };
    return {.algorithm = get(CUBLASLT_ALGO_CONFIG_ID, int32_t{}),
            .tile = get(CUBLASLT_ALGO_CONFIG_TILE_ID, uint32_t{}),
            .stages = get(CUBLASLT_ALGO_CONFIG_STAGES_ID, uint32_t{}),
            .cluster = get(CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID, uint16_t{}),
            .inner = get(CUBLASLT_ALGO_CONFIG_INNER_SHAPE_ID, uint16_t{}),
            .option = get(CUBLASLT_ALGO_CONFIG_CUSTOM_OPTION, uint32_t{}),
            .swizzle = get(CUBLASLT_ALGO_CONFIG_CTA_SWIZZLING, uint32_t{})};
  }

  // An address of the alignment that ours have: only its last bits are looked at.
  static const void* Unused() { return reinterpret_cast<const void*>(uintptr_t{16}); }

  // The algorithm that stands for n and k, whatever m is; nullptr: there is none.
  const Plan* StandingOf(const ProductKey& key) PLUMB_REQUIRES(mu_) {
    ProductKey of = key;
    of.rows = 64;
    const auto [at, added] = standing_.try_emplace(of);
    if (!added) return at->second ? &*at->second : nullptr;
    for (const auto& guess : Problem(of, of.rows, Unused()).Guesses(handle_)) {
      if (guess.state != CUBLAS_STATUS_SUCCESS) continue;
      Plan plan{.choice = ChoiceOf(guess.algo)};
      if (!Build(of, &plan)) continue;
      at->second = plan;
      return &*at->second;
    }
    LogWarningOnce("cuBLASLt has no algorithm without splits for products of " +
                   std::to_string(key.n) + " x " + std::to_string(key.k) +
                   ": slower ones of our own do them. run.exact = false leaves them to cuBLAS");
    return nullptr;
  }

  // The library's first guess for this many rows, without its splits. Of float32, where that the
  // bits do not depend on tiles was not measured, the standing algorithm.
  const Plan* UntunedOf(const ProductKey& key, const Plan& standing) PLUMB_REQUIRES(mu_) {
    if (key.float_in) return &standing;
    const auto [at, added] = guessed_.try_emplace(key, standing);
    if (!added) return &at->second;
    for (const auto& guess : Problem(key, key.rows, Unused()).Guesses(handle_)) {
      if (guess.state != CUBLAS_STATUS_SUCCESS) continue;
      Plan plan{.choice = ChoiceOf(guess.algo)};
      if (!Build(key, &plan)) continue;
      at->second = plan;
      break;
    }
    return &at->second;
  }

  // What is worth timing for this many rows: the library's guesses, without their splits, and
  // where it knows clusters the tiles above under the algorithm that it guesses first.
  std::vector<Plan> Candidates(const ProductKey& key, int64_t m, const Plan& standing) const {
    std::vector<Plan> found;
    const auto add = [&](const ProductChoice& choice) {
      for (const Plan& plan : found) {
        if (plan.choice == choice) return;
      }
      Plan plan{.choice = choice};
      if (Build(key, &plan)) found.push_back(plan);
    };
    add(standing.choice);
    std::optional<ProductChoice> first;
    for (const auto& guess : Problem(key, m, Unused()).Guesses(handle_)) {
      if (guess.state != CUBLAS_STATUS_SUCCESS) continue;
      const ProductChoice choice = ChoiceOf(guess.algo);
      if (!first && choice.cluster != 0 && KeepsBits(choice.algorithm)) first = choice;
      add(choice);
    }
    if (!first || (m > kMostTiledRows && m * key.n > kFewOutputs)) return found;
    for (const Tile& tile : kTiles) {
      if (tile.m > std::max<int64_t>(64, m) || tile.m * 8 < m) continue;
      for (const auto& cluster : kClusters) {
        for (uint32_t option = 0; option < 4; ++option) {
          ProductChoice choice = *first;
          choice.tile = tile.id, choice.cluster = cluster.id, choice.option = option;
          add(choice);
        }
      }
    }
    return found;
  }

  // The fastest candidate; nothing: there is no memory to time them in.
  std::optional<Plan> Tune(const Launch& launch, const RowProduct& product, const ProductKey& key,
                           const Plan& standing) const {
    // Weights come from the device's memory in a step, not from its cache: several copies in turn.
    const int64_t weight = key.n * key.k * InBytes(key);
    const int64_t drawn =
        weight <= kMostDrawn ? std::clamp<int64_t>(kMostDrawn / weight, 1, 48) : 0;
    const auto up = [](int64_t bytes) { return (bytes + 255) / 256 * 256; };
    int64_t m = key.rows, x_bytes = 0, y_bytes = 0;
    Scratch memory;
    for (;; m /= 2) {
      x_bytes = up(m * key.k * InBytes(key)), y_bytes = up(m * key.n * OutBytes(key));
      if (x_bytes + y_bytes <= kMostRows &&
          memory.Take(static_cast<size_t>(x_bytes + y_bytes + drawn * up(weight) + 256 +
                                          static_cast<int64_t>(kWorkspaceBytes))))
        break;
      if (m <= 8) {
        LogWarning("there is no memory to time products of " + std::to_string(key.n) + " x " +
                   std::to_string(key.k) +
                   " in: the library's guess without splits does them, which may be slower");
        return std::nullopt;
      }
    }
    const cudaStream_t stream = StreamOf(launch);
    std::byte* const x = memory.data();
    std::byte* const y = x + x_bytes;
    auto* const sum = reinterpret_cast<uint64_t*>(y + y_bytes);
    std::byte* const workspace = y + y_bytes + 256;
    std::byte* const copies = workspace + kWorkspaceBytes;
    const Launch in{.stream = launch.stream,
                    .dtype = key.float_in ? DType::kFloat32 : DType::kBFloat16};
    const Launch out{.stream = launch.stream,
                     .dtype = key.float_out ? DType::kFloat32 : DType::kBFloat16};
    FillForTiming(in, x, m * key.k, 1);
    for (int64_t i = 0; i < drawn; ++i)
      FillForTiming(in, copies + i * up(weight), key.n * key.k, static_cast<uint32_t>(i) + 2);
    const auto weights = [&](int64_t i) -> const void* {
      return drawn > 0 ? copies + i % drawn * up(weight) : product.w;
    };
    const Problem problem(key, m, product.bias);
    const void* residual = key.residual ? y : nullptr;
    int64_t turn = 0;
    const auto run = [&](const Plan& plan, const void* w) {
      return problem.Run(handle_, w, x, residual, y, plan.algorithm, workspace, kWorkspaceBytes,
                         stream) == CUBLAS_STATUS_SUCCESS;
    };
    Event begin, end;
    // Of one product; infinity: the library refuses it after all.
    const auto time = [&](const Plan& plan, int times) {
      KeepBusy(launch, int64_t{4000} * times);
      begin.Record(stream);
      for (int i = 0; i < times; ++i) {
        if (!run(plan, weights(turn++))) return INFINITY;
      }
      end.Record(stream);
      return end.MillisecondsSince(begin) / static_cast<float>(times);
    };
    const auto bits = [&](const Plan& plan) {
      uint64_t value = 0;
      CheckCuda(cudaMemsetAsync(sum, 0, sizeof value, stream), "to clear a sum");
      // The residual is y: the same one each time, and none that hides when it is rounded.
      FillForTiming(out, y, m * key.n, 77);
      if (!run(plan, weights(0))) return value;
      AddBitsOf(launch, y, m * key.n * OutBytes(key), sum);
      CopyAndWait(launch.stream, &value, sum, sizeof value);
      return value;
    };

    struct Timed {
      float ms = 0;
      Plan plan;
    };
    const auto faster = [](const Timed& a, const Timed& b) { return a.ms < b.ms; };
    const uint64_t expected = bits(standing);  // its first launch loads code
    if (expected == 0) return standing;        // it was refused; the call that follows says so
    const int times = static_cast<int>(std::clamp(0.4f / time(standing, 2), 2.0f, 12.0f));
    std::vector<Timed> timed;
    for (const Plan& plan : Candidates(key, m, standing)) {
      run(plan, weights(turn++));
      timed.push_back({time(plan, times), plan});
    }
    std::stable_sort(timed.begin(), timed.end(), faster);
    std::vector<Timed> best;
    for (const Timed& candidate : timed) {
      if (best.size() == 8 || !(candidate.ms < INFINITY)) break;
      if (bits(candidate.plan) == expected) {
        best.push_back(candidate);
        continue;
      }
      LogInfo("a product of " + std::to_string(key.n) + " x " + std::to_string(key.k) + " by " +
              ProductChoiceText(candidate.plan.choice) +
              " has other bits than the same without tuning: it is not used");
    }
    for (int round = 0; round < 2; ++round) {
      for (Timed& candidate : best)
        candidate.ms = std::min(candidate.ms, time(candidate.plan, times));
    }
    if (const auto at = std::min_element(best.begin(), best.end(), faster); at != best.end())
      return at->plan;
    return standing;
  }

  static constexpr int64_t kMostDrawn = 128 << 20, kMostRows = int64_t{1} << 30;  // bytes

  // Constant after construction.
  cublasLtHandle_t handle_ = nullptr;
  ChoicesOwner owner_;
  std::string path_;

  Mutex mu_;
  std::map<ProductKey, Plan> plans_ PLUMB_GUARDED_BY(mu_);  // nothing is taken out
  std::map<ProductKey, std::optional<Plan>> standing_ PLUMB_GUARDED_BY(mu_);  // rows: 64
  std::map<ProductKey, Plan> guessed_ PLUMB_GUARDED_BY(mu_);  // nothing is taken out
  std::set<ProductKey> untuned_ PLUMB_GUARDED_BY(mu_);
  std::unordered_map<void*, void*> workspaces_ PLUMB_GUARDED_BY(mu_);
};

// Lives as long as the process: threads and graphs may end after main.
Library& LibraryOf(Device device) {
  static Mutex& mu = *new Mutex;
  static auto& libraries = *new std::map<int, std::unique_ptr<Library>>;
  const MutexLock lock(mu);
  std::unique_ptr<Library>& library = libraries[device.ordinal];
  if (!library) {
    const OnDevice here(device);
    library = std::make_unique<Library>(device);
  }
  return *library;
}

struct HashOfKey {
  size_t operator()(const ProductKey& key) const {
    uint64_t h = 0;
    for (const int64_t part : {key.rows, key.n, key.k,
                               int64_t{key.float_in} | int64_t{key.float_out} << 1 |
                                   int64_t{key.residual} << 2 | int64_t{key.bias} << 3}) {
      h = (h ^ static_cast<uint64_t>(part)) * 0x9E3779B97F4A7C15ull;
      h ^= h >> 29;
    }
    return static_cast<size_t>(h);
  }
};

// What a thread has met: no lock, and nothing taken, with a kind that it knows.
struct Known {
  int ordinal = -1;
  Library* library = nullptr;
  std::unordered_map<ProductKey, const Plan*, HashOfKey> plans;
  void* workspace = nullptr;  // nullptr: not asked for yet
  void* of_handle = nullptr;  // the stream whose workspace it is
};

}  // namespace

bool LtProduct(const Launch& launch, const RowProduct& product) {
  static thread_local Known known;
  if (known.ordinal != launch.device().ordinal)
    known = {.ordinal = launch.device().ordinal, .library = &LibraryOf(launch.device())};
  const ProductKey key = KeyOf(launch, product);
  const Plan* plan = nullptr;
  if (const auto at = known.plans.find(key); at != known.plans.end()) {
    plan = at->second;
  } else {
    bool tuned = false;
    plan = known.library->PlanOf(launch, product, key, &tuned);
    if (tuned) known.plans.emplace(key, plan);
  }
  if (!plan) return false;
  void* workspace = nullptr;
  if (plan->workspace > 0) {
    if (known.of_handle != launch.stream.handle() || !known.workspace) {
      known.workspace = known.library->WorkspaceOf(launch.stream);
      known.of_handle = launch.stream.handle();
    }
    workspace = known.workspace;
  }
  CheckLt(Problem(key, product.m, product.bias)
              .Run(known.library->handle(), product.w, product.x, product.residual, product.y,
                   plan->algorithm, workspace, plan->workspace, StreamOf(launch)),
          "a product");
  return true;
}

std::optional<ProductChoice> ChosenProduct(Device device, const ProductKey& key) {
  return LibraryOf(device).Chosen(key);
}

std::string ProductChoiceText(const ProductChoice& choice) {
  std::string tile = "number " + std::to_string(choice.tile);
  for (const Tile& known : kTiles) {
    if (known.id == choice.tile) tile = std::to_string(known.n) + "x" + std::to_string(known.m);
  }
  std::string cluster;
  for (const auto& known : kClusters) {
    if (known.id == choice.cluster) cluster = std::string(", cluster ") + known.name;
  }
  return "algorithm " + std::to_string(choice.algorithm) + ", tile " + tile + cluster +
         ", option " + std::to_string(choice.option);
}

ChoicesOwner ChoicesOwnerOf(Device device) { return LibraryOf(device).owner(); }

}  // namespace plumb::kernels
#endif
