#include "kernels/device/cuda_common.h"
#include "kernels/quantised/kv_codes.h"
#include "kernels/quantised/kv_rows.h"

namespace plumb::kernels {
namespace {

constexpr unsigned kAll = 0xFFFFFFFFu;
constexpr int kWarps = 8;  // of a block, a row each

// Of a warp's numbers the one furthest from 0, of equally far ones that of the lowest lane; 0 where
// all are; NaN where one is not finite.
__device__ float FurthestOfLanes(float v) {
  const float far = WarpMax(fabsf(v));
  const unsigned there = __ballot_sync(kAll, fabsf(v) == far);
  const float most = __shfl_sync(kAll, v, there ? __ffs(static_cast<int>(there)) - 1 : 0);
  if (__any_sync(kAll, !isfinite(v))) return NAN;
  return far == 0 ? 0.0f : most;
}

// A warp packs one key or value of a head.
template <class T>
__device__ void Pack8(KvFormat format, const T* x, int32_t d, int lane, uint8_t* row) {
  float most = 0;
  bool finite = true;
  for (int32_t i = lane; i < d; i += 32) {
    const float v = ToFloat(x[i]);
    most = fmaxf(most, fabsf(v));
    finite = finite && isfinite(v);
  }
  most = __all_sync(kAll, finite) ? WarpMax(most) : NAN;
  const bool fp8 = format == KvFormat::kFp8;
  const float scale = ToFloat(ToBFloat16(most / (fp8 ? kKvMostFp8 : kKvMostInt8))),
              inverse = KvInverse(scale);
  if (lane == 0) PutKvScale(scale, row);
  for (int32_t i = lane; i < d; i += 32) {
    const float q = ToFloat(x[i]) * inverse;
    row[kKvScaleBytes + i] = fp8 ? E4M3Code(q) : Int8Code(q);
  }
}

// 32 numbers a turn, one a lane; even lanes write their own and their neighbour's.
template <class T>
__device__ void Pack4(const T* x, int32_t d, int lane, uint8_t* row) {
  for (int32_t first = 0; first < d; first += 32) {
    const int32_t i = first + lane;
    const float v = i < d ? ToFloat(x[i]) : 0.0f;
    const float scale = ToFloat(ToBFloat16(FurthestOfLanes(v) / kKvMostInt4));
    if (lane == 0) PutKvScale(scale, row);
    const int code = Int4Code(v * KvInverse(scale)), next = __shfl_down_sync(kAll, code, 1);
    if (lane % 2 == 0 && i < d)
      row[kKvScaleBytes + lane / 2] = static_cast<uint8_t>(code | next << 4);
    row += kKvScaleBytes + kKvInt4Group / 2;
  }
}

template <class T>
__global__ void Write(WriteKvRows w) {
  const PagedKv& kv = w.kv;
  const int32_t d = kv.head_dim, all = (kv.keys_only ? 1 : 2) * kv.kv_heads;
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int64_t at = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  if (at >= int64_t{w.rows.rows} * all) return;
  const int64_t r = at / all;
  const auto head = static_cast<int32_t>(at - r * all);
  const int32_t value = head >= kv.kv_heads, position = w.rows.position[r];
  const int32_t page = w.rows.page_table[int64_t{w.rows.slot[r]} * w.rows.page_table_stride +
                                         position / kv.page_tokens];
  uint8_t* row = static_cast<uint8_t*>(kv.pages) + w.layer * kv.layer_stride() +
                 page * kv.page_stride() + value * kv.kv_stride() +
                 (head - value * kv.kv_heads) * kv.head_stride() +
                 position % kv.page_tokens * kv.row_stride();
  const T* x = static_cast<const T*>(w.rows_kv) + r * w.stride + int64_t{head} * d;
  if (kv.format == KvFormat::kInt4) Pack4(x, d, lane, row);
  else Pack8(kv.format, x, d, lane, row);
}

}  // namespace

void WriteKvRows::Cuda(const Launch& launch) const {
  if (rows.rows == 0) return;
  PLUMB_CHECK(kv.format != KvFormat::kModel, "rows in fewer bits");
  const int64_t warps = int64_t{rows.rows} * (kv.keys_only ? 1 : 2) * kv.kv_heads;
  ForDType(launch.dtype, [&]<class T>(T) {
    Write<T><<<static_cast<unsigned>((warps + kWarps - 1) / kWarps), kWarps * 32, 0,
               StreamOf(launch)>>>(*this);
  });
  CheckLaunch(kName);
}

}  // namespace plumb::kernels
