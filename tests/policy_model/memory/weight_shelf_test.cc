// policy_model/memory/weight_shelf.h: a version stays as it was put there while somebody reads, and
// a reader that never comes back holds nobody up for long.
#include "policy_model/memory/weight_shelf.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

namespace plumb::policy_model {
namespace {

using std::chrono::milliseconds;

struct Version {
  std::vector<std::byte> bytes;
  Digest digest;
  explicit Version(int seed)
      : bytes(5000, static_cast<std::byte>(seed)), digest(WeightDigest(bytes)) {}
  WeightSet set(const char* name = "base") const {
    return {.name = name, .digest = digest, .bytes = bytes};
  }
};

std::vector<std::byte> Borrow(const std::string& handle) {
  const kernels::BorrowedMemory memory(handle, Device::kCpu);
  std::vector<std::byte> out(memory.bytes());
  memory.CopyTo(Device::kCpu, out.data(), 0, out.size());
  return out;
}

TEST(WeightShelfTest, LendsAndCopiesTheNewestOnly) {
  WeightShelf shelf;
  const Version first(1), second(2), frozen(3);
  EXPECT_FALSE(shelf.Lend(first.digest));
  shelf.Put(std::vector{first.set(), frozen.set("lora")});
  const auto handle = shelf.Lend(first.digest);
  ASSERT_TRUE(handle);
  EXPECT_EQ(Borrow(*handle), first.bytes);
  shelf.Return(first.digest);
  EXPECT_EQ(shelf.Size(first.digest), 5000u);

  WeightSet same = frozen.set("lora");
  same.bytes = {};
  shelf.Put(std::vector{second.set(), same});
  EXPECT_FALSE(shelf.Lend(first.digest));
  EXPECT_EQ(shelf.Lend(second.digest), handle) << "the place is used again";
  std::vector<std::byte> copy(5000);
  ASSERT_TRUE(shelf.Read(frozen.digest, copy));
  EXPECT_EQ(copy, frozen.bytes);
  EXPECT_FALSE(shelf.Read(first.digest, copy));
}

TEST(WeightShelfTest, AReaderIsWaitedForButNotForLong) {
  WeightShelf shelf(milliseconds(60'000));
  const Version first(1), second(2);
  shelf.Put(std::vector{first.set()});
  const auto handle = shelf.Lend(first.digest);
  std::atomic<bool> put{false};
  std::thread learner([&] {
    shelf.Put(std::vector{second.set()});
    put = true;
  });
  std::this_thread::sleep_for(milliseconds(50));
  EXPECT_FALSE(put);
  EXPECT_EQ(Borrow(*handle), first.bytes);
  shelf.Return(first.digest);
  learner.join();
  EXPECT_TRUE(put);

  WeightShelf hasty(milliseconds(20));
  hasty.Put(std::vector{first.set()});
  ASSERT_TRUE(hasty.Lend(first.digest));  // by one that dies
  hasty.Put(std::vector{second.set()});
  ASSERT_TRUE(hasty.Size(second.digest));
}

}  // namespace
}  // namespace plumb::policy_model
