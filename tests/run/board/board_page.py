"""Opens a board in headless Chromium and looks at it as a person would: every tab, wide and narrow, light and dark, by keyboard.

    python3 board_page.py URL FOLDER [--run NAME] [--with NAME]... [--tabs curves,samples]

Says what it looks at, a line each, while it goes on. A run that has no answers, or dropped nothing, has to say so in its tab.
Fails (1) on an error in the console, a refused resource, a request to another place, a page wider than its window, a tab without
its contents, a run that takes longer than --open-ms to open. Screenshots go to FOLDER. Exit code 77: there is no Chromium. Needs
nothing but Python: it speaks the DevTools protocol over a pipe."""
import argparse
import base64
import json
import os
import pathlib
import select
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

SKIPPED = 77
PROGRAMS = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]


class Browser:
    """One Chromium with one page."""

    def __init__(self, program, profile):
        to_read, self.write = os.pipe()
        self.read, to_write = os.pipe()
        # Chromium reads its orders from descriptor 3 and answers on 4.
        command = ["/bin/sh", "-c", f'exec 3<&{to_read} 4>&{to_write}; exec "$@"', "sh", program, "--headless", "--remote-debugging-pipe",
                   "--no-first-run", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage", "--disable-background-networking",
                   f"--user-data-dir={profile}"] + (["--no-sandbox"] if os.geteuid() == 0 else [])
        self.process = subprocess.Popen(command, pass_fds=[to_read, to_write], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(to_read)
        os.close(to_write)
        self.buffer, self.number, self.events, self.session = b"", 0, [], None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(domain + ".enable")

    def close(self):
        self.process.kill()
        self.process.wait()

    def message(self, deadline):
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.read], [], [], max(0, deadline - time.monotonic()))
            if not ready:
                return None
            piece = os.read(self.read, 1 << 20)
            if not piece:
                raise SystemExit("Chromium ended")
            self.buffer += piece
        one, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(one)

    def call(self, method, **parameters):
        self.number += 1
        order = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            order["sessionId"] = self.session
        os.write(self.write, json.dumps(order).encode() + b"\0")
        deadline = time.monotonic() + 30
        while True:
            said = self.message(deadline)
            if said is None:
                raise SystemExit(f"Chromium does not answer {method}")
            if said.get("id") == self.number:
                if "error" in said:
                    raise SystemExit(f"{method}: {said['error']}")
                return said["result"]
            self.events.append(said)

    def evaluate(self, expression):
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise SystemExit(f"{expression}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def wait_for(self, expression, seconds=10):
        deadline = time.monotonic() + seconds
        while not self.evaluate(expression):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def size(self, width, height, scheme):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def screenshot(self, path):
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def key(self, name, code):
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=code)


# What has to be there in a tab, once its data have come; or EMPTY, where the run has nothing of it.
CONTENTS = {
    "curves": "document.querySelector('.chart') !== null && [...document.querySelectorAll('.chart')].every(c => c.querySelector('path'))",
    "samples": "document.querySelectorAll('.answer').length > 0",
    "ring": "document.querySelectorAll('.node').length === 5",
    "drops": "document.querySelectorAll('.drops tbody tr').length > 0",
    "recipe": "document.querySelectorAll('.recipe tbody tr').length > 0",
}


EMPTY = "document.querySelector('#view .empty') !== null"
NAME_OF_DROPS = ("dropped/", "refused/", "reopened/")


def has_nothing_of(arguments):
    """The tabs for which the server has nothing of this run."""
    if not arguments.run:
        return set()
    base = f"{arguments.url.rstrip('/')}/api/runs/{urllib.parse.quote(arguments.run, safe='')}"

    def get(path):
        with urllib.request.urlopen(base + path, timeout=60) as reply:
            return json.load(reply)

    values, nothing = get("")["values"], set()
    if not get("/samples")["answers"]:
        nothing.add("samples")
    if not any(name.startswith(NAME_OF_DROPS) and v["value"] for name, v in values.items()):
        nothing.add("drops")
    if "replay/leased" not in values and any(name in values for name in ("dpo/loss", "rm/loss", "sft/loss")):
        nothing.add("ring")
    return nothing


def problems_of(events, origin):
    for event in events:
        what, given = event.get("method"), event.get("params", {})
        if what == "Runtime.exceptionThrown":
            details = given["exceptionDetails"]
            yield "exception: " + details.get("exception", {}).get("description", details["text"])
        elif what == "Runtime.consoleAPICalled" and given["type"] in ("error", "warning", "assert"):
            yield "console: " + " ".join(str(a.get("value", a.get("description"))) for a in given["args"])
        elif what == "Log.entryAdded" and given["entry"]["level"] in ("error", "warning"):
            yield "log: " + given["entry"]["text"] + " " + given["entry"].get("url", "")
        elif what == "Network.requestWillBeSent":
            url = given["request"]["url"]
            if not url.startswith(origin) and not url.startswith(("data:", "about:")):
                yield "asks another place: " + url


def look(browser, arguments, out, problems):
    origin = arguments.url.rstrip("/")
    query = [("run", arguments.run)] * bool(arguments.run) + [("with", w) for w in arguments.also]
    times, nothing = [], has_nothing_of(arguments)
    tabs = {tab: f"{there} || {EMPTY}" if tab in nothing else there for tab, there in CONTENTS.items() if tab in arguments.tabs}

    def hash_of(tab, more=()):
        return "#" + urllib.parse.urlencode(query + [("tab", tab), *more])

    for width, height, scheme in ((1440, 1000, "light"), (390, 844, "dark"), (1440, 1000, "dark"), (390, 844, "light")):
        browser.size(width, height, scheme)
        for tab, there in tabs.items():
            begin = time.monotonic()
            # a new page each time: the address alone has to lead there
            browser.call("Page.navigate", url=f"{origin}/?{width}{scheme}{tab}" + hash_of(tab, [("x", "time"), ("smooth", "0.9")] if scheme == "dark" else []))
            name = f"{tab} at {width} px, {scheme}"
            print(f"{name}: ", end="", flush=True)
            came = browser.wait_for(there, arguments.wait)
            print(f"{1000 * (time.monotonic() - begin):.0f} ms" if came else f"not there after {arguments.wait:.0f} s", flush=True)
            if not came:
                problems.append(f"{name}: its contents do not come: " + str(browser.evaluate("document.getElementById('view').innerText"))[:200])
            elif tab == "curves":
                times.append(1000 * (time.monotonic() - begin))
            browser.wait_for("document.querySelector('.link.live') !== null", 3)
            time.sleep(arguments.settle)
            wide = browser.evaluate("document.documentElement.scrollWidth - innerWidth")
            if wide > 0:
                problems.append(f"{name}: {wide} px wider than its window")
            browser.screenshot(out / f"{tab}_{width}_{scheme}.png")

    if set(arguments.tabs) != set(CONTENTS):
        problems.extend(problems_of(browser.events, origin))
        return times
    # By keyboard: along the tabs, into a chart, along its curve, the list.
    browser.size(1440, 1000, "light")
    browser.call("Page.navigate", url=f"{origin}/?keys" + hash_of("curves"))
    print("by keyboard", flush=True)
    browser.wait_for(CONTENTS["curves"])
    browser.evaluate("document.querySelector('[role=tab][aria-selected=true]').focus()")
    browser.key("ArrowRight", 39)
    if browser.evaluate("document.activeElement.dataset.tab") != "samples" or not browser.wait_for(tabs["samples"]):
        problems.append("the right arrow does not lead to the next tab")
    browser.key("ArrowLeft", 37)
    browser.wait_for(CONTENTS["curves"])
    browser.evaluate("document.querySelector('.chart > svg').focus()")
    browser.key("ArrowLeft", 37)
    if not browser.wait_for("document.querySelectorAll('.cross').length > 0", 2):
        problems.append("the arrow keys read no value of a chart")
    browser.key("/", 191)
    if browser.evaluate("document.activeElement.id") != "find":
        problems.append("/ does not lead to the search of runs")
    browser.evaluate("document.querySelector('.chart .large').click()")
    if not browser.evaluate("document.querySelector('.chart svg').clientHeight > 250"):
        problems.append("a chart does not become large")
    time.sleep(arguments.settle)
    browser.screenshot(out / "large_1440_light.png")
    # Another run by its button, and one more to compare.
    before = browser.evaluate("location.hash")
    browser.evaluate("[...document.querySelectorAll('.runs .run')].pop().click()")
    if browser.evaluate("location.hash") == before:
        problems.append("a run that is chosen does not stand in the address")
    problems.extend(problems_of(browser.events, origin))
    return times


def look_refused(browser, arguments, problems):
    """A page that gets no events shows the steps that come all the same."""
    browser.size(1440, 1000, "light")
    browser.call("Page.navigate", url=f"{arguments.url.rstrip('/')}/#" + urllib.parse.urlencode([("run", arguments.run)]))
    shown = "(document.querySelector('.tile.wide b') || {textContent: ''}).textContent"
    print("waits for the curves of a page without events", flush=True)
    if not browser.wait_for(CONTENTS["curves"], arguments.wait):
        problems.append("no curves without events")
    if not browser.wait_for("document.querySelector('.link.polling') !== null", arguments.wait):
        problems.append("the page does not say that it asks by itself: " + str(browser.evaluate("document.getElementById('link').textContent")))
    before = browser.evaluate(shown)
    path = "(document.querySelector('.chart path.line') || document.body).getAttribute('d')"
    drawn = browser.evaluate(path)
    print(f"waits for a step after {before}", flush=True)
    if not browser.wait_for(f"{shown} !== {json.dumps(before)} && {path} !== {json.dumps(drawn)}", 2 * arguments.wait):
        problems.append("a step that came is not shown without events")
    # The refusal itself stands in the browser's log; nothing else may.
    problems.extend(p for p in problems_of(browser.events, arguments.url.rstrip("/")) if "503" not in p)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("folder")
    parser.add_argument("--run", default="")
    parser.add_argument("--with", dest="also", action="append", default=[])
    parser.add_argument("--tabs", type=lambda s: s.split(","), default=list(CONTENTS), help="only these, with commas between")
    parser.add_argument("--wait", type=float, default=10, help="seconds for the contents of a tab")
    parser.add_argument("--refused", action="store_true", help="the board takes no reader of events: the page has to ask by itself")
    parser.add_argument("--open-ms", type=float, default=0, help="bound of the median time to the first curves; 0: none")
    parser.add_argument("--settle", type=float, default=0.3, help="seconds before a screenshot")
    arguments = parser.parse_args()
    program = next((p for p in map(shutil.which, PROGRAMS) if p), None)
    if program is None:
        print("SKIPPED: no Chromium here (Debian: apt-get install chromium): the board's page was not looked at")
        return SKIPPED
    out = pathlib.Path(arguments.folder)
    out.mkdir(parents=True, exist_ok=True)
    problems = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(program, profile)
        try:
            times = [] if arguments.refused else look(browser, arguments, out, problems)
            if arguments.refused:
                look_refused(browser, arguments, problems)
        finally:
            browser.close()
    if times:
        middle = sorted(times)[len(times) // 2]
        print(f"all curves after {middle:.0f} ms (of {', '.join(f'{t:.0f}' for t in times)})")
        if 0 < arguments.open_ms < middle:
            problems.append(f"it took {middle:.0f} ms to show curves; at most {arguments.open_ms:.0f}")
    for problem in problems:
        print("PROBLEM:", problem)
    print(f"screenshots: {out}; {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
