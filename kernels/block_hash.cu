#define XXH_INLINE_ALL
#include <xxhash.h>

#include <cstring>

#include "kernels/block_hash.h"
#include "kernels/device/cuda_common.h"

namespace plumb::kernels {
namespace {

// The specification's constants.
constexpr uint64_t kPrime32_1 = 0x9E3779B1, kPrime32_2 = 0x85EBCA77, kPrime32_3 = 0xC2B2AE3D;
constexpr uint64_t kPrime64_1 = 0x9E3779B185EBCA87, kPrime64_2 = 0xC2B2AE3D27D4EB4F,
                   kPrime64_3 = 0x165667B19E3779F9;
constexpr uint64_t kPrime64_4 = 0x85EBCA77C2B2AE63, kPrime64_5 = 0x27D4EB2F165667C5;
constexpr int kStripe = 64, kLanesOfStripe = 8, kStripesPerRound = 16, kSecretBytes = 192;
constexpr int64_t kRound = int64_t{kStripe} * kStripesPerRound;

struct Secret {
  uint8_t bytes[kSecretBytes];
};

__device__ __forceinline__ uint64_t SecretAt(const uint8_t* secret, int at) {
  uint64_t value = 0;
#pragma unroll
  for (int i = 7; i >= 0; --i) value = value << 8 | secret[at + i];
  return value;
}

__device__ __forceinline__ uint64_t Fold(uint64_t a, uint64_t b) {
  return a * b ^ __umul64hi(a, b);
}

// Eight lanes hash a block, lane i the i-th word of every stripe. A stripe adds to each lane's sum
// the product of the two halves of its keyed word, and the neighbour's word as it is.
__global__ void Hash(const uint64_t* words, int64_t size, int64_t block_bytes, int64_t blocks,
                     Secret secret_in, uint8_t* out) {
  __shared__ uint8_t secret[kSecretBytes];
  for (int i = static_cast<int>(threadIdx.x); i < kSecretBytes; i += static_cast<int>(blockDim.x))
    secret[i] = secret_in.bytes[i];
  __syncthreads();
  const int lane = static_cast<int>(threadIdx.x) % kLanesOfStripe;
  const int64_t mine = (int64_t{blockIdx.x} * blockDim.x + threadIdx.x) / kLanesOfStripe;
  // lanes past the end work along and store nothing
  const int64_t block = mine < blocks ? mine : blocks - 1;
  const int64_t length = min(block_bytes, size - block * block_bytes);
  const uint64_t* in = words + block * (block_bytes / 8);
  const uint64_t start[8] = {kPrime32_3, kPrime64_1, kPrime64_2, kPrime64_3,
                             kPrime64_4, kPrime32_2, kPrime64_5, kPrime32_1};
  uint64_t sum = start[lane];
  uint64_t key[kStripesPerRound];
#pragma unroll
  for (int s = 0; s < kStripesPerRound; ++s) key[s] = SecretAt(secret, 8 * (s + lane));
  const uint64_t scramble = SecretAt(secret, kSecretBytes - kStripe + 8 * lane);
  const auto add = [&](uint64_t word, uint64_t with) {
    const uint64_t keyed = word ^ with;
    sum += __shfl_xor_sync(0xFFFFFFFFu, word, 1) + (keyed & 0xFFFFFFFFu) * (keyed >> 32);
  };
  const int64_t rounds = (length - 1) / kRound;
  // all lanes of a warp take the same turns
  for (int64_t r = 0; r < (block_bytes - 1) / kRound; ++r) {
    uint64_t word[kStripesPerRound];
    const int64_t at = (r < rounds ? r : 0) * (kRound / 8) + lane;
#pragma unroll
    for (int s = 0; s < kStripesPerRound; ++s)
      word[s] = (at + s * kLanesOfStripe) * 8 < length ? in[at + s * kLanesOfStripe] : 0;
    const uint64_t before = sum;
#pragma unroll
    for (int s = 0; s < kStripesPerRound; ++s) add(word[s], key[s]);
    sum = (sum ^ sum >> 47 ^ scramble) * kPrime32_1;
    if (r >= rounds) sum = before;
  }
  const int64_t stripes = (length - 1 - rounds * kRound) / kStripe;
#pragma unroll
  for (int s = 0; s < kStripesPerRound; ++s) {
    const uint64_t before = sum;
    add(s < stripes ? in[rounds * (kRound / 8) + s * kLanesOfStripe + lane] : 0, key[s]);
    if (s >= stripes) sum = before;
  }
  // the last 64 bytes
  add(in[length / 8 - kLanesOfStripe + lane],
      SecretAt(secret, kSecretBytes - kStripe - 7 + 8 * lane));
  // Each half of the result folds the lanes in pairs, at another place of the secret.
  uint64_t half[2];
  for (int h = 0; h < 2; ++h) {
    const uint64_t mixed =
        sum ^ SecretAt(secret, (h == 0 ? 11 : kSecretBytes - kStripe - 11) + 8 * lane);
    const uint64_t other = __shfl_xor_sync(0xFFFFFFFFu, mixed, 1);
    uint64_t folded = lane % 2 == 0 ? Fold(mixed, other) : 0;
#pragma unroll
    for (int offset = 4; offset > 0; offset /= 2)
      folded += __shfl_xor_sync(0xFFFFFFFFu, folded, offset);
    const auto n = static_cast<uint64_t>(length);
    uint64_t result = (h == 0 ? n * kPrime64_1 : ~(n * kPrime64_2)) + folded;
    result ^= result >> 37;
    result *= 0x165667919E3779F9;
    half[h] = result ^ result >> 32;
  }
  if (mine >= blocks || lane != 0) return;
  for (int i = 0; i < 8; ++i) {  // canonical: the high half first, both big-endian
    out[block * 16 + i] = static_cast<uint8_t>(half[1] >> (56 - 8 * i));
    out[block * 16 + 8 + i] = static_cast<uint8_t>(half[0] >> (56 - 8 * i));
  }
}

__global__ void SetTo(uint64_t* first, uint64_t n) { *first = n; }

template <class Word>
__global__ void Find(const Word* x, int64_t n, Word exponent, unsigned long long* first) {
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n;
       i += int64_t{gridDim.x} * blockDim.x) {
    if ((x[i] & exponent) == exponent) atomicMin(first, static_cast<unsigned long long>(i));
  }
}

}  // namespace

void HashWeightBlocks::Cuda(const Launch& launch) const {
  if (size == 0) return;
  const auto block = static_cast<int64_t>(kDigestBlockBytes);
  const int64_t last = size - (blocks() - 1) * block;
  if (last <= 240 || size % 8 != 0) {
    throw Error(ErrorCode::kInvalidArgument,
                "HashWeightBlocks: a last block of " + std::to_string(last) + " bytes");
  }
  Secret secret;
  static_assert(sizeof XXH3_kSecret == kSecretBytes);
  std::memcpy(secret.bytes, XXH3_kSecret, kSecretBytes);
  constexpr int kThreads = 64;
  const auto grid = static_cast<unsigned>((blocks() * kLanesOfStripe + kThreads - 1) / kThreads);
  Hash<<<grid, kThreads, 0, StreamOf(launch)>>>(static_cast<const uint64_t*>(bytes), size, block,
                                                blocks(), secret, reinterpret_cast<uint8_t*>(out));
  CheckLaunch(kName);
}

void FindNonFinite::Cuda(const Launch& launch) const {
  SetTo<<<1, 1, 0, StreamOf(launch)>>>(first, static_cast<uint64_t>(n));
  CheckLaunch(kName);
  if (n == 0) return;
  auto* lowest = reinterpret_cast<unsigned long long*>(first);
  const unsigned grid = Blocks(n, 4096);
  ForDType(launch.dtype, [&]<class T>(T) {
    if constexpr (sizeof(T) == 4) {
      Find<<<grid, 256, 0, StreamOf(launch)>>>(static_cast<const uint32_t*>(x), n,
                                               uint32_t{0x7F800000u}, lowest);
    } else {
      Find<<<grid, 256, 0, StreamOf(launch)>>>(static_cast<const uint16_t*>(x), n, uint16_t{0x7F80},
                                               lowest);
    }
  });
  CheckLaunch(kName);
}

}  // namespace plumb::kernels
