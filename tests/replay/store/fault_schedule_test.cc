// Row 5 of docs/reliability.md: the store on a disk that fails by a seeded schedule. What was
// acknowledged is there afterwards, what is there was sent, and everything that goes wrong is an
// Error that names the place. tests/replay/faulty_disk.h.
#include <algorithm>
#include <array>
#include <functional>
#include <set>
#include <thread>

#include "common/base/rng.h"
#include "replay/store/store.h"
#include "tests/replay/faulty_disk.h"
#include "tests/replay/fixtures.h"
#include "tests/testing/faulty_file_system.h"
#include "tests/testing/reliability.h"

namespace plumb::replay {
namespace {

using plumb::testing::Count;
using Fault = FaultyDisk::Fault;

TrajectoryGroup GroupOf(uint64_t id) {
  return Answer(PlainLease(id), 0, "run", 3 + static_cast<int>(id * 2654435761u % 400));
}

// What a writer was told, over all its lives.
struct Told {
  std::mutex mu;
  std::set<uint64_t> sent, acked;
  std::set<std::string> sent_datasets, acked_datasets;
  uint64_t next = 0;
  int64_t acks_after_failure = 0;

  uint64_t TakeId() {
    std::lock_guard lock(mu);
    sent.insert(next);
    return next++;
  }
  void Acked(uint64_t id) {
    std::lock_guard lock(mu);
    acked.insert(id);
  }
};

// One life of a writer.
void Write(Store& store, RandomStream& random, Told& told, Fault fault, int operations) {
  bool stopped = false;
  const auto tried = [&](const std::function<void()>& body) {
    try {
      body();
      if (stopped) ++told.acks_after_failure;
    } catch (const Error& e) {
      EXPECT_FALSE(e.where().empty()) << e.what();
      EXPECT_TRUE(e.code() == ErrorCode::kIo || e.code() == ErrorCode::kNoSpace ||
                  e.code() == ErrorCode::kUnavailable)
          << e.what();
      // From a write that met an I/O error on, what the disk holds is unknown: no write may succeed
      // in this life. What could not be read changed nothing.
      if (e.code() == ErrorCode::kIo && fault != Fault::kRead) stopped = true;
    }
  };
  for (int i = 0; i < operations; ++i) {
    const uint32_t what = random.NextBelow(100);
    if (what < 40) {
      const uint64_t id = told.TakeId();
      tried([&] {
        store.Insert(GroupOf(id));
        told.Acked(id);
      });
    } else if (what < 55) {
      std::vector<TrajectoryGroup> groups;
      for (int n = 0; n < 3; ++n) groups.push_back(GroupOf(told.TakeId()));
      tried([&] {
        store.Insert(groups);
        for (const auto& group : groups) told.Acked(group.lease.lease_id);
      });
    } else if (what < 65) {  // threads that share a sync
      std::array<std::thread, 3> threads;
      std::array<bool, 3> failed{};
      for (size_t t = 0; t < threads.size(); ++t) {
        threads[t] = std::thread([&, t] {
          for (int n = 0; n < 3; ++n) {
            const uint64_t id = told.TakeId();
            try {
              store.Insert(GroupOf(id));
              told.Acked(id);
            } catch (const Error& e) {
              failed[t] = failed[t] || e.code() == ErrorCode::kIo;
            }
          }
        });
      }
      for (auto& thread : threads) thread.join();
      for (const bool f : failed) stopped = stopped || f;
    } else if (what < 72) {
      if (told.acked.empty()) continue;
      const uint64_t id = *std::next(told.acked.begin(),
                                     random.NextBelow(static_cast<uint32_t>(told.acked.size())));
      EXPECT_EQ(store.Insert(GroupOf(id)), InsertResult::kDuplicate);
    } else if (what < 80) {
      const std::vector<LeaseMark> marks = {{Purpose::kTrain, told.next, {false, 1, 0, 0}}};
      tried([&] { store.RecordLeases(marks); });
    } else if (what < 88) {
      const std::string name = "d" + std::to_string(told.sent_datasets.size());
      told.sent_datasets.insert(name);
      tried([&] {
        store.PutPrompts(name, SomePrompts(1 + static_cast<int>(random.NextBelow(40)), name));
        told.acked_datasets.insert(name);
      });
    } else if (what < 97) {
      tried([&] { store.Flush(); });
    } else {
      tried([&] { store.PutEvaluation(static_cast<int64_t>(told.next), 2, 4); });
    }
  }
}

void ExpectAcknowledgedIsThereAndWasSent(const std::string& folder, Told& told) {
  std::unique_ptr<Store> store;
  try {
    store = Store::Open(folder, {.run_id = "run"});
  } catch (const Error& e) {
    FAIL() << "a healthy disk after the fault: " << e.what();
  }
  const auto ids = store->Ids(Purpose::kTrain, 0, UINT64_MAX);
  const std::set<uint64_t> recovered(ids.begin(), ids.end());
  for (const uint64_t id : told.acked)
    ASSERT_TRUE(recovered.contains(id)) << "acknowledged and lost: " << id;
  for (const uint64_t id : recovered) {
    ASSERT_TRUE(told.sent.contains(id)) << "never sent: " << id;
    ASSERT_EQ(store->Read(Purpose::kTrain, id)->group, GroupOf(id)) << id;
  }
  const auto datasets = store->Datasets();
  for (const std::string& name : told.acked_datasets)
    ASSERT_TRUE(datasets.contains(name)) << "acknowledged and lost: " << name;
  for (const auto& [name, rows] : datasets) {
    ASSERT_TRUE(told.sent_datasets.contains(name));
    for (uint64_t row = 0; row < rows; ++row)
      ASSERT_EQ(store->ReadPrompt(name, row).text, name + std::to_string(row));
  }
  const VerifyReport report = store->Verify();
  ASSERT_TRUE(report.problems.empty()) << report.problems[0];
  ASSERT_EQ(report.groups, recovered.size());
  ASSERT_GE(store->Sequence(), recovered.size());
}

TEST(FaultScheduleTest, AcknowledgedIsRecoveredIsSent) {
  const OnlyErrorsInTheLog quiet;
  const int schedules = Count(150, 4000);
  int fired = 0, refused = 0;
  std::map<Fault, int> met;
  size_t acked = 0, sent = 0;
  for (int seed = 0; seed < schedules; ++seed) {
    SCOPED_TRACE("schedule " + std::to_string(seed));
    RandomStream random(static_cast<uint64_t>(seed), 5);
    TempFolder folder(InMemory());
    FaultyDisk disk;
    Told told;
    const int lives = 1 + static_cast<int>(random.NextBelow(3));
    for (int life = 0; life < lives; ++life) {
      const auto fault = static_cast<Fault>(random.NextBelow(FaultyDisk::kFaults));
      disk.Plan(fault, random.NextBelow(140), 1 + random.NextBelow(30));
      try {
        auto store = Store::Open(
            folder / "store", {.run_id = "run", .write_buffer_mb = 1, .env_for_test = disk.env()});
        Write(*store, random, told, fault, 4 + static_cast<int>(random.NextBelow(16)));
      } catch (const Error& e) {  // from Open
        ASSERT_FALSE(e.where().empty()) << e.what();
        ASSERT_TRUE(e.code() == ErrorCode::kIo || e.code() == ErrorCode::kNoSpace) << e.what();
        ++refused;
      }
      if (disk.fired()) {
        ++fired;
        ++met[fault];
      }
      if (fault == Fault::kPower || random.NextBelow(2) == 0) {
        disk.CutPower(random);
      } else {
        disk.EndProcess();
      }
    }
    ExpectAcknowledgedIsThereAndWasSent(folder / "store", told);
    ASSERT_EQ(told.acks_after_failure, 0) << "a write succeeded after an I/O error";
    acked += told.acked.size();
    sent += told.sent.size();
    if (HasFatalFailure() || HasNonfatalFailure()) break;
  }
  EXPECT_GT(fired, schedules);  // about three in four lives meet theirs
  for (int f = 1; f < FaultyDisk::kFaults; ++f)
    EXPECT_GT(met[static_cast<Fault>(f)], 0) << "fault " << f << " was never met";
  std::printf(
      "%d schedules, %d faults met, %d opens refused; %zu groups sent, %zu acknowledged, none of "
      "them lost\n",
      schedules, fired, refused, sent, acked);
}

}  // namespace
}  // namespace plumb::replay
