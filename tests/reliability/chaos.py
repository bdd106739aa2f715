#!/usr/bin/env python3
"""A run on four machines that meets a fault in each eighth of its time, and what has to be true behind it.

    tests/reliability/chaos.py PLUMB [--seconds 480] [--folder build/chaos]

The machines are network namespaces of this one (tests/reliability/machines.py): a head on a small disk of its own, two actors, a reward
worker. Weights come as what has changed, to one actor from the other (run.weight_deltas, run.relay = 1). The faults: kill -9 of an actor, SIGSTOP of the reward worker, an actor's link down, an actor's bandwidth cut, the head's disk
full, a reward that takes 200 times as long, kill -9 of the head, SIGSTOP of an actor. What ends is started again, as launchers do. Then:

  * the head ended with exit code 0, and so did all roles;
  * weights, optimizer and metrics of every step are bit for bit those of a run in one process that nothing happened to;
  * the store holds every group of every step once, with the answers and scores of the unbroken run; no step that was in the metrics
    when the head was killed lacked a group in the store that it left;
  * effective training time, the steps at the speed between faults over the time that the run took, is at least 80 %. That is held to
    from --seconds 400 on (a fault a minute); a shorter run says it only.

Faults that this machine does not allow (no namespaces) are named and left out. Exit code 0: all of that; 1: something was otherwise."""
import argparse
import atexit
import hashlib
import json
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import machines as ns  # noqa: E402

REFUSED = (0, 2, 7, 9)  # ended on purpose, or would be refused again
PROMPTS = 32
RECIPE = f"""
[run]
seed = 21
steps = 100000
checkpoint_every = 25
threads = 1
stall_seconds = 120

[model]
layers = 2
hidden = 128
heads = 4
kv_heads = 4
ffn = 256
max_positions = 64
vocabulary = "arithmetic"
init_std = 0.05

[data]
train = "arithmetic"
eval = "arithmetic"
eval_prompts = 20

[rollout]
prompts_per_step = {PROMPTS}
samples_per_prompt = 8
max_new_tokens = 16
max_batch = 256
kv_budget_mb = 64

[[reward.parts]]
name = "short"
kind = "length"
target_tokens = 2
max_tokens = 16

[[reward.parts]]
name = "digits"
kind = "python"
path = "digits.py"
weight = 0.1
timeout_s = 60

[algorithm]
name = "grpo"

[optimizer]
learning_rate = 1e-3
lr_schedule = "constant"

[replay]
keep_steps = 10000000
"""
# Reward code sees no /tmp: the file that makes it slow is in --folder.
REWARD = """import os
import time

SLOW = {slow!r}


def digits(prompts, completions, **kwargs):
    time.sleep(0.2 if os.path.exists(SLOW) else 0.001)
    return [sum(c.isdigit() for c in text) / max(1, len(text)) for text in completions]
"""
failures = []


def say(text):
    sys.stdout.write(f"chaos: {text}\n")
    sys.stdout.flush()


def check(true, text):
    say(("ok: " if true else "NOT SO: ") + text)
    if not true:
        failures.append(text)


class Cluster:
    """A head and its roles; each is started again when it ends otherwise than on purpose."""

    def __init__(self, args, run, places, steps):
        self.args, self.run, self.places, self.steps = args, run, places, steps
        self.roles = {name: None for name in ("head", "actor-0", "actor-1", "reward-0")}
        self.starts = dict.fromkeys(self.roles, 0)
        self.lock, self.over = threading.Lock(), False
        self.codes = {}
        self.watcher = threading.Thread(target=self.watch, daemon=True)
        self.watcher.start()
        atexit.register(self.end)  # also behind an error: nothing is left running

    def line(self, name):
        plumb, listen = self.args.plumb, f"tcp://{self.places.address('head')}:17770"
        if name == "head":
            line = [plumb, "train", str(self.args.folder / "recipe.toml"), "--out", str(self.run), "--steps", str(self.steps), "--quiet",
                    "--insecure", "--set", "run.roles=cluster", "--set", f"run.listen={listen}", "--set", "run.relay=1", "--set", "run.weight_deltas=true"]
            return line + (["--resume"] if (self.run / "run.json").exists() else [])
        return [plumb, "role", name.partition("-")[0], "--join", listen, "--insecure", "--name", name, "--set", "run.threads=1",
                "--work", str(self.args.folder / "work" / name)]

    def watch(self):
        while not self.over:
            with self.lock:
                for name, process in self.roles.items():
                    if process is not None:
                        code = process.poll()
                        if code is None or name in self.codes:
                            continue
                        if code in REFUSED:
                            self.codes[name] = code
                            continue
                        say(f"{name} ended with {code}: started again")
                    with open(self.args.folder / "logs" / f"{name}.out", "a") as out:
                        self.roles[name] = subprocess.Popen(self.places.line(name.replace("-", ""), self.line(name)), stdout=out, stderr=out)
                    self.starts[name] += 1
            time.sleep(0.5)

    def signal(self, name, number):
        with self.lock:
            self.roles[name].send_signal(number)

    def done(self):
        try:
            with open(self.run / "metrics.jsonl", "rb") as file:
                return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
        except FileNotFoundError:
            return 0

    def wait(self, until, patience):
        end = time.monotonic() + patience
        while not until() and time.monotonic() < end:
            time.sleep(0.05)
        return until()

    def end(self):
        self.over = True
        self.watcher.join()
        for process in self.roles.values():
            if process is not None and process.poll() is None:
                process.kill()
            if process is not None:
                process.wait()


class Disk:
    """The head's: of 1 GiB, and full when it is made no larger than what is on it."""

    def __init__(self, at, own):
        self.at, self.own = at, own
        at.mkdir(parents=True, exist_ok=True)
        if own:
            ns.run("mount", "-t", "tmpfs", "-o", "size=1g", "tmpfs", str(at))

    def fill(self, full):
        used = shutil.disk_usage(self.at).used
        # -i, -n: in a namespace of users mount knows of no options that the mount would have
        ns.run("mount", "-i", "-n", "-o", f"remount,size={max(4096, used) if full else 1 << 30}", "tmpfs", str(self.at))


def metrics_of(run):
    with open(run / "metrics.jsonl") as lines:
        return [json.loads(line) for line in lines]


def training_groups(args, run):
    """Lease to a digest of what its record says of prompt and answers, and how often a lease is there twice."""
    groups, twice = {}, 0
    with subprocess.Popen([args.plumb, "store", "export", str(run / "store"), "--tokens"], stdout=subprocess.PIPE, text=True) as out:
        for record in map(json.loads, out.stdout):
            if record["purpose"] == "eval":
                continue
            # who answered, and at which try, is what faults change
            record.pop("actor"), record.pop("attempt")
            twice += record["lease"] in groups
            groups[record["lease"]] = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).digest()
    check(out.returncode == 0, f"the groups of {run.name} can be exported")
    return groups, twice


def faults(args, cluster, places, disk):
    """(name, what begins it, what ends it; None: what ends by itself)."""
    slow = args.folder / "slow"

    def kill_head():
        cluster.signal("head", signal.SIGKILL)
        with cluster.lock:  # nobody begins it again until its store has been looked at
            cluster.roles["head"].wait()
            steps = cluster.done()
            looked = subprocess.run([args.plumb, "store", "inspect", str(cluster.run / "store"), "--json"], stdout=subprocess.PIPE, text=True)
        stored = json.loads(looked.stdout)["groups"]["train"]["stored"] if looked.returncode == 0 else -1
        check(stored >= steps * PROMPTS, f"the killed head's store has the groups of all {steps} steps in its metrics: {stored} of {steps * PROMPTS}")

    found = [
        ("kill -9 of actor-0", lambda: cluster.signal("actor-0", signal.SIGKILL), None),
        ("SIGSTOP of reward-0", lambda: cluster.signal("reward-0", signal.SIGSTOP), lambda: cluster.signal("reward-0", signal.SIGCONT)),
        ("actor-1's link down", lambda: places.link("actor1", False), lambda: places.link("actor1", True)),
        ("actor-0's bandwidth cut to 4 Mbit/s", lambda: places.rate("actor0", 4000), lambda: places.rate("actor0", None)),
        ("the head's disk full", lambda: disk.fill(True), lambda: disk.fill(False)),
        ("a slow reward", slow.touch, slow.unlink),
        ("kill -9 of the head", kill_head, None),
        ("SIGSTOP of actor-1", lambda: cluster.signal("actor-1", signal.SIGSTOP), lambda: cluster.signal("actor-1", signal.SIGCONT)),
    ]
    for name, begin, end in found:
        if not places.links and name in ("actor-1's link down", "actor-0's bandwidth cut to 4 Mbit/s", "the head's disk full"):
            say(f"SKIPPED: {name}: needs namespaces ({args.why})")
        else:
            yield name, begin, end


def chaos(args, places, disk, steps, expected):
    """The run with faults: its seconds from the first step to its end, and its speed between faults."""
    cluster = Cluster(args, disk.at / "run", places, steps)
    if not cluster.wait(lambda: cluster.done() > 0, 120):
        check(False, f"the cluster begins within two minutes; its logs: {args.folder / 'logs'}")
        cluster.end()
        sys.exit(1)
    begin, first = time.monotonic(), cluster.done()
    planned = list(faults(args, cluster, places, disk))
    lasts, speeds, patience = expected / len(planned) / 6, [], 60 + 5 * expected
    for number, (name, start, stop) in enumerate(planned):
        # the last quarter of what lies between two faults is the speed of a run that nothing happens to
        at = steps * (number + 0.5) / len(planned)
        cluster.wait(lambda: cluster.done() >= at - steps / len(planned) / 4, patience)
        quiet, before = time.monotonic(), cluster.done()
        if not cluster.wait(lambda: cluster.done() >= at, patience):
            check(False, f"the run gets on before the fault: {name}")
            break
        speeds.append((cluster.done() - before) / (time.monotonic() - quiet))
        say(f"{time.monotonic() - begin:5.1f} s, step {cluster.done()}: {name}" + (f" for {lasts:.1f} s" if stop else ""))
        start()
        if stop:
            time.sleep(lasts)
            stop()
    cluster.wait(lambda: "head" in cluster.codes, patience)
    wall = time.monotonic() - begin
    cluster.wait(lambda: len(cluster.codes) == len(cluster.roles), 60)
    check(cluster.codes == dict.fromkeys(cluster.roles, 0), f"head and roles end with exit code 0: {cluster.codes}")
    say("lives: " + ", ".join(f"{name} {count}" for name, count in cluster.starts.items()))
    cluster.end()
    return wall, steps - first, statistics.median(speeds)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plumb")
    parser.add_argument("--seconds", type=float, default=480, help="of the run without its faults (default 480)")
    parser.add_argument("--folder", default="build/chaos", help="not below /tmp, which reward code cannot see")
    args = parser.parse_args()
    args.plumb, args.folder = str(pathlib.Path(args.plumb).resolve()), pathlib.Path(args.folder).resolve()
    args.why = ns.enter_own_namespaces()
    shutil.rmtree(args.folder, ignore_errors=True)
    for each in ("logs", "work"):
        (args.folder / each).mkdir(parents=True)
    (args.folder / "recipe.toml").write_text(RECIPE)
    (args.folder / "digits.py").write_text(REWARD.format(slow=str(args.folder / "slow")))
    places = ns.Machines(("head", "actor0", "actor1", "reward0"), links=not args.why)
    disk = Disk(args.folder / "disk", own=places.links)

    # How fast are its steps here? Then a run of so many that they take the time asked for.
    cluster = Cluster(args, disk.at / "probe", places, 100000)
    if not cluster.wait(lambda: cluster.done() >= 10, 120):
        say(f"NOT SO: a cluster of this machine trains; its logs: {args.folder / 'logs'}")
        sys.exit(1)
    begin, before = time.monotonic(), cluster.done()
    time.sleep(max(4, args.seconds / 60))
    rate = (cluster.done() - before) / (time.monotonic() - begin)
    cluster.end()
    shutil.rmtree(disk.at / "probe")
    steps = max(16, int(rate * args.seconds))
    say(f"{rate:.1f} steps a second: {steps} steps")

    wall, trained, speed = chaos(args, places, disk, steps, args.seconds)
    effective = trained / speed / wall
    text = f"effective training time {100 * effective:.1f} %: {trained} steps at {speed:.2f} a second between faults, {wall:.1f} s in all"
    if args.seconds >= 400:
        check(effective >= 0.8, text + "; at least 80 %")
    else:
        say(text)

    whole, run = args.folder / "whole", disk.at / "run"
    subprocess.run([args.plumb, "train", str(args.folder / "recipe.toml"), "--out", str(whole), "--steps", str(steps), "--quiet"], check=True,
                   stdout=subprocess.DEVNULL)
    ends = [json.loads((each / "summary.json").read_text()) for each in (whole, run)]
    for digest in ("policy_digest", "weights_sha256", "optimizer_sha256"):
        check(ends[0][digest] == ends[1][digest], f"{digest} is that of the unbroken run")
    handed = ends[1]["counters"].get("actor/weight_bytes_handed_on", 0)
    check(handed > 0, f"weights that one actor had from the other: {handed / 1e6:.1f} MB")
    names = ("step", "reward/mean", "policy/loss", "optim/grad_norm")
    lines = [[[line[name] for name in names] for line in metrics_of(each)] for each in (whole, run)]
    check(lines[0] == lines[1], f"the metrics of all {len(lines[0])} steps are those of the unbroken run")
    (unbroken, _), (groups, twice) = training_groups(args, whole), training_groups(args, run)
    lost, other = len(unbroken.keys() - groups.keys()), sum(groups.get(lease, said) != said for lease, said in unbroken.items())
    check(len(unbroken) >= steps * PROMPTS and lost == other == twice == 0,
          f"groups of the unbroken run: {len(unbroken)}; lost {lost}, otherwise {other}, twice {twice}")
    verified = subprocess.run([args.plumb, "store", "verify", str(run / "store")], stdout=subprocess.PIPE, text=True)
    check(verified.returncode == 0, f"store verify: {verified.stdout.strip().splitlines()[-1].rpartition(':')[2].strip()}")
    shutil.copy(run / "summary.json", args.folder)  # the disk goes with the script
    shutil.copy(run / "metrics.jsonl", args.folder)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
