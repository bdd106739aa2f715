"""What it costs to open a long run on the board: bytes read and sent, processor time of the server, and what the page needs.

    python3 bench/board_open.py [--plumb build/plumb] [--steps 100000] [--metrics 60] [--times 5] [--folder DIR]

Makes a run of so many steps (nothing is trained; kept in DIR if given), starts `plumb board` on it and opens it as a browser does.
Processor time is that of the process, so that what else runs on the machine matters less than for the seconds on the clock, which
stand beside it with the load of the machine. The last lines, in a headless Chromium, are left out where there is none."""
import argparse
import json
import math
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests" / "run" / "board"))
import board_page  # noqa: E402  what looks at the board in the tests

# A run of rollouts, as docs/metrics.md names its values.
NAMES = ("reward/mean reward/std reward/zero_std_groups reward/dropped_groups reward/unscored reward/groups reward/correct/mean "
         "reward/format/mean reward/correct/latency_p50 reward/correct/latency_p99 eval/accuracy objective/kl policy/loss policy/entropy "
         "policy/approx_kl policy/clip_fraction policy/ratio policy/groups_used policy/updates response_length/mean response_length/min "
         "response_length/max response_length/clipped optim/grad_norm optim/lr optim/skipped sampling/logprob_diff_mean "
         "sampling/logprob_diff_max offpolicy/staleness_mean offpolicy/staleness_max perf/tokens_per_s perf/decode_tokens_per_s "
         "perf/train_tokens perf/generated_tokens perf/shared_tokens perf/mfu perf/peak_memory_gb time/step time/generate time/train "
         "time/wait time/reward time/publish time/checkpoint replay/inserts replay/bytes replay/duplicates replay/leased replay/released "
         "replay/expired replay/requeued replay/held replay/waiting replay/queue replay/trimmed dropped/unscored dropped/trajectories "
         "refused/stale actor/leases actor/groups_delivered").split()


def make_run(folder, steps, metrics):
    folder.mkdir(parents=True, exist_ok=True)
    names = NAMES[:metrics] + [f"reward/part_{i}/mean" for i in range(metrics - len(NAMES))]
    draw = random.Random(1)
    (folder / "run.json").write_text('{"run_id":"bench","format":1}\n')
    (folder / "config.toml").write_text(f'[run]\nsteps = {steps}\n\n[algorithm]\nname = "grpo"\n')
    with open(folder / "metrics.jsonl", "w") as out:
        for step in range(steps):
            learned = 1 - math.exp(-5 * step / steps)
            values = ",".join(f'"{n}":{learned + 0.1 * draw.gauss(0, 1):.9g}' for n in names)
            out.write(f'{{"step":{step},"wall_s":{1.7e9 + 1.6 * step:.3f},{values}}}\n')
    (folder / "summary.json").write_text(json.dumps({"steps": steps, "wanted_steps": steps, "stopped_early": False}))


def processor_s(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def busiest_thread_s(pid):
    """Of the threads that are there: what nobody else could have done meanwhile."""
    return max(int((task / "schedstat").read_text().split()[0]) for task in pathlib.Path(f"/proc/{pid}/task").iterdir()) / 1e9


def resident_mb(pid):
    return int(re.search(r"VmRSS:\s+(\d+) kB", pathlib.Path(f"/proc/{pid}/status").read_text())[1]) * 1024 / 1e6


class Board:
    def __init__(self, plumb, folder):
        self.process = subprocess.Popen([plumb, "board", "--port", "0", str(folder)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        said = ""
        for line in self.process.stdout:
            said += line
            if found := re.search(r"http://\S+", line):
                self.url = found[0].rstrip("/")
                return
        raise SystemExit(f"{plumb} board does not begin:\n{said}")

    def get(self, path):
        with urllib.request.urlopen(self.url + path) as reply:
            return reply.read()

    def end(self):
        self.process.terminate()
        self.process.wait()


def middle(values):
    return sorted(values)[len(values) // 2]


def spread(values, unit):
    return f"{middle(values):.0f} {unit} ({min(values):.0f} to {max(values):.0f})"


def serve(arguments, folder):
    """Opens it so many times, each on a board that has read nothing yet."""
    first, again, wall, alone, sent, resident = [], [], [], [], 0, 0
    usual = NAMES[:12]
    for _ in range(arguments.times):
        board = Board(arguments.plumb, folder)
        try:
            begin, before = time.monotonic(), processor_s(board.process.pid)
            replies = [board.get("/api/runs"), board.get("/api/runs/big")]
            replies.append(board.get("/api/runs/big/series?points=600&x=step&" + urllib.parse.urlencode([("keys", k) for k in usual])))
            wall.append(1000 * (time.monotonic() - begin))
            first.append(1000 * (processor_s(board.process.pid) - before))
            alone.append(1000 * busiest_thread_s(board.process.pid))
            before = processor_s(board.process.pid)
            for i in range(20):
                board.get(f"/api/runs/big/series?points={600 + i}&x=step&" + urllib.parse.urlencode([("keys", k) for k in usual]))
            again.append(1000 * (processor_s(board.process.pid) - before) / 20)
            sent, resident = sum(map(len, replies)), resident_mb(board.process.pid)
        finally:
            board.end()
    print(f"server, list + facts + 12 curves: {spread(first, 'ms')} of processor time, {spread(alone, 'ms')} of it in one thread, {spread(wall, 'ms')} on the clock, {sent / 1e3:.0f} kB sent")
    print(f"server, 12 curves again: {middle(again):.1f} ms of processor time; {resident:.0f} MB resident")


def look(arguments, folder):
    program = next((p for p in map(shutil.which, board_page.PROGRAMS) if p), None)
    if program is None:
        print("page: not measured, there is no Chromium (Debian: apt-get install chromium)")
        return
    busy, shown = [], []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = board_page.Browser(program, profile)
        try:
            browser.size(1440, 1000, "light")
            browser.call("Performance.enable", timeDomain="threadTicks")
            for i in range(arguments.times + 1):  # the first is Chromium's own start
                board = Board(arguments.plumb, folder)
                try:
                    browser.call("Page.navigate", url="about:blank")
                    cost = lambda: sum(m["value"] for m in browser.call("Performance.getMetrics")["metrics"] if m["name"] == "TaskDuration")
                    before, begin = cost(), time.monotonic()
                    browser.call("Page.navigate", url=f"{board.url}/?{i}#run=big")
                    if not browser.wait_for(board_page.CONTENTS["curves"], 60):
                        raise SystemExit("the curves do not come")
                    if i > 0:
                        shown.append(1000 * (time.monotonic() - begin))
                        busy.append(1000 * (cost() - before))
                finally:
                    board.end()
        finally:
            browser.close()
    print(f"page, until all curves are drawn: {spread(busy, 'ms')} of its main thread, {spread(shown, 'ms')} on the clock, the server's part included")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--plumb", default=str(HERE.parent / "build" / "plumb"))
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--metrics", type=int, default=60)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--folder", help="where the run is kept for the next time")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temp:
        folder = pathlib.Path(arguments.folder or temp)
        if not (folder / "big").exists():
            make_run(folder / "big", arguments.steps, arguments.metrics)
        size = (folder / "big" / "metrics.jsonl").stat().st_size
        print(f"{arguments.steps} steps of {arguments.metrics} metrics, {size / 1e6:.0f} MB; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
        serve(arguments, folder)
        look(arguments, folder)
        print(f"load at the end {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
