#include "reward/doors/subprocess.h"

#include <algorithm>
#include <filesystem>
#include <unordered_map>

#include <nlohmann/json.hpp>

#include "common/base/problem.h"
#include "common/record/json_text.h"
#include "common/sandbox/child_process.h"
#include "common/sandbox/host_command.h"
#include "reward/part/file_digest.h"
#include "reward/part/notice.h"
#include "reward/part/reply.h"

namespace plumb::reward {
namespace {

using Json = nlohmann::json;
constexpr size_t kMaxLine = 1 << 20;

[[noreturn]] void Malformed(const std::string& what, std::string_view line) {
  throw Error(ErrorCode::kCorruption, line.empty() ? what : what + ": " + Shown(line));
}

class ProgramWorker : public Worker {
 public:
  ProgramWorker(std::vector<std::string> command, const HostOptions& options,
                const ProgramSpec& spec)
      : options_(options),
        greets_(spec.greets),
        tokens_(spec.tokens),
        child_(
            {.command = std::move(command), .max_processes = CountedProcesses(options.sandbox)}) {}

  // Starts the process; why it does not serve. Moves `deadline` by what starting is allowed to
  // take.
  Problem Begin(Deadline* deadline) {
    try {
      child_.Start();
    } catch (const Error& error) {
      return error.what();
    }
    if (!greets_) {
      // the first answer waits for interpreters and their imports
      *deadline += options_.start_grace;
      return std::nullopt;
    }
    const auto before = std::chrono::steady_clock::now();
    std::string line;
    Failure failure = child_.ReadLine(kMaxLine, &line, After(options_.start_grace));
    *deadline += std::chrono::steady_clock::now() - before;
    if (failure == Failure::kNone) {
      const Json hello =
          TooDeep(line, 16) ? Json() : Json::parse(line, nullptr, /*allow_exceptions=*/false);
      if (hello.is_object() && hello.contains("ready")) {
        truths_.clear();  // of a start before this one
        if (const auto named = hello.find("truths"); named != hello.end() && named->is_array()) {
          const Json required = hello.value("required", Json::array());
          for (const Json& name : *named) {
            if (!name.is_string()) continue;
            const bool has_to_be =
                std::find(required.begin(), required.end(), name) != required.end();
            truths_.push_back({.name = name, .required = has_to_be});
          }
        }
        return std::nullopt;
      }
      std::string why = "greeted with something else than {\"ready\":true}";
      if (hello.is_object() && hello.contains("error") && hello["error"].is_string())
        why = hello["error"];
      child_.Kill();
      return why.substr(0, 2000);
    }
    return "did not get ready: " +
           Ended(&failure, "",
                 "its start, with all that it imports, took more than " +
                     std::to_string(options_.start_grace.count() / 1000) + " s");
  }

  // What its greeting named as such (RewardFunction::truths); after Begin().
  const std::vector<TruthName>& truths() const { return truths_; }

  std::vector<PartScore> Call(const TrajectoryGroup& group, Deadline deadline,
                              bool* broke) override {
    const size_t count = group.trajectories.size();
    if (!child_.running()) {
      if (const Problem why = Begin(&deadline)) {
        *broke = true;
        return Fail(count, Failure::kStart, *why);
      }
    }
    std::string requests;
    std::unordered_map<uint64_t, size_t> open;
    for (size_t i = 0; i < count; ++i) {
      open[++next_id_] = i;
      requests += ProgramRequest(group, i, next_id_);
      // before its '}'
      if (tokens_) requests.insert(requests.size() - 1, TokenFields(group, i, options_));
      requests += "\n";
    }
    Failure failure = child_.unread() > 0 ? Failure::kBadReply : child_.Write(requests, deadline);
    std::string detail = failure == Failure::kBadReply ? "wrote without being asked" : "";
    std::vector<PartScore> scores(count);
    while (failure == Failure::kNone && !open.empty()) {
      std::string line;
      failure = child_.ReadLine(kMaxLine, &line, deadline);
      if (failure != Failure::kNone) break;
      try {
        ProgramReply reply = ParseProgramReply(line);
        const auto it = open.find(reply.id);
        if (it == open.end()) {
          failure = Failure::kWrongCount;
          detail =
              "answered id " + std::to_string(reply.id) + ", which is not open (a second answer?)";
          break;
        }
        scores[it->second] = std::move(reply.score);
        open.erase(it);
      } catch (const Error& error) {
        failure = Failure::kBadReply;
        detail = error.message();
      }
    }
    if (failure == Failure::kNone && child_.unread() > 0) {
      failure = Failure::kWrongCount;
      detail = "wrote more lines than it was asked for";
    }
    if (failure != Failure::kNone) {
      *broke = true;
      const std::string why = Ended(&failure, detail,
                                    std::to_string(count - open.size()) + " of " +
                                        std::to_string(count) + " answers within its deadline");
      return Fail(count, failure, why);
    }
    const uint64_t written = child_.stderr_bytes() - logged_;
    if (const std::string said = child_.TakeStderr(); !said.empty()) {
      // What a Python function prints comes this way, too, and is no sign of trouble.
      const std::string what = greets_ ? "' printed " : "' wrote to standard error ";
      Notice("'" + options_.pool.name + what + std::to_string(written) +
                 " bytes, last: " + said.substr(0, 400),
             options_.pool.name);
    }
    logged_ += written;
    return scores;
  }

 private:
  static std::vector<PartScore> Fail(size_t count, Failure failure, const std::string& why) {
    return std::vector<PartScore>(count, PartScore::Failed(failure, why));
  }

  // `late`: what is said of one that ran out of time.
  std::string Ended(Failure* failure, const std::string& detail, const std::string& late) {
    std::string why;
    switch (*failure) {
      case Failure::kTimeout:
        child_.Kill();
        why = late + "; the process group was killed";
        break;
      case Failure::kCrash: why = child_.EndReason(failure); break;
      case Failure::kOutputCap:
        child_.Kill();
        why = "wrote a line of more than " + std::to_string(kMaxLine) + " bytes, or too many";
        break;
      default: child_.Kill(); why = detail;
    }
    logged_ = child_.stderr_bytes();
    if (const std::string said = child_.TakeStderr(); !said.empty())
      why += (greets_ ? "; it printed: " : "; stderr: ") + said.substr(0, 400);
    return why;
  }

  const HostOptions options_;
  const bool greets_, tokens_;
  ChildProcess child_;
  std::vector<TruthName> truths_;
  uint64_t next_id_ = 0;
  uint64_t logged_ = 0;
};

}  // namespace

std::string ProgramRequest(const TrajectoryGroup& group, size_t index, uint64_t id) {
  const Prompt& prompt = group.lease.prompt;
  nlohmann::ordered_json request;
  request["id"] = id;
  request["prompt"] = PromptJson(prompt);
  request["completion"] = group.trajectories[index].completion;
  request["ground_truth"] = prompt.ground_truth;
  request["sample"] = group.trajectories[index].sample;
  request["of"] = group.trajectories.size();
  std::string line = DumpJson(request);
  line.pop_back();
  return line + ",\"extra\":" + ExtraJson(prompt) + "}";  // the row's other columns, as they are
}

std::string TokenFields(const TrajectoryGroup& group, size_t index, const HostOptions& options) {
  const Trajectory& trajectory = group.trajectories[index];
  const size_t begin = trajectory.segments.empty()
                           ? trajectory.tokens.size()
                           : static_cast<size_t>(trajectory.prompt_length());
  // a request of text alone has no tokens, or none that are told apart
  const bool known = begin < trajectory.tokens.size();
  const std::span<const int32_t> all(trajectory.tokens),
      ids = known ? all.subspan(begin) : std::span<const int32_t>();
  nlohmann::ordered_json fields;
  fields["text"] = known && options.decode
                       ? options.decode(ids, /*skip_special=*/true)
                       : std::string(StripEndTokens(trajectory.completion, /*spaces=*/false));
  if (!group.lease.prompt.messages.empty()) fields["prompt_text"] = FullPromptText(group, options);
  fields["step"] = std::max<int64_t>(0, group.policy.version);
  if (known) fields["completion_ids"] = std::vector<int32_t>(ids.begin(), ids.end());
  std::string text = DumpJson(fields);
  text.pop_back();
  text[0] = ',';
  return text;
}

ProgramReply ParseProgramReply(std::string_view line) {
  while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) line.remove_suffix(1);
  if (TooDeep(line, 16)) Malformed("a reply nested deeper than 16", line);
  bool not_finite = false;
  const Json reply = ParseLooseJson(line, &not_finite);
  if (reply.is_discarded()) Malformed("a line on stdout that is no JSON", line);
  if (!reply.is_object())
    Malformed("a reply is a line {\"id\": 7, \"score\": 0.5}, with the request's id; this is none",
              line);
  const auto id = reply.find("id");
  if (id == reply.end() || !id->is_number_unsigned())
    Malformed("a reply without the id of its request", line);
  ProgramReply out;
  out.id = id->get<uint64_t>();
  if (not_finite) {
    out.score = PartScore::Failed(Failure::kNotFinite, "answered with NaN or Infinity");
    return out;
  }
  out.score = ScoreFromJson(reply);
  // The process is not to be trusted after such a line, unless it said so of itself.
  if (out.score.failure == Failure::kBadReply && !reply.contains("error"))
    Malformed(out.score.reason, "");
  return out;
}

std::unique_ptr<RewardFunction> MakeProgramFrom(const ProgramSpec& spec,
                                                const configs::RewardPartConfig& part,
                                                bool allow_unsandboxed, HostOptions options) {
  options = WithPart(std::move(options), part, allow_unsandboxed);
  const std::vector<std::string> command = HostCommand(options, "--exec", spec.path, spec.args);
  const auto make = [command, options, spec](int) {
    return std::make_unique<ProgramWorker>(command, options, spec);
  };
  std::vector<TruthName> truths;
  if (spec.greets) {
    Deadline ignored = After(options.start_grace);
    const auto first = make(0);
    if (const Problem why = first->Begin(&ignored)) {
      throw Error(ErrorCode::kInvalidArgument, part.path + ": " + *why,
                  "reward part '" + part.name + "'");
    }
    truths = first->truths();
  }
  return std::make_unique<PooledFunction>(part.name, spec.digest, options.pool, make,
                                          std::move(truths));
}

std::unique_ptr<RewardFunction> MakeProgram(const configs::RewardPartConfig& part,
                                            bool allow_unsandboxed, HostOptions options) {
  if (part.path.empty()) {
    throw Error(ErrorCode::kInvalidArgument, "kind = \"program\" needs path",
                "reward part '" + part.name + "'");
  }
  ProgramSpec spec;
  spec.path = FindExecutable(part.path, "reward part '" + part.name + "'");
  spec.args = part.args;
  // The program and every argument that is a file: with `python3 my_reward.py` the code is in the
  // second.
  std::string code = FileSha256(spec.path);
  for (const std::string& argument : part.args) {
    std::error_code error;
    code += "\n" + argument;
    if (std::filesystem::is_regular_file(argument, error)) code += " " + FileSha256(argument);
  }
  spec.digest = "sha256:" + TextSha256(code);
  return MakeProgramFrom(spec, part, allow_unsandboxed, std::move(options));
}

}  // namespace plumb::reward
