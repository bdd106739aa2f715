"""tools/follow_metrics.py with packages that write down what they are told. Run by CTest as `follow_metrics`."""
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

TOOL = pathlib.Path(__file__).resolve().parent.parent / "tools" / "follow_metrics.py"
SAY = "import json, os\ndef say(*what):\n    with open(os.environ['TOLD'], 'a') as f: f.write(json.dumps(what) + '\\n')\n"
WANDB = SAY + """
class Run:
    id = 'abc'
    def log(self, metrics, step): say('log', step, metrics)
    def finish(self): say('end')
def init(**k):
    say('init', k)
    return Run()
"""
TRACKIO = SAY + """
def init(**k): say('init', k)
def log(metrics, step): say('log', step, metrics)
def finish(): say('end')
"""
MLFLOW = SAY + """
class Info: run_id = 'abc'
class Started: info = Info()
def set_experiment(name): say('experiment', name)
def start_run(run_id, run_name):
    say('init', {'id': run_id, 'name': run_name})
    return Started()
def log_params(p): say('params', p)
def log_metrics(metrics, step): say('log', step, metrics)
def end_run(): say('end')
"""


def line(step, **more):
    return json.dumps({"step": step, "wall_s": 1.5, "reward/mean": step / 10, "bad": None, "name": "x", **more}) + "\n"


def main():
    for tracker, source in (("wandb", WANDB), ("trackio", TRACKIO), ("mlflow", MLFLOW)):
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            (root / "packages").mkdir()
            (root / "packages" / f"{tracker}.py").write_text(source)
            run = root / "demo"
            run.mkdir()
            (run / "config.toml").write_text("[run]\nseed = 7\n[optimizer]\nlearning_rate = 0.5\n")
            told = root / "told"
            env = {**os.environ, "PYTHONPATH": str(root / "packages"), "TOLD": str(told)}

            def follow(*more):
                return subprocess.Popen([sys.executable, str(TOOL), str(run), "--to", tracker, "--every", "0.05", *more], env=env)

            def said():
                return [json.loads(t) for t in told.read_text().splitlines()] if told.exists() else []

            def steps():
                return [t[1] for t in said() if t[0] == "log"]

            # A run that goes on: whole lines come as they are written, half a line does not.
            metrics = run / "metrics.jsonl"
            metrics.write_text(line(0))
            process = follow()
            deadline = time.monotonic() + 20
            while steps() != [0]:
                assert time.monotonic() < deadline and process.poll() is None, said()
                time.sleep(0.02)
            with metrics.open("a") as f:
                f.write(line(1) + line(2)[:20])
                f.flush()
                while steps() != [0, 1]:
                    assert time.monotonic() < deadline, said()
                    time.sleep(0.02)
                time.sleep(0.2)
                assert steps() == [0, 1], "half a line was told"
                f.write(line(2)[20:])
            (run / "summary.json").write_text("{}")
            assert process.wait(timeout=20) == 0
            assert steps() == [0, 1, 2], said()
            logged = [t for t in said() if t[0] == "log"]
            assert logged[1][2] == {"wall_s": 1.5, "reward/mean": 0.1}, logged
            assert said()[-1] == ["end"]
            flat = json.dumps(said())
            assert "optimizer.learning_rate" in flat and "demo" in flat and "plumb" in flat, flat

            # Started again it says nothing twice, and goes on in the same run of the tracker.
            with metrics.open("a") as f:
                f.write("damaged\n" + line(3))
            assert follow("--once").wait(timeout=20) == 0
            assert steps() == [0, 1, 2, 3], said()
            if tracker != "trackio":
                assert "abc" in json.dumps([t for t in said() if t[0] == "init"][1])
            # A resume that cut the file back is told from its beginning.
            metrics.write_text(line(0))
            assert follow("--once").wait(timeout=20) == 0
            assert steps()[-1] == 0
    # Started by a run: told when to begin, ended by the end of its input (which a run that is killed closes, too); a tracker
    # that hangs keeps it for --patience alone.
    for hangs in (False, True):
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            (root / "trackio.py").write_text(TRACKIO.replace("def finish(): ", "import time\ndef finish(): time.sleep(600); ") if hangs
                                             else TRACKIO)
            run = root / "demo"
            run.mkdir()
            (run / "summary.json").write_text("{}")  # of an earlier life: not the end
            told = root / "told"
            process = subprocess.Popen(
                [sys.executable, "-c", TOOL.read_text(), str(run), "--to", "trackio", "--with-run", "--patience", "1"],
                env={**os.environ, "PYTHONPATH": str(root), "TOLD": str(told), "TRACKIO_PROJECT": "sums"}, stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, text=True)
            assert process.stdout.readline() == "ready\n"
            assert not told.exists()
            (run / "metrics.jsonl").write_text(line(0))
            process.stdin.write("\n")
            process.stdin.flush()
            deadline = time.monotonic() + 20
            while not (told.exists() and '"log"' in told.read_text()):
                assert time.monotonic() < deadline and process.poll() is None
                time.sleep(0.02)
            with (run / "metrics.jsonl").open("a") as f:
                f.write(line(1))
            process.stdin.close()
            assert process.wait(timeout=20) == (4 if hangs else 0)
            said = [json.loads(t) for t in told.read_text().splitlines()]
            assert [t[1] for t in said if t[0] == "log"] == [0, 1] and said[0][1]["project"] == "sums", said
    # Without the package, or the run, it says what to do.
    with tempfile.TemporaryDirectory() as folder:
        missing = subprocess.run([sys.executable, "-S", "-E", str(TOOL), folder, "--to", "wandb", "--once"], capture_output=True,
                                 text=True, check=False)
        assert missing.returncode == 2 and "pip install wandb" in missing.stderr, missing
        nowhere = subprocess.run([sys.executable, str(TOOL), folder + "/x", "--to", "wandb"], capture_output=True, text=True,
                                 check=False)
        assert nowhere.returncode == 3, nowhere
    print("ok")


if __name__ == "__main__":
    main()
