// The pool of KV pages: who holds which page, and when it may be used again.
//
//   free  --Allocate-->  held (references >= 1)
//   held  --last Release(page, step)-->  retiring  --Retire(step)-->  free
//   held  --ReleaseIdle(page)-->  free
//
// Purpose: a page is shared by counting its holders (the prompt pages of a group); a page that
// nobody holds becomes free only after the step that last read or wrote it has retired, because on
// a device that step may still be running.
// There is no eviction of what a sequence holds: the scheduler promises pages only within the known
// maximum length.
// Thread safety: none; the engine's thread owns it. Ownership: owns the pages' memory. On the CPU
// the memory is mapped lazily, so a large budget costs only what is touched.
// Errors: a page released more often than held, or a number out of range, aborts (a broken
// invariant of ours).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/device/stream.h"
#include "kernels/paged_kv.h"
#include "policy_model/memory/weights.h"

namespace plumb::actor {

class KvPages {
 public:
  // `num_pages` pages of `page_tokens` KV slots for every layer of `shape` that has keys and
  // values.
  KvPages(const policy_model::ModelShape& shape, const Stream& stream, DType dtype,
          int32_t page_tokens, int32_t num_pages,
          kernels::KvFormat format = kernels::KvFormat::kModel);
  ~KvPages();
  KvPages(const KvPages&) = delete;
  KvPages& operator=(const KvPages&) = delete;

  // Bytes of one page over all layers, scales included.
  static int64_t PageBytes(const policy_model::ModelShape& shape, DType dtype, int32_t page_tokens,
                           kernels::KvFormat format = kernels::KvFormat::kModel);

  const kernels::PagedKv& view() const { return view_; }
  int32_t num_pages() const { return view_.num_pages; }
  int32_t page_tokens() const { return view_.page_tokens; }
  int32_t free_pages() const { return static_cast<int32_t>(free_.size()); }
  int32_t retiring_pages() const { return retiring_count_; }
  int32_t held_pages() const { return num_pages() - free_pages() - retiring_pages(); }
  int32_t references(int32_t page) const { return references_[static_cast<size_t>(page)]; }

  // One page with one reference. REQUIRES: free_pages() > 0.
  int32_t Allocate();
  // One holder more. REQUIRES: the page is held.
  void AddReference(int32_t page);
  // One holder less; `step` is the newest step that used the page. Steps do not decrease from call
  // to call.
  void Release(int32_t page, int64_t step);
  // The only holder of a page that no running step uses leaves: it is free at once.
  // REQUIRES: references(page) == 1.
  void ReleaseIdle(int32_t page);
  // One holder less, not the last one. REQUIRES: references(page) > 1.
  void DropReference(int32_t page);
  // Every step up to and including `step` has ended on the device.
  void Retire(int64_t step);
  // Pages needed for `tokens` KV slots.
  int32_t PagesFor(int64_t tokens) const {
    return static_cast<int32_t>((tokens + page_tokens() - 1) / page_tokens());
  }

 private:
  struct Retiring {
    int32_t page = 0;
    int64_t step = 0;
  };

  kernels::PagedKv view_;
  policy_model::FlatBuffer device_memory_;  // not on the CPU
  void* mapped_ = nullptr;                  // CPU: anonymous mapping of mapped_bytes_
  size_t mapped_bytes_ = 0;
  std::vector<int32_t> references_;  // [num_pages]
  // stack: the page freed last is the warmest; capacity num_pages
  std::vector<int32_t> free_;
  std::vector<Retiring> retiring_;  // ring of capacity num_pages, oldest at retiring_head_
  int32_t retiring_head_ = 0;
  int32_t retiring_count_ = 0;
};

}  // namespace plumb::actor
