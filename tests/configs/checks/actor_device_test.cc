// configs/checks/actor_device.h: where actors compute, and what is refused when a recipe is read.
#include "configs/checks/actor_device.h"

#include <gtest/gtest.h>

#include "common/base/error.h"

namespace plumb::configs {
namespace {

Config With(const std::string& learner, const std::string& actors) {
  Config config;
  config.run.device = learner;
  config.rollout.device = actors;
  config.run.roles = Roles::kProcesses;
  config.run.actors = 3;
  return config;
}

TEST(ActorDeviceTest, ActorsComputeWhereTheyAreTold) {
  EXPECT_EQ(ActorDevice(With("cuda:1", "")), Device::Cuda(1));
  EXPECT_EQ(ActorDevice(With("cuda", "cpu")), Device(Device::kCpu));
  EXPECT_EQ(ActorDevice(With("cpu", "cuda:2"), 1, 2), Device::Cuda(2)) << "all of them";
  EXPECT_EQ(ActorDevice(With("cuda", "cuda"), 1, 0), Device::Cuda(1)) << "behind the learner's";
  EXPECT_EQ(ActorDevice(With("cuda:2", "cuda"), 1, 1), Device::Cuda(4));
  EXPECT_EQ(ActorDevice(With("cpu", "cuda"), 1, 1), Device::Cuda(1)) << "the learner has none";
  EXPECT_EQ(ActorDevice(With("cuda", "cuda"), 4, 1), Device::Cuda(5)) << "behind four ranks'";
  Config ranks = With("cuda", "cuda");
  ranks.run.parallel = "dp=2,tp=2";
  EXPECT_EQ(ActorDevice(ranks), Device::Cuda(4));
}

TEST(ActorDeviceTest, TwoNamesOfOneDeviceAreOneDevice) {
  EXPECT_FALSE(ActorsApart(With("cuda", "")));
  EXPECT_FALSE(ActorsApart(With("cuda", "cuda:0")));
  EXPECT_TRUE(ActorsApart(With("cuda", "cuda:1")));
  EXPECT_TRUE(ActorsApart(With("cuda:1", "cuda:1"), 2)) << "ranks have the GPUs of their numbers";
  EXPECT_TRUE(ActorsApart(With("cuda", "cuda")));
  EXPECT_TRUE(ActorsApart(With("cuda", "cpu")));
}

TEST(ActorDeviceTest, ActorsOfOneGpuEachShareNone) {
  EXPECT_EQ(ActorsADevice(With("cuda", "")), 3);
  EXPECT_EQ(ActorsADevice(With("cuda", "cuda:1")), 3);
  EXPECT_EQ(ActorsADevice(With("cuda", "cuda")), 1);
  Config threads = With("cuda", "cuda:1");
  threads.run.roles = Roles::kLocal;
  EXPECT_EQ(ActorsADevice(threads), 1);
}

TEST(ActorDeviceTest, WhatCannotBeIsRefusedByName) {
  const auto refused = [](const std::vector<std::string>& set) -> std::string {
    try {
      ParseRecipe("[data]\ntrain = \"arithmetic\"\n[[reward.parts]]\nkind = \"answer\"\n", "r.toml",
                  set);
      return "";
    } catch (const Error& e) {
      return e.what();
    }
  };
  EXPECT_EQ(refused({"rollout.device=\"cuda:1\""}), "");
  EXPECT_NE(refused({"rollout.device=\"gpu\""}).find("rollout.device = \"gpu\" is not known"),
            std::string::npos);
  for (const char* device : {"cuda", "cpu"}) {
    const std::string there = "rollout.device=\"" + std::string(device) + "\"";
    EXPECT_EQ(refused({"run.device=\"cuda\"", there, "rollout.kv_type=\"int8\""}), "")
        << "pages of fewer bits lie on either";
  }
  EXPECT_NE(refused({"rollout.device=\"cuda\"", "run.roles=\"cluster\"",
                     "run.listen=\"tcp://127.0.0.1:7777\""})
                .find("says its own run.device"),
            std::string::npos);
}

TEST(ActorDeviceTest, ProcessesThatShareAModelHaveADeviceEach) {
  Config config = With("cuda", "cuda");
  config.rollout.tp = 2;
  EXPECT_EQ(ActorDevice(config, 1, 0, 1), Device::Cuda(2));
  EXPECT_EQ(ActorDevice(config, 1, 1, 0), Device::Cuda(3)) << "the next actor";
  config.rollout.device = "cuda:4";
  EXPECT_EQ(ActorDevice(config, 1, 1, 1), Device::Cuda(5));
  const auto refused = [](std::vector<std::string> set) -> std::string {
    set.push_back("rollout.tp=2");
    try {
      ParseRecipe("[data]\ntrain = \"arithmetic\"\n[[reward.parts]]\nkind = \"answer\"\n", "r.toml",
                  set);
      return "";
    } catch (const Error& e) {
      return e.what();
    }
  };
  const std::string processes = "run.roles=\"processes\"";
  EXPECT_EQ(refused({processes}), "");
  EXPECT_EQ(refused({processes, "run.device=\"cuda\"", "rollout.device=\"cuda\""}), "");
  for (const auto& [set, named] : std::vector<std::pair<std::vector<std::string>, const char*>>{
           {{}, "set run.roles = \"processes\""},
           {{processes, "policy.adapter=\"lora\""}, "cuts no adapters"},
           {{processes, "environment.kind=\"calculator\""}, "has no turns"},
           {{processes, "rollout.replay_experts=true"}, "cuts no experts"},
           {{processes, "run.device=\"cuda\""}, "takes a GPU for each process"}}) {
    EXPECT_NE(refused(set).find(named), std::string::npos) << named << ": " << refused(set);
  }
}

}  // namespace
}  // namespace plumb::configs
