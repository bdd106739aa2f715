#include "kernels/attention/prompt_attention.h"

#include "kernels/attention/start_block.h"
#include "kernels/attention/warpgroup_chip.h"
#include "tests/kernels/attention/paged_scene.h"

namespace plumb::kernels {
namespace {

class PromptAttentionOnGpu : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!CudaAvailable())
      GTEST_SKIP() << "NO GPU: attention of prompts was NOT tested here (build with "
                      "-DPLUMB_CUDA=ON on a machine with a GPU)";
  }
};

struct Result {
  std::vector<float> out, lse;
};

// `single`: how many rows are decoded; the others are those of prompts.
Result Attend(Device device, const PagedScene& scene, const PagedScene::Rows& rows,
              int32_t single) {
  const Launch launch{.stream = TestStream(device), .dtype = DType::kBFloat16};
  const Target target{device, DType::kBFloat16};
  Array<BFloat16> pages(device, scene.memory);
  Array<int32_t> slot(device, rows.slot), position(device, rows.position),
      table(device, scene.table);
  Tensor q(target, rows.q),
      out(target, rows.slot.size() * static_cast<size_t>(scene.shape.heads * scene.shape.d));
  Array<float> lse(device, rows.slot.size() * static_cast<size_t>(scene.shape.heads));
  AttentionPaged k{.q = q.data(),
                   .q_stride = rows.q_stride,
                   .rows = {static_cast<int32_t>(rows.slot.size()), slot.data(), position.data(),
                            table.data(), scene.stride},
                   .heads = scene.shape.heads,
                   .kv = scene.View(),
                   .scale = scene.shape.Scale(),
                   .window = scene.shape.window,
                   .out = out.data(),
                   .lse = lse.data()};
  k.kv.pages = pages.data();
  k.rows.single = single;
  Call(launch, k);
  return {out.Host(), lse.Host()};
}

// Prompts of many tiles, of one and of parts; more tiles than processors.
TEST_F(PromptAttentionOnGpu, APromptHasTheBitsOfItsTokensDecoded) {
  for (const PagedShape& shape :
       {PagedShape{32, 8, 128, 16, {1024, 700, 513}}, PagedShape{9, 3, 64, 16, {256, 256, 200, 3}},
        PagedShape{14, 2, 64, 16, {900, 130, 1}}, PagedShape{4, 4, 128, 12, {300, 129}},
        PagedShape{16, 1, 64, 16, {400}}, PagedShape{8, 2, 128, 16, {1000, 90}, 200},
        PagedShape{8, 4, 64, 16, {1000, 90}, 64}}) {
    const PagedScene scene(shape);
    const PagedScene::Rows rows = scene.LastRows(1024);
    const auto count = static_cast<int32_t>(rows.slot.size());
    const Result prompt = Attend(Device::Cuda(0), scene, rows, 0),
                 decoded = Attend(Device::Cuda(0), scene, rows, count),
                 cpu = Attend(Device::kCpu, scene, rows, 0);
    ExpectClose(prompt.out, ToDouble(cpu.out), 2 * kHalfBf16, scene.WeightRounding(), shape.Name());
    // The weights' sum is that of rounded ones.
    ExpectClose(prompt.lse, ToDouble(cpu.lse), 1e-5, kHalfBf16, shape.Name() + ", log-sum-exp");
    ExpectSameBits(prompt.out, decoded.out, shape.Name() + ", decoded");
    ExpectSameBits(prompt.lse, decoded.lse, shape.Name() + ", log-sum-exp, decoded");
  }
}

}  // namespace
}  // namespace plumb::kernels
