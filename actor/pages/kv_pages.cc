#include "actor/pages/kv_pages.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <limits>
#include <string>

#include "common/base/error.h"
#include "common/base/size_text.h"

namespace plumb::actor {

int64_t KvPages::PageBytes(const policy_model::ModelShape& shape, DType dtype, int32_t page_tokens,
                           kernels::KvFormat format) {
  return shape.paged_layers() * (shape.latent.there() ? 1 : 2) * shape.cache_heads() *
         int64_t{page_tokens} *
         kernels::KvRowBytes(format, shape.cache_dim(), static_cast<int64_t>(ElementSize(dtype)));
}

KvPages::KvPages(const policy_model::ModelShape& shape, const Stream& stream, DType dtype,
                 int32_t page_tokens, int32_t num_pages, kernels::KvFormat format) {
  if (page_tokens < 1 || num_pages < 1) {
    throw Error(ErrorCode::kInvalidArgument,
                "a KV pool needs at least one page of one token, not " + std::to_string(num_pages) +
                    " pages of " + std::to_string(page_tokens) + " tokens");
  }
  view_.dtype = dtype;
  view_.format = format;
  view_.layers = static_cast<int32_t>(shape.paged_layers());
  view_.num_pages = num_pages;
  view_.page_tokens = page_tokens;
  view_.kv_heads = static_cast<int32_t>(shape.cache_heads());
  view_.head_dim = static_cast<int32_t>(shape.cache_dim());
  view_.keys_only = shape.latent.there();
  if (stream.device().is_cpu()) {
    mapped_bytes_ = static_cast<size_t>(view_.bytes());
    mapped_ = mmap(nullptr, mapped_bytes_, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped_ == MAP_FAILED) {
      mapped_ = nullptr;
      throw Error(ErrorCode::kUnavailable,
                  "cannot map " + LimitText(static_cast<int64_t>(mapped_bytes_)) +
                      " of KV pages: " + std::strerror(errno) + "; lower rollout.kv_budget_mb");
    }
    // A step reads short runs of every page in use: with 4 KiB entries the address translation
    // would cost more than the data. Advice only: without huge pages everything works as before.
    madvise(mapped_, mapped_bytes_, MADV_HUGEPAGE);
    view_.pages = mapped_;
  } else {
    const auto element = static_cast<int64_t>(ElementSize(dtype));
    device_memory_ =
        policy_model::FlatBuffer(stream, dtype, (view_.bytes() + element - 1) / element);
    view_.pages = device_memory_.data();
  }
  references_.assign(static_cast<size_t>(num_pages), 0);
  retiring_.resize(static_cast<size_t>(num_pages));
  free_.reserve(static_cast<size_t>(num_pages));
  for (int32_t page = num_pages - 1; page >= 0; --page) free_.push_back(page);
}

KvPages::~KvPages() {
  if (mapped_ != nullptr) munmap(mapped_, mapped_bytes_);
}

int32_t KvPages::Allocate() {
  PLUMB_CHECK(!free_.empty(), "no free KV page of " + std::to_string(num_pages()));
  const int32_t page = free_.back();
  free_.pop_back();
  references_[static_cast<size_t>(page)] = 1;
  return page;
}

void KvPages::AddReference(int32_t page) {
  PLUMB_CHECK(page >= 0 && page < num_pages() && references(page) > 0,
              "page " + std::to_string(page));
  ++references_[static_cast<size_t>(page)];
}

void KvPages::Release(int32_t page, int64_t step) {
  PLUMB_CHECK(page >= 0 && page < num_pages() && references(page) > 0,
              "page " + std::to_string(page));
  if (--references_[static_cast<size_t>(page)] > 0) return;
  const int32_t at = (retiring_head_ + retiring_count_) % num_pages();
  retiring_[static_cast<size_t>(at)] = Retiring{page, step};
  ++retiring_count_;
}

void KvPages::ReleaseIdle(int32_t page) {
  PLUMB_CHECK(page >= 0 && page < num_pages() && references(page) == 1,
              "page " + std::to_string(page));
  references_[static_cast<size_t>(page)] = 0;
  free_.push_back(page);
}

void KvPages::DropReference(int32_t page) {
  PLUMB_CHECK(page >= 0 && page < num_pages() && references(page) > 1,
              "page " + std::to_string(page));
  --references_[static_cast<size_t>(page)];
}

void KvPages::Retire(int64_t step) {
  while (retiring_count_ > 0 && retiring_[static_cast<size_t>(retiring_head_)].step <= step) {
    free_.push_back(retiring_[static_cast<size_t>(retiring_head_)].page);
    retiring_head_ = (retiring_head_ + 1) % num_pages();
    --retiring_count_;
  }
}

}  // namespace plumb::actor
