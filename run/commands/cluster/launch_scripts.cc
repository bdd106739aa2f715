#include "run/commands/cluster/launch_scripts.h"

#include <nlohmann/json.hpp>

namespace plumb::run {
namespace {

std::string Replaced(std::string text, const std::string& what, const std::string& by) {
  for (size_t at = 0; (at = text.find(what, at)) != std::string::npos; at += by.size())
    text.replace(at, what.size(), by);
  return text;
}

// Each "@NAME@" of the text.
std::string Filled(std::string text,
                   const std::vector<std::pair<std::string, std::string>>& values) {
  for (const auto& [name, value] : values)
    text = Replaced(std::move(text), "@" + name + "@", value);
  return text;
}

// A JSON string is one of YAML and of Python, too.
std::string Quoted(const std::string& text) { return nlohmann::json(text).dump(); }

std::string Indented(const std::string& text, const std::string& by) {
  std::string out, line;
  for (const char c : text) {
    line.push_back(c);
    if (c != '\n') continue;
    out += (line == "\n" ? "" : by) + line;
    line.clear();
  }
  if (!line.empty()) out += by + line + "\n";
  return out;
}

std::string Sets(const LaunchJob& job) {
  std::string sets;
  for (const std::string& each : job.overrides) sets += " --set " + ShellQuoted(each);
  return sets;
}

std::string N(int64_t number) { return std::to_string(number); }

}  // namespace

std::string ShellQuoted(const std::string& word) {
  bool plain = !word.empty();
  for (const char c : word) {
    plain = plain && ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                      std::string_view("_-./=:,+@%").find(c) != std::string_view::npos);
  }
  return plain ? word : "'" + Replaced(word, "'", "'\\''") + "'";
}

std::string SlurmScript(const LaunchJob& job) {
  const std::string rewards =
      job.rewards == 0 ? "" : "roles reward " + N(job.rewards) + " & others+=($!)\n";
  return Filled(
      R"(#!/bin/bash
# A run of Plumb on several machines: one head (learner and store), and roles that join it.
# Only the head reads the recipe, its data and its model; the other machines need the program and their keys.
#SBATCH --job-name=plumb-@NAME@
#SBATCH --nodes=@NODES@
#SBATCH --ntasks=@TASKS@
#SBATCH --cpus-per-task=@CPUS@
@GPUS@#SBATCH --output=@NAME@-%j.out
#SBATCH --open-mode=append
#SBATCH --requeue
# Before the limit of time the head finishes its step and saves: the job goes on from there when it is queued again.
#SBATCH --signal=B:TERM@120
set -u
plumb=@PLUMB@
out=@OUT@
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
join=tcp://$head:@PORT@

# roles KIND COUNT: that many of a kind. One that is killed begins anew under its name, so that what it
# had begun is free at once; one that is refused (2, 9) would be refused again.
roles() {
  srun --exact --ntasks="$2" --cpus-per-task=@CPUS@@STEPGPUS@ --kill-on-bad-exit=0 --label bash -c '
    while :; do
      "$1" role "$2" --join "$3" --name "$2-$SLURM_PROCID" --recipe @DIGEST@@ROLEKEYS@ --wait 600 \
        --work "${TMPDIR:-$HOME/.cache}/plumb-$SLURM_JOB_ID"
      code=$?
      case $code in 0 | 2 | 7 | 9) exit $code ;; esac
      sleep 5
    done' role "$plumb" "$1" "$join"
}

resume=()
[ -e "$out/run.json" ] && resume=(--resume)
# The head is on this machine, the job's first. It is asked to end by its process id: a signal to its srun would kill it at once.
pid=${TMPDIR:-/tmp}/plumb-$SLURM_JOB_ID.head
srun --exact --nodes=1 --ntasks=1 --nodelist="$head" --cpus-per-task=@CPUS@@STEPGPUS@ \
  bash -c 'echo $$ >"$1"; shift; exec "$@"' head "$pid" \
  "$plumb" train @RECIPE@ --out "$out" "${resume[@]}"@SETS@@INSECURE@ &
learner=$!
others=()
roles actor @ACTORS@ & others+=($!)
@REWARDS@trap 'to=$(cat "$pid" 2>/dev/null); kill -TERM "${to:-$learner}" 2>/dev/null' TERM
wait "$learner"
code=$?
# A signal ends the wait, not the head.
while kill -0 "$learner" 2>/dev/null; do wait "$learner"; code=$?; done
kill -TERM "${others[@]}" 2>/dev/null
wait
rm -f "$pid"
exit "$code"
)",
      {{"NAME", job.name},
       {"NODES", N(job.nodes)},
       {"TASKS", N(1 + job.actors + job.rewards)},
       {"GPUS", job.gpus > 0 ? "#SBATCH --gpus-per-task=" + N(job.gpus) + "\n" : ""},
       {"STEPGPUS", job.gpus > 0 ? " --gpus-per-task=" + N(job.gpus) : ""},
       {"CPUS", N(job.cpus)},
       {"PLUMB", ShellQuoted(job.plumb)},
       {"OUT", ShellQuoted(job.out)},
       {"PORT", N(job.port)},
       {"DIGEST", job.digest},
       {"ROLEKEYS", job.keys.empty() ? " --insecure"
                                     : " --keys " + Replaced(ShellQuoted(job.keys), "'", "'\\''")},
       {"RECIPE", ShellQuoted(job.recipe)},
       {"SETS", Sets(job)},
       {"INSECURE", job.keys.empty() ? " --insecure" : ""},
       {"ACTORS", N(job.actors)},
       {"REWARDS", rewards}});
}

namespace {

// A replicated job of roles; the JobSet's pods have no ports of their own.
std::string RoleJob(const LaunchJob& job, const std::string& kind, int64_t count) {
  if (count == 0) return "";
  const bool keys = !job.keys.empty();
  return Filled(R"(    - name: @KIND@
      replicas: 1
      template:
        spec:
          completionMode: Indexed
          parallelism: @COUNT@
          completions: @COUNT@
          backoffLimit: 1000
          template:
            metadata:
              labels:
                plumb-role: @KIND@
            spec:
              restartPolicy: OnFailure
              terminationGracePeriodSeconds: 30
              containers:
                - name: plumb
                  image: @IMAGE@
                  command:
                    - sh
                    - -c
                    - >-
                      exec plumb role @KIND@ --join tcp://@NAME@-head:@PORT@
                      --name @KIND@-$JOB_COMPLETION_INDEX --recipe @DIGEST@
                      @KEYS@ --wait 600 --work /work
                  resources:
                    limits:
                      cpu: "@CPUS@"
@GPUS@                  volumeMounts:
                    - name: work
                      mountPath: /work
@MOUNT@              volumes:
                - name: work
                  emptyDir: {}
@VOLUME@)",
                {{"KIND", kind},
                 {"COUNT", N(count)},
                 {"NAME", job.name},
                 {"IMAGE", Quoted(job.image)},
                 {"PORT", N(job.port)},
                 {"DIGEST", job.digest},
                 {"KEYS", keys ? "--keys /keys" : "--insecure"},
                 {"CPUS", N(job.cpus)},
                 {"GPUS", job.gpus > 0 && kind == "actor"
                              ? "                      nvidia.com/gpu: \"" + N(job.gpus) + "\"\n"
                              : ""},
                 {"MOUNT", keys ? "                    - name: keys\n"
                                  "                      mountPath: /keys\n"
                                  "                      readOnly: true\n"
                                : ""},
                 {"VOLUME", keys ? "                - name: keys\n"
                                   "                  secret:\n"
                                   "                    secretName: " +
                                       job.name +
                                       "-keys\n"
                                       "                    defaultMode: 0400\n"
                                       "                    items:\n"
                                       "                      - key: head.pub\n"
                                       "                        path: head.pub\n"
                                       "                      - key: " +
                                       kind +
                                       ".key\n"
                                       "                        path: " +
                                       kind + ".key\n"
                                 : ""}});
}

}  // namespace

std::string KubernetesManifests(const LaunchJob& job) {
  const bool keys = !job.keys.empty();
  return Filled(
      R"(# A run of Plumb on Kubernetes: kubectl apply -f this. It needs JobSet (jobset.sigs.k8s.io).
@SECRET@# The run folder is a claim of the head's alone. What model.path, data and reward parts name has to be in the image, or in a volume
# that is added to the head: roles get what they need from it.
apiVersion: v1
kind: ConfigMap
metadata:
  name: @NAME@-recipe
data:
  recipe.toml: |
@RECIPE@---
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: @NAME@-run
spec:
  accessModes: [ReadWriteOnce]
  resources:
    requests:
      storage: 100Gi
---
# The name by which roles find the head: without an address of its own it is that of the pod.
apiVersion: v1
kind: Service
metadata:
  name: @NAME@-head
spec:
  clusterIP: None
  publishNotReadyAddresses: true
  selector:
    plumb-run: @NAME@
    plumb-role: head
  ports:
@PORTS@---
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: @NAME@
spec:
  # The run has succeeded when its head has; it begins anew, from its newest checkpoint, when its head fails.
  successPolicy:
    operator: All
    targetReplicatedJobs: [head]
  failurePolicy:
    maxRestarts: 10
  replicatedJobs:
    - name: head
      replicas: 1
      template:
        spec:
          parallelism: 1
          completions: 1
          backoffLimit: 0
          template:
            metadata:
              labels:
                plumb-run: @NAME@
                plumb-role: head
            spec:
              restartPolicy: Never
              terminationGracePeriodSeconds: 120
              containers:
                - name: plumb
                  image: @IMAGE@
                  command:
                    - sh
                    - -c
                    - >-
                      if [ -e @OUT@/run.json ]; then resume=--resume; fi;
                      exec plumb train /recipe/recipe.toml --out @OUT@ $resume@INSECURE@
                  ports:
@CONTAINERPORTS@                  resources:
                    limits:
                      cpu: "@CPUS@"
@GPUS@                  volumeMounts:
                    - name: recipe
                      mountPath: /recipe
                    - name: run
                      mountPath: @OUT@
@MOUNT@              volumes:
                - name: recipe
                  configMap:
                    name: @NAME@-recipe
                - name: run
                  persistentVolumeClaim:
                    claimName: @NAME@-run
@VOLUME@@ACTORS@@REWARDS@)",
      {{"SECRET",
        keys ? "# The keys first:  plumb keys generate keys/ && kubectl create secret generic " +
                   job.name + "-keys --from-file=keys/\n"
             : ""},
       {"RECIPE", Indented(job.recipe_text, "    ")},
       {"PORTS",
        [&] {
          std::string ports;
          for (int i = 0; i < 5; ++i)
            ports += "    - name: door-" + N(i) + "\n      port: " + N(job.port + i) + "\n";
          return ports;
        }()},
       {"CONTAINERPORTS",
        [&] {
          std::string ports;
          for (int i = 0; i < 5; ++i)
            ports += "                    - containerPort: " + N(job.port + i) + "\n";
          return ports;
        }()},
       {"IMAGE", Quoted(job.image)},
       {"OUT", job.out},
       {"INSECURE", keys ? "" : " --insecure"},
       {"CPUS", N(job.cpus)},
       {"GPUS",
        job.gpus > 0 ? "                      nvidia.com/gpu: \"" + N(job.gpus) + "\"\n" : ""},
       {"MOUNT", keys ? "                    - name: keys\n"
                        "                      mountPath: /keys\n"
                        "                      readOnly: true\n"
                      : ""},
       {"VOLUME", keys ? "                - name: keys\n"
                         "                  secret:\n"
                         "                    secretName: " +
                             job.name +
                             "-keys\n"
                             "                    defaultMode: 0400\n"
                       : ""},
       {"ACTORS", RoleJob(job, "actor", job.actors)},
       {"REWARDS", RoleJob(job, "reward", job.rewards)},
       {"NAME", job.name}});
}

std::string RayDriver(const LaunchJob& job) {
  return Filled(
      R"PY(#!/usr/bin/env python3
"""A run of Plumb on a Ray cluster: ray start --head, then this. It needs `ray` (pip install ray) here and the program on each machine.

One Ray actor a role, each in a bundle of a placement group, starts Plumb's process and waits for it; a role that fails, or whose
machine is lost, begins anew under its name. No data passes through Python: roles talk to the head themselves."""
import ctypes
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

import ray
from ray.util.placement_group import placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

PLUMB = @PLUMB@
RECIPE = @RECIPE@
DIGEST = "@DIGEST@"
OUT = @OUT@
KEYS = @KEYS@  # read here and handed to the roles; "": none
PORT = @PORT@
ACTORS, REWARDS = @ACTORS@, @REWARDS@
BUNDLE = {"CPU": @CPUS@, "GPU": @GPUS@}
REFUSED = (2, 9)  # the same again would be refused again
NEEDED = {"head": ("head.key", "head.pub", "actor.allowed", "reward.allowed"),
          "actor": ("head.pub", "actor.key"), "reward": ("head.pub", "reward.key")}


def die_with_parent():
    ctypes.CDLL("libc.so.6").prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


@ray.remote(max_restarts=-1, max_task_retries=-1)
class Role:
    """One process of Plumb."""

    def __init__(self, kind, keys):
        self.folder = tempfile.TemporaryDirectory(prefix="plumb-ray-", dir=pathlib.Path.home())
        for name, text in keys.items():
            path = pathlib.Path(self.folder.name, name)
            path.touch(mode=0o600)
            path.write_text(text)
        self.keys = ["--keys", self.folder.name] if keys else ["--insecure"]

    def address(self):
        return ray.util.get_node_ip_address()

    def train(self, recipe):
        path = pathlib.Path(self.folder.name, "recipe.toml")
        path.write_text(recipe)
        line = [PLUMB, "train", str(path), "--out", OUT, "--set", f"run.listen=tcp://0.0.0.0:{PORT}"]
        line += ["--set", f"run.keys={self.folder.name}"] if self.keys[0] == "--keys" else self.keys
        if os.path.exists(os.path.join(OUT, "run.json")):
            line.append("--resume")
        return subprocess.run(line, preexec_fn=die_with_parent).returncode

    def join(self, kind, name, address):
        line = [PLUMB, "role", kind, "--join", f"tcp://{address}:{PORT}", "--name", name, "--recipe", DIGEST, "--wait", "600"]
        return subprocess.run(line + self.keys + ["--work", self.folder.name], preexec_fn=die_with_parent).returncode


def keys_of(kind):
    return {name: pathlib.Path(KEYS, name).read_text() for name in NEEDED[kind]} if KEYS else {}


def main():
    ray.init(address=os.environ.get("RAY_ADDRESS", "auto"))
    kinds = ["head"] + ["actor"] * ACTORS + ["reward"] * REWARDS
    bundle = {name: count for name, count in BUNDLE.items() if count}
    group = placement_group([dict(bundle) for _ in kinds], strategy="SPREAD")
    ray.get(group.ready(), timeout=600)

    def start(index, kind):
        where = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index)
        options = {"num_cpus": BUNDLE["CPU"], "num_gpus": BUNDLE["GPU"], "scheduling_strategy": where}
        return Role.options(**options).remote(kind, keys_of(kind))

    roles = [start(index, kind) for index, kind in enumerate(kinds)]
    address = ray.get(roles[0].address.remote())
    head = roles[0].train.remote(RECIPE)

    def join(index):
        return roles[index].join.remote(kinds[index], f"{kinds[index]}-{index}", address)

    running = {join(index): index for index in range(1, len(kinds))}
    while True:
        done = ray.wait([head, *running], num_returns=1)[0][0]
        if done == head:
            sys.exit(ray.get(head))
        index = running.pop(done)
        code = ray.get(done)
        if code not in (0, *REFUSED):
            print(f"{kinds[index]}-{index} ended with {code}: starting it again", file=sys.stderr)
            time.sleep(5)
            running[join(index)] = index


if __name__ == "__main__":
    main()
)PY",
      {{"PLUMB", Quoted(job.plumb)},
       {"RECIPE", Quoted(job.recipe_text)},
       {"DIGEST", job.digest},
       {"OUT", Quoted(job.out)},
       {"KEYS", Quoted(job.keys)},
       {"PORT", N(job.port)},
       {"ACTORS", N(job.actors)},
       {"REWARDS", N(job.rewards)},
       {"CPUS", N(job.cpus)},
       {"GPUS", N(job.gpus)}});
}

}  // namespace plumb::run
