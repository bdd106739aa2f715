// The environment that a recipe names, of every kind that needs one of the doors.
//
// Purpose: [environment] of kind tools, program, plugin, http and python becomes an EnvironmentPort
// (kind calculator, for models without a chat template: environment/environments.h). Thread safety,
// ownership: as EnvironmentPool. Errors: Error(kInvalidArgument | kNotFound | kUnsupported) naming
// the option; an environment that does not start says why in its own words.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "configs/config.h"
#include "environment/doors/environment_pool.h"

namespace plumb::environment {

struct OpenOptions {
  // The model's chat template, of which the form of calls is taken; empty: the model has none, and
  // all that is said is text.
  std::string chat_template;
  bool allow_unsandboxed =
      false;                      // reward.allow_unsandboxed: where a layer of isolation is missing
  std::vector<std::string> host;  // empty: this executable with the verb environment-host
  std::chrono::milliseconds start_grace{60000};
};

// environment.listen: tcp://address:port, [address] of IPv6; port 0 is a free one. kInvalidArgument
// names the option.
struct ListenAddress {
  std::string host;
  int port = 0;
};
ListenAddress ReadListenAddress(const std::string& listen);

// What the section says that cannot be, without starting anything or reading a file.
void CheckEnvironment(const configs::EnvironmentConfig& config);

std::unique_ptr<EnvironmentPool> OpenEnvironment(const configs::EnvironmentConfig& config,
                                                 const OpenOptions& options);

// What its ToolsJson() says, for prompts that are rendered before there is one: starts one and ends
// it.
std::string OfferedTools(const configs::EnvironmentConfig& config, const OpenOptions& options);

}  // namespace plumb::environment
