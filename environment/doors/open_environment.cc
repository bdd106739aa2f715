#include "environment/doors/open_environment.h"

#include <algorithm>
#include <filesystem>

#include "common/base/error.h"
#include "common/base/numbers/number_text.h"
#include "common/net/http_client.h"
#include "common/sandbox/host_command.h"
#include "environment/doors/python_environment.h"

namespace plumb::environment {
namespace {

namespace fs = std::filesystem;
using configs::EnvironmentConfig;
using configs::EnvironmentKind;

[[noreturn]] void Refuse(const std::string& option, const std::string& what) {
  throw Error(ErrorCode::kInvalidArgument, what, "environment." + option);
}

std::chrono::milliseconds Milliseconds(double seconds) {
  return std::chrono::milliseconds(static_cast<int64_t>(seconds * 1000));
}

ConversationRules RulesOf(const EnvironmentConfig& config, const OpenOptions& options) {
  ConversationRules rules;
  rules.form = config.tool_form == configs::ToolForm::kAuto ? FormOfTemplate(options.chat_template)
                                                            : config.tool_form;
  rules.chat = !options.chat_template.empty();
  rules.max_turns = config.max_turns;
  return rules;
}

SandboxOptions SandboxOf(const EnvironmentConfig& config, const OpenOptions& options) {
  SandboxOptions sandbox;
  sandbox.memory_mb = config.memory_mb;
  sandbox.allow_unsandboxed = options.allow_unsandboxed;
  return sandbox;
}

std::string Canonical(const std::string& path, const std::string& what) {
  std::error_code error;
  const std::string real = fs::canonical(path, error).string();
  if (error)
    throw Error(ErrorCode::kNotFound, "no such " + what + ": '" + path + "'", "environment.path");
  return real;
}

ProcessSetup ProcessOf(const EnvironmentConfig& config, const OpenOptions& options) {
  ProcessSetup setup;
  setup.sandbox = SandboxOf(config, options);
  setup.start_grace = options.start_grace;
  setup.what = config.path;
  const std::vector<std::string> host =
      options.host.empty() ? OwnHost("environment-host") : options.host;
  switch (config.kind) {
    case EnvironmentKind::kProgram: {
      const std::string program = FindExecutable(config.path, "environment.path");
      // A file beside the program, or among its arguments, has to be seen in there.
      setup.sandbox.visible.push_back(fs::path(program).parent_path().string());
      std::vector<std::string> arguments = config.args;
      for (std::string& argument : arguments) {
        std::error_code error;
        if (!fs::is_regular_file(argument, error)) continue;
        argument = fs::canonical(argument, error).string();
        setup.sandbox.visible.push_back(fs::path(argument).parent_path().string());
      }
      setup.command = HostCommand(setup.sandbox, host, "--exec", program, arguments);
      break;
    }
    case EnvironmentKind::kPlugin:
      setup.command = HostCommand(setup.sandbox, host, "--so",
                                  Canonical(config.path, "shared object"), config.args);
      break;
    case EnvironmentKind::kPython: {
      const PythonEnvironment python = ReadPythonEnvironment(config);
      const std::string file = Canonical(config.path, "Python file");
      setup.sandbox.visible.push_back(fs::path(file).parent_path().string());
      const fs::path interpreter = FindExecutable(python.interpreter, "environment.args");
      const fs::path folder = interpreter.parent_path().parent_path();
      std::error_code error;
      if (fs::exists(folder / "pyvenv.cfg", error))
        setup.sandbox.visible.push_back(folder.string());
      setup.command = HostCommand(setup.sandbox, host, "--exec", interpreter.string(),
                                  PythonArguments(python, config, file));
      break;
    }
    default: PLUMB_CHECK(false, "a kind without a process");
  }
  return setup;
}

}  // namespace

ListenAddress ReadListenAddress(const std::string& listen) {
  const std::string scheme = "tcp://";
  const size_t colon = listen.rfind(':');
  ListenAddress out;
  if (listen.starts_with(scheme) && colon > scheme.size()) {
    out.host = listen.substr(scheme.size(), colon - scheme.size());
    if (out.host.starts_with("[") && out.host.ends_with("]"))
      out.host = out.host.substr(1, out.host.size() - 2);
    out.port = ParseNumber<int>(std::string_view(listen).substr(colon + 1)).value_or(-1);
    if (out.port >= 0 && out.port <= 65535 && !out.host.empty()) return out;
  }
  Refuse("listen",
         "'" + listen + "' is no address: write tcp://127.0.0.1:8100; port 0 is a free one");
}

void CheckEnvironment(const EnvironmentConfig& config) {
  const bool file = config.kind == EnvironmentKind::kProgram ||
                    config.kind == EnvironmentKind::kPlugin ||
                    config.kind == EnvironmentKind::kPython;
  const bool agent = config.kind == EnvironmentKind::kAgent;
  const std::string kind = "kind = \"" + configs::NameOf(config.kind) + "\"";
  if (file && config.path.empty()) Refuse("path", kind + " needs it");
  if (!file && !agent && !config.path.empty()) Refuse("path", kind + " does not read it");
  if (!file && !agent && !config.args.empty()) Refuse("args", kind + " does not read it");
  if (agent && config.path.empty() && !config.args.empty())
    Refuse("args", "are of the program that environment.path names, and it names none");
  if (!agent && !config.listen.empty()) Refuse("listen", kind + " does not read it");
  if (!config.listen.empty()) ReadListenAddress(config.listen);
  const bool http = config.kind == EnvironmentKind::kHttp;
  if (http && config.endpoint.empty())
    Refuse("endpoint", kind + " needs it: http://host:port/path");
  if (http) ParseUrl(config.endpoint);
  if (!http && !config.endpoint.empty()) Refuse("endpoint", kind + " does not read it");
  const bool python = config.kind == EnvironmentKind::kPython;
  if (!python && !config.name.empty()) Refuse("name", kind + " does not read it");
  if (python) ReadPythonEnvironment(config);
  const bool tools = config.kind == EnvironmentKind::kTools;
  if (!tools && !python && !config.tools.empty()) Refuse("tools", kind + " does not read it");
  if (tools) CheckTools(config);
  if (!tools && !config.corpus.empty()) Refuse("corpus", kind + " does not read it");
  if (config.timeout_s > 86400) Refuse("timeout_s", "has to be at most 86400 s");
  if (config.episode_seconds > 864000) Refuse("episode_seconds", "has to be at most 864000 s");
  if (config.workers > 1024) Refuse("workers", "has to be at most 1024");
}

std::string OfferedTools(const EnvironmentConfig& config, const OpenOptions& options) {
  EnvironmentConfig one = config;
  one.workers = 1;
  return OpenEnvironment(one, options)->ToolsJson();
}

std::unique_ptr<EnvironmentPool> OpenEnvironment(const EnvironmentConfig& config,
                                                 const OpenOptions& options) {
  CheckEnvironment(config);
  EnvironmentPoolOptions pool;
  pool.workers = config.workers;
  pool.timeout = Milliseconds(config.timeout_s);
  pool.episode = Milliseconds(config.episode_seconds);
  pool.what = "environment " + configs::NameOf(config.kind);
  if (!config.path.empty()) pool.what += " (" + config.path + ")";
  ConversationRules rules = RulesOf(config, options);
  EnvironmentPool::Factory factory;
  switch (config.kind) {
    case EnvironmentKind::kTools: {
      const ToolSetup setup = PrepareTools(config, SandboxOf(config, options));
      factory = [config, setup] { return MakeToolsPeer(config, setup); };
      break;
    }
    case EnvironmentKind::kHttp:
      factory = [config, timeout = pool.timeout] { return MakeHttpPeer(config.endpoint, timeout); };
      break;
    case EnvironmentKind::kProgram:
    case EnvironmentKind::kPlugin:
    case EnvironmentKind::kPython: {
      const ProcessSetup setup = ProcessOf(config, options);
      factory = [setup] { return MakeProcessPeer(setup); };
      break;
    }
    case EnvironmentKind::kNone:
    case EnvironmentKind::kCalculator:
    case EnvironmentKind::kAgent:
      Refuse("kind", "\"" + configs::NameOf(config.kind) +
                         "\" is none of tools, program, plugin, "
                         "http and python");
  }
  return std::make_unique<EnvironmentPool>(std::move(pool), std::move(rules), std::move(factory));
}

}  // namespace plumb::environment
