// A block's tile of a bfloat16 product on the tensor cores (mma.sync), sums in float32.
//
// Purpose: what products over uneven groups of rows are made of (expert_products.cu). 256 threads
// compute Rows x 128 sums over any number of terms; tiles of both operands travel through shared
// memory, three in flight. An operand lies with its terms inner ([rows][terms]), or, where
// `TermsOuter`, as [terms][rows]; what lies beyond its edges counts as 0. Sums are taken in
// ascending order of terms, in steps of 16, whatever Rows is.
// Included by .cu files only; compute capability 8.0 and up. Thread safety: of its block.
#pragma once

#include "kernels/device/cuda_common.h"

namespace plumb::kernels {

// [rows][columns] of what is left from `at` on, `stride` elements from row to row.
struct TileSource {
  const BFloat16* at;
  int64_t stride, rows, columns;
};

// Rows x Columns from (row, column) on into shared memory, rows of it `Pitch` elements apart.
// vector: every 8 elements of a row begin on 16 bytes.
template <int Rows, int Columns, int Pitch>
__device__ __forceinline__ void LoadTile(const TileSource& from, int64_t row, int64_t column,
                                         bool vector, BFloat16* to) {
  constexpr int kAcross = Columns / 8;
  for (int i = static_cast<int>(threadIdx.x); i < Rows * kAcross; i += 256) {
    const int r = i / kAcross, c = i % kAcross * 8;
    BFloat16* target = to + r * Pitch + c;
    const int64_t left = row + r < from.rows ? from.columns - column - c : 0;
    const int there = left >= 8 ? 8 : (left > 0 ? static_cast<int>(left) : 0);
    const BFloat16* source = there ? from.at + (row + r) * from.stride + column + c : from.at;
    if (vector) {
      const auto address = static_cast<unsigned>(__cvta_generic_to_shared(target));
      asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(source),
                   "r"(there * 2));
    } else {
#pragma unroll
      for (int u = 0; u < 8; ++u) target[u] = u < there ? source[u] : BFloat16{};
    }
  }
}

template <int Rows, bool ATermsOuter, bool BTermsOuter>
class TensorTile {
 public:
  static constexpr int kColumns = 128;

 private:
  static constexpr int kTerms = 32, kStages = 3, kPad = 8;
  static constexpr int kWarpsDown = Rows >= 64 ? 2 : 1, kWarpsAcross = 8 / kWarpsDown;
  static constexpr int kDown = Rows / kWarpsDown / 16;          // 16 rows each
  static constexpr int kAcross = kColumns / kWarpsAcross / 16;  // 16 columns each
  static constexpr int kAPitch = (ATermsOuter ? Rows : kTerms) + kPad,
                       kBPitch = (BTermsOuter ? kColumns : kTerms) + kPad;
  static constexpr int kASize = (ATermsOuter ? kTerms : Rows) * kAPitch,
                       kBSize = (BTermsOuter ? kTerms : kColumns) * kBPitch;

 public:
  static constexpr int kBytes = kStages * (kASize + kBSize) * 2;

  __device__ void Multiply(unsigned char* memory, const TileSource& a, const TileSource& b,
                           int64_t terms, bool vector) {
    auto* left = reinterpret_cast<BFloat16*>(memory);
    BFloat16* right = left + kStages * kASize;
    const int64_t steps = (terms + kTerms - 1) / kTerms;
    const auto load = [&](int64_t step) {
      if (step < steps) {
        const int stage = static_cast<int>(step % kStages);
        const int64_t t = step * kTerms;
        if constexpr (ATermsOuter)
          LoadTile<kTerms, Rows, kAPitch>(a, t, 0, vector, left + stage * kASize);
        else LoadTile<Rows, kTerms, kAPitch>(a, 0, t, vector, left + stage * kASize);
        if constexpr (BTermsOuter)
          LoadTile<kTerms, kColumns, kBPitch>(b, t, 0, vector, right + stage * kBSize);
        else LoadTile<kColumns, kTerms, kBPitch>(b, 0, t, vector, right + stage * kBSize);
      }
      asm volatile("cp.async.commit_group;");
    };
#pragma unroll
    for (int stage = 0; stage + 1 < kStages; ++stage) load(stage);
    for (int64_t step = 0; step < steps; ++step) {
      asm volatile("cp.async.wait_group %0;" ::"n"(kStages - 2));
      __syncthreads();  // this step's tiles are there, and everyone is done with the last one's
      load(step + kStages - 1);
      const int stage = static_cast<int>(step % kStages);
      MultiplyTiles(left + stage * kASize, right + stage * kBSize);
    }
    asm volatile("cp.async.wait_group 0;");
  }

  // body(row, even column, its sum, that of the next column) for what the thread holds.
  template <class Body>
  __device__ void ForEach(const Body& body) const {
    const int lane = static_cast<int>(threadIdx.x % 32);
#pragma unroll
    for (int i = 0; i < kDown; ++i) {
#pragma unroll
      for (int j = 0; j < 2 * kAcross; ++j) {
        const int row = FirstRow() + i * 16 + lane / 4,
                  column = FirstColumn() + j * 8 + lane % 4 * 2;
        body(row, column, sum_[i][j][0], sum_[i][j][1]);
        body(row + 8, column, sum_[i][j][2], sum_[i][j][3]);
      }
    }
  }

 private:
  static __device__ int FirstRow() {
    return static_cast<int>(threadIdx.x / 32) / kWarpsAcross * (Rows / kWarpsDown);
  }
  static __device__ int FirstColumn() {
    return static_cast<int>(threadIdx.x / 32) % kWarpsAcross * (kColumns / kWarpsAcross);
  }

  // Four 8 x 8 blocks; lane l gives the address of row l % 8 of block l / 8.
  template <bool Turned>
  static __device__ __forceinline__ void LoadBlocks(const BFloat16* at, unsigned (&out)[4]) {
    const auto address = static_cast<unsigned>(__cvta_generic_to_shared(at));
    if constexpr (Turned) {
      asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                   : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                   : "r"(address));
    } else {
      asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                   : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                   : "r"(address));
    }
  }

  __device__ __forceinline__ void MultiplyTiles(const BFloat16* left, const BFloat16* right) {
    const int lane = static_cast<int>(threadIdx.x % 32), in_block = lane % 8,
              second = lane / 8 % 2 * 8, third = lane / 16 * 8;
#pragma unroll
    for (int t = 0; t < kTerms; t += 16) {
      unsigned a[kDown][4], b[kAcross][4];
#pragma unroll
      for (int i = 0; i < kDown; ++i) {
        const int row = FirstRow() + i * 16;
        if constexpr (ATermsOuter)
          LoadBlocks<true>(left + (t + in_block + third) * kAPitch + row + second, a[i]);
        else LoadBlocks<false>(left + (row + in_block + second) * kAPitch + t + third, a[i]);
      }
#pragma unroll
      for (int j = 0; j < kAcross; ++j) {
        const int column = FirstColumn() + j * 16;
        if constexpr (BTermsOuter)
          LoadBlocks<true>(right + (t + in_block + second) * kBPitch + column + third, b[j]);
        else LoadBlocks<false>(right + (column + in_block + third) * kBPitch + t + second, b[j]);
      }
#pragma unroll
      for (int i = 0; i < kDown; ++i) {
#pragma unroll
        for (int j = 0; j < 2 * kAcross; ++j) {
          float(&c)[4] = sum_[i][j];
          asm volatile(
              "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, "
              "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
              : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
              : "r"(a[i][0]), "r"(a[i][1]), "r"(a[i][2]), "r"(a[i][3]), "r"(b[j / 2][j % 2 * 2]),
                "r"(b[j / 2][j % 2 * 2 + 1]));
        }
      }
    }
  }

  float sum_[kDown][2 * kAcross][4] = {};
};

}  // namespace plumb::kernels
