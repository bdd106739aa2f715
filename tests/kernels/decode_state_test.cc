#include "kernels/decode_state.h"

#include "tests/kernels/kernel_test.h"

namespace plumb::kernels {
namespace {

class DecodeStateTest : public KernelTest {};
INSTANTIATE_TEST_SUITE_P(Targets, DecodeStateTest,
                         ::testing::Values(Target{Device::kCpu, DType::kFloat32},
                                           Target{Device::Cuda(0), DType::kFloat32}),
                         TargetName);

TEST_P(DecodeStateTest, AppendsStopsAndLeavesOthersAlone) {
  constexpr int32_t kSlots = 6, kNew = 4;
  const auto status = [](SlotStatus s) { return static_cast<uint8_t>(s); };
  Array<int32_t> last(device(), std::vector<int32_t>(kSlots, 50)),
      position(device(), std::vector<int32_t>{10, 11, 12, 13, 14, 15});
  Array<int32_t> generated(device(), std::vector<int32_t>{0, 1, 2, 3, 0, 1}),
      limit(device(), std::vector<int32_t>{4, 4, 3, 4, 4, 4});
  Array<uint8_t> state_of(
      device(), std::vector<uint8_t>{status(SlotStatus::kRunning), status(SlotStatus::kRunning),
                                     status(SlotStatus::kRunning), status(SlotStatus::kStopped),
                                     status(SlotStatus::kRunning), status(SlotStatus::kRunning)});
  Array<uint64_t> prompt(device(),
                         std::vector<uint64_t>{100, 101, 102, 103, 104, uint64_t{1} << 40});
  Array<uint32_t> sample(device(), std::vector<uint32_t>{0, 1, 2, 3, 4, 5});
  Array<int64_t> version(device(), std::vector<int64_t>{77}),
      versions(device(), std::vector<int64_t>(kSlots * kNew, -1));
  Array<int32_t> tokens(device(), std::vector<int32_t>(kSlots * kNew, -1));
  Array<float> logprobs(device(), std::vector<float>(kSlots * kNew, 0.0f));
  const DecodeState state{kSlots,           kNew,           last.data(),     position.data(),
                          generated.data(), limit.data(),   state_of.data(), prompt.data(),
                          sample.data(),    version.data(), tokens.data(),   logprobs.data(),
                          versions.data()};
  const std::vector<int32_t> order = {5, 4, 3, 2, 0};  // slot 1 is not in this step
  Array<int32_t> slots(device(), order), eos(device(), std::vector<int32_t>{2, 9});
  Array<uint64_t> prompt_out(device(), 5);
  Array<uint32_t> sample_out(device(), 5);
  Array<int32_t> position_out(device(), 5);
  Call(launch(), GatherAddresses{.state = state,
                                 .slots = slots.data(),
                                 .rows = 5,
                                 .prompt_out = prompt_out.data(),
                                 .sample_out = sample_out.data(),
                                 .position_out = position_out.data()});
  EXPECT_EQ(prompt_out.Host(), (std::vector<uint64_t>{uint64_t{1} << 40, 104, 103, 102, 100}));
  EXPECT_EQ(sample_out.Host(), (std::vector<uint32_t>{5, 4, 3, 2, 0}));
  EXPECT_EQ(position_out.Host(), (std::vector<int32_t>{16, 15, 14, 13, 11}));

  // end token, failed, not running, limit, goes on
  Array<int32_t> drawn(device(), std::vector<int32_t>{9, -1, 8, 8, 8});
  Array<float> logprob(device(), std::vector<float>{-0.5f, 0.0f, -1.0f, -1.5f, -2.0f});
  Call(launch(), AdvanceSlots{.state = state,
                              .slots = slots.data(),
                              .rows = 5,
                              .token = drawn.data(),
                              .logprob = logprob.data(),
                              .eos = eos.data(),
                              .num_eos = 2});
  EXPECT_EQ(state_of.Host(),
            (std::vector<uint8_t>{status(SlotStatus::kRunning), status(SlotStatus::kRunning),
                                  status(SlotStatus::kLength), status(SlotStatus::kStopped),
                                  status(SlotStatus::kFailed), status(SlotStatus::kStopped)}));
  EXPECT_EQ(generated.Host(), (std::vector<int32_t>{1, 1, 3, 3, 0, 2}));
  EXPECT_EQ(position.Host(), (std::vector<int32_t>{11, 11, 13, 13, 14, 16}));
  EXPECT_EQ(last.Host(), (std::vector<int32_t>{8, 50, 8, 50, 50, 9}));
  std::vector<int32_t> want(kSlots * kNew, -1);
  want[0] = 8;
  want[2 * kNew + 2] = 8;
  want[5 * kNew + 1] = 9;
  EXPECT_EQ(tokens.Host(), want);
  EXPECT_EQ(logprobs.Host()[2 * kNew + 2], -1.5f);
  EXPECT_EQ(versions.Host()[5 * kNew + 1], 77);
  EXPECT_EQ(versions.Host()[5 * kNew], -1);
}

TEST_P(DecodeStateTest, RowsOfTheNextStepFollowWhatRunsOn) {
  const auto status = [](SlotStatus s) { return static_cast<uint8_t>(s); };
  Array<int32_t> last(device(), std::vector<int32_t>{50, 51, 52, 53}),
      place(device(), std::vector<int32_t>{10, 11, 12, 13});
  Array<uint8_t> state_of(
      device(), std::vector<uint8_t>{status(SlotStatus::kRunning), status(SlotStatus::kStopped),
                                     status(SlotStatus::kLength), status(SlotStatus::kRunning)});
  const DecodeState state{.max_slots = 4,
                          .max_new_tokens = 9,
                          .last_token = last.data(),
                          .position = place.data(),
                          .status = state_of.data()};
  Array<int32_t> slots(device(), std::vector<int32_t>{3, 2, 1, 0, 3}),
      token(device(), std::vector<int32_t>{1, 2, 3, 4, 5}),
      position(device(), std::vector<int32_t>{6, 7, 8, 9, 5});
  Call(launch(), NextRows{.state = state,
                          .slots = slots.data(),
                          .rows = 5,
                          .token = token.data(),
                          .position = position.data()});
  EXPECT_EQ(token.Host(), (std::vector<int32_t>{53, 2, 3, 50, 53}));
  EXPECT_EQ(position.Host(), (std::vector<int32_t>{13, 7, 8, 10, 13}));
}

}  // namespace
}  // namespace plumb::kernels
