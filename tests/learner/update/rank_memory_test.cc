#include "learner/update/rank_memory.h"

#include <gtest/gtest.h>

#include <array>

#include "tests/learner/rank_threads.h"

namespace plumb::learner {
namespace {

TEST(RankMemoryTest, MemoryOfTheHostGoesThroughTheMesh) {
  AsRanks(2, [](Ranks* ranks) {
    const Stream cpu = Device::kCpu;
    MeetOnDevice(*ranks, cpu);
    EXPECT_EQ(ranks->device(), nullptr);
    std::vector<float> values(128, static_cast<float>(ranks->rank() + 1));
    AllReduce(*ranks, cpu, values, Wire::kFloat32, {});
    EXPECT_EQ(values, std::vector<float>(128, 3.0f));
    ReduceScatter(*ranks, cpu, values, 64, Wire::kFloat32, {});
    const size_t own = static_cast<size_t>(ranks->rank()) * 64;
    EXPECT_EQ(values[own], 6.0f);
    EXPECT_EQ(values[own == 0 ? 64 : 0], 3.0f) << "the other's part stays";
    const std::array<Slice, 2> places = {Slice{0, 256}, Slice{256, 512}};
    AllGather(*ranks, cpu, std::as_writable_bytes(std::span(values)), places);
    EXPECT_EQ(values, std::vector<float>(128, 6.0f));
  });
}

}  // namespace
}  // namespace plumb::learner
