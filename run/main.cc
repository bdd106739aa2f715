#include <unistd.h>

#include <cstdlib>
#include <set>
#include <string_view>

#include "run/commands/cli.h"

namespace {

// OpenMP's threads wait for each other by spinning for milliseconds, which starves the very threads
// they wait for as soon as anything else wants the cores: a step then takes several times as long.
// libgomp reads how long to spin when it is loaded, so the commands that compute start once more
// with a short spin, unless the caller chose a policy.
void SpinBriefly(int argc, char** argv) {
  static const std::set<std::string_view> kComputing = {"train", "plan", "generate",
                                                        "score", "eval", "chat"};
  if (argc < 2 || !kComputing.contains(argv[1])) return;
  if (std::getenv("GOMP_SPINCOUNT") || std::getenv("OMP_WAIT_POLICY")) return;
  setenv("GOMP_SPINCOUNT", "1000", 1);
  // comes back only when there is no /proc: then it goes on as it is
  execv("/proc/self/exe", argv);
}

}  // namespace

int main(int argc, char** argv) {
  SpinBriefly(argc, argv);
  return plumb::run::RunCli(argc, argv);
}
