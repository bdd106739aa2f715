// What schedulers are given to start a cluster run: an sbatch script, Kubernetes manifests, a Ray
// driver.
//
// Purpose: each starts a head and roles that join it, restarts what fails, and needs no file system
// that is shared: roles get all from the head. No Python is in the way of data; Ray's driver starts
// the processes and watches them.
// Thread safety: pure functions. Errors: none; what is written into a script is quoted for it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace plumb::run {

struct LaunchJob {
  std::string name;         // "arithmetic-grpo": letters, digits and '-'
  std::string recipe;       // its file, as given
  std::string recipe_text;  // resolved, with run.roles, run.listen, run.keys and run.out of the job
  std::string digest;       // RecipeDigest
  std::vector<std::string> overrides;  // --set of the job, those of the cluster included
  int64_t nodes = 2;
  int64_t actors = 1, rewards = 1;
  int64_t cpus = 4, gpus = 0;  // a role
  int port = 7777;
  std::string keys;   // folder; empty: --insecure
  std::string out;    // run folder
  std::string plumb;  // the program
  std::string image;  // kubernetes
};

std::string SlurmScript(const LaunchJob& job);
std::string KubernetesManifests(const LaunchJob& job);
std::string RayDriver(const LaunchJob& job);

// One word of a shell.
std::string ShellQuoted(const std::string& word);

}  // namespace plumb::run
