#include "reward/doors/plugin.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "common/sandbox/host_command.h"
#include "reward/doors/plugin_wire.h"
#include "reward/doors/reward_abi.h"
#include "reward/part/file_digest.h"
#include "reward/part/notice.h"

namespace plumb::reward {
namespace {

std::string Place(const configs::RewardPartConfig& part) {
  return "reward part '" + part.name + "'";
}

std::vector<PartScore> AllFailed(size_t count, Failure failure, const std::string& reason) {
  return std::vector<PartScore>(count, PartScore::Failed(failure, reason));
}

// Speaks the frames of plugin_wire.h with one host process.
class PluginWorker : public Worker {
 public:
  PluginWorker(std::string name, std::vector<std::string> command,
               std::chrono::milliseconds start_grace)
      : name_(std::move(name)),
        start_grace_(start_grace),
        child_({.command = std::move(command)}) {}

  // Empty, or why there is no host; `failure` says how.
  std::string Greet(Failure* failure) {
    try {
      child_.Start();
    } catch (const Error& error) {
      *failure = Failure::kStart;
      return error.what();
    }
    std::string header, body;
    FrameType type;
    uint64_t size = 0;
    const Deadline deadline = After(start_grace_);
    *failure = child_.Read(kFrameHeader, &header, deadline);
    if (*failure == Failure::kNone &&
        (!ReadHeader(header, 4096, &type, &size) || type != FrameType::kHello)) {
      *failure = Failure::kBadReply;
    }
    if (*failure == Failure::kNone) *failure = child_.Read(size, &body, deadline);
    std::string why;
    if (*failure == Failure::kNone) {
      Cursor in(body);
      const bool ok = in.Get<uint8_t>() != 0;
      const std::string message(in.String());
      if (in.at_end() && ok) return "";
      *failure = Failure::kStart;
      why = in.at_end() ? message : "greeted with a malformed frame";
      child_.Kill();
    } else {
      why = "the host did not greet: " + Ended(failure);
    }
    *failure = Failure::kStart;
    return why;
  }

  std::vector<PartScore> Call(const TrajectoryGroup& group, Deadline deadline,
                              bool* broke) override {
    const size_t count = group.trajectories.size();
    Failure failure = Failure::kNone;
    if (!child_.running()) {
      const auto before = std::chrono::steady_clock::now();
      if (const std::string why = Greet(&failure); !why.empty()) {
        *broke = true;
        return AllFailed(count, failure, why);
      }
      deadline += std::chrono::steady_clock::now() - before;  // starting is not the function's time
    }
    const uint64_t id = ++next_id_;
    failure = child_.Write(Request(group, id), deadline);
    std::string header, body;
    FrameType type{};
    uint64_t size = 0;
    if (failure == Failure::kNone) failure = child_.Read(kFrameHeader, &header, deadline);
    const uint64_t cap = 64 + count * (8 + 4 + 8 + kMaxMessage);
    if (failure == Failure::kNone && !ReadHeader(header, cap + kMaxMessage, &type, &size))
      failure = Failure::kBadReply;
    if (failure == Failure::kNone) failure = child_.Read(size, &body, deadline);
    std::vector<PartScore> scores;
    if (failure == Failure::kNone && !ReadPluginReply(type, body, id, count, &scores))
      failure = Failure::kBadReply;
    if (failure != Failure::kNone) {
      *broke = true;
      const std::string why = Ended(&failure);
      return AllFailed(count, failure, why);
    }
    const uint64_t written = child_.stderr_bytes() - logged_;
    if (const std::string said = child_.TakeStderr(); !said.empty()) {
      Notice("'" + name_ + "' wrote " + std::to_string(written) +
                 " bytes, last: " + said.substr(0, 400),
             name_);
    }
    logged_ += written;
    return scores;
  }

 private:
  static std::string Request(const TrajectoryGroup& group, uint64_t id) {
    const Prompt& prompt = group.lease.prompt;
    const std::string text = PromptText(prompt);
    std::string body;
    Put(&body, id);
    Put<uint64_t>(&body, group.trajectories.size());
    for (const Trajectory& trajectory : group.trajectories) {
      PutString(&body, text);
      PutString(&body, trajectory.completion);
      PutString(&body, prompt.ground_truth);
      PutString(&body, prompt.extra_json.empty() ? "{}" : prompt.extra_json);
      Put<uint64_t>(&body, trajectory.sample);
    }
    return Frame(FrameType::kScore, body);
  }

  // Ends the process and says what happened, with the last words of its stderr.
  std::string Ended(Failure* failure) {
    std::string why;
    switch (*failure) {
      case Failure::kTimeout:
        child_.Kill();
        why = "no answer within its deadline; the process group was killed";
        break;
      case Failure::kCrash: why = child_.EndReason(failure); break;
      case Failure::kOutputCap:
        child_.Kill();
        why = "wrote more than its reply may be";
        break;
      default: child_.Kill(); why = "answered with bytes that are no reply";
    }
    logged_ = child_.stderr_bytes();
    if (const std::string said = child_.TakeStderr(); !said.empty())
      why += "; stderr: " + said.substr(0, 400);
    return why;
  }

  const std::string name_;
  const std::chrono::milliseconds start_grace_;
  ChildProcess child_;
  uint64_t next_id_ = 0;
  uint64_t logged_ = 0;
};

}  // namespace

std::string FullPromptText(const TrajectoryGroup& group, const HostOptions& options) {
  const Prompt& prompt = group.lease.prompt;
  const Trajectory& any = group.trajectories.at(0);
  if (prompt.messages.empty() || any.segments.empty() || !options.decode) return PromptText(prompt);
  return options.decode(std::span(any.tokens).first(static_cast<size_t>(any.prompt_length())),
                        /*skip_special=*/false);
}

bool ReadPluginReply(FrameType type, std::string_view body, uint64_t id, size_t count,
                     std::vector<PartScore>* out) {
  Cursor in(body);
  if (in.Get<uint64_t>() != id) return false;
  if (type == FrameType::kFailed) {
    const uint8_t kind = in.Get<uint8_t>();
    const std::string message(in.String());
    if (!in.at_end() || kind == 0 || kind >= static_cast<uint8_t>(Failure::kCount)) return false;
    *out = AllFailed(count, static_cast<Failure>(kind), message);
    return true;
  }
  if (type != FrameType::kScores) return false;
  const int64_t returned = in.Get<int64_t>();
  if (in.Get<uint64_t>() != count) return false;
  for (size_t i = 0; i < count && in.ok(); ++i) {
    const double value = in.Get<double>();
    const int32_t status = in.Get<int32_t>();
    const std::string message(in.String());
    if (status == PLUMB_REWARD_SKIP) {
      out->push_back(PartScore::Skipped());
    } else if (status == PLUMB_REWARD_FAILED) {
      out->push_back(PartScore::Failed(Failure::kReported,
                                       message.empty() ? "it could not score this" : message));
    } else if (status != PLUMB_REWARD_OK) {
      out->push_back(
          PartScore::Failed(Failure::kBadReply, "unknown status " + std::to_string(status)));
    } else if (!std::isfinite(value)) {
      out->push_back(PartScore::Failed(
          Failure::kNotFinite, "returned " + std::string(std::isnan(value) ? "NaN (or left "
                                                                             "the result unwritten)"
                                                                           : "infinity")));
    } else {
      out->push_back(PartScore::Of(value));
    }
  }
  if (!in.at_end()) return false;
  if (returned < 0) {
    *out = AllFailed(count, Failure::kReported, "returned error " + std::to_string(returned));
  } else if (static_cast<uint64_t>(returned) != count) {
    *out = AllFailed(count, Failure::kWrongCount,
                     "returned " + std::to_string(returned) +
                         (returned == 1 ? " score for " : " scores for ") + std::to_string(count) +
                         " answers");
  }
  return true;
}

HostOptions WithPart(HostOptions options, const configs::RewardPartConfig& part,
                     bool allow_unsandboxed) {
  if (!(part.timeout_s > 0) || part.timeout_s > 86400) {
    throw Error(ErrorCode::kInvalidArgument, "timeout_s has to be above 0 and at most 86400 s",
                Place(part));
  }
  if (part.workers < 1 || part.workers > 1024) {
    throw Error(ErrorCode::kInvalidArgument, "workers has to be 1 to 1024", Place(part));
  }
  if (part.memory_mb < 64)
    throw Error(ErrorCode::kInvalidArgument, "memory_mb has to be 64 or more", Place(part));
  options.pool.name = part.name;
  options.pool.workers = static_cast<int>(part.workers);
  options.pool.timeout = std::chrono::milliseconds(static_cast<int64_t>(part.timeout_s * 1000));
  options.sandbox.memory_mb = part.memory_mb;
  options.sandbox.allow_unsandboxed = allow_unsandboxed;
  return options;
}

std::vector<std::string> HostCommand(const HostOptions& options, const std::string& verb,
                                     const std::string& path,
                                     const std::vector<std::string>& arguments) {
  return plumb::HostCommand(
      options.sandbox, options.host_command.empty() ? OwnHost("reward-host") : options.host_command,
      verb, path, arguments);
}

std::unique_ptr<RewardFunction> MakePlugin(const configs::RewardPartConfig& part,
                                           bool allow_unsandboxed, HostOptions options) {
  if (part.path.empty())
    throw Error(ErrorCode::kInvalidArgument, "kind = \"plugin\" needs path", Place(part));
  std::error_code error;
  const std::string path = std::filesystem::canonical(part.path, error).string();
  if (error) throw Error(ErrorCode::kNotFound, "no such shared object: " + part.path, Place(part));
  const std::string digest = "sha256:" + FileSha256(path);
  options = WithPart(std::move(options), part, allow_unsandboxed);
  const std::vector<std::string> command = HostCommand(options, "--so", path, part.args);
  const auto make = [name = part.name, command, grace = options.start_grace](int) {
    return std::make_unique<PluginWorker>(name, command, grace);
  };
  Failure failure = Failure::kNone;
  if (const std::string why = make(0)->Greet(&failure); !why.empty()) {
    throw Error(ErrorCode::kInvalidArgument, part.path + " " + why, Place(part));
  }
  return std::make_unique<PooledFunction>(part.name, digest, options.pool, make);
}

}  // namespace plumb::reward
