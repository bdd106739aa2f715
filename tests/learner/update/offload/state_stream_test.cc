// State that goes through the device in pieces (learner/update/offload/state_stream.h).
#include "learner/update/offload/state_stream.h"

#include <gtest/gtest.h>

#include <numeric>
#include <vector>

#include "kernels/device/device_memory.h"
#include "kernels/update/adamw_compact.h"

namespace plumb::learner {
namespace {

TEST(StateStreamTest, APieceIsAnEighthWithinBounds) {
  EXPECT_EQ(StateStream::PieceElements(1), 4096);
  EXPECT_EQ(StateStream::PieceElements(8 * 4096), 4096);
  EXPECT_EQ(StateStream::PieceElements(8 * 4096 + 1), 4096 + kernels::kMomentBlock);
  EXPECT_EQ(StateStream::PieceElements(int64_t{7'000'000'000}), 1 << 22);
  // Two rooms of a master and two moments, of four bytes or of one and their scales.
  const int64_t n = int64_t{1} << 30, piece = 1 << 22;
  EXPECT_EQ(StateStream::RoomBytes(n, {.masters = true}), 2 * 12 * piece);
  EXPECT_EQ(StateStream::RoomBytes(n, {}), 2 * 8 * piece);
  EXPECT_EQ(StateStream::RoomBytes(n, {.in_8_bits = true}), 2 * (2 * piece + piece / 32));
}

// Every piece comes, is worked on and goes back, more of them than there are rooms; what is not
// sent stays as it is.
void GoThrough(const Stream& stream) {
  constexpr int64_t kElements = 50'000;
  auto state = policy_model::FlatBuffer::InHostMemory(stream, DType::kInt32, kElements);
  auto other = policy_model::FlatBuffer::InHostMemory(stream, DType::kInt32, kElements);
  EXPECT_EQ(state.in_host_memory(), true);
  std::vector<int32_t> values(kElements);
  std::iota(values.begin(), values.end(), 1);
  state.CopyFromHost(std::as_bytes(std::span<const int32_t>(values)));
  StateStream through(stream, kElements, {});
  ASSERT_LT(4 * through.piece(), kElements);
  for (int round = 0; round < 3; ++round) {
    through.Begin();
    for (int64_t at = 0; at < kElements; at += through.piece()) {
      const auto bytes = static_cast<size_t>(4 * std::min(through.piece(), kElements - at));
      const std::vector<StateStream::Part> parts = {{.host = state.at(at), .bytes = bytes},
                                                    {.host = other.at(at), .bytes = bytes}};
      // The second becomes the first: of the rooms, on the stream.
      through.Through(parts, [&](const StateStream::Addresses& here) {
        kernels::Copy(stream, here[1], here[0], bytes);
        kernels::Zero(stream, here[0], 4);
      });
    }
    through.End();
    std::vector<int32_t> seen(kElements);
    other.CopyToHost(std::as_writable_bytes(std::span(seen)));
    EXPECT_EQ(seen, values) << round;
    for (int64_t at = 0; at < kElements; at += through.piece()) values[static_cast<size_t>(at)] = 0;
    state.CopyToHost(std::as_writable_bytes(std::span(seen)));
    EXPECT_EQ(seen, values) << round;
  }
  state.Zero();
  std::vector<int32_t> seen(kElements, 1);
  state.CopyToHost(std::as_writable_bytes(std::span(seen)));
  EXPECT_EQ(seen, std::vector<int32_t>(kElements));
}

TEST(StateStreamTest, EveryPieceComesAndGoesBack) { GoThrough(Device::kCpu); }

TEST(StateStreamCuda, EveryPieceComesAndGoesBack) {
  if (!kernels::CudaAvailable())
    GTEST_SKIP() << "NO GPU: state in the host's memory was NOT sent through one here";
  const OwnedStream stream(Device::Cuda(0));
  GoThrough(stream);
}

}  // namespace
}  // namespace plumb::learner
