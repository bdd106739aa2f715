// The operations of Hopper that tiles of experts' products are written against, on the CPU.
//
// Thread safety: of an EmulatedBlock, whose threads take turns. Ownership: none; `base` is where a
// test's shared memory begins. Units: bytes. Errors: PLUMB_CHECK for what the chip would refuse.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>

#include "kernels/products/warpgroup_products.h"
#include "kernels/products/warpgroup_work.h"
#include "tests/kernels/attention/emulated_chip.h"

namespace plumb::kernels {

// Products of a warp group as PTX defines them: operands are found by their descriptors alone, in
// the layouts of K and of M and N inner with a swizzle of 128 bytes. Copies and products happen
// when they are asked for or when they are waited for: a wait that is missing shows in one of both.
struct WarpgroupChip {
  static inline unsigned char* base = nullptr;
  static inline bool eager_copies = false;

  static int Thread() { return EmulatedBlock::current().thread(); }
  static int Group() { return Thread() / 128; }
  static void SyncBlock() { EmulatedBlock::current().SyncAll(); }
  static unsigned ShuffleXor(unsigned x, int mask) {
    return EmulatedBlock::current().Exchange(x)[Thread() % 32 ^ mask];
  }
  static int32_t Shuffle(int32_t x, int lane) { return EmulatedChip::Shuffle(x, lane); }
  static uint32_t Address(const unsigned char* at) { return static_cast<uint32_t>(at - base); }

  // Where copies are not eager they happen once a barrier that they were announced to is waited
  // for, and every other turn of a barrier's count is checked.
  static void CopyAsync(unsigned char* to, const BFloat16* from, bool there) {
    PLUMB_CHECK(reinterpret_cast<uintptr_t>(to) % 16 == 0);
    PLUMB_CHECK(!there || reinterpret_cast<uintptr_t>(from) % 16 == 0);
    const auto copy = [=] {
      std::memset(to, 0, 16);
      if (there) std::memcpy(to, from, 16);
    };
    if (eager_copies) copy();
    else copies[static_cast<size_t>(Thread())].push_back(copy);
  }
  // A matrix [rows, columns] that boxes of 64 columns are cut from.
  struct Boxes {
    const BFloat16* at = nullptr;
    int64_t rows = 0, columns = 0, stride = 0;
    int box_rows = 0;
    bool there() const { return rows > 0; }
  };
  static void CopyBox(unsigned char* to, const Boxes& from, int32_t column, int32_t row,
                      unsigned char* at) {
    PLUMB_CHECK(Address(to) % 1024 == 0);
    const auto copy = [=] {
      for (int r = 0; r < from.box_rows; ++r) {
        for (int c = 0; c < 8; ++c) {
          unsigned char* line = to + r * 128 + (c ^ (r % 8)) * 16;
          std::memset(line, 0, 16);
          for (int i = 0; i < 8 && row + r < from.rows && column + 8 * c + i < from.columns; ++i)
            std::memcpy(line + 2 * i, from.at + (row + r) * from.stride + column + 8 * c + i, 2);
        }
      }
    };
    Barrier& barrier = BarrierAt(at);
    if (eager_copies) copy();
    else barrier.copies.push_back(copy);
    barrier.bytes -= from.box_rows * 128;
    TurnOver(barrier);
  }
  static void ArriveExpecting(unsigned char* at, int bytes) {
    BarrierAt(at).bytes += bytes;
    Arrive(at);
  }
  struct Barrier {
    int count = 0, arrived = 0, bytes = 0;
    uint32_t turns = 0;  // that are over
    std::vector<std::function<void()>> copies;
  };
  static void InitBarrier(unsigned char* at, int count) {
    PLUMB_CHECK(Address(at) % 8 == 0);
    barriers[Address(at)] = {.count = count, .copies = {}};
  }
  static void ArriveWhenCopied(unsigned char* at) {
    auto& mine = copies[static_cast<size_t>(Thread())];
    auto& all = BarrierAt(at).copies;
    all.insert(all.end(), mine.begin(), mine.end());
    mine.clear();
    Arrive(at);
  }
  static void ArriveWarp(unsigned char* at) {
    EmulatedBlock::current().SyncWarp();
    if (Thread() % 32 == 0) Arrive(at);
  }
  // Lanes look together, so that they go on together.
  static void WaitBarrier(unsigned char* at, uint32_t turn) {
    for (bool over = false; !over;) {
      const int mine = BarrierAt(at).turns % 2 != turn ? 1 : 0;
      const int* all = EmulatedBlock::current().Exchange(mine);
      over = std::count(all, all + 32, 1) == 32;
    }
    Barrier& barrier = BarrierAt(at);
    for (const auto& copy : barrier.copies) copy();
    barrier.copies.clear();
  }
  static void BeginCopying() {}
  static void BeginMultiplying() {}
  static void EndCopying() {
    PLUMB_CHECK(copies[static_cast<size_t>(Thread())].empty(), "copies that nobody waits for");
  }
  static inline std::vector<std::vector<std::function<void()>>> copies;  // of a thread
  static inline std::map<uint32_t, Barrier> barriers;
  static void ShowCopies() {}

  static void BeginProducts() {}
  template <int N>
  static void EndProducts(float (&)[N]) {}

  template <int Columns, bool AOuter, bool BOuter>
  static void Multiply(float (&sum)[Columns / 2], uint64_t a, uint64_t b, bool add) {
    const int thread = Thread();
    float* to = sum;
    Groups().back().push_back([=] {
      const int row = thread % 128 / 32 * 16 + thread % 32 / 4;
      for (int half = 0; half < 2; ++half) {
        float left[16];
        for (int t = 0; t < 16; ++t) left[t] = Element(a, AOuter, row + 8 * half, t);
        for (int j = 0; j < Columns / 8; ++j) {
          for (int odd = 0; odd < 2; ++odd) {
            float& c = to[4 * j + 2 * half + odd];
            float of_terms = 0;
            for (int t = 0; t < 16; ++t)
              of_terms += left[t] * Element(b, BOuter, 8 * j + 2 * (thread % 4) + odd, t);
            c = add ? c + of_terms : of_terms;
          }
        }
      }
    });
    if (!eager_copies) Finish(Groups().back());
  }
  static void CommitProducts() { Groups().emplace_back(); }
  template <int Left>
  static void WaitProducts() {
    auto& groups = Groups();
    while (groups.size() > Left + 1) {
      Finish(groups.front());
      groups.erase(groups.begin());
    }
  }

  static float FloatOf(unsigned bits) {
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
  }
  static unsigned BitsOf(float x) {
    unsigned bits;
    std::memcpy(&bits, &x, 4);
    return bits;
  }
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
  static void StorePair(float* to, const float (&pair)[2]) { std::memcpy(to, pair, 8); }

  using Products = std::vector<std::function<void()>>;
  static inline std::vector<std::vector<Products>> products;  // of a thread, by group

 private:
  static Barrier& BarrierAt(unsigned char* at) {
    const auto found = barriers.find(Address(at));
    PLUMB_CHECK(found != barriers.end(), "a barrier that was not made");
    return found->second;
  }
  static void Arrive(unsigned char* at) {
    Barrier& barrier = BarrierAt(at);
    ++barrier.arrived;
    TurnOver(barrier);
  }
  static void TurnOver(Barrier& barrier) {
    if (barrier.arrived < barrier.count || barrier.bytes != 0) return;
    barrier.arrived = 0;
    ++barrier.turns;
  }
  static std::vector<Products>& Groups() { return products[static_cast<size_t>(Thread())]; }
  static void Finish(Products& group) {
    for (const auto& product : group) product();
    group.clear();
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
