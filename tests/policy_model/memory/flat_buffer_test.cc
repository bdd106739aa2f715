#include "policy_model/memory/flat_buffer.h"

#include <gtest/gtest.h>

#include <vector>

#include "policy_model/memory/arena.h"

namespace plumb::policy_model {
namespace {

TEST(FlatBufferTest, CopiesParts) {
  FlatBuffer buffer(Device::kCpu, DType::kFloat32, 6);
  const std::vector<float> values = {1, 2, 3};
  buffer.CopyFromHost(std::as_bytes(std::span<const float>(values)), 2);
  std::vector<float> all(6), part(2);
  buffer.CopyToHost(std::as_writable_bytes(std::span<float>(all)));
  buffer.CopyToHost(std::as_writable_bytes(std::span<float>(part)), 3);
  EXPECT_EQ(all, (std::vector<float>{0, 0, 1, 2, 3, 0}));
  EXPECT_EQ(part, (std::vector<float>{2, 3}));
  EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % 4096, 0u);
}

TEST(FlatBufferTest, LiesInHostMemoryWhereThatIsAskedFor) {
  EXPECT_FALSE(FlatBuffer(Device::kCpu, DType::kFloat32, 6).in_host_memory());
  FlatBuffer made = FlatBuffer::InHostMemory(Device::kCpu, DType::kBFloat16, 6);
  const FlatBuffer empty = FlatBuffer::InHostMemory(Device::kCpu, DType::kBFloat16, 0);
  EXPECT_EQ(empty.bytes(), 0u);
  FlatBuffer buffer = std::move(made);
  EXPECT_TRUE(buffer.in_host_memory());
  EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % 4096, 0u);
  const std::vector<BFloat16> values = {{1}, {2}, {3}};
  buffer.CopyFromHost(std::as_bytes(std::span<const BFloat16>(values)), 2);
  std::vector<BFloat16> all(6), part(2);
  buffer.CopyToHost(std::as_writable_bytes(std::span(all)));
  buffer.CopyToHost(std::as_writable_bytes(std::span(part)), 3);
  EXPECT_EQ(all[1].bits, 0);
  EXPECT_EQ(all[2].bits, 1);
  EXPECT_EQ(part[1].bits, 3);
  buffer.Zero();
  buffer.CopyToHost(std::as_writable_bytes(std::span(part)), 3);
  EXPECT_EQ(part[0].bits, 0);
}

TEST(ArenaTest, WhatLivesOneAfterTheOtherSharesMemory) {
  Arena arena(Device::kCpu);
  arena.Begin();
  const int64_t kept = arena.Reserve(100), mark = arena.Mark(), first = arena.Reserve(1000);
  arena.Rewind(mark);
  const int64_t second = arena.Reserve(300), behind = arena.Reserve(10);
  arena.Commit();
  EXPECT_EQ(kept, 0);
  EXPECT_EQ(first, second);
  EXPECT_GE(behind, second + 300);
  EXPECT_GE(arena.bytes(), mark + 1000) << "as long as the longest";
  const int64_t before = arena.bytes();
  arena.Begin();
  arena.Reserve(10);
  arena.Commit();
  EXPECT_EQ(arena.bytes(), before) << "memory is kept";
}

}  // namespace
}  // namespace plumb::policy_model
