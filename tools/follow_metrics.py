#!/usr/bin/env python3
"""Tells Weights & Biases, trackio or MLflow what a run writes into metrics.jsonl, while it runs or afterwards.

    python3 tools/follow_metrics.py runs/demo --to wandb --project sums
    python3 tools/follow_metrics.py runs/demo --to mlflow --once        # what is there, then end

Nothing of the training waits for a tracker or fails with it. The tracker's package is imported only when it is asked for (pip
install wandb | trackio | mlflow); its own variables (WANDB_API_KEY, MLFLOW_TRACKING_URI, ...) hold, WANDB_PROJECT, TRACKIO_PROJECT
and MLFLOW_EXPERIMENT_NAME in place of --project.
The recipe as it was resolved (config.toml) becomes the tracker's configuration, a step's line its metrics at that step. It ends
when the run has ended (summary.json is there, or --idle seconds went by without a line) and with 130 on Ctrl-C. Where it was is
kept in RUN/followed-TRACKER.json, so that one that is started again says nothing twice and goes on in the same tracker's run.

A run with metrics.follow starts it with --with-run: it writes "ready" once the package is there, begins with the first line on its
standard input and ends with the end of that input, which a run that is killed closes as well, --patience seconds later at most.
"""
import argparse
import json
import math
import os
import pathlib
import select
import sys
import threading
import time

try:
    import tomllib
except ImportError:  # before Python 3.11
    tomllib = None


def flat(table, prefix=""):
    """{"a": {"b": 1}} as {"a.b": 1}."""
    out = {}
    for key, value in table.items():
        if isinstance(value, dict):
            out.update(flat(value, f"{prefix}{key}."))
        else:
            out[prefix + key] = value
    return out


def recipe_of(run):
    path = run / "config.toml"
    if tomllib is None or not path.exists():
        return {}
    with path.open("rb") as file:
        return flat(tomllib.load(file))


def numbers_of(line):
    """What of a line is a number a tracker can draw; null and text are not."""
    return {k: v for k, v in line.items()
            if k != "step" and isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v)}


class Wandb:
    package, project = "wandb", "WANDB_PROJECT"

    def __init__(self, module, project, name, recipe, kept):
        self.run = module.init(project=project, name=name, config=recipe, id=kept, resume="allow")
        self.id = self.run.id

    def log(self, step, metrics):
        self.run.log(metrics, step=step)

    def end(self):
        self.run.finish()


class Trackio:
    package, project = "trackio", "TRACKIO_PROJECT"

    def __init__(self, module, project, name, recipe, kept):
        self.module = module
        module.init(project=project, name=name, config=recipe, resume="allow")
        self.id = name

    def log(self, step, metrics):
        self.module.log(metrics, step=step)

    def end(self):
        self.module.finish()


class Mlflow:
    package, project = "mlflow", "MLFLOW_EXPERIMENT_NAME"

    def __init__(self, module, project, name, recipe, kept):
        self.module = module
        module.set_experiment(project)
        self.id = module.start_run(run_id=kept, run_name=None if kept else name).info.run_id
        if not kept:
            params = list(recipe.items())
            for at in range(0, len(params), 100):  # it takes no more at a time
                module.log_params({k: str(v)[:500] for k, v in params[at:at + 100]})

    def log(self, step, metrics):
        self.module.log_metrics(metrics, step=step)

    def end(self):
        self.module.end_run()


TRACKERS = {"wandb": Wandb, "trackio": Trackio, "mlflow": Mlflow}


class Follower:
    """Whole lines of a file that grows, each once; begins anew where the file was cut back (a resume)."""

    def __init__(self, path, at):
        self.path, self.at = path, at

    def lines(self):
        if not self.path.exists():
            return
        if self.path.stat().st_size < self.at:
            self.at = 0
        with self.path.open("rb") as file:
            file.seek(self.at)
            for raw in file:
                if not raw.endswith(b"\n"):
                    return  # it is being written
                self.at += len(raw)
                try:
                    line = json.loads(raw)
                except ValueError:
                    print(f"{self.path}: a line that is no JSON is left out", file=sys.stderr)
                    continue
                if isinstance(line, dict) and isinstance(line.get("step"), int):
                    yield line


class WithRun:
    """The run at the other end of standard input: it says when to begin, and its end by closing it."""

    def __init__(self, patience):
        self.patience = patience
        self.over = False
        print("ready", flush=True)
        os.dup2(2, 1)  # what a tracker prints goes where its errors go
        self.began = bool(sys.stdin.readline())

    def wait(self, seconds):
        if not self.over and select.select([0], [], [], seconds)[0] and not os.read(0, 4096):
            self.over = True
            # A tracker that hangs keeps nobody up.
            late = threading.Timer(self.patience, os._exit, [4])
            late.daemon = True
            late.start()


def parse(arguments):
    p = argparse.ArgumentParser(prog="follow_metrics.py", description=__doc__.splitlines()[0])
    p.add_argument("run", type=pathlib.Path, help="run folder")
    p.add_argument("--to", required=True, choices=sorted(TRACKERS), help="tracker")
    p.add_argument("--project", help="project (mlflow: experiment); plumb")
    p.add_argument("--name", help="the run's name there; its folder's")
    p.add_argument("--once", action="store_true", help="what is there now, then end")
    p.add_argument("--every", type=float, default=2.0, help="seconds between looks")
    p.add_argument("--idle", type=float, default=0, help="seconds without a line after which it ends; 0: never")
    p.add_argument("--with-run", action="store_true", help="from the first line of standard input until its end")
    p.add_argument("--patience", type=float, default=60, help="with --with-run: seconds that it may stay behind that end")
    return p.parse_args(arguments)


def main(arguments=None):
    options = parse(arguments)
    if not options.run.is_dir():
        print(f"{options.run}: there is no such run folder", file=sys.stderr)
        return 3
    kind = TRACKERS[options.to]
    try:
        module = __import__(kind.package)
    except ImportError as error:
        print(f"--to {options.to}: {error}; pip install {kind.package}", file=sys.stderr)
        return 2
    with_run = WithRun(options.patience) if options.with_run else None
    if with_run and not with_run.began:
        return 0  # the run ended before it had anything to tell
    notes = options.run / f"followed-{options.to}.json"
    kept = json.loads(notes.read_text()) if notes.exists() else {}
    follower = Follower(options.run / "metrics.jsonl", kept.get("at", 0))
    name = options.name or options.run.resolve().name
    project = options.project or os.environ.get(kind.project) or "plumb"
    tracker = kind(module, project, name, recipe_of(options.run), kept.get("id"))
    last = time.monotonic()
    code = 0
    try:
        while True:
            # Asked first: the last lines stand before it.
            ended = with_run.over if with_run else (options.run / "summary.json").exists()
            told = False
            for line in follower.lines():
                metrics = numbers_of(line)
                if metrics:
                    tracker.log(line["step"], metrics)
                told = True
            if told:
                last = time.monotonic()
                fresh = notes.with_suffix(".new")
                fresh.write_text(json.dumps({"at": follower.at, "id": tracker.id}))
                os.replace(fresh, notes)
            if options.once or ended or (options.idle and time.monotonic() - last >= options.idle):
                break
            if with_run:
                with_run.wait(options.every)
            else:
                time.sleep(options.every)
    except KeyboardInterrupt:
        code = 130
    tracker.end()
    return code


if __name__ == "__main__":
    sys.exit(main())
