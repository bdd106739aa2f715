#include "learner/update/checkpoint_manifest.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "common/base/error.h"
#include "common/base/hash/sha256.h"

namespace plumb::learner {
namespace {

using Json = nlohmann::json;

// With its own hash made right again.
std::string Sealed(Json manifest) {
  const std::string body = manifest["body"].dump();
  Sha256 hash;
  hash.Update(std::as_bytes(std::span(body.data(), body.size())));
  manifest["body_sha256"] = hash.HexDigest();
  return manifest.dump();
}

TEST(CheckpointManifestTest, SaysWhetherMomentsAreThere) {
  for (const bool moments : {true, false}) {
    CheckpointManifest manifest{.files = {}, .state = CheckpointState{.moment_steps = 4}};
    manifest.state->moments = moments;
    const CheckpointState read = *ReadManifest(WriteManifest(manifest), "here").state;
    EXPECT_EQ(read.moments, moments);
    EXPECT_EQ(read.moment_steps, 4);
    EXPECT_EQ(read.LacksMoments(), !moments);
  }
}

TEST(CheckpointManifestTest, OlderOnesHoldThemAlways) {
  Json manifest = Json::parse(WriteManifest({.files = {}, .state = CheckpointState{}}));
  manifest["body"]["state"].erase("moments");
  EXPECT_TRUE(ReadManifest(Sealed(manifest), "here").state->moments);
  manifest["body"]["state"]["moments"] = "yes";
  EXPECT_THROW(ReadManifest(Sealed(manifest), "here"), Error);
}

TEST(CheckpointManifestTest, SaysWhetherTheOptimizerIsThere) {
  for (const bool optimizer : {true, false}) {
    CheckpointManifest manifest{.files = {}, .state = CheckpointState{.moments = optimizer}};
    manifest.state->optimizer = optimizer;
    EXPECT_EQ(ReadManifest(WriteManifest(manifest), "here").state->optimizer, optimizer);
  }
  Json manifest = Json::parse(WriteManifest({.files = {}, .state = CheckpointState{}}));
  manifest["body"]["state"].erase("optimizer");
  EXPECT_TRUE(ReadManifest(Sealed(manifest), "here").state->optimizer) << "older ones have it";
  manifest["body"]["state"]["optimizer"] = false;
  EXPECT_THROW(ReadManifest(Sealed(manifest), "here"), Error) << "moments without it";
}

// Of a model that has seen no update they are zero: nothing is lacking.
TEST(CheckpointManifestTest, MomentsThatHaveSeenNothingAreNotMissed) {
  CheckpointState state{.moments = false};
  EXPECT_FALSE(state.LacksMoments());
  state.models["critic"] = {.counters = {}, .moment_steps = 1};
  EXPECT_TRUE(state.LacksMoments());
  state.moments = true;
  EXPECT_FALSE(state.LacksMoments());
}

}  // namespace
}  // namespace plumb::learner
