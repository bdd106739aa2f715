// How a learner waits: as long as something gets on, not longer than nothing does, and never behind
// a stop or a failure.
#include "run/roles/learner_ports.h"

#include <gtest/gtest.h>

namespace plumb::run {
namespace {

using std::chrono::milliseconds;
using SteadyClock = std::chrono::steady_clock;

// A store whose batch is there after so many questions; `fail` says what those before it meet.
class FakeRing : public replay::StorePort, public WeightSink {
 public:
  std::vector<PromptLease> Lease(int, Deadline) override { return {}; }
  void Release(std::span<const PromptLease>) override {}
  bool Finished() override { return finished; }
  std::vector<InsertResult> InsertMany(std::span<const replay::ScoredBody>) override { return {}; }
  std::vector<Prompt> Prompts(std::span<const replay::PromptRef>) override { return {}; }
  void Report(const std::string&, const std::map<std::string, int64_t>&) override {}
  void Announce(const PolicyVersion& policy) override {
    if (away-- > 0) throw Error(ErrorCode::kUnavailable, "the store is away");
    said.push_back("announced " + std::to_string(policy.version));
  }
  std::map<std::string, int64_t> Counters() override {
    if (++counted <= uncounted)
      throw Error(ErrorCode::kUnavailable, "the store imports its prompts");
    return {{"inserts", progress}, {"actor/generated_tokens", 7}};
  }
  replay::StoreCursor CursorAt(int64_t) override {
    Counters();
    return {.next_step = 0, .sequence = 12};
  }
  int64_t Resume(const replay::StoreCursor& cursor) override { return resumed = cursor.next_step; }
  void Trim(int64_t) override { throw Error(ErrorCode::kUnavailable, "the store is away"); }
  std::vector<TrajectoryGroup> Next(int64_t, Deadline deadline) override {
    return Answer(deadline);
  }
  std::vector<TrajectoryGroup> Evaluate(int64_t, int, Deadline deadline) override {
    return Answer(deadline);
  }
  void Finish() override { finished = true; }
  void Publish(const PolicyVersion& version, std::span<const WeightSet>) override {
    said.push_back("published " + std::to_string(version.version));
  }

  std::vector<TrajectoryGroup> Answer(Deadline deadline) {
    said.push_back("asked");
    if (++asked > questions) return std::vector<TrajectoryGroup>(3);
    EXPECT_LE(deadline, After(milliseconds(1000)));
    if (on_ask) on_ask();
    throw Error(fail, why);
  }
  RingAround Around() {
    return {.store = *this,
            .watch = *this,
            .weights = *this,
            .slice = milliseconds(2),
            .patience = milliseconds(5000)};
  }

  int questions = 0, asked = 0, away = 0;
  int64_t progress = 0, counted = 0, uncounted = 0, resumed = -1;
  ErrorCode fail = ErrorCode::kDeadline;
  std::string why = "waiting for 2 groups";
  bool finished = false;
  std::function<void()> on_ask;
  std::vector<std::string> said;
};

Error Thrown(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& e) {
    return e;
  }
  ADD_FAILURE() << "nothing was thrown";
  return Error(ErrorCode::kIo, "");
}

// 200 slices of 2 ms are ten times as long as a wait of 40 ms without progress may be.
TEST(LearnerPorts, AWaitLastsAsLongAsSomethingGetsOn) {
  for (const ErrorCode code :
       {ErrorCode::kDeadline, ErrorCode::kUnavailable, ErrorCode::kNoSpace}) {
    FakeRing ring;
    ring.questions = 200;
    ring.fail = code;
    ring.on_ask = [&] { ++ring.progress; };
    LearnerPorts ports(ring.Around());
    EXPECT_EQ(ports.Next(0, After(milliseconds(40))).size(), 3u);
    EXPECT_EQ(ring.asked, 201);
  }
}

TEST(LearnerPorts, AWaitWithoutProgressEndsAndNamesWhatItWaitedFor) {
  FakeRing ring;
  ring.questions = 1 << 20;
  // gets on for a while, then hangs
  ring.on_ask = [&] { ring.progress = std::min(ring.asked, 10); };
  LearnerPorts ports(ring.Around());
  const auto begin = SteadyClock::now();
  const Error e = Thrown([&] { ports.Evaluate(0, 1, After(milliseconds(60))); });
  EXPECT_EQ(e.code(), ErrorCode::kDeadline);
  EXPECT_NE(e.message().find("waiting for 2 groups"), std::string::npos) << e.what();
  EXPECT_NE(e.message().find("run.stall_seconds"), std::string::npos) << e.what();
  EXPECT_GE(SteadyClock::now() - begin, milliseconds(60));
}

TEST(LearnerPorts, ALongWaitSaysWhatItWaitsForAndAShortOneNothing) {
  FakeRing ring;
  ring.on_ask = [&] { ++ring.progress; };
  std::vector<std::string> words;
  RingAround around = ring.Around();
  around.waits = [&](const std::string& text) { words.push_back(text); };
  LearnerPorts quick(around);
  ring.questions = 5;
  quick.Next(0, After(milliseconds(60'000)));
  EXPECT_TRUE(words.empty()) << "before ten seconds: " << words.front();

  around.first_word = milliseconds(10);
  around.next_words = milliseconds(60'000);
  LearnerPorts slow(around);
  ring.questions += 50;
  slow.Next(0, After(milliseconds(60'000)));
  ASSERT_EQ(words.size(), 2u);
  EXPECT_EQ(words[0], "waiting for 2 groups; 7 tokens generated so far");
  EXPECT_EQ(words[1], "the answers of step 1 are there");

  around.next_words = milliseconds(10);
  LearnerPorts often(around);
  ring.questions += 50;
  often.Evaluate(0, 1, After(milliseconds(60'000)));
  EXPECT_GE(words.size(), 5u);
  EXPECT_EQ(words.back(), "the answers of the evaluation are there");
  const size_t said = words.size();
  often.Counters();
  EXPECT_EQ(words.size(), said) << "what is asked between steps is no wait for answers";
}

TEST(LearnerPorts, ALongWaitCountsStepsAsTheProgressLineDoes) {
  FakeRing ring;
  ring.questions = 3;
  ring.why = "waiting for 2 of 8 groups of step 0: leases 3, 4 at actor 'local' for 10 s";
  std::vector<std::string> said;
  RingAround around = ring.Around();
  around.waits = [&](const std::string& text) { said.push_back(text); };
  around.first_word = around.next_words = milliseconds(0);
  LearnerPorts ports(around);
  ports.Next(0, After(milliseconds(60'000)));
  ASSERT_FALSE(said.empty());
  EXPECT_EQ(said[0], "waiting for 2 of 8 groups of step 1; 7 tokens generated so far");
}

TEST(LearnerPorts, AnUpdateBeginsOnceItsAnswersAreThere) {
  FakeRing ring;
  ring.questions = 3;
  std::vector<int64_t> updates;
  RingAround around = ring.Around();
  around.updates = [&](int64_t step) {
    EXPECT_EQ(ring.asked, 4);
    updates.push_back(step);
  };
  LearnerPorts ports(around);
  ports.Next(6, After(milliseconds(60'000)));
  EXPECT_EQ(updates, std::vector<int64_t>{6});
  ports.Evaluate(7, 1, After(milliseconds(60'000)));
  EXPECT_EQ(updates.size(), 1u) << "nothing is trained behind an evaluation";
}

TEST(LearnerPorts, AStopEndsTheWaitAndAnotherErrorToo) {
  FakeRing ring;
  ring.questions = 1 << 20;
  RingAround around = ring.Around();
  around.stop = [&] { return ring.asked >= 3; };
  LearnerPorts stopped(around);
  EXPECT_NE(Thrown([&] { stopped.Next(0, After(milliseconds(60'000))); })
                .message()
                .find("stopped while waiting for 2 groups"),
            std::string::npos);
  EXPECT_EQ(ring.asked, 3);

  around.stop = [] { return false; };
  around.check = [&] {
    if (ring.asked >= 5) throw Error(ErrorCode::kNonFinite, "the actor failed");
  };
  LearnerPorts failed(around);
  EXPECT_EQ(Thrown([&] { failed.Next(0, After(milliseconds(60'000))); }).code(),
            ErrorCode::kNonFinite);

  ring.fail = ErrorCode::kCorruption;
  LearnerPorts corrupt(ring.Around());
  EXPECT_EQ(Thrown([&] { corrupt.Next(0, After(milliseconds(60'000))); }).code(),
            ErrorCode::kCorruption);
}

// What is asked between the steps waits for a store that is being restarted; who is to stop asks
// once.
TEST(LearnerPorts, OtherQuestionsArePatientToo) {
  FakeRing ring;
  ring.uncounted = 4;
  ring.progress = 3;
  bool stop = false;
  RingAround around = ring.Around();
  around.stop = [&] { return stop; };
  around.patience = milliseconds(10);
  const auto away = [&] { ring.counted = 0, ring.uncounted = 1 << 20; };
  LearnerPorts ports(around);
  EXPECT_EQ(LearnerPorts(ring.Around()).Counters().at("inserts"), 3);
  EXPECT_EQ(ports.StoreState(), "0 12");
  EXPECT_EQ(ports.Resume(3, ""), 3) << "nothing is known of the store";
  EXPECT_EQ(ports.Resume(7, "2 12"), 7) << "from the checkpoint's step on";
  ports.Trim(5);  // made up for by the next
  away();
  EXPECT_EQ(Thrown([&] { ports.Counters(); }).code(), ErrorCode::kDeadline);
  EXPECT_EQ(Thrown([&] { ports.StoreState(); }).code(), ErrorCode::kDeadline);
  stop = true;
  away();
  EXPECT_TRUE(ports.Counters().empty());
  EXPECT_EQ(ring.counted, 1);
  EXPECT_EQ(ports.StoreState(), "0 12") << "its last word";
  EXPECT_EQ(Thrown([&] { LearnerPorts(around).StoreState(); }).code(), ErrorCode::kUnavailable)
      << "there is none";
}

// The store hears of a version before an actor can, and hears of it again when it may have been
// started anew.
TEST(LearnerPorts, EachVersionIsAnnouncedFirst) {
  FakeRing ring;
  ring.questions = 1;
  LearnerPorts ports(ring.Around());
  ports.Publish({4, "d"}, {});
  ports.Next(0, After(milliseconds(1000)));
  EXPECT_EQ(ring.said, (std::vector<std::string>{"announced 4", "published 4", "asked",
                                                 "announced 4", "asked"}));
  ring.said.clear();
  ring.away = 3;
  ports.Publish({5, "e"}, {});
  ports.Next(1, After(milliseconds(1000)));
  EXPECT_EQ(ring.said, (std::vector<std::string>{"published 5", "announced 5", "asked"}))
      << "no question before it knows";
  ports.Finish();
  EXPECT_TRUE(ring.finished);
}

TEST(LearnerPorts, ProgressIsWhatOnlyGrowsWhenSomethingGotDone) {
  std::map<std::string, int64_t> counters = {
      {"inserts", 3}, {"actor/generated_tokens", 10}, {"leased", 5}, {"waiting", 1}};
  const int64_t before = ProgressOf(counters);
  counters["leased"] = 50;
  counters["waiting"] = 0;
  counters["released"] = 45;
  EXPECT_EQ(ProgressOf(counters), before);
  counters["reward/groups"] = 1;
  EXPECT_GT(ProgressOf(counters), before);
}

}  // namespace
}  // namespace plumb::run
