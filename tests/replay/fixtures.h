// What the tests of replay share: a folder that goes away, groups that hold together, a clock to
// turn by hand.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "common/base/error.h"
#include "common/base/log.h"
#include "common/record/trajectory.h"
#include "replay/datasets/importer.h"
#include "replay/store/record.h"
#include "replay/store/store.h"
#include "replay/store/unscored.h"
#include "replay/table/table.h"
#include "tests/testing/paths.h"

namespace plumb::replay {

// Where files cost no disk, if there is such a place.
inline std::filesystem::path InMemory() {
  return std::filesystem::is_directory("/dev/shm") ? std::filesystem::path("/dev/shm")
                                                   : std::filesystem::temp_directory_path();
}

// For tests that provoke more warnings than anybody would read.
struct OnlyErrorsInTheLog {
  OnlyErrorsInTheLog() { SetUpLogging("plumb", -1, "", LogLevel::kError); }
  ~OnlyErrorsInTheLog() { SetUpLogging("plumb", -1, "", LogLevel::kWarning); }
};

class TempFolder {
 public:
  explicit TempFolder(const std::filesystem::path& in = std::filesystem::temp_directory_path()) {
    std::string name = (in / "plumb_replay_XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) std::abort();
    path_ = name;
  }
  ~TempFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

inline std::string WriteFile(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
  return path;
}

inline std::string ReadFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

// Named members of a temporary make GCC 12 doubt the map in it.
inline ImportRequest ImportOf(const std::string& file, const std::string& dataset) {
  ImportRequest request;
  request.files = {file};
  request.dataset = dataset;
  return request;
}

// The answer of an actor to `lease`, scored; `completion_tokens` policy tokens each.
inline TrajectoryGroup Answer(const PromptLease& lease, int64_t version,
                              const std::string& run_id = "run", int completion_tokens = 3) {
  TrajectoryGroup group;
  group.run_id = run_id;
  group.actor = "actor-0";
  group.lease = lease;
  group.policy = {version, "digest-" + std::to_string(version)};
  for (int32_t s = 0; s < lease.num_samples; ++s) {
    Trajectory t;
    t.sample = static_cast<uint32_t>(s);
    const int n = 2 + completion_tokens;
    for (int i = 0; i < n; ++i) {
      const bool policy = i >= 2;
      t.tokens.push_back(static_cast<int32_t>(lease.lease_id % 1000) + i);
      t.loss_mask.push_back(policy ? 1 : 0);
      t.logprobs.push_back(policy ? -0.25f * static_cast<float>(i) : 0.0f);
      t.policy_versions.push_back(policy ? version : -1);
    }
    t.segments = {{Origin::kPrompt, 0, 2}, {Origin::kPolicy, 2, n}};
    t.completion = "answer " + std::to_string(lease.lease_id) + "/" + std::to_string(s);
    t.rewards = {{"correct", s % 2 == 0 ? 1.0 : 0.0, 1.0, RewardScope::kTrajectory, 0, "fn"}};
    t.reward = t.rewards[0].value;
    t.scored = true;
    group.trajectories.push_back(std::move(t));
  }
  return group;
}

// A group as a learner gets it: its prompt without what stays in the store.
inline TrajectoryGroup AsItTravels(TrajectoryGroup group) {
  Prompt& prompt = group.lease.prompt;
  if (group.lease.prompt_sum != 0)
    prompt = {.dataset = prompt.dataset, .row = prompt.row, .tokens = prompt.tokens};
  return group;
}

inline PromptLease PlainLease(uint64_t id, Purpose purpose = Purpose::kTrain, int32_t samples = 2) {
  PromptLease lease;
  lease.lease_id = id;
  lease.purpose = purpose;
  lease.num_samples = samples;
  lease.prompt.dataset = purpose == Purpose::kTrain ? kTrainDataset : kEvalDataset;
  lease.prompt.text = "prompt of " + std::to_string(id);
  return lease;
}

inline TrajectoryGroup PlainGroup(uint64_t id, Purpose purpose = Purpose::kTrain) {
  return Answer(PlainLease(id, purpose), 0);
}

inline std::vector<Prompt> SomePrompts(int n, const std::string& text = "question ") {
  std::vector<Prompt> prompts;
  for (int i = 0; i < n; ++i) {
    Prompt p;
    p.text = text + std::to_string(i);
    p.ground_truth = std::to_string(i);
    prompts.push_back(std::move(p));
  }
  return prompts;
}

inline std::unique_ptr<Store> OpenStore(const std::string& path,
                                        const std::string& run_id = "run") {
  StoreOptions options;
  options.run_id = run_id;
  return Store::Open(path, options);
}

// All rows of a preference dataset at once.
inline void PutPreferences(Store& store, const std::string& dataset,
                           std::span<const PreferenceRecord> records) {
  uint64_t hash = kNoRowsHash;
  store.AppendPreferences(dataset, 0, records, hash);
  store.SealPreferences(dataset, records.size(), hash);
}

// A group of which nothing trains.
inline InsertResult InsertDropped(Store& store, const TrajectoryGroup& group,
                                  const std::string& reason) {
  const ScoredBody dropped{GroupBody::Seal(group), AsDropped(ScoresOf(group), reason)};
  const ScoredBody* const one = &dropped;
  return store.Insert(std::span(&one, 1)).front();
}

// Starts tests/replay/store_child.cc; `keep` are descriptors that stay open in it. -1 when it
// cannot be started.
inline pid_t StartStoreChild(std::vector<std::string> words, const std::vector<int>& keep = {}) {
  words.insert(words.begin(), plumb::testing::BinaryPath("tests/store_child"));
  const pid_t child = ::fork();
  if (child != 0) return child;
  for (const int fd : keep) ::fcntl(fd, F_SETFD, 0);
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  ::execv(arguments[0], arguments.data());
  ::_exit(127);
}

// What `body` throws; fails when it does not.
template <class Body>
Error Thrown(Body body) {
  try {
    body();
  } catch (const Error& e) {
    return e;
  }
  ADD_FAILURE() << "nothing was thrown";
  return Error(ErrorCode::kInvalidArgument, "nothing was thrown");
}

#define EXPECT_THROWS(code_, text_, ...)                                                   \
  do {                                                                                     \
    const ::plumb::Error thrown = ::plumb::replay::Thrown([&] { __VA_ARGS__; });           \
    EXPECT_EQ(::plumb::ErrorCodeName(thrown.code()), ::plumb::ErrorCodeName(code_))        \
        << thrown.what();                                                                  \
    EXPECT_NE(std::string(thrown.what()).find(text_), std::string::npos) << thrown.what(); \
  } while (false)

}  // namespace plumb::replay
