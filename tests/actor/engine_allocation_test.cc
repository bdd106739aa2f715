// Counts allocations in steady decode steps.
//
// operator new of this binary is replaced; while `counting` is set every call is counted and told apart by who asked:
// the first return address outside the C++ runtime. Code of ours is linked into the executable; LibTorch is a shared
// library, so what it allocates for its own products has its address there and is left out.
#include <execinfo.h>
#include <gtest/gtest.h>
#include <link.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>

#include "actor/engine.h"
#include "tests/actor/tiny.h"

namespace {

constexpr int kOwnFrames = 3;  // Count, Get, operator new: none of them inlined, none a tail call
thread_local bool counting = false;
thread_local bool inside = false;  // backtrace() may allocate itself
std::atomic<int64_t> ours{0}, libraries{0};
void* culprits[8];

// Where the code of the executable and of the C++ runtime lies. dladdr would be far too slow for LibTorch's symbols.
struct Range {
  uintptr_t begin = 0, end = 0;
  bool Has(const void* p) const {
    return reinterpret_cast<uintptr_t>(p) >= begin && reinterpret_cast<uintptr_t>(p) < end;
  }
};
Range executable, runtime;

int NoteObject(dl_phdr_info* info, size_t, void*) {
  Range all{UINTPTR_MAX, 0};
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const auto& h = info->dlpi_phdr[i];
    if (h.p_type != PT_LOAD) continue;
    all.begin = std::min<uintptr_t>(all.begin, info->dlpi_addr + h.p_vaddr);
    all.end = std::max<uintptr_t>(all.end, info->dlpi_addr + h.p_vaddr + h.p_memsz);
  }
  if (info->dlpi_name == nullptr || info->dlpi_name[0] == 0) executable = all;
  else if (std::strstr(info->dlpi_name, "libstdc++") != nullptr) runtime = all;
  return 0;
}

void StartCounting() {
  void* warm[4];
  backtrace(warm, 4);  // loads the unwinder
  dl_iterate_phdr(NoteObject, nullptr);
  ours = libraries = 0;
  counting = true;
}

__attribute__((noinline)) void Count() {
  if (!counting || inside) return;
  inside = true;
  void* frames[12];
  const int n = backtrace(frames, 12);
  // Frames within here and operator new come first; the runtime's own templates (std::string) pass the blame on.
  int i = kOwnFrames;
  while (i < n && runtime.Has(frames[i])) ++i;
  if (i < n && executable.Has(frames[i])) {
    const int64_t k = ours.fetch_add(1);
    if (k < 8) culprits[k] = frames[i];
  } else {
    ++libraries;
  }
  inside = false;
}

__attribute__((noinline)) void* Get(size_t n) {
  Count();
  void* p = std::malloc(n == 0 ? 1 : n);
  if (p == nullptr) throw std::bad_alloc();
  return p;
}

__attribute__((noinline)) void* GetAligned(size_t n, std::align_val_t alignment) {
  Count();
  const size_t a = static_cast<size_t>(alignment);
  void* p = std::aligned_alloc(a, (n + a - 1) / a * a);
  if (p == nullptr) throw std::bad_alloc();
  return p;
}

// Keeps the caller's frame on the stack.
inline void* NotTail(void* p) {
  asm volatile("" : "+r"(p));
  return p;
}

// Not inlined: the compiler would see free() paired with operator new.
__attribute__((noinline)) void Put(void* p) { std::free(p); }

}  // namespace

__attribute__((noinline)) void* operator new(size_t n) { return NotTail(Get(n)); }
__attribute__((noinline)) void* operator new[](size_t n) { return NotTail(Get(n)); }
__attribute__((noinline)) void* operator new(size_t n, std::align_val_t a) { return NotTail(GetAligned(n, a)); }
__attribute__((noinline)) void* operator new[](size_t n, std::align_val_t a) { return NotTail(GetAligned(n, a)); }
void operator delete(void* p) noexcept { Put(p); }
void operator delete[](void* p) noexcept { Put(p); }
void operator delete(void* p, size_t) noexcept { Put(p); }
void operator delete[](void* p, size_t) noexcept { Put(p); }
void operator delete(void* p, std::align_val_t) noexcept { Put(p); }
void operator delete[](void* p, std::align_val_t) noexcept { Put(p); }
void operator delete(void* p, size_t, std::align_val_t) noexcept { Put(p); }
void operator delete[](void* p, size_t, std::align_val_t) noexcept { Put(p); }

namespace plumb::actor {
namespace {

TEST(EngineAllocation, TheCounterSeesOurAllocations) {
  StartCounting();
  int* volatile one = new int(3);
  std::string text(100 + static_cast<size_t>(*one), 'x');  // allocated inside libstdc++
  counting = false;
  EXPECT_EQ(text.size(), 103u);
  delete one;
  EXPECT_EQ(ours.load(), 2);
}

TEST(EngineAllocation, NoneInAHundredDecodeSteps) {
  const policy_model::Weights weights = TinyWeights();
  const LetterTokenizer tokenizer;
  EngineOptions options = TinyOptions();
  options.max_new_tokens = 140;
  options.eos = {};
  options.stop = {"never written by this model"};
  Engine engine(weights.shape(), Device::kCpu, DType::kFloat32, options, &tokenizer);
  for (uint64_t i = 0; i < 4; ++i) {
    GenerateRequest r;
    r.id = i;
    r.prompt_key = i;
    r.tokens = {1, 2, 3, 4, 5};
    r.num_samples = 4;
    engine.Submit(r);
  }
  for (int i = 0; i < 20; ++i) engine.Step(weights, 0);  // prefill, start, arenas grow
  ASSERT_EQ(engine.running(), 16);
  StartCounting();
  for (int i = 0; i < 100; ++i) engine.Step(weights, 0);
  counting = false;
  std::printf("[          ] 100 decode steps of 16 rows: %lld allocations of ours, %lld within libraries\n",
              static_cast<long long>(ours.load()), static_cast<long long>(libraries.load()));
  for (int64_t k = 0; k < std::min<int64_t>(ours.load(), 8); ++k) {
    char** names = backtrace_symbols(&culprits[k], 1);
    std::printf("[          ]   %s\n", names[0]);
    std::free(names);
  }
  EXPECT_EQ(ours.load(), 0);
  ASSERT_EQ(engine.running(), 16) << "the measured steps were not steady";
}

}  // namespace
}  // namespace plumb::actor
