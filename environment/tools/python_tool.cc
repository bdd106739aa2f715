#include "environment/tools/python_tool.h"

#include <nlohmann/json.hpp>

#include "common/base/error.h"
#include "common/record/json_text.h"
#include "common/sandbox/child_process.h"
#include "common/sandbox/host_command.h"
#include "common/sandbox/python_walls.h"

namespace plumb::environment {
namespace {

using Json = nlohmann::json;
constexpr size_t kMaxLine = 1 << 20;
constexpr std::chrono::milliseconds kStartGrace{20000};

class PythonTool : public Tool {
 public:
  PythonTool(std::vector<std::string> command, std::chrono::milliseconds grace)
      : grace_(grace), child_({.command = std::move(command), .input_cap_bytes = 4 << 20}) {}

  std::string name() const override { return "python"; }
  std::string schema() const override {
    return R"({"name":"python","description":"Runs a Python 3 program and gives what it prints, and )"
           R"(the value of its last line. Nothing is kept between calls.","parameters":{"type":)"
           R"("object","properties":{"code":{"type":"string","description":"the program"}},)"
           R"("required":["code"]}})";
  }
  std::unique_ptr<ToolSession> Begin(const Prompt&, Problem*) override;

  // Why no process is ready.
  Problem Ready() {
    if (child_.running()) return std::nullopt;
    try {
      child_.Start();
    } catch (const Error& error) {
      return error.what();
    }
    std::string line;
    Failure failure = child_.ReadLine(kMaxLine, &line, After(grace_));
    if (failure == Failure::kNone) {
      const Json hello = Json::parse(line, nullptr, /*allow_exceptions=*/false);
      if (hello.is_object() && hello.contains("ready")) return std::nullopt;
      child_.Kill();
      return hello.is_object() ? hello.value("error", "a greeting of another kind")
                               : "a greeting of another kind";
    }
    std::string why =
        failure == Failure::kTimeout ? "it did not greet in time" : child_.EndReason(&failure);
    if (const std::string said = child_.TakeStderr(); !said.empty()) why += "; stderr: " + said;
    child_.Kill();
    return why;
  }

  ToolResult Run(const std::string& code, Deadline deadline) {
    const auto before = std::chrono::steady_clock::now();
    if (const Problem why = Ready())
      return {.text = "error: the interpreter does not start: " + *why, .failed = true};
    deadline += std::chrono::steady_clock::now() - before;  // starting is not the program's time
    std::string line;
    Failure failure = child_.Write(DumpJson({{"code", code}}) + "\n", deadline);
    if (failure == Failure::kNone) failure = child_.ReadLine(kMaxLine, &line, deadline);
    ToolResult result{.text = "", .failed = true};
    if (failure == Failure::kNone) {
      const Json reply =
          TooDeep(line, 16) ? Json() : Json::parse(line, nullptr, /*allow_exceptions=*/false);
      if (reply.is_object() && reply.contains("output") && reply["output"].is_string()) {
        result.text = reply["output"].get<std::string>();
        result.failed = !reply.contains("failed") || reply["failed"] != false;
      } else {
        result.text = "error: the program wrote over its own answer";
      }
    } else if (failure == Failure::kTimeout) {
      result.text = "error: the program ran too long and was ended";
    } else if (failure == Failure::kOutputCap) {
      result.text = "error: the program wrote too much";
    } else {
      result.text = "error: the program " + child_.EndReason(&failure);
    }
    child_.Kill();
    Ready();  // the next call's process; what is wrong with it is said then
    if (result.text.empty()) result.text = "(no output)";
    return result;
  }

 private:
  const std::chrono::milliseconds grace_;
  ChildProcess child_;
};

class PythonSession : public ToolSession {
 public:
  explicit PythonSession(PythonTool* tool) : tool_(tool) {}
  ToolResult Call(const Json& arguments, Deadline deadline) override {
    return tool_->Run(arguments.value("code", ""), deadline);
  }

 private:
  PythonTool* tool_;
};

std::unique_ptr<ToolSession> PythonTool::Begin(const Prompt&, Problem*) {
  return std::make_unique<PythonSession>(this);
}

}  // namespace

std::unique_ptr<Tool> MakePythonTool(const SandboxOptions& sandbox,
                                     const std::string& interpreter) {
  const std::string place = "environment.tools: python";
  const Python python = AskPython(FindExecutable(interpreter, place), place);
  auto tool = std::make_unique<PythonTool>(
      WalledPython(python, sandbox, kPythonToolRunner, {}, place), kStartGrace);
  if (const Problem why = tool->Ready())
    throw Error(ErrorCode::kInvalidArgument, "the interpreter does not start: " + *why, place);
  return tool;
}

}  // namespace plumb::environment
