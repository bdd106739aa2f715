// The paged KV cache: one struct describes it to every kernel.
//
//   pages:  [layer][page][K|V][kv head][slot in page][head_dim]        T
//   of latent attention [layer][page][slot in page][rope + rank], key and value at once
//   under a format in fewer bits a row [head_dim] is KvRowBytes bytes (quantised/kv_rows.h), and
//   strides count bytes
//   a sequence in batch slot s at position p lives in page page_table[s * stride + p /
//   page_tokens], slot p % page_tokens
//
// Ownership: actor/kv_pages owns the memory and the page numbers; kernels only read and write
// through this view.
#pragma once

#include <cstdint>

#include "common/base/dtype.h"

namespace plumb::kernels {

// As what keys and values are kept (quantised/kv_rows.h).
enum class KvFormat : uint8_t { kModel, kInt8, kFp8, kInt4 };

inline constexpr int64_t kKvScaleBytes = 2;
inline constexpr int64_t kKvInt4Group = 32;  // numbers of one scale

// Bytes of one key or value of a head; of kModel with elements of `element` bytes.
PLUMB_HOST_DEVICE constexpr int64_t KvRowBytes(KvFormat format, int64_t head_dim,
                                               int64_t element = 0) {
  return format == KvFormat::kModel ? head_dim * element
         : format == KvFormat::kInt4
             ? (head_dim + 1) / 2 + (head_dim + kKvInt4Group - 1) / kKvInt4Group * kKvScaleBytes
             : head_dim + kKvScaleBytes;
}

struct PagedKv {
  void* pages = nullptr;
  DType dtype = DType::kFloat32;
  int32_t layers = 0;
  int32_t num_pages = 0;
  int32_t page_tokens = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  bool keys_only = false;  // the values are the keys
  KvFormat format = KvFormat::kModel;
  // What lies between two pages and is neither key nor value: with pages of one token the rows of a
  // packed pass are pages as they lie there (policy_model/layers/attention.h).
  int64_t page_gap = 0;

  // elements
  PLUMB_HOST_DEVICE int64_t row_stride() const {
    return format == KvFormat::kModel ? head_dim : KvRowBytes(format, head_dim);
  }
  PLUMB_HOST_DEVICE int64_t head_stride() const { return page_tokens * row_stride(); }
  // K to V of one page
  PLUMB_HOST_DEVICE int64_t kv_stride() const { return keys_only ? 0 : head_stride() * kv_heads; }
  PLUMB_HOST_DEVICE int64_t page_stride() const {
    return (keys_only ? 1 : 2) * head_stride() * kv_heads + page_gap;
  }
  PLUMB_HOST_DEVICE int64_t layer_stride() const { return page_stride() * num_pages; }
  int64_t element_bytes() const {
    return format == KvFormat::kModel ? static_cast<int64_t>(ElementSize(dtype)) : 1;
  }
  int64_t bytes() const { return layer_stride() * layers * element_bytes(); }
};

// The tokens of one paged forward: row r is the token at `position[r]` of the sequence in batch
// slot `slot[r]`. A slot may have several rows (prefill), in ascending position; all of them are
// written before any is read.
struct PagedRows {
  int32_t rows = 0;
  const int32_t* slot = nullptr;        // [rows]
  const int32_t* position = nullptr;    // [rows]
  const int32_t* page_table = nullptr;  // [max slots, page_table_stride]
  int32_t page_table_stride = 0;
  // The first `single` rows are the only ones of their slot, as in decoding: a hint of how to
  // divide the work, which changes no bits. So are the other two, of single rows, both or neither:
  // rows one behind another, of which shared_with names the first, see the same keys in the same
  // pages at positions 0 .. shared_tokens - 1, whole portions of kSharedTokens before their own
  // position; 0: none.
  int32_t single = 0;
  const int32_t* shared_with = nullptr;    // [rows]
  const int32_t* shared_tokens = nullptr;  // [rows]
};

// Keys that rows share are computed for all of them in such portions (attention/attention_block.h).
inline constexpr int32_t kSharedTokens = 128;

// The second pool of pages of a model of which some layers slide (actor/pages/page_pools.h), and
// its table, of the same rows and stride as the first.
struct SlidingPages {
  PagedKv kv;
  const int32_t* page_table = nullptr;
};

}  // namespace plumb::kernels
