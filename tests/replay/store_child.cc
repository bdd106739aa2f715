// A program that tests of the store kill: a process of its own, started anew, so that RocksDB's
// threads are its own as well.
//
//   store_child write STORE FIRST_ID SENT_FD ACKED_FD
// inserts groups from FIRST_ID on in three threads for ever; ids go to the descriptors as 8 bytes
//   each, before and after. store_child import STORE DATASET REJECTS COMMIT_ROWS FILE...
//
// As process 1 of a User-Mode Linux (power_cut_test.cc), with GUEST_DISK, GUEST_MODE and
// GUEST_FIRST from the kernel's command line: mounts the disk /dev/ubda, opens the store on it,
// reports every group that is there ("has 7 7;"), then inserts groups from GUEST_FIRST on in three
// threads and reports each as it is acknowledged ("acked 7 7;"), until the machine is gone. Mode
// `check` ends after the report, `unsynced` never syncs. The numbers stand twice so that a line cut
// short is not taken for another.
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <unistd.h>

#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <thread>
#include <vector>

#include "tests/replay/fixtures.h"

namespace {

using namespace plumb;
using namespace plumb::replay;

void Say(const char* what, uint64_t id) {
  char line[96];
  const int n = std::snprintf(line, sizeof(line), "\n%s %" PRIu64 " %" PRIu64 ";\n", what, id, id);
  if (::write(STDOUT_FILENO, line, static_cast<size_t>(n)) != n) std::abort();
}

std::string Setting(const char* name) {
  const char* value = std::getenv(name);
  if (value == nullptr) throw Error(ErrorCode::kInvalidArgument, std::string(name) + " is not set");
  return value;
}

void WriteForEver(Store& store, uint64_t first, const std::function<void(uint64_t)>& sent,
                  const std::function<void(uint64_t)>& acked) {
  constexpr uint64_t kWriters = 3;
  std::vector<std::thread> writers;
  for (uint64_t t = 0; t < kWriters; ++t) {
    writers.emplace_back([&, t] {
      for (uint64_t id = first + t;; id += kWriters) {
        sent(id);
        if (store.Insert(Answer(PlainLease(id), 0, "run", 100)) == InsertResult::kInserted)
          acked(id);
      }
    });
  }
  for (auto& writer : writers) writer.join();
}

void RunGuest(const std::string& disk, const std::string& mode, uint64_t first) {
  if (::mount("/dev/ubda", disk.c_str(), "ext4", 0, "") != 0)
    throw Error(ErrorCode::kIo, std::strerror(errno), "mount /dev/ubda");
  StoreOptions options;
  options.run_id = "run";
  options.never_sync_for_test = mode == "unsynced";
  // Flushes happen, too; their table files would be synced whatever the log is.
  options.write_buffer_mb = options.never_sync_for_test ? 64 : 1;
  auto store = Store::Open(disk + "/store", options);
  for (const uint64_t id : store->Ids(Purpose::kTrain, 0, UINT64_MAX)) {
    if (store->Read(Purpose::kTrain, id)->group != Answer(PlainLease(id), 0, "run", 100)) {
      throw Error(ErrorCode::kCorruption, "another group than was sent", std::to_string(id));
    }
    Say("has", id);
  }
  for (const std::string& problem : store->Verify().problems)
    throw Error(ErrorCode::kCorruption, problem, "verify");
  Say("opened", store->Sequence());
  if (mode == "check") return;
  WriteForEver(
      *store, first, [](uint64_t id) { Say("sent", id); }, [](uint64_t id) { Say("acked", id); });
}

int GuestMain() {
  Say("up", 1);
  try {
    RunGuest(Setting("GUEST_DISK"), Setting("GUEST_MODE"),
             std::strtoull(Setting("GUEST_FIRST").c_str(), nullptr, 10));
  } catch (const std::exception& e) {
    std::printf("\nproblem: %s;\n", e.what());
    std::fflush(stdout);
  }
  ::sync();
  ::reboot(RB_POWER_OFF);
  return 1;
}

void Tell(int fd, uint64_t id) {
  if (::write(fd, &id, sizeof(id)) != sizeof(id)) std::abort();
}

void RunChild(const std::vector<std::string>& words) {
  const auto number = [&](size_t i) { return std::strtoull(words.at(i).c_str(), nullptr, 10); };
  StoreOptions options;
  options.run_id = "run";
  options.write_buffer_mb = 1;  // flushes happen, too
  auto store = Store::Open(words.at(1), options);
  if (words.at(0) == "write") {
    const int sent = static_cast<int>(number(3)), acked = static_cast<int>(number(4));
    WriteForEver(
        *store, number(2), [&](uint64_t id) { Tell(sent, id); },
        [&](uint64_t id) { Tell(acked, id); });
  } else {
    ImportRequest request;
    request.dataset = words.at(2);
    request.rejects = words.at(3);
    request.commit_rows = static_cast<int64_t>(number(4));
    request.files = {words.begin() + 5, words.end()};
    ImportFiles(*store, request);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (::getpid() == 1 && std::getenv("GUEST_MODE") != nullptr) return GuestMain();
  try {
    RunChild({argv + 1, argv + argc});
    return 0;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "store_child: %s\n", e.what());
    return 2;
  }
}
