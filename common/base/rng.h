// Random numbers that have an address.
//
// Purpose: every draw is a pure function of (seed, prompt, sample, position), so a result does not
// depend on the batch slot, on scheduling or on the number of actors. Philox-4x32-10 (Salmon et
// al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): counter-based, stateless, the same
// on host and device.
// Thread safety: pure functions.
#pragma once

#include <cmath>
#include <cstdint>

#ifdef __CUDACC__
#define PLUMB_HOST_DEVICE __host__ __device__
#else
#define PLUMB_HOST_DEVICE
#endif

namespace plumb {

struct Random4 {
  uint32_t x[4];
};

// The ten rounds. `counter` and `key` are the address of the draw.
PLUMB_HOST_DEVICE inline Random4 Philox(Random4 counter, uint32_t key0, uint32_t key1) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53u} * counter.x[0];
    const uint64_t b = uint64_t{0xCD9E8D57u} * counter.x[2];
    const Random4 next = {
        {static_cast<uint32_t>(b >> 32) ^ counter.x[1] ^ key0, static_cast<uint32_t>(b),
         static_cast<uint32_t>(a >> 32) ^ counter.x[3] ^ key1, static_cast<uint32_t>(a)}};
    counter = next;
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return counter;
}

// The draw of one sampled token: 128 bits for (prompt, sample, position) under `seed`. `prompt` is
// the lease id.
PLUMB_HOST_DEVICE inline Random4 RandomAt(uint64_t seed, uint64_t prompt, uint32_t sample,
                                          uint32_t position) {
  const Random4 counter = {
      {static_cast<uint32_t>(prompt), static_cast<uint32_t>(prompt >> 32), sample, position}};
  return Philox(counter, static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32));
}

// Uniform in the open interval (0, 1): 24 random bits centred in their cell, so neither end can be
// hit.
PLUMB_HOST_DEVICE inline float UniformOpen(uint32_t bits) {
  return (static_cast<float>(bits >> 8) + 0.5f) * (1.0f / 16777216.0f);
}

// Uniform in (0, 1) with 52 bits, for inverse-CDF sampling over large vocabularies.
PLUMB_HOST_DEVICE inline double UniformOpen(uint32_t hi, uint32_t lo) {
  const uint64_t bits = (static_cast<uint64_t>(hi) << 20) | (lo >> 12);
  return (static_cast<double>(bits) + 0.5) * (1.0 / 4503599627370496.0);
}

// A sequential stream for initialisers, shuffles and generated data: draw number n of stream
// `stream` under `seed`. Not thread safe; copyable, the state is the address of the next draw.
class RandomStream {
 public:
  RandomStream(uint64_t seed, uint64_t stream) : seed_(seed), stream_(stream) {}

  uint32_t NextBits() { return RandomAt(seed_, stream_, 0xA5A5A5A5u, position_++).x[0]; }
  float NextUniform() { return UniformOpen(NextBits()); }

  // Uniform integer in [0, n), unbiased. REQUIRES: n > 0.
  uint32_t NextBelow(uint32_t n) {
    const uint32_t limit = UINT32_MAX - UINT32_MAX % n;
    uint32_t bits = NextBits();
    while (bits >= limit) bits = NextBits();
    return bits % n;
  }

  // Standard normal by Box-Muller; uses two draws.
  float NextNormal() {
    const double u = NextUniform(), v = NextUniform();
    return static_cast<float>(std::sqrt(-2.0 * std::log(u)) * std::cos(6.283185307179586 * v));
  }

  uint32_t position() const { return position_; }
  void Seek(uint32_t position) { position_ = position; }

 private:
  uint64_t seed_;
  uint64_t stream_;
  uint32_t position_ = 0;
};

}  // namespace plumb
