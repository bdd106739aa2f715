// A tool of ours that the policy may call in a conversation.
//
// Purpose: calculator, python, search and the arithmetic games behind one interface. Thread safety:
// a tool and its sessions belong to one thread. Ownership: a session may refer to its tool and ends
// before it. Errors: makers throw Error(kInvalidArgument | kNotFound | kUnsupported); Call throws
// nothing for what a model wrote: that is a result with `failed`.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "common/base/problem.h"
#include "common/record/ports.h"
#include "common/record/trajectory.h"
#include "common/sandbox/sandbox.h"
#include "configs/config.h"

namespace plumb::environment {

struct ToolResult {
  std::string text;     // what the policy reads
  bool failed = false;  // the call did not do what it was made for
  std::optional<double> reward;
  bool done = false;  // nothing is left to do in this conversation
};

// A tool within one conversation.
class ToolSession {
 public:
  virtual ~ToolSession() = default;
  // `arguments`: an object that the tool's schema takes. Back by the deadline (+1 s).
  virtual ToolResult Call(const nlohmann::json& arguments, Deadline deadline) = 0;
};

class Tool {
 public:
  virtual ~Tool() = default;
  virtual std::string name() const = 0;
  // {"name", "description", "parameters"} as JSON.
  virtual std::string schema() const = 0;
  // Null with `problem` set where the row lacks what the tool needs.
  virtual std::unique_ptr<ToolSession> Begin(const Prompt& prompt, Problem* problem) = 0;
};

// What tools share between the threads that each have their own.
class SearchIndex;
struct ToolSetup {
  SandboxOptions sandbox;              // of the python tool: memory and what may be missing
  std::shared_ptr<SearchIndex> index;  // of search
};

// The names that environment.tools may have.
const std::vector<std::string>& ToolNames();
// Error(kInvalidArgument) for tools that there are not, and for a corpus without search or the
// reverse.
void CheckTools(const configs::EnvironmentConfig& config);
// Reads environment.corpus where `search` is among the tools.
ToolSetup PrepareTools(const configs::EnvironmentConfig& config, const SandboxOptions& sandbox);
// In the order of `config.tools`.
std::vector<std::unique_ptr<Tool>> MakeTools(const configs::EnvironmentConfig& config,
                                             const ToolSetup& setup);

}  // namespace plumb::environment
