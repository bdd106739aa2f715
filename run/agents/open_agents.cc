#include "run/agents/open_agents.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <random>
#include <span>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/text.h"
#include "common/record/json_text.h"
#include "environment/doors/open_environment.h"

namespace plumb::run {
namespace {

std::string NewKey() {
  std::random_device random;
  std::array<uint32_t, 4> bits;
  for (uint32_t& b : bits) b = random();
  return Hex(std::as_bytes(std::span(bits)));
}

DoorOptions DoorOf(const configs::Config& config, const AgentSurroundings& around) {
  return {.rollout = config.rollout,
          .environment = config.environment,
          .first_call = std::chrono::milliseconds(60'000),
          .eos = around.eos};
}

AgentServerOptions ServerOf(const configs::Config& config) {
  AgentServerOptions options;
  if (!config.environment.listen.empty()) {
    const environment::ListenAddress address =
        environment::ReadListenAddress(config.environment.listen);
    options.host = address.host;
    options.port = address.port;
  }
  // A program has few calls at once; of agents from elsewhere as many as answers are drawn.
  options.threads =
      config.environment.path.empty() ? config.rollout.max_batch : config.environment.workers * 4;
  options.threads = std::clamp<int64_t>(options.threads, 32, 1024);
  if (config.environment.path.empty()) options.key = NewKey();
  return options;
}

// For this user alone, from the first byte on.
void WriteSecret(const std::string& path, const std::string& text) {
  unlink(path.c_str());
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  const bool written =
      fd >= 0 && write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  const int error = errno;
  if (fd >= 0) close(fd);
  if (!written) throw Error(ErrorCode::kIo, std::strerror(error), path);
}

}  // namespace

Agents::Agents(const configs::Config& config, const AgentSurroundings& around)
    : file_(config.environment.path.empty() ? around.folder + "/agents/" + around.actor + ".json"
                                            : ""),
      door_(around.tokenizer, around.chat_template, DoorOf(config, around)),
      server_(door_, *around.tokenizer, ServerOf(config)) {
  if (file_.empty()) {
    programs_ = std::make_unique<AgentPrograms>(door_, config.environment, server_.port(),
                                                config.reward.allow_unsandboxed, around.host);
    LogInfo("agents ask at " + server_.url());
    return;
  }
  RealFileSystem().CreateDirectories(around.folder + "/agents");
  WriteSecret(file_, DumpJson({{"url", server_.url()}, {"api_key", server_.key()}}) + "\n");
  LogInfo("agents fetch their episodes at " + server_.url() + "; the key stands in " + file_);
}

Agents::~Agents() {
  door_.Close();
  programs_.reset();
  if (!file_.empty()) unlink(file_.c_str());
}

}  // namespace plumb::run
