// The operations of Hopper's products of four warps on the CPU, for tests of the blocks that are
// written against them (kernels/attention/warpgroup_chip.h has the GPU's).
//
// Purpose: products as PTX defines them; operands in shared memory are found by their descriptors
// alone. Copies and products happen as early as they may (`eager`), or as late: a copy when
// somebody waits for its barrier, a product when it is waited for. A wait that is missing shows in
// one of both. Thread safety: none, one block at a time in a process. Ownership: of what a block
// has under way.
#pragma once

#include <array>
#include <bit>
#include <deque>

#include "tests/kernels/attention/emulated_chip.h"

namespace plumb::kernels {

struct EmulatedHopper {
  static inline unsigned char* base = nullptr;  // shared memory, on a multiple of 1,024 bytes
  static inline bool eager = false;

  // Runs body as one block of whole groups of four warps in `bytes` of shared memory.
  template <class Body>
  static void RunBlock(int threads, size_t bytes, const Body& body) {
    std::vector<unsigned char> memory(bytes + 2048, 0xFF);  // NaN
    base = memory.data() + (1024 - reinterpret_cast<uintptr_t>(memory.data()) % 1024) % 1024;
    const std::vector<unsigned char> behind(
        base + bytes, static_cast<unsigned char*>(memory.data()) + memory.size());
    products.assign(static_cast<size_t>(threads), std::vector<Products>(1));
    copies.assign(static_cast<size_t>(threads), {});
    EmulatedBlock::Run(threads, [&] { body(base); });
    for (const auto& of_thread : products) {
      for (const Products& group : of_thread) PLUMB_CHECK(group.empty(), "products are waited for");
    }
    for (const auto& of_thread : copies) PLUMB_CHECK(of_thread.empty(), "copies are waited for");
    PLUMB_CHECK(std::equal(behind.begin(), behind.end(), base + bytes),
                "memory behind the block's");
  }

  static int Thread() { return EmulatedBlock::current().thread(); }
  static int Group() { return Thread() / 128; }
  static void SyncBlock() { EmulatedBlock::current().SyncAll(); }
  static void SyncSome(int number, int count) { EmulatedBlock::current().SyncSome(number, count); }
  static uint32_t Shuffle(uint32_t x, int lane) {
    return EmulatedBlock::current().Exchange(x)[lane % 32];
  }
  static float ShuffleXor(float x, int mask) { return EmulatedChip::ShuffleXor(x, mask); }
  static unsigned ShuffleXor(unsigned x, int mask) {
    return EmulatedBlock::current().Exchange(x)[Thread() % 32 ^ mask];
  }
  static unsigned Ballot(bool x) {
    const bool* all = EmulatedBlock::current().Exchange(x);
    unsigned bits = 0;
    for (int i = 0; i < 32; ++i) bits |= all[i] ? 1u << i : 0u;
    return bits;
  }
  static int LowestBit(unsigned x) { return std::countr_zero(x); }
  template <int Count>
  static void GiveRegisters() {}
  template <int Count>
  static void TakeRegisters() {}

  static uint32_t Address(const void* at) {
    return static_cast<uint32_t>(static_cast<const unsigned char*>(at) - base);
  }
  static void CopyAsync(unsigned char* to, const void* from, bool there) {
    PLUMB_CHECK(reinterpret_cast<uintptr_t>(to) % 16 == 0);
    PLUMB_CHECK(!there || reinterpret_cast<uintptr_t>(from) % 16 == 0);
    BeginCopy({to, there ? from : nullptr, 16, nullptr});
  }
  static void CopyWordAsync(float* to, const float* from, bool there) {
    BeginCopy({to, there ? from : nullptr, 4, nullptr});
  }
  static void ShowCopies() {}

  // 16 bits each: whose parity, arrivals that are missing, of a phase.
  struct Barrier {
    uint16_t parity, missing, count, spare;
  };
  static void InitBarrier(uint64_t* at, int count) {
    *reinterpret_cast<Barrier*>(at) = {0, static_cast<uint16_t>(count),
                                       static_cast<uint16_t>(count), 0};
  }
  static void Arrive(uint64_t* at) {
    auto& barrier = *reinterpret_cast<Barrier*>(at);
    PLUMB_CHECK(barrier.missing > 0 && barrier.missing <= barrier.count);
    if (--barrier.missing > 0) return;
    barrier.parity ^= 1;
    barrier.missing = barrier.count;
  }
  static void ArriveWithCopies(uint64_t* at) {
    if (eager) Arrive(at);
    else Copies().push_back({nullptr, nullptr, 0, at});
  }
  static void Wait(uint64_t* at, unsigned parity) {
    const auto& barrier = *reinterpret_cast<const Barrier*>(at);
    for (int turn = 0; barrier.parity == parity; ++turn) {
      if (turn > 0) Land(at);
      EmulatedBlock::current().Yield();
    }
  }

  template <class V, int N>
  static void EndProducts(V (&)[N]) {}
  static void BeginProducts() {}
  static void CommitProducts() { Groups().emplace_back(); }
  template <int Left>
  static void WaitProducts() {
    auto& groups = Groups();
    while (groups.size() > Left + 1) {
      Finish(groups.front());
      groups.erase(groups.begin());
    }
    if constexpr (Left == 0) PLUMB_CHECK(groups.front().empty(), "a product is not committed");
  }

  static void MultiplyRows(float (&sum)[32], uint64_t a, uint64_t b, bool add) {
    float* to = sum;
    const int thread = Thread();
    Multiply([=] {
      const int row = thread % 128 / 32 * 16 + thread % 32 / 4;
      for (int half = 0; half < 2; ++half) {
        float left[16];
        for (int t = 0; t < 16; ++t) left[t] = Element(a, false, row + 8 * half, t);
        AddProducts(left, half, thread, b, false, 64, add, to);
      }
    });
  }
  template <int N>
  static void MultiplyColumns(float (&sum)[N], const unsigned* a, uint64_t b) {
    float* to = sum;
    const int thread = Thread();
    // Four threads hold a row's 16 terms.
    using Words = std::array<unsigned, 4>;
    const Words* all = EmulatedBlock::current().Exchange(Words{a[0], a[1], a[2], a[3]});
    std::array<Words, 4> now;
    for (size_t i = 0; i < 4; ++i) now[i] = all[static_cast<size_t>(thread % 32 / 4 * 4) + i];
    Multiply([=] {
      for (int half = 0; half < 2; ++half) {
        float left[16];
        for (int t = 0; t < 16; ++t) {
          const unsigned pair =
              now[static_cast<size_t>(t % 8 / 2)][static_cast<size_t>((t >= 8 ? 2 : 0) + half)];
          left[t] = ToFloat(BFloat16{static_cast<uint16_t>(pair >> (16 * (t % 2)))});
        }
        AddProducts(left, half, thread, b, true, 2 * N, true, to);
      }
    });
  }
  static void MultiplyAdd(float (&c)[4], const unsigned* a, unsigned b0, unsigned b1) {
    const unsigned all[4] = {a[0], a[1], a[2], a[3]};
    EmulatedChip::MultiplyAdd(c, all, b0, b1);
  }

  static float Max(float x, float y) { return EmulatedChip::Max(x, y); }
  static float Mul(float x, float y) { return EmulatedChip::Mul(x, y); }
  static float Sub(float x, float y) { return EmulatedChip::Sub(x, y); }
  static float Div(float x, float y) { return EmulatedChip::Div(x, y); }
  static float MulAdd(float x, float y, float z) { return EmulatedChip::MulAdd(x, y, z); }
  static float Exp2(float x) { return EmulatedChip::Exp2(x); }
  static unsigned PackPair(float low, float high) { return EmulatedChip::PackPair(low, high); }
  static void LoadWords(const BFloat16* from, unsigned (&words)[4]) {
    PLUMB_CHECK(reinterpret_cast<uintptr_t>(from) % 16 == 0);
    std::memcpy(words, from, 16);
  }
  static void StoreWords(BFloat16* to, const unsigned (&words)[4]) {
    PLUMB_CHECK(reinterpret_cast<uintptr_t>(to) % 16 == 0);
    std::memcpy(to, words, 16);
  }
  static void LoadPair(const float* from, float (&pair)[2]) { std::memcpy(pair, from, 8); }
  static void LoadFour(const float* from, float (&four)[4]) { std::memcpy(four, from, 16); }
  static void StoreFour(float* to, const float (&four)[4]) { std::memcpy(to, four, 16); }

 private:
  using Products = std::vector<std::function<void()>>;
  struct Copy {
    void* to;
    const void* from;  // nullptr: zeros
    size_t bytes;      // 0: an arrival
    uint64_t* barrier;
  };
  static inline std::vector<std::vector<Products>> products;  // of a thread, by group
  static inline std::vector<std::deque<Copy>> copies;         // of a thread, in order

  static std::vector<Products>& Groups() { return products[static_cast<size_t>(Thread())]; }
  static std::deque<Copy>& Copies() { return copies[static_cast<size_t>(Thread())]; }

  static void Do(const Copy& copy) {
    if (copy.bytes == 0) Arrive(copy.barrier);
    else if (copy.from) std::memcpy(copy.to, copy.from, copy.bytes);
    else std::memset(copy.to, 0, copy.bytes);
  }
  static void BeginCopy(const Copy& copy) {
    if (eager) Do(copy);
    else Copies().push_back(copy);
  }
  // Copies up to the first arrival at the barrier, of the threads that have one coming.
  static void Land(uint64_t* barrier) {
    for (auto& of_thread : copies) {
      const auto arrival = std::find_if(of_thread.begin(), of_thread.end(),
                                        [&](const Copy& copy) { return copy.barrier == barrier; });
      if (arrival == of_thread.end()) continue;
      for (auto copy = of_thread.begin(); copy != arrival + 1; ++copy) Do(*copy);
      of_thread.erase(of_thread.begin(), arrival + 1);
    }
  }

  static void Multiply(std::function<void()> product) {
    Groups().back().push_back(std::move(product));
    if (eager) Finish(Groups().back());
  }
  static void Finish(Products& group) {
    for (const auto& product : group) product();
    group.clear();
  }

  static void AddProducts(const float (&left)[16], int half, int thread, uint64_t b, bool outer,
                          int columns, bool add, float* to) {
    for (int j = 0; j < columns / 8; ++j) {
      for (int odd = 0; odd < 2; ++odd) {
        float& c = to[4 * j + 2 * half + odd];
        float of_terms = 0;
        for (int t = 0; t < 16; ++t)
          of_terms += left[t] * Element(b, outer, 8 * j + 2 * (thread % 4) + odd, t);
        c = add ? c + of_terms : of_terms;
      }
    }
  }
  static float Element(uint64_t descriptor, bool outer, int row, int term) {
    const uint64_t start = (descriptor & 0x3FFF) * 16, leading = (descriptor >> 16 & 0x3FFF) * 16,
                   stride = (descriptor >> 32 & 0x3FFF) * 16;
    PLUMB_CHECK(descriptor >> 62 == 1 && (descriptor >> 49 & 7) == 0);
    const auto r = static_cast<uint64_t>(row), t = static_cast<uint64_t>(term);
    uint64_t at = outer ? start + r / 64 * leading + r % 64 * 2 + t / 8 * stride + t % 8 * 128
                        : start + r / 8 * stride + r % 8 * 128 + t * 2;
    at ^= (at >> 7 & 7) << 4;
    BFloat16 x;
    std::memcpy(&x, base + at, sizeof(x));
    return ToFloat(x);
  }
};

}  // namespace plumb::kernels
