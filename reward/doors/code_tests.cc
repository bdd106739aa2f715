#include "reward/doors/code_tests.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <set>

#include "common/record/json_text.h"
#include "common/sandbox/child_process.h"
#include "common/sandbox/host_command.h"
#include "common/sandbox/python_walls.h"
#include "reward/doors/subprocess.h"
#include "reward/part/file_digest.h"
#include "reward/part/reply.h"
#include "reward/part/truth.h"

namespace plumb::reward {
namespace {

using Json = nlohmann::ordered_json;
constexpr size_t kMaxLine = 4 << 20;
constexpr int64_t kInputCap = 8 << 20;
constexpr std::chrono::milliseconds kJudgeGrace{5000};  // to end its tests once the code is gone

struct Setup {
  std::vector<std::string> judge, candidate;  // command lines
  std::chrono::milliseconds timeout{10000}, start_grace{60000};
  std::string column;  // of the tests; empty: the known ones
  bool all = false;
};

struct Tests {
  std::vector<std::string> setup, tests;
  std::string entry;
  std::string problem;  // non-empty: there are none
};

// A text, or a list of texts; false for anything else.
bool AppendTexts(const nlohmann::json& value, std::vector<std::string>* out) {
  if (value.is_string()) {
    if (!value.get<std::string>().empty()) out->push_back(value.get<std::string>());
    return true;
  }
  if (!value.is_array()) return false;
  for (const auto& item : value) {
    if (!item.is_string()) return false;
    out->push_back(item.get<std::string>());
  }
  return true;
}

Tests TestsOf(const Prompt& prompt, const std::string& column) {
  Tests out;
  const std::string text = ExtraJson(prompt);
  const auto extra = TooDeep(text, 64)
                         ? nlohmann::json()
                         : nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  const auto has = [&](const std::string& name) {
    return extra.is_object() && extra.contains(name);
  };
  for (const char* name : {"test_imports", "test_setup_code"}) {
    if (has(name) && !AppendTexts(extra[name], &out.setup))
      out.problem = std::string("'") + name + "' is no text and no list of texts";
  }
  if (has("entry_point") && extra["entry_point"].is_string())
    out.entry = extra["entry_point"].get<std::string>();
  std::vector<std::string> columns = {"test_list", "tests", "test"};
  if (!column.empty()) columns = {column};
  for (const std::string& name : columns) {
    if (!has(name)) continue;
    if (!AppendTexts(extra[name], &out.tests))
      out.problem = "'" + name + "' is no text and no list of texts";
    break;
  }
  if (out.tests.empty() && column.empty() &&
      prompt.ground_truth.find("assert") != std::string::npos) {
    out.tests = Truths(prompt, &out.problem, /*quoted=*/true);
  }
  if (out.tests.empty() && out.problem.empty()) {
    out.problem =
        "the row has no tests: " +
        (column.empty() ? "no column test_list, tests or test, and no assert in its ground truth"
                        : "no column '" + column + "'");
  }
  return out;
}

// Starts a process and reads its greeting. Empty, or why it does not serve.
std::string Greet(ChildProcess& child, std::chrono::milliseconds grace, std::string* version) {
  try {
    child.Start();
  } catch (const Error& error) {
    return error.what();
  }
  std::string line;
  Failure failure = child.ReadLine(kMaxLine, &line, After(grace));
  if (failure == Failure::kNone) {
    const auto hello = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (hello.is_object() && hello.contains("ready")) {
      if (version != nullptr) *version = hello.value("version", "");
      return "";
    }
    const std::string why = hello.is_object() ? hello.value("error", "a greeting of another kind")
                                              : "a greeting of another kind";
    child.Kill();
    return why;
  }
  std::string why =
      failure == Failure::kTimeout ? "it did not greet in time" : child.EndReason(&failure);
  if (const std::string said = child.TakeStderr(); !said.empty())
    why += "; stderr: " + said.substr(0, 400);
  child.Kill();
  return why;
}

class CodeTestsWorker : public Worker {
 public:
  explicit CodeTestsWorker(std::shared_ptr<const Setup> setup)
      : setup_(std::move(setup)),
        judge_({.command = setup_->judge, .input_cap_bytes = kInputCap}),
        candidate_({.command = setup_->candidate, .input_cap_bytes = kInputCap}) {}

  // Both processes greet; empty, or why not.
  std::string Begin(std::string* version) {
    if (!judge_.running()) {
      if (std::string why = Greet(judge_, setup_->start_grace, version); !why.empty())
        return "the process with the tests does not start: " + why;
    }
    if (!fresh_) {
      if (std::string why = Greet(candidate_, setup_->start_grace, nullptr); !why.empty())
        return "the process for the code does not start: " + why;
      fresh_ = true;
    }
    return "";
  }

  std::vector<PartScore> Call(const TrajectoryGroup& group, Deadline, bool* broke) override {
    std::vector<PartScore> scores;
    for (const Trajectory& trajectory : group.trajectories) {
      if (const std::string why = Begin(nullptr); !why.empty()) {
        *broke = true;  // nobody's code ran: this machine's fault
        scores.push_back(PartScore::Failed(Failure::kStart, why));
        continue;
      }
      fresh_ = false;
      scores.push_back(One(group.lease.prompt, StripEndTokens(trajectory.completion)));
      candidate_.Kill();
    }
    // the next answer's process gets ready while nobody waits; what is wrong with it is said then
    Begin(nullptr);
    return scores;
  }

 private:
  struct Count {
    std::set<int64_t> passed;
    int64_t tests = 0;
    bool timeout = false;
  };

  PartScore Verdict(const Count& count) const {
    const double passed = static_cast<double>(count.passed.size()),
                 tests = static_cast<double>(count.tests);
    const double share = count.tests > 0 ? passed / tests : 0;
    PartScore score =
        PartScore::Of(setup_->all ? (count.tests > 0 && passed == tests ? 1 : 0) : share);
    score.details = {{"passed", passed}, {"tests", tests}, {"timeout", count.timeout ? 1.0 : 0.0}};
    return score;
  }

  // One question to the code; empty: there is no answer, and `gone` says why.
  std::string AskCode(const std::string& line, Deadline deadline, std::string* gone, Count* count) {
    std::string reply;
    Failure failure =
        candidate_.unread() > 0 ? Failure::kBadReply : candidate_.Write(line + "\n", deadline);
    if (failure == Failure::kNone) failure = candidate_.ReadLine(kMaxLine, &reply, deadline);
    if (failure == Failure::kNone) return reply;
    count->timeout = failure == Failure::kTimeout;
    *gone = failure == Failure::kTimeout     ? "the deadline passed"
            : failure == Failure::kBadReply  ? "it wrote without being asked"
            : failure == Failure::kOutputCap ? "it wrote too much"
                                             : "its process ended";
    candidate_.Kill();
    return "";
  }

  PartScore One(const Prompt& prompt, std::string_view code) {
    const Tests tests = TestsOf(prompt, setup_->column);
    if (!tests.problem.empty()) return PartScore::Failed(Failure::kReported, tests.problem);
    const Deadline deadline = After(setup_->timeout);
    Count count;
    std::string gone;
    const Json program = {
        {"prompt", prompt.text}, {"code", std::string(code)}, {"entry", tests.entry}};
    std::string reply = AskCode(DumpJson(program), deadline, &gone, &count);
    // The reply is the code's own word: only names are taken from it.
    Json names = Json::array();
    if (gone.empty()) {
      const auto said = TooDeep(reply, 16)
                            ? nlohmann::json()
                            : nlohmann::json::parse(reply, nullptr, /*allow_exceptions=*/false);
      if (said.is_object() && said.contains("names") && said["names"].is_array()) {
        for (const auto& name : said["names"]) {
          if (name.is_string()) names.push_back(name.get<std::string>());
        }
      } else {
        gone = "the program does not load";
        candidate_.Kill();
      }
    }
    // Also for a program that is gone: the tests are counted, and a row whose tests are bad is said
    // to be so.
    const Json request = {{"prompt", prompt.text},
                          {"setup", tests.setup},
                          {"tests", tests.tests},
                          {"entry", tests.entry},
                          {"names", names}};
    Failure failure =
        judge_.Write(DumpJson(request) + "\n", std::max(deadline, After(kJudgeGrace)));
    while (failure == Failure::kNone) {
      std::string line;
      failure = judge_.ReadLine(kMaxLine, &line, gone.empty() ? deadline : After(kJudgeGrace));
      if (failure != Failure::kNone) break;
      const char what = line.empty() ? 0 : line[0];
      const std::string rest = line.size() > 2 ? line.substr(2) : "";
      if (what == 'D') return Verdict(count);
      if (what == 'B') return PartScore::Failed(Failure::kReported, Shown(rest, 400));
      if (what == 'N') count.tests = std::atoll(rest.c_str());
      if (what == 'P') count.passed.insert(std::atoll(rest.c_str()));
      if (what != 'C') continue;
      reply = gone.empty() ? AskCode(rest, deadline, &gone, &count) : "";
      failure = judge_.Write(gone.empty() ? "R " + reply + "\n" : "X " + gone + "\n",
                             gone.empty() ? deadline : After(kJudgeGrace));
    }
    if (failure == Failure::kTimeout && count.tests > 0) {
      judge_.Kill();  // a test goes on for ever with what the code said
      count.timeout = true;
      count.passed.clear();
      return Verdict(count);
    }
    const std::string why =
        failure == Failure::kCrash ? judge_.EndReason(&failure) : std::string(FailureName(failure));
    judge_.Kill();
    return PartScore::Failed(failure, "the process with the tests ended: " + why);
  }

  const std::shared_ptr<const Setup> setup_;
  ChildProcess judge_, candidate_;
  bool fresh_ = false;  // the candidate greeted and has seen no code
};

}  // namespace

CodeTestsOptions ReadCodeTestsOptions(const configs::RewardPartConfig& part) {
  CodeTestsOptions out;
  for (const std::string& argument : part.args) {
    const size_t equals = argument.find('=');
    const std::string key = argument.substr(0, equals),
                      value = equals == std::string::npos ? "" : argument.substr(equals + 1);
    if (key == "score" && (value == "fraction" || value == "all")) {
      out.all = value == "all";
    } else if (key == "tests" && !value.empty()) {
      out.column = value;
    } else if (key == "python" && !value.empty()) {
      out.python = value;
    } else {
      throw Error(ErrorCode::kInvalidArgument,
                  "args has '" + argument +
                      "'; it takes score=fraction|all, tests=COLUMN, python=INTERPRETER",
                  "reward part '" + part.name + "'");
    }
  }
  return out;
}

std::unique_ptr<RewardFunction> MakeCodeTests(const configs::RewardPartConfig& part,
                                              bool allow_unsandboxed, HostOptions options) {
  const std::string place = "reward part '" + part.name + "'";
  const CodeTestsOptions given = ReadCodeTestsOptions(part);
  auto setup = std::make_shared<Setup>();
  setup->column = given.column;
  setup->all = given.all;
  options = WithPart(std::move(options), part, allow_unsandboxed);
  options.pool.per_answer = true;
  setup->timeout = options.pool.timeout;
  setup->start_grace = options.start_grace;
  const Python python = AskPython(FindExecutable(given.python, place), place);
  for (const char* role : {"judge", "candidate"}) {
    (role[0] == 'j' ? setup->judge : setup->candidate) =
        WalledPython(python, options.sandbox, kCodeTestsRunner, {role}, place);
  }
  if (const std::string why = CodeTestsWorker(setup).Begin(nullptr); !why.empty()) {
    throw Error(ErrorCode::kInvalidArgument, why, place);
  }
  const std::string digest =
      "rule:code_tests/1:" +
      TextSha256(std::string(kPythonWalls) + kCodeTestsRunner + "\n" +
                 (setup->all ? "all" : "fraction") + "\n" + setup->column + "\n" + python.version)
          .substr(0, 16);
  return std::make_unique<PooledFunction>(
      part.name.empty() ? part.kind : part.name, digest, options.pool,
      [setup](int) { return std::make_unique<CodeTestsWorker>(setup); });
}

}  // namespace plumb::reward
