// Counts allocations of ours while code runs. Include it in one source file of a test binary.
//
// operator new of this binary is replaced; while `counting` is set every call is counted and told
// apart by who asked: the first return address outside the C++ runtime. Code of ours is linked into
// the executable; LibTorch is a shared library, so what it allocates for its own products has its
// address there and is left out. Counts the thread that set `counting` alone.
#pragma once

#include <dlfcn.h>
#include <execinfo.h>
#include <link.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>

namespace {

constexpr int kOwnFrames = 3;  // Count, Get, operator new: none of them inlined, none a tail call
thread_local bool counting = false;
thread_local bool inside = false;  // backtrace() may allocate itself
std::atomic<int64_t> ours{0}, libraries{0};
void* culprits[8];

// Where the code of the executable and of the C++ runtime lies. dladdr would be far too slow for
// LibTorch's symbols: it is asked about the executable's alone.
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

// A template of the runtime (std::string) that was compiled into the executable: the loader gives
// that copy to every library.
bool IsRuntimeTemplate(void* p) {
  Dl_info info;
  if (!executable.Has(p) || dladdr(p, &info) == 0 || info.dli_sname == nullptr) return false;
  const char* name = info.dli_sname;
  return std::strncmp(name, "_ZNSt", 5) == 0 || std::strncmp(name, "_ZNKSt", 6) == 0 ||
         std::strncmp(name, "_ZSt", 4) == 0;
}

__attribute__((noinline)) void Count() {
  if (!counting || inside) return;
  inside = true;
  void* frames[16];
  const int n = backtrace(frames, 16);
  // Frames within here and operator new come first; the runtime's own templates (std::string) pass
  // the blame on.
  int i = kOwnFrames;
  while (i < n && (runtime.Has(frames[i]) || IsRuntimeTemplate(frames[i]))) ++i;
  if (i < n && executable.Has(frames[i])) {
    const int64_t k = ours.fetch_add(1);
    if (k < 8) culprits[k] = frames[i];
  } else {
    ++libraries;
  }
  inside = false;
}

__attribute__((noinline)) void* GetOrNull(size_t n) noexcept {
  Count();
  return std::malloc(n == 0 ? 1 : n);
}

__attribute__((noinline)) void* Get(size_t n) {
  Count();  // from here: it leaves out as many frames as there are
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

// What was counted, and who asked first.
inline void PrintAllocations(const char* what) {
  std::printf("[          ] %s: %lld allocations of ours, %lld within libraries\n", what,
              static_cast<long long>(ours.load()), static_cast<long long>(libraries.load()));
  for (int64_t k = 0; k < std::min<int64_t>(ours.load(), 8); ++k) {
    char** names = backtrace_symbols(&culprits[k], 1);
    std::printf("[          ]   %s\n", names[0]);
    std::free(names);
  }
}

}  // namespace

__attribute__((noinline)) void* operator new(size_t n) { return NotTail(Get(n)); }
__attribute__((noinline)) void* operator new[](size_t n) { return NotTail(Get(n)); }
// All forms: one that were the library's would be freed by ours.
__attribute__((noinline)) void* operator new(size_t n, const std::nothrow_t&) noexcept {
  return NotTail(GetOrNull(n));
}
__attribute__((noinline)) void* operator new[](size_t n, const std::nothrow_t&) noexcept {
  return NotTail(GetOrNull(n));
}
__attribute__((noinline)) void* operator new(size_t n, std::align_val_t a) {
  return NotTail(GetAligned(n, a));
}
__attribute__((noinline)) void* operator new[](size_t n, std::align_val_t a) {
  return NotTail(GetAligned(n, a));
}
void operator delete(void* p) noexcept { Put(p); }
void operator delete[](void* p) noexcept { Put(p); }
void operator delete(void* p, size_t) noexcept { Put(p); }
void operator delete[](void* p, size_t) noexcept { Put(p); }
void operator delete(void* p, const std::nothrow_t&) noexcept { Put(p); }
void operator delete[](void* p, const std::nothrow_t&) noexcept { Put(p); }
void operator delete(void* p, std::align_val_t) noexcept { Put(p); }
void operator delete[](void* p, std::align_val_t) noexcept { Put(p); }
void operator delete(void* p, size_t, std::align_val_t) noexcept { Put(p); }
void operator delete[](void* p, size_t, std::align_val_t) noexcept { Put(p); }
