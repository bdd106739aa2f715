#include "actor/pages/kv_pages.h"

#include <gtest/gtest.h>

#include <cstring>
#include <set>

#include "common/base/error.h"

namespace plumb::actor {
namespace {

policy_model::ModelShape Shape() {
  policy_model::ModelShape s;
  s.layers = 2, s.hidden = 64, s.heads = 4, s.kv_heads = 2, s.head_dim = 16, s.ffn = 128,
  s.vocab = 50;
  s.max_positions = 128;
  return s;
}

TEST(KvPages, BytesAreThoseOfTheView) {
  KvPages pages(Shape(), Device::kCpu, DType::kFloat32, 8, 5);
  EXPECT_EQ(pages.view().bytes(), 5 * KvPages::PageBytes(Shape(), DType::kFloat32, 8));
  EXPECT_EQ(KvPages::PageBytes(Shape(), DType::kFloat32, 8), 2 * 2 * 2 * 8 * 16 * 4);
  EXPECT_EQ(KvPages::PageBytes(Shape(), DType::kBFloat16, 8), 2 * 2 * 2 * 8 * 16 * 2);
  // all of it is ours to write
  std::memset(pages.view().pages, 1, static_cast<size_t>(pages.view().bytes()));
  EXPECT_EQ(pages.PagesFor(0), 0);
  EXPECT_EQ(pages.PagesFor(8), 1);
  EXPECT_EQ(pages.PagesFor(9), 2);
}

TEST(KvPages, SharedPageIsFreeOnlyAfterItsLastHolderAndStep) {
  KvPages pages(Shape(), Device::kCpu, DType::kFloat32, 8, 3);
  const int32_t page = pages.Allocate();
  pages.AddReference(page);
  pages.Release(page, 4);
  EXPECT_EQ(pages.references(page), 1);
  EXPECT_EQ(pages.held_pages(), 1);
  pages.Release(page, 6);
  EXPECT_EQ(pages.retiring_pages(), 1);
  EXPECT_EQ(pages.free_pages(), 2);
  pages.Retire(5);  // step 6 may still read it
  EXPECT_EQ(pages.free_pages(), 2);
  pages.Retire(6);
  EXPECT_EQ(pages.free_pages(), 3);
  EXPECT_EQ(pages.retiring_pages(), 0);
}

TEST(KvPages, RetiringRingWrapsAround) {
  KvPages pages(Shape(), Device::kCpu, DType::kFloat32, 8, 3);
  for (int64_t step = 0; step < 20; ++step) {
    std::set<int32_t> distinct;
    while (pages.free_pages() > 0) distinct.insert(pages.Allocate());
    EXPECT_EQ(distinct.size(), 3u);
    for (const int32_t page : distinct) pages.Release(page, step);
    pages.Retire(step - 1);
    EXPECT_EQ(pages.free_pages(), 0);
    pages.Retire(step);
    EXPECT_EQ(pages.free_pages(), 3);
  }
}

TEST(KvPages, ReleasingWhatNobodyHoldsAborts) {
  KvPages pages(Shape(), Device::kCpu, DType::kFloat32, 8, 2);
  const int32_t page = pages.Allocate();
  pages.Release(page, 0);
  EXPECT_DEATH(pages.Release(page, 0), "page");
  EXPECT_DEATH(pages.AddReference(7), "page");
}

TEST(KvPages, RefusesAnEmptyPool) {
  EXPECT_THROW(KvPages(Shape(), Device::kCpu, DType::kFloat32, 8, 0), Error);
  EXPECT_THROW(KvPages(Shape(), Device::kCpu, DType::kFloat32, 0, 8), Error);
}

}  // namespace
}  // namespace plumb::actor
