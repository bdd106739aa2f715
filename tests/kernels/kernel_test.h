// What the kernel tests share: every test is written once and runs for device x element type.
//
// Inputs are rounded through the element type before the reference sees them, and references
// compute in double, so a tolerance holds the kernel's own error: a few roundings of fp32
// arithmetic (kEps each, growing with the square root of the number of terms of a sum) and, for
// bfloat16, one rounding of the output (kHalfBf16).
#pragma once

#include <gtest/gtest.h>
#include <omp.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "common/base/dtype.h"
#include "common/base/error.h"
#include "common/base/rng.h"
#include "kernels/device/device_memory.h"
#include "kernels/device/launch.h"
#ifdef PLUMB_CUDA
#include <cuda_runtime_api.h>
#endif

namespace plumb::kernels {

inline constexpr double kEps = 1.0 / (1 << 24);      // half an ulp of float, relative
inline constexpr double kHalfBf16 = 1.0 / (1 << 8);  // half an ulp of bfloat16: 8 significant bits
inline double OutputRounding(DType dtype) { return dtype == DType::kBFloat16 ? kHalfBf16 : kEps; }

struct Target {
  Device device;
  DType dtype;
};
inline std::string TargetName(const ::testing::TestParamInfo<Target>& info) {
  return std::string(info.param.device == Device::kCpu ? "Cpu" : "Cuda") +
         (info.param.dtype == DType::kFloat32 ? "Float" : "Bf16");
}
inline void PrintTo(const Target& t, std::ostream* out) { *out << TargetName({t, 0}); }

// The stream that the tests use on a GPU, or the CPU's.
inline Stream TestStream(Device device) {
  if (device.is_cpu()) return Device::kCpu;
  static const OwnedStream stream(Device::Cuda(0));
  return stream;
}

class KernelTest : public ::testing::TestWithParam<Target> {
 protected:
  void SetUp() override {
    if (GetParam().device.is_cuda() && !CudaAvailable()) {
      GTEST_SKIP() << "NO GPU: the CUDA kernel was NOT tested here (build with -DPLUMB_CUDA=ON on "
                      "a machine with a GPU)";
    }
  }
  Device device() const { return GetParam().device; }
  DType dtype() const { return GetParam().dtype; }
  Launch launch() const { return {.stream = TestStream(device()), .dtype = dtype()}; }
};

#define PLUMB_KERNEL_SUITE(Name)                                                         \
  class Name : public KernelTest {};                                                     \
  INSTANTIATE_TEST_SUITE_P(Targets, Name,                                                \
                           ::testing::Values(Target{Device::kCpu, DType::kFloat32},      \
                                             Target{Device::kCpu, DType::kBFloat16},     \
                                             Target{Device::Cuda(0), DType::kFloat32},   \
                                             Target{Device::Cuda(0), DType::kBFloat16}), \
                           TargetName)

// Memory of a device, filled from and read back to the host. Fresh memory is poisoned: what a
// kernel leaves unwritten shows.
class DeviceBytes {
 public:
  DeviceBytes(Device device, size_t size)
      : stream_(TestStream(device)), host_(size + 64, 0xFF), size_(size) {
#ifdef PLUMB_CUDA
    if (!device.is_cuda()) return;
    PLUMB_CHECK(cudaMalloc(&cuda_, size + 64) == cudaSuccess, "cudaMalloc");
    CopyAndWait(stream_, cuda_, host_.data(), size + 64);
#endif
  }
  ~DeviceBytes() {
#ifdef PLUMB_CUDA
    if (cuda_) cudaFree(cuda_);
#endif
  }
  DeviceBytes(const DeviceBytes&) = delete;
  DeviceBytes& operator=(const DeviceBytes&) = delete;

  void* data() { return cuda_ ? cuda_ : host_.data(); }
  void Set(const void* from) { CopyAndWait(stream_, data(), from, size_); }
  void Get(void* to) { CopyAndWait(stream_, to, data(), size_); }

 private:
  const Stream stream_;
  std::vector<unsigned char> host_;
  size_t size_;
  void* cuda_ = nullptr;
};

// An array of plain values.
template <class V>
class Array {
 public:
  Array(Device device, size_t n) : n_(n), bytes_(device, n * sizeof(V)) {}
  Array(Device device, const std::vector<V>& values) : Array(device, values.size()) {
    bytes_.Set(values.data());
  }
  V* data() { return static_cast<V*>(bytes_.data()); }
  std::vector<V> Host() {
    std::vector<V> out(n_);
    bytes_.Get(out.data());
    return out;
  }

 private:
  size_t n_;
  DeviceBytes bytes_;
};

// A buffer of the element type under test, seen from the host as floats.
class Tensor {
 public:
  Tensor(Target target, size_t n)
      : dtype_(target.dtype), n_(n), bytes_(target.device, n * ElementSize(target.dtype)) {}
  Tensor(Target target, const std::vector<float>& values) : Tensor(target, values.size()) {
    if (dtype_ == DType::kFloat32) {
      bytes_.Set(values.data());
      return;
    }
    std::vector<BFloat16> half(n_);
    for (size_t i = 0; i < n_; ++i) half[i] = ToBFloat16(values[i]);
    bytes_.Set(half.data());
  }
  void* data() { return bytes_.data(); }
  std::vector<float> Host() {
    std::vector<float> out(n_);
    if (dtype_ == DType::kFloat32) {
      bytes_.Get(out.data());
      return out;
    }
    std::vector<BFloat16> half(n_);
    bytes_.Get(half.data());
    for (size_t i = 0; i < n_; ++i) out[i] = ToFloat(half[i]);
    return out;
  }

 private:
  DType dtype_;
  size_t n_;
  DeviceBytes bytes_;
};

// Normal values, rounded through the element type.
inline std::vector<float> Normal(size_t n, uint64_t seed, DType dtype = DType::kFloat32,
                                 float scale = 1.0f) {
  RandomStream random(20261123, seed);
  std::vector<float> out(n);
  for (float& x : out) {
    x = random.NextNormal() * scale;
    if (dtype == DType::kBFloat16) x = ToFloat(ToBFloat16(x));
  }
  return out;
}

// |actual - expected| <= absolute + relative |expected| everywhere; the worst element is named.
inline void ExpectClose(const std::vector<float>& actual, const std::vector<double>& expected,
                        double relative, double absolute, const std::string& what) {
  ASSERT_EQ(actual.size(), expected.size()) << what;
  double worst = 0;
  size_t at = 0;
  for (size_t i = 0; i < actual.size(); ++i) {
    const double error = std::abs(static_cast<double>(actual[i]) - expected[i]) /
                         (absolute + relative * std::abs(expected[i]) + 1e-300);
    if (!(error <= worst)) {
      worst = error;
      at = i;
      if (std::isnan(error)) break;
    }
  }
  EXPECT_LE(worst, 1.0) << what << ": element " << at << " is " << actual[at] << ", expected "
                        << expected[at];
}

inline void ExpectSameBits(const std::vector<float>& a, const std::vector<float>& b,
                           const std::string& what) {
  ASSERT_EQ(a.size(), b.size()) << what;
  for (size_t i = 0; i < a.size(); ++i) {
    ASSERT_EQ(std::bit_cast<uint32_t>(a[i]), std::bit_cast<uint32_t>(b[i]))
        << what << ": element " << i << ": " << a[i] << " and " << b[i];
  }
}

// d loss / d x[i] by central differences in double; `loss` reads x.
template <class Loss>
double FiniteDifference(std::vector<double>& x, size_t i, const Loss& loss, double step = 1e-5) {
  const double old = x[i];
  x[i] = old + step;
  const double up = loss();
  x[i] = old - step;
  const double down = loss();
  x[i] = old;
  return (up - down) / (2 * step);
}

inline std::vector<double> ToDouble(const std::vector<float>& x) { return {x.begin(), x.end()}; }

// Central differences in double of a scalar function of a vector.
inline std::vector<double> Gradient(const std::function<double(const std::vector<double>&)>& f,
                                    std::vector<double> x) {
  std::vector<double> g(x.size());
  for (size_t i = 0; i < x.size(); ++i) g[i] = FiniteDifference(x, i, [&] { return f(x); });
  return g;
}

inline double Dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

// Values no kernel writes, to see what it leaves alone.
inline constexpr float kPoison = -12345.0f;
inline std::vector<float> Floats(const std::vector<double>& x) { return {x.begin(), x.end()}; }

// Runs body with one and with two OpenMP threads.
template <class Body>
void WithThreads(const Body& body) {
  const int before = omp_get_max_threads();
  for (const int threads : {1, 2}) {
    omp_set_num_threads(threads);
    body(threads);
  }
  omp_set_num_threads(before);
}

}  // namespace plumb::kernels
