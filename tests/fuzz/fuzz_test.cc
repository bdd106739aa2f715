// Every fuzz target over its seeds and seeded mutations of them: the entry points of the fuzzers
// are built and run by every suite, with any compiler. libFuzzer itself: make fuzz
// (CONTRIBUTING.md).
#include <gtest/gtest.h>

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <string>

#include "common/base/error.h"
#include "targets.h"

namespace plumb::fuzz {
namespace {

constexpr int kMutations = 1000;

// Said by the handler when a target ends the process or does not come back: the case can be made
// again from it.
char current[160];

void SayAndDie(int signal) {
  const char* what = signal == SIGALRM ? " did not end within 20 s\n" : " ended the process\n";
  [[maybe_unused]] ssize_t n = write(STDERR_FILENO, current, strnlen(current, sizeof current));
  n = write(STDERR_FILENO, what, strlen(what));
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

class Mutator {
 public:
  Mutator(const Seeds& seeds, uint64_t key) : seeds_(seeds), key_(key) {}

  std::string Next() {
    std::string s = seeds_[Draw(seeds_.size())];
    const size_t changes = 1 + Draw(4);
    for (size_t i = 0; i < changes; ++i) Change(s);
    return s;
  }

 private:
  uint64_t Draw(uint64_t n) { return n == 0 ? 0 : SplitMix() % n; }
  uint64_t SplitMix() {
    uint64_t z = key_ += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  }
  void Change(std::string& s) {
    static constexpr uint64_t kNumbers[] = {0,
                                            1,
                                            0x7F,
                                            0x80,
                                            0xFF,
                                            0x7FFF,
                                            0xFFFF,
                                            0x7FFFFFFF,
                                            0x80000000,
                                            0xFFFFFFFF,
                                            0x7FFFFFFFFFFFFFFF,
                                            0x8000000000000000,
                                            0xFFFFFFFFFFFFFFFF,
                                            uint64_t{1} << 60};
    const size_t at = Draw(s.size() + 1),
                 length = std::min<size_t>(1 + Draw(1 + Draw(64)), s.size() - at);
    switch (Draw(8)) {
      case 0:
        if (at < s.size()) s[at] = static_cast<char>(s[at] ^ (1 << Draw(8)));
        return;
      case 1:
        if (at < s.size()) s[at] = static_cast<char>(Draw(256));
        return;
      case 2: s.erase(at, length); return;
      case 3: s.insert(at, s.substr(at, length)); return;
      case 4: {  // a part of another seed
        const std::string& other = seeds_[Draw(seeds_.size())];
        const size_t from = Draw(other.size() + 1);
        s.insert(at, other.substr(from, 1 + Draw(64)));
        return;
      }
      case 5: {  // a number that parsers stumble over, of 1 to 8 bytes
        const uint64_t number = kNumbers[Draw(std::size(kNumbers))];
        const size_t bytes = std::min<size_t>(size_t{1} << Draw(4), s.size() - at);
        std::copy_n(reinterpret_cast<const char*>(&number), bytes,
                    s.begin() + static_cast<ptrdiff_t>(at));
        return;
      }
      case 6: s.resize(at); return;
      case 7: {  // the same as text
        s.replace(at, length,
                  std::to_string(static_cast<int64_t>(kNumbers[Draw(std::size(kNumbers))])));
        return;
      }
    }
  }
  const Seeds& seeds_;
  uint64_t key_;
};

class FuzzSmoke : public ::testing::TestWithParam<Target> {};

TEST_P(FuzzSmoke, SeedsAndMutations) {
  const Target& target = GetParam();
  const Seeds seeds = target.seeds();
  ASSERT_FALSE(seeds.empty());
  for (const int signal : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGALRM})
    std::signal(signal, SayAndDie);
  double slowest = 0;
  size_t slowest_bytes = 0;
  const auto run = [&](const std::string& input, const char* what, size_t number) {
    std::snprintf(current, sizeof current, "fuzz target %s, %s %zu, %zu bytes,", target.name, what,
                  number, input.size());
    alarm(20);
    const auto begin = std::chrono::steady_clock::now();
    RunTarget(target, input);
    alarm(0);
    const double took =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    if (took > slowest) slowest = took, slowest_bytes = input.size();
  };
  run("", "the empty input", 0);
  for (size_t i = 0; i < seeds.size(); ++i) run(seeds[i], "seed", i);
  // A few large seeds are no reason for a slow suite: mutations of the smaller ones.
  Seeds small;
  for (const std::string& seed : seeds) {
    if (seed.size() <= 8192) small.push_back(seed);
  }
  ASSERT_FALSE(small.empty());
  Mutator mutator(small, 20261126);
  for (size_t i = 0; i < kMutations; ++i) run(mutator.Next(), "mutation", i);
  for (const int signal : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGALRM}) std::signal(signal, SIG_DFL);
  std::printf("[          ] %s: %zu seeds, %d mutations, slowest %.1f ms (%zu bytes)\n",
              target.name, seeds.size(), kMutations, slowest * 1000, slowest_bytes);
}

INSTANTIATE_TEST_SUITE_P(All, FuzzSmoke, ::testing::ValuesIn(Targets().begin(), Targets().end()),
                         [](const auto& info) { return std::string(info.param.name); });

// A target that can fail does: the harness lets an Error pass and nothing else.
TEST(FuzzHarness, AnErrorPassesAndAnythingElseDoesNot) {
  const Target refuses{
      "refuses", [](std::string_view) { throw Error(ErrorCode::kCorruption, "no"); }, nullptr};
  EXPECT_NO_THROW(RunTarget(refuses, "x"));
  const Target escapes{"escapes", [](std::string_view) { throw std::out_of_range("at"); }, nullptr};
  EXPECT_THROW(RunTarget(escapes, "x"), std::out_of_range);
}

}  // namespace
}  // namespace plumb::fuzz
