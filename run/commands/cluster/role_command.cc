// plumb role actor|reward --join tcp://host:port: a role of a run whose head is elsewhere.
#include <unistd.h>

#include <cstdio>
#include <memory>

#include "common/base/error.h"
#include "run/commands/checked_numbers.h"
#include "run/commands/cluster/cluster_commands.h"
#include "run/roles/cluster/cluster_keys.h"
#include "run/roles/cluster/member.h"

namespace plumb::run {
namespace {

struct RoleArguments {
  std::string kind, join, keys, name, recipe, work, hands_on;
  std::vector<std::string> overrides;
  int64_t wait = 300;
  bool insecure = false;
};

// Different for every process; a name of one's own lets a restarted role take its place at once.
std::string OwnName(MemberKind kind) {
  char machine[256] = "";
  if (gethostname(machine, sizeof machine - 1) != 0) machine[0] = '\0';
  std::string name = NameOf(kind) + "-";
  for (const char c : std::string(machine).substr(0, 64))
    name.push_back(isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '.' ? c : '_');
  return name + "-" + std::to_string(getpid());
}

int Role(const RoleArguments& a) {
  const auto kind = FindMemberKind(a.kind);
  if (!kind) {
    throw Error(
        ErrorCode::kInvalidArgument,
        "joins no run: actor and reward do; store and learner are the head's, `plumb train` "
        "with run.roles = \"cluster\"",
        "role " + a.kind);
  }
  MemberOptions options{.kind = *kind,
                        .join = a.join,
                        .name = a.name.empty() ? OwnName(*kind) : a.name,
                        .keys = ReadMemberKeys(a.keys, *kind, a.join, a.insecure),
                        .recipe = a.recipe,
                        .overrides = a.overrides,
                        .work = a.work.empty() ? DefaultWorkFolder() : a.work,
                        .hands_on = a.hands_on,
                        .patience = std::chrono::seconds(a.wait),
                        .stop = &StopRequested()};
  return RunMember(options) ? 0 : kExitFewerSteps;
}

}  // namespace

void AddRoleCommand(CLI::App& app, CliResult& result) {
  auto a = std::make_shared<RoleArguments>();
  CLI::App* role = app.add_subcommand(
      "role", "Join a run on another machine (run.roles = \"cluster\") as actor or reward worker");
  role->add_option("kind", a->kind, "actor | reward")->required();
  role->add_option("--join", a->join, "tcp://host:port of the run's head (its run.listen)")
      ->required();
  role->add_option("--keys", a->keys,
                   "folder with head.pub and this role's .key (plumb keys generate FOLDER/)");
  role->add_option("--name", a->name,
                   "unique in the run; a role that is started again under its name takes its own "
                   "place at once (default: kind, machine and process)");
  role->add_option("--recipe", a->recipe,
                   "digest that the head prints: join no other run than this recipe's");
  role->add_option("--set", a->overrides,
                   "options of this machine: run.threads, run.device, run.memory_gb, "
                   "rollout.max_batch, rollout.kv_budget_mb")
      ->allow_extra_args(false);
  role->add_option("--wait", a->wait, "seconds that a head may be away (default 300)")
      ->check(WholeNumber(1));
  role->add_option(
      "--work", a->work,
      "where the role's temporary folder is made (default: ~/.cache/plumb; reward code "
      "cannot see /tmp)");
  role->add_option("--hands-on", a->hands_on,
                   "where an actor listens to hand weights on, if the recipe has run.relay: "
                   "tcp://address:port, or none (default: its address on the way to the head)");
  role->add_flag("--insecure", a->insecure, "join without keys and unencrypted");
  role->footer(
      "SIGTERM: it gives back what it has not answered and leaves. Exit codes: 0 the run has "
      "finished, 6 no head, 7 stopped.");
  role->callback([a, &result] { result.exit_code = Role(*a); });
}

}  // namespace plumb::run
