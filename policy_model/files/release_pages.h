// Giving back the memory of a mapped file's bytes that have been read.
//
// Thread safety: of the span. Errors: none; a refusal of the system costs memory only.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <span>

namespace plumb::policy_model {

// The pages that are all `bytes`' own; reading them again reads the file again. REQUIRES: a
// read-only mapping of a file.
inline void ReleasePages(std::span<const std::byte> bytes) {
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<uintptr_t>(bytes.data()), end = begin + bytes.size();
  const uintptr_t from = (begin + page - 1) / page * page, to = end / page * page;
  if (from < to) ::madvise(reinterpret_cast<void*>(from), to - from, MADV_DONTNEED);
}

}  // namespace plumb::policy_model
