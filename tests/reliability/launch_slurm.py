#!/usr/bin/env python3
"""`plumb launch slurm` on a real Slurm: a cluster of this machine alone, which lives as long as this script.

    tests/reliability/launch_slurm.py PLUMB [--folder build/launch-slurm]

Debian: apt-get install slurm-wlm munge. The script that launch writes goes through sbatch: with keys, a head, an actor and a reward worker.
Held to: the job ends COMPLETED with exit code 0, the run has all its steps, its weights are those of a run in one process; and a second job
that is cancelled in its middle (scancel --signal=TERM --batch, what Slurm does before a limit of time) leaves a checkpoint, from which the same
script, submitted once more, goes on to the same weights. Skipped, which is said, where Slurm or namespaces are missing."""
import argparse
import getpass
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import machines as ns  # noqa: E402
from toy_recipe import TOY  # noqa: E402

PROGRAMS = ("sbatch", "srun", "scontrol", "scancel", "slurmctld", "slurmd", "munged")
CONF = """
ClusterName=alone
SlurmctldHost=localhost
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
MpiDefault=none
KillWait=5
NodeName=localhost NodeHostname={host} NodeAddr=127.0.0.1 CPUs=8 State=UNKNOWN
PartitionName=all Nodes=localhost Default=YES MaxTime=INFINITE State=UP
"""


def say(text):
    sys.stdout.write(f"launch_slurm: {text}\n")
    sys.stdout.flush()


def run(*words, **more):
    return subprocess.run(words, check=True, capture_output=True, text=True, **more).stdout


def until(what, seconds, done):
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            say(f"NOT SO within {seconds} s: {what}")
            sys.exit(1)
        time.sleep(0.3)


def start_slurm(folder):
    """Daemons of this script's namespaces, with all that they write in `folder`."""
    for each in ("state", "spool"):
        (folder / each).mkdir()
    (folder / "slurm.conf").write_text(CONF.format(user=getpass.getuser(), folder=folder, host=socket.gethostname().partition(".")[0]))
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    ns.lone_network()
    with open(folder / "daemons.out", "a") as out:
        subprocess.Popen(["munged", "--foreground", "--force", f"--socket={folder}/munge.socket", f"--key-file={key}", f"--pid-file={folder}/munge.pid",
                          f"--log-file={folder}/munge.log", f"--seed-file={folder}/munge.seed"], stdout=out, stderr=out)
        until("munged listens", 30, lambda: (folder / "munge.socket").exists())
        subprocess.Popen(["slurmctld", "-D", "-i"], stdout=out, stderr=out)
        subprocess.Popen(["slurmd", "-D", "-N", "localhost"], stdout=out, stderr=out)
    idle = lambda: "idle" in subprocess.run(["sinfo", "-h", "-o", "%t"], capture_output=True, text=True).stdout
    until(f"the node is idle (logs: {folder})", 90, idle)


def state_of(job):
    """What Slurm says of a job: its state and exit code."""
    said = dict(each.partition("=")[::2] for each in run("scontrol", "show", "job", job, "-o").split())
    return said["JobState"], said["ExitCode"]


def job_of(args, out, steps):
    """The script of a job, as launch writes it."""
    text = run(args.plumb, "launch", "slurm", str(args.folder / "recipe.toml"), "--nodes", "1", "--actors", "1", "--cpus", "1", "--keys",
               str(args.folder / "keys"), "--plumb", args.plumb, "--out", str(out), "--set", f"run.steps={steps}")
    script = args.folder / f"{out.name}.sh"
    script.write_text(text)
    return str(script)


def submit(args, script):
    return run("sbatch", "--parsable", script, cwd=args.folder).strip()


def ended(args, job, patience):
    until(f"job {job} ends (its output: {args.folder}/recipe-{job}.out)", patience, lambda: state_of(job)[0] not in ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING"))
    return state_of(job)


def digest(run_folder):
    summary = json.loads((run_folder / "summary.json").read_text())
    return summary["steps"], summary["weights_sha256"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plumb")
    parser.add_argument("--folder", default="build/launch-slurm")
    args = parser.parse_args()
    args.plumb, args.folder = str(pathlib.Path(args.plumb).resolve()), pathlib.Path(args.folder).resolve()
    missing = [program for program in PROGRAMS if not shutil.which(program)]
    if missing:
        say(f"SKIPPED, plumb launch slurm was not tried on Slurm: no {', '.join(missing)}; as root: apt-get install slurm-wlm munge")
        return
    why = ns.enter_own_namespaces()
    if why:
        say(f"SKIPPED, plumb launch slurm was not tried on Slurm: no namespaces for its daemons ({why})")
        return
    shutil.rmtree(args.folder, ignore_errors=True)
    args.folder.mkdir(parents=True)
    (args.folder / "recipe.toml").write_text(TOY)
    run(args.plumb, "keys", "generate", f"{args.folder}/keys/")
    start_slurm(args.folder)

    failed = False

    def check(true, text):
        nonlocal failed
        failed |= not true
        say(("ok: " if true else "NOT SO: ") + text)

    for steps, interrupted in ((30, False), (400, True)):
        whole, out = args.folder / f"whole-{steps}", args.folder / f"run-{steps}"
        run(args.plumb, "train", str(args.folder / "recipe.toml"), "--out", str(whole), "--steps", str(steps), "--quiet")
        script = job_of(args, out, steps)
        job = submit(args, script)
        if interrupted:
            metrics = out / "metrics.jsonl"
            until(f"job {job} has made 20 steps", 180, lambda: metrics.exists() and metrics.read_text().count("\n") >= 20)
            run("scancel", "--signal=TERM", "--batch", job)
            state, code = ended(args, job, 180)
            done = metrics.read_text().count("\n")
            check(code == "7:0" and 20 <= done < steps, f"job {job}, which was asked to end, is {state} with exit code {code} after {done} of {steps} steps")
            job = submit(args, script)
        state, code = ended(args, job, 300)
        check((state, code) == ("COMPLETED", "0:0"), f"job {job} is {state} with exit code {code}")
        check(digest(out) == digest(whole) and digest(out)[0] >= 1, f"{steps} steps, weights of the run in one process: {digest(out)[1][:16]}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
