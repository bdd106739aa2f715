// Row 7 of docs/reliability.md for checkpoints: a flipped bit in any file of the newest one is
// noticed when it is looked for, and the one before is used; a flipped bit in the KL reference is
// noticed when a run takes it up. Nothing damaged is loaded.
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "common/base/error.h"
#include "common/base/rng.h"
#include "learner/update/checkpoint.h"
#include "tests/learner/tiny_learner.h"
#include "tests/testing/reliability.h"
#include "tests/testing/temp_folder.h"

namespace plumb::learner {
namespace {

using plumb::testing::Count;
using plumb::testing::TempFolder;

std::vector<std::string> FilesBelow(const std::string& folder) {
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file() && entry.file_size() > 0) files.push_back(entry.path().string());
  }
  std::sort(files.begin(), files.end());
  return files;
}

// Flips a bit of a file for its lifetime.
class Flip {
 public:
  Flip(std::string path, RandomStream& random)
      : path_(std::move(path)), bytes_(RealFileSystem().ReadFile(path_, 1 << 24)) {
    std::string damaged = bytes_;
    at_ = random.NextBelow(static_cast<uint32_t>(damaged.size()));
    damaged[at_] = static_cast<char>(damaged[at_] ^ (1 << random.NextBelow(8)));
    std::ofstream(path_, std::ios::binary) << damaged;
  }
  ~Flip() { std::ofstream(path_, std::ios::binary) << bytes_; }
  std::string Where() const { return "byte " + std::to_string(at_) + " of " + path_; }

 private:
  const std::string path_;
  const std::string bytes_;
  size_t at_ = 0;
};

struct Tiny {
  policy_model::Weights weights{TinyShape(), Device::kCpu, DType::kFloat32};
  explicit Tiny(uint64_t seed) { weights.Initialise(seed, 0.3); }
};

std::vector<std::byte> BytesOf(const policy_model::Weights& weights) {
  std::vector<std::byte> host(weights.flat().bytes());
  weights.flat().CopyToHost(host);
  return host;
}

TEST(CheckpointFlipTest, TheOneBeforeIsUsed) {
  TempFolder folder;
  std::vector<std::vector<std::byte>> saved;
  Checkpoints checkpoints(folder / "c", 2, "");
  for (const int64_t step : {1, 2}) {
    Tiny tiny(static_cast<uint64_t>(step));
    Optimizer optimizer(tiny.weights, {});
    checkpoints.Save({.step = step,
                      .policy = {.version = step, .digest = tiny.weights.ComputeDigest()},
                      .store_cursor = step * 1000},
                     tiny.weights, optimizer);
    saved.push_back(BytesOf(tiny.weights));
  }
  const auto files = FilesBelow(folder / "c/step-00000002");
  ASSERT_GE(files.size(), 4u);  // config, weights, optimizer, manifest
  RandomStream random(7, 1);
  const int flips = Count(60, 400);
  int noticed = 0, harmless = 0;
  for (int i = 0; i < flips; ++i) {
    const Flip flip(files[static_cast<size_t>(i) % files.size()], random);
    Tiny tiny(9);
    Optimizer optimizer(tiny.weights, {});
    try {
      const auto found = checkpoints.FindNewest();
      ASSERT_TRUE(found.has_value()) << flip.Where();
      checkpoints.Load(*found, tiny.weights, optimizer);
      ASSERT_TRUE(found->state.step == 1 || found->state.step == 2);
      EXPECT_EQ(BytesOf(tiny.weights), saved[static_cast<size_t>(found->state.step) - 1])
          << flip.Where();
      EXPECT_EQ(found->state.store_cursor, found->state.step * 1000) << flip.Where();
      EXPECT_EQ(found->rejected.size(), found->state.step == 1 ? 1u : 0u) << flip.Where();
      (found->state.step == 1 ? noticed : harmless) += 1;  // harmless: white space of the manifest
    } catch (const Error& e) {
      EXPECT_FALSE(e.where().empty()) << e.what();
      ++noticed;  // another format number is refused rather than passed over
    }
    EXPECT_LE(checkpoints.OldestCursor(), 1000) << flip.Where();
  }
  std::printf("%d flipped bits in a checkpoint: %d noticed, %d harmless, none loaded\n", flips,
              noticed, harmless);
  EXPECT_GE(noticed, 3 * flips / 4);
}

// The store trims below this number: a flipped digit of it must not pass for one.
TEST(CheckpointFlipTest, TheCursorOfADamagedManifestCountsForNothing) {
  TempFolder folder;
  Checkpoints checkpoints(folder / "c", 2, "");
  for (const int64_t step : {1, 2}) {
    Tiny tiny(1);
    Optimizer optimizer(tiny.weights, {});
    checkpoints.Save({.step = step,
                      .policy = {.version = step, .digest = tiny.weights.ComputeDigest()},
                      .store_cursor = step * 1000},
                     tiny.weights, optimizer);
  }
  const std::string path = folder / "c/step-00000001/manifest.json";
  std::string text = RealFileSystem().ReadFile(path, 1 << 20);
  const size_t at = text.find("\"store_cursor\": 1000");
  ASSERT_NE(at, std::string::npos);
  text[at + std::strlen("\"store_cursor\": ")] = '9';
  std::ofstream(path, std::ios::binary) << text;
  EXPECT_EQ(checkpoints.OldestCursor(), 2000);
}

TEST(CheckpointFlipTest, ADamagedReferenceIsRefused) {
  TempFolder folder;
  Checkpoints checkpoints(folder / "c", 2, "");
  Tiny reference(1);
  checkpoints.KeepReference(/*restored=*/false, reference.weights);
  const auto files = FilesBelow(folder / "c/reference");
  ASSERT_GE(files.size(), 3u);
  RandomStream random(7, 2);
  const int flips = Count(30, 200);
  int noticed = 0;
  for (int i = 0; i < flips; ++i) {
    const Flip flip(files[static_cast<size_t>(i) % files.size()], random);
    Tiny read(2);
    try {
      checkpoints.KeepReference(/*restored=*/true, read.weights);
      EXPECT_EQ(BytesOf(read.weights), BytesOf(reference.weights)) << flip.Where();
    } catch (const Error& e) {
      EXPECT_FALSE(e.where().empty()) << e.what();
      ++noticed;
    }
  }
  std::printf("%d flipped bits in a reference: %d noticed, the others harmless, none loaded\n",
              flips, noticed);
  EXPECT_GE(noticed, 2 * flips / 3);
  Tiny read(2);
  checkpoints.KeepReference(/*restored=*/true, read.weights);
  EXPECT_EQ(BytesOf(read.weights), BytesOf(reference.weights));
}

}  // namespace
}  // namespace plumb::learner
