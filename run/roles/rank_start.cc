#include "run/roles/rank_start.h"

#include <cstdlib>
#include <sstream>
#include <string>

#include "common/base/error.h"
#include "configs/parallel.h"

namespace plumb::run {
namespace {

std::string Compared(configs::Config config) {
  const configs::Config plain;
  config.run.out = plain.run.out;
  config.run.threads = plain.run.threads;
  config.run.device = plain.run.device;
  config.run.memory_gb = plain.run.memory_gb;
  return configs::ToToml(config);
}

struct Difference {
  std::string key, first, own;
};

// Of two texts as ToToml writes them, an option a line, that are not equal.
Difference FirstDifference(const std::string& first, const std::string& own) {
  std::istringstream a(first), b(own);
  std::string section, x, y;
  for (;;) {
    const bool there = static_cast<bool>(std::getline(a, x));
    const bool here = static_cast<bool>(std::getline(b, y));
    if (!there) x = "no more";
    if (!here) y = "no more";
    if (x != y || !there) break;
    if (x.starts_with("[")) {
      const size_t begin = x.find_first_not_of('[');
      section = x.substr(begin, x.find(']') - begin);
    }
  }
  const size_t equals = x.find(" = ");
  if (equals == std::string::npos || y.substr(0, equals + 3) != x.substr(0, equals + 3))
    return {.key = section, .first = "\"" + x + "\"", .own = "\"" + y + "\""};
  return {.key = section + "." + x.substr(0, equals),
          .first = x.substr(equals + 3),
          .own = y.substr(equals + 3)};
}

}  // namespace

std::optional<learner::RankEnvironment> RanksOf(const configs::Config& config) {
  const int64_t wanted = configs::ReadParallel(config.run.parallel).ranks();
  auto environment = learner::ReadRankEnvironment(std::getenv);
  configs::CheckParallel(config, environment ? environment->size : wanted);
  const bool processes = config.run.roles == configs::Roles::kProcesses;
  if (!environment && wanted > 1 && !processes) {
    throw Error(ErrorCode::kInvalidArgument,
                "asks for " + std::to_string(wanted) +
                    " learner processes: set run.roles = \"processes\" (--roles processes), and "
                    "they are started here; or start each of them with MASTER_ADDR, MASTER_PORT, "
                    "RANK and WORLD_SIZE, as torchrun does (docs/ranks.md)",
                "run.parallel");
  }
  if (!environment) return environment;
  if (!config.run.parallel.empty() && wanted != environment->size) {
    throw Error(ErrorCode::kInvalidArgument,
                "is \"" + config.run.parallel + "\", but WORLD_SIZE says " +
                    std::to_string(environment->size) + " processes: leave it empty, or start " +
                    std::to_string(wanted),
                "run.parallel");
  }
  if (processes) {
    throw Error(
        ErrorCode::kInvalidArgument,
        "is \"processes\", but RANK and WORLD_SIZE say that this process is one of several: "
        "use local, so that rank 0 runs the other roles as threads; or unset them, and "
        "run.parallel starts the ranks",
        "run.roles");
  }
  return environment;
}

void CheckSameRecipe(learner::Ranks& ranks, const configs::Config& config) {
  const std::string own = Compared(config), first = ranks.Share(own);
  // "KEY\nWHAT"; empty: the same.
  std::string says;
  if (own != first) {
    const Difference found = FirstDifference(first, own);
    says = found.key + "\nis " + found.own + " for rank " + std::to_string(ranks.rank()) + " and " +
           found.first + " for rank 0: start all ranks with the same recipe, --set and --steps";
  }
  for (const std::string& each : ranks.Gather(says)) {
    if (each.empty()) continue;
    const size_t end = each.find('\n');
    throw Error(ErrorCode::kInvalidArgument, each.substr(end + 1), each.substr(0, end));
  }
}

}  // namespace plumb::run
