// store_bench [FOLDER [short]]: groups into a store and out of it, against RocksDB alone with
// records of the same size.
//
// Both sides of a pair run in the same call, with the same settings, keys and number of threads.
// Insert: a synced write each, so that threads share the syncs of the log; a group and its lease on
// both sides. Sample: the bytes of groups where they lie, in random order once they are in table
// files, by one thread; RocksDB's as it hands them out, the store's as a replay server gets them,
// their sum checked under their key (Store::ReadSealed). Sample decoded: the same verified and
// unpacked as well, which is what a learner pays in the store's own process (Store::Read). The
// three take turns; of each the best of seven passes counts, by the clock and by processor time,
// which what else runs on the machine changes less. Then a step to a learner in another process,
// and the start with a million records.
#include <time.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "bench/bench_program.h"
#include "common/base/hash/crc32c.h"
#include "replay/store/record.h"
#include "replay/store/rocks.h"
#include "replay/store/store.h"
#include "replay/table/remote.h"
#include "replay/table/table.h"

namespace plumb::replay {
namespace {

using bench::ProcessorSeconds;

double Seconds(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

constexpr int kPasses = 7;

// Seconds a pass, of the best one.
struct Pass {
  double clock = 1e9, processor = 1e9;
  void Run(const std::function<void()>& work) {
    const double used = ProcessorSeconds();
    clock = std::min(clock, Seconds(work));
    processor = std::min(processor, ProcessorSeconds() - used);
  }
};

TrajectoryGroup MakeGroup(uint64_t id, int samples, int tokens) {
  TrajectoryGroup group;
  group.actor = "actor-0";
  group.run_id = "bench";
  group.lease.lease_id = id;
  group.lease.num_samples = samples;
  group.lease.prompt.dataset = "train";
  group.lease.prompt.text = std::string(200, 'p');
  group.policy = {1, "digest"};
  const int prompt = tokens / 4;
  for (int s = 0; s < samples; ++s) {
    Trajectory t;
    t.sample = static_cast<uint32_t>(s);
    for (int i = 0; i < tokens; ++i) {
      t.tokens.push_back(i * 7919 % 49152);
      t.loss_mask.push_back(i < prompt ? 0 : 1);
      t.logprobs.push_back(i < prompt ? 0.0f : -0.01f * static_cast<float>(i % 97));
      t.policy_versions.push_back(i < prompt ? -1 : 1);
    }
    t.segments = {{Origin::kPrompt, 0, prompt}, {Origin::kPolicy, prompt, tokens}};
    t.completion = std::string(static_cast<size_t>(3 * (tokens - prompt)), 'c');
    t.rewards = {{"correct", 1.0, 1.0, RewardScope::kTrajectory, 0, "fn"}};
    t.reward = 1;
    t.scored = true;
    group.trajectories.push_back(std::move(t));
  }
  return group;
}

// Work in `threads` threads on the ids 0..n-1.
void OnIds(int threads, uint64_t n, const std::function<void(uint64_t)>& work) {
  std::atomic<uint64_t> next{0};
  std::vector<std::thread> pool;
  for (int t = 0; t < threads; ++t) {
    pool.emplace_back([&] {
      for (uint64_t id; (id = next++) < n;) work(id);
    });
  }
  for (std::thread& t : pool) t.join();
}

void Compare(const std::string& folder, int samples, int tokens, uint64_t n, int threads) {
  const std::string value = GroupBody::Seal(MakeGroup(0, samples, tokens)).bytes().str();
  Pass insert[2];  // RocksDB alone, the store; one pass each
  std::vector<uint64_t> order(n);
  for (uint64_t i = 0; i < n; ++i) order[i] = i;
  std::shuffle(order.begin(), order.end(), std::mt19937_64(5));
  std::filesystem::remove_all(folder + "/bare");
  RocksFolder rocks;
  rocks.Open(folder + "/bare", {});
  const std::string lease(20, 'l');
  const auto on_all = [&](const std::function<void(uint64_t)>& work) {
    return [=] { OnIds(threads, n, work); };
  };
  insert[0].Run(on_all([&](uint64_t id) {
    rocksdb::WriteBatch batch;
    const std::string key = LeaseKey(Purpose::kTrain, id);
    batch.Put(rocks.handle(Family::kGroups), key, value);
    batch.Put(rocks.handle(Family::kLeases), key, lease);
    rocks.Write(batch, /*sync=*/true);
  }));
  rocks.Flush();
  std::filesystem::remove_all(folder + "/store");
  const auto store = Store::Open(folder + "/store", {.run_id = "bench"});
  std::vector<TrajectoryGroup> groups;  // made by actors elsewhere: not part of the time
  for (uint64_t id = 0; id < n; ++id) groups.push_back(MakeGroup(id, samples, tokens));
  insert[1].Run(on_all([&](uint64_t id) {
    if (store->Insert(groups[id]) != InsertResult::kInserted) std::abort();
  }));
  store->Flush();
  groups.clear();

  size_t bytes = 0;
  Pass bare, sealed, decoded;
  for (int pass = 0; pass < kPasses; ++pass) {
    bare.Run([&] {
      for (const uint64_t id : order) {
        RocksFolder::Pinned out;
        if (!rocks.Get(Family::kGroups, LeaseKey(Purpose::kTrain, id), &out).ok()) std::abort();
        bytes += out.value.size();
      }
    });
    sealed.Run([&] {
      for (const uint64_t id : order) {
        const auto use = [&](std::string_view, std::string_view v, std::string_view s) {
          bytes += v.size() + s.size();
        };
        if (!store->ReadSealed(Purpose::kTrain, id, use)) std::abort();
      }
    });
    decoded.Run([&] {
      for (const uint64_t id : order) {
        if (!store->Read(Purpose::kTrain, id)) std::abort();
      }
    });
  }
  if (bytes == 0) std::abort();
  const auto rate = [&](double seconds) { return static_cast<double>(n) / seconds; };
  const double mb = static_cast<double>(value.size()) / 1e6;
  std::printf("%d x %d tokens, %zu bytes a group, %d threads\n", samples, tokens, value.size(),
              threads);
  const auto print = [&](const char* what, const Pass& pass, const Pass& alone) {
    const double us = 1e6 / static_cast<double>(n);
    std::printf(
        "  %s store %8.0f/s %6.1f MB/s   RocksDB %8.0f/s   %.2fx; processor time %.1f us and %.1f "
        "us, %.2fx\n",
        what, rate(pass.clock), mb * rate(pass.clock), rate(alone.clock), alone.clock / pass.clock,
        us * pass.processor, us * alone.processor, alone.processor / pass.processor);
  };
  print("insert        ", insert[1], insert[0]);
  print("sample        ", sealed, bare);
  print("sample decoded", decoded, bare);
}

// What a learner in another process waits for: a step from the server's store to decoded groups,
// both ends in this process.
void Remote(const std::string& folder, int samples, int tokens) {
  constexpr int kGroups = 64;
  std::filesystem::remove_all(folder + "/served");
  const auto store = Store::Open(folder + "/served", {.run_id = "bench"});
  store->PutPrompts(kTrainDataset, std::vector<Prompt>(kGroups, {.text = "q"}));
  TableOptions options;
  options.steps = 1;
  options.prompts_per_step = kGroups;
  options.samples_per_prompt = samples;
  ReplayTable table(store.get(), options);
  table.TryNext(0);
  for (const PromptLease& lease : table.Lease(kGroups, After(std::chrono::seconds(1)))) {
    TrajectoryGroup group = MakeGroup(lease.lease_id, samples, tokens);
    group.lease = lease;
    for (Trajectory& t : group.trajectories)
      std::replace(t.policy_versions.begin(), t.policy_versions.end(), int64_t{1}, int64_t{0});
    group.policy.version = 0;
    if (table.Insert(group) != InsertResult::kInserted) std::abort();
  }
  store->Flush();
  const std::filesystem::path sockets = folder + "/sockets";
  std::filesystem::create_directories(sockets);
  std::filesystem::permissions(sockets, std::filesystem::perms::owner_all);
  ReplayServer server(&table, "ipc://" + (sockets / "store.sock").string());
  ReplayClient learner(server.endpoint());
  Pass pass;
  for (int i = 0; i < 3 * kPasses; ++i) {
    pass.Run([&] {
      if (learner.Next(0, After(std::chrono::seconds(60))).size() != kGroups) std::abort();
    });
  }
  std::printf("%d groups of %d x %d tokens through the socket: %.2f ms, processor time %.2f ms\n",
              kGroups, samples, tokens, 1e3 * pass.clock, 1e3 * pass.processor);
}

// What guards every value: GB/s of each way that this processor has, the last being the one in use.
void Sums() {
  const std::string bytes(160'000, 'v');
  for (const Crc32cWay& way : Crc32cWays()) {
    std::printf("crc32c, %-17s", way.name);
    for (const size_t size : {4'096, 42'000, 160'000}) {
      constexpr int kRounds = 5;
      const size_t times = (size_t{1} << 28) / size;
      double best = 1e9;
      volatile uint32_t sum = 0;  // each begins where the last one ended
      for (int round = 0; round < kRounds; ++round) {
        const double begin = ProcessorSeconds();
        for (size_t i = 0; i < times; ++i) sum = way.sum(bytes.data() + 5, size - 5, nullptr, sum);
        best = std::min(best, ProcessorSeconds() - begin);
      }
      std::printf("  %zu bytes %5.1f GB/s", size, static_cast<double>(size * times) / best / 1e9);
    }
    std::printf("\n");
  }
}

void Start(const std::string& folder, uint64_t n) {
  std::filesystem::remove_all(folder + "/million");
  {
    const auto store = Store::Open(folder + "/million", {.run_id = "bench"});
    std::vector<Prompt> prompts(100);
    for (Prompt& p : prompts) p.text = "q";
    store->PutPrompts("train", prompts);
    std::vector<TrajectoryGroup> groups;
    TrajectoryGroup group = MakeGroup(0, 1, 16);
    for (uint64_t id = 0; id < n; ++id) {
      group.lease.lease_id = id;
      groups.push_back(group);
      if (groups.size() == 1000 || id + 1 == n) {
        store->Insert(groups);
        groups.clear();
      }
    }
  }
  std::unique_ptr<Store> store;
  const double open =
      Seconds([&] { store = Store::Open(folder + "/million", {.run_id = "bench"}); });
  std::unique_ptr<ReplayTable> table;
  TableOptions options;
  options.steps = static_cast<int64_t>(n / 10);
  options.prompts_per_step = 20;
  options.samples_per_prompt = 1;
  const double leases =
      Seconds([&] { table = std::make_unique<ReplayTable>(store.get(), options); });
  std::printf("start with %llu groups and as many leases (%.0f MB): store %.2f s, table %.2f s\n",
              static_cast<unsigned long long>(n), static_cast<double>(store->SizeBytes()) / 1e6,
              open, leases);
}

}  // namespace
}  // namespace plumb::replay

int main(int argc, char** argv) {
  char name[] = "/tmp/plumb_store_bench_XXXXXX";
  const std::string folder = argc > 1 ? argv[1] : ::mkdtemp(name);
  std::filesystem::create_directories(folder);
  plumb::replay::Sums();
  plumb::replay::Compare(folder, 8, 256, 2000, 1);
  plumb::replay::Compare(folder, 8, 256, 2000, 8);
  plumb::replay::Compare(folder, 8, 1024, 1000, 8);
  plumb::replay::Compare(folder, 8, 4096, 250, 8);
  plumb::replay::Remote(folder, 8, 256);
  plumb::replay::Remote(folder, 8, 1024);
  if (argc < 3) plumb::replay::Start(folder, 1'000'000);
  std::filesystem::remove_all(folder);
  return 0;
}
