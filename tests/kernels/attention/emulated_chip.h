// A block of threads on the CPU that take turns, with the operations of a tensor core as PTX
// defines them: for tests of kernels/attention/attention_block.h.
//
// Purpose: what a GPU's block would do, line by line. Each thread is a fiber; one that waits for
// others hands over to the next. Copies to shared memory happen when they are waited for and not
// before, so that a wait that is missing shows. Products of 16 x 16 and 16 x 8 are put together
// from the registers of a warp by the tables of the PTX manual. Thread safety: none, one block at a
// time in a process. Ownership: of its fibers. Errors: a block whose threads wait for each other
// forever fails a check.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#include "common/base/dtype.h"
#include "common/base/error.h"

namespace plumb::kernels {

class EmulatedBlock {
 public:
  // Runs `body` as `threads` threads, whole warps, until all have returned.
  static void Run(int threads, const std::function<void()>& body) {
    EmulatedBlock block(threads, body);
    current_ = &block;
    for (int done = 0; done < threads;) {
      done = 0;
      for (int t = 0; t < threads; ++t) {
        Fiber& fiber = *block.fibers_[static_cast<size_t>(t)];
        if (!fiber.done) {
          block.thread_ = t;
          swapcontext(&block.main_, &fiber.context);
        }
        done += fiber.done ? 1 : 0;
      }
      PLUMB_CHECK(++block.turns_ < 100'000'000, "threads of a block wait for each other");
    }
    current_ = nullptr;
  }

  static EmulatedBlock& current() { return *current_; }
  int thread() const { return thread_; }

  // Of the warp, or of all threads.
  void SyncWarp() { Sync(warps_[static_cast<size_t>(thread_ / 32)], 32); }
  void SyncAll() { Sync(all_, static_cast<int>(fibers_.size())); }
  // Among `count` threads that name the same number.
  void SyncSome(int number, int count) { Sync(named_[number], count); }
  // Lets the others go on.
  void Yield() { swapcontext(&fibers_[static_cast<size_t>(thread_)]->context, &main_); }

  // What every lane of the warp gives, for all of them; valid until the next exchange.
  template <class V>
  const V* Exchange(const V& mine) {
    static_assert(sizeof(V) <= kSlot);
    Meeting& warp = warps_[static_cast<size_t>(thread_ / 32)];
    SyncWarp();  // the last one's readers are done
    auto* all = reinterpret_cast<V*>(warp.memory.data());
    all[thread_ % 32] = mine;
    SyncWarp();
    return all;
  }

  struct PendingCopy {
    BFloat16* to;
    const BFloat16* from;
    int bytes;
  };
  // Of the thread that runs.
  std::vector<std::vector<PendingCopy>>& copies() {
    return fibers_[static_cast<size_t>(thread_)]->copies;
  }

 private:
  static constexpr size_t kStack = 128 << 10, kSlot = 32;
  struct Fiber {
    ucontext_t context{};
    std::vector<char> stack = std::vector<char>(kStack);
    bool done = false;
    std::vector<std::vector<PendingCopy>> copies = {{}};  // by group, the last one open
  };
  struct Meeting {
    int arrived = 0;
    uint64_t number = 0;
    std::vector<uint64_t> memory = std::vector<uint64_t>(32 * kSlot / 8);
  };

  EmulatedBlock(int threads, const std::function<void()>& body)
      : body_(body), warps_(static_cast<size_t>(threads / 32)) {
    for (int t = 0; t < threads; ++t) {
      fibers_.push_back(std::make_unique<Fiber>());
      Fiber& fiber = *fibers_.back();
      getcontext(&fiber.context);
      fiber.context.uc_stack.ss_sp = fiber.stack.data();
      fiber.context.uc_stack.ss_size = fiber.stack.size();
      fiber.context.uc_link = &main_;
      makecontext(&fiber.context, &Begin, 0);
    }
  }

  static void Begin() {
    EmulatedBlock& block = *current_;
    block.body_();
    block.fibers_[static_cast<size_t>(block.thread_)]->done = true;
  }

  void Sync(Meeting& meeting, int count) {
    const uint64_t number = meeting.number;
    if (++meeting.arrived == count) {
      meeting.arrived = 0;
      ++meeting.number;
      return;
    }
    const int me = thread_;
    while (meeting.number == number) {
      swapcontext(&fibers_[static_cast<size_t>(me)]->context, &main_);
    }
  }

  static inline EmulatedBlock* current_ = nullptr;
  const std::function<void()>& body_;
  ucontext_t main_{};
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<Meeting> warps_;
  Meeting all_, named_[16];
  int thread_ = 0;
  uint64_t turns_ = 0;
};

// The operations that a block is written against. Arithmetic is not inlined, so that no compiler
// fuses in one block what it does not in another.
struct EmulatedChip {
  static int Thread() { return EmulatedBlock::current().thread(); }
  static void SyncBlock() { EmulatedBlock::current().SyncAll(); }
  static int32_t Shuffle(int32_t x, int lane) {
    return EmulatedBlock::current().Exchange(x)[lane % 32];
  }
  static float ShuffleXor(float x, int mask) {
    return EmulatedBlock::current().Exchange(x)[Thread() % 32 ^ mask];
  }

  // Thread 8 m + r gives where row r of matrix m begins; thread t gets of each matrix the elements
  // 2 (t % 4) and the next of row t / 4.
  static void LoadBlocks(const BFloat16* at, unsigned (&out)[4]) { Load(at, false, out); }
  // The same of the transposed matrices.
  static void LoadBlocksTurned(const BFloat16* at, unsigned (&out)[4]) { Load(at, true, out); }

  // mma.m16n8k16, row by column. Elements of a thread, of group g = lane / 4 and i = lane % 4:
  // a0 .. a7: row g, but g + 8 of a2, a3, a6, a7; column 2 i and the next, 8 further from a4 on;
  // b0 .. b3: row 2 i and the next, 8 further from b2 on; column g;
  // c0 .. c3: row g, but g + 8 of c2, c3; column 2 i and the next.
  static void MultiplyAdd(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    struct Factors {
      unsigned a[4], b[2];
    };
    const Factors* all =
        EmulatedBlock::current().Exchange(Factors{{a[0], a[1], a[2], a[3]}, {b0, b1}});
    const int lane = Thread() % 32;
    for (int e = 0; e < 4; ++e) {
      const int row = lane / 4 + (e >= 2 ? 8 : 0), column = 2 * (lane % 4) + (e & 1);
      float sum = 0;
      for (int k = 0; k < 16; ++k) {
        const int of_a = (k >= 8 ? 4 : 0) + (row >= 8 ? 2 : 0) + (k & 1),
                  of_b = (k >= 8 ? 2 : 0) + (k & 1);
        sum += Half(all[row % 8 * 4 + k % 8 / 2].a[of_a / 2], of_a & 1) *
               Half(all[column * 4 + k % 8 / 2].b[of_b / 2], of_b & 1);
      }
      c[e] += sum;
    }
  }

  static void CopyAsync(BFloat16* to, const BFloat16* from, int bytes) {
    PLUMB_CHECK(reinterpret_cast<uintptr_t>(to) % 16 == 0);
    PLUMB_CHECK(bytes == 0 || reinterpret_cast<uintptr_t>(from) % 16 == 0);
    EmulatedBlock::current().copies().back().push_back({to, from, bytes});
  }
  static void CommitCopies() { EmulatedBlock::current().copies().emplace_back(); }
  template <int Left>
  static void WaitCopies() {
    auto& groups = EmulatedBlock::current().copies();
    while (groups.size() > Left + 1) {
      for (const EmulatedBlock::PendingCopy& copy : groups.front()) {
        std::memset(copy.to, 0, 16);
        std::memcpy(copy.to, copy.from, static_cast<size_t>(copy.bytes));
      }
      groups.erase(groups.begin());
    }
  }

  static float Max(float x, float y) { return std::fmax(x, y); }
  [[gnu::noinline]] static float Mul(float x, float y) { return x * y; }
  [[gnu::noinline]] static float Sub(float x, float y) { return x - y; }
  [[gnu::noinline]] static float Div(float x, float y) { return x / y; }
  [[gnu::noinline]] static float MulAdd(float x, float y, float z) { return std::fma(x, y, z); }
  [[gnu::noinline]] static float Exp2(float x) { return std::exp2(x); }
  static unsigned PackPair(float low, float high) {
    return ToBFloat16(low).bits | static_cast<unsigned>(ToBFloat16(high).bits) << 16;
  }
  static void StorePair(BFloat16* to, unsigned pair) { std::memcpy(to, &pair, sizeof(pair)); }

 private:
  static float Half(unsigned pair, int which) {
    return ToFloat(BFloat16{static_cast<uint16_t>(pair >> (16 * which))});
  }
  static void Load(const BFloat16* at, bool turned, unsigned (&out)[4]) {
    PLUMB_CHECK(reinterpret_cast<uintptr_t>(at) % 16 == 0);
    const BFloat16* const* rows = EmulatedBlock::current().Exchange(at);
    const int lane = Thread() % 32;
    for (int m = 0; m < 4; ++m) {
      unsigned pair = 0;
      for (int e = 0; e < 2; ++e) {
        const int row = turned ? 2 * (lane % 4) + e : lane / 4,
                  column = turned ? lane / 4 : 2 * (lane % 4) + e;
        pair |= static_cast<unsigned>(rows[8 * m + row][column].bits) << (16 * e);
      }
      out[m] = pair;
    }
  }
};

}  // namespace plumb::kernels
