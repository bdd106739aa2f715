"""Opens a page in a headless Chromium and says what is wrong with it: errors of the console, requests to
anything but the file itself, more width than the window has, curves that were not drawn. Talks to the browser over its own
pipe, so that nothing but Python is needed.

    check_page.py PAGE.html [--size 1440x900]... [--picture PATH] [--dark]

Prints one JSON object for each size; exits 77 when there is no Chromium, 1 when something is wrong."""
import argparse
import base64
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

BROWSERS = ["chromium", "chromium-browser", "google-chrome", "chrome"]
PART = 1600  # pixels of a picture, from top to bottom

# What a person would see: run in the page once it is drawn.
LOOK = """(() => {
  const shown = [...document.querySelectorAll('.chart')].filter(c => c.offsetParent);
  const drawn = c => [...c.querySelectorAll('path.line')].every(p => p.getAttribute('d').startsWith('M') &&
    !/NaN|Infinity/.test(p.getAttribute('d')));
  return {
    width: document.documentElement.clientWidth,
    needs: document.documentElement.scrollWidth,
    charts: shown.length,
    empty: shown.filter(c => !c.querySelector('path.line') || !drawn(c)).map(c => c.querySelector('figcaption').textContent),
    bad: [...document.querySelectorAll('.chart svg *')].filter(e =>
      [...e.attributes].some(a => /NaN|Infinity|undefined/.test(a.value))).length,
    samples: document.querySelectorAll('.sample').length,
    titles: shown.map(c => c.querySelector('figcaption b').textContent),
    ready_ms: Math.round(performance.timing.domContentLoadedEventEnd - performance.timing.navigationStart),
  };
})()"""
# Moving over a chart and the slider have to work, too.
USE = """(() => {
  const svg = document.querySelector('.chart svg');
  if (!svg) return {};
  const box = svg.getBoundingClientRect();
  svg.dispatchEvent(new PointerEvent('pointermove', {clientX: box.left + box.width / 2, bubbles: true}));
  const pointed = document.querySelector('.chart .value').textContent;
  const crosses = document.querySelectorAll('.chart .cross').length;
  svg.dispatchEvent(new PointerEvent('pointerleave'));
  svg.focus();
  svg.dispatchEvent(new KeyboardEvent('keydown', {key: 'Home', bubbles: true}));
  const keyed = document.querySelectorAll('.chart .cross').length > 0 && / at step /.test(svg.getAttribute('aria-label'));
  svg.blur();
  const large = document.querySelector('.chart .large'), height = svg.clientHeight;
  large.click();
  const grown = svg.clientHeight > height && svg.viewBox.baseVal.height === svg.clientHeight;
  large.click();
  const line = () => document.querySelector('.chart path.line').getAttribute('d');
  const slider = document.getElementById('smooth');
  const before = line();
  slider.value = '30';
  slider.dispatchEvent(new Event('input'));
  const changed = line() !== before;
  slider.value = '5';
  slider.dispatchEvent(new Event('input'));
  return {pointed, crosses, changed, keyed, grown};
})()"""
# What the drawing code reckons, against numbers worked out by hand: expression, value.
KNOWN = [
    ("PlumbCharts.smooth([5, 5, 5], 9).mean", [5, 5, 5]),
    # Of window 3 a value weighs half of the next: (2 + 1 / 2) / (1 + 1 / 2), and a gap is no value.
    ("PlumbCharts.smooth([1, null, 2], 3).mean.map(v => v === null ? v : +v.toFixed(6))", [1, None, 1.666667]),
    ("PlumbCharts.smooth([0, 2], 3).deviation.map(v => +v.toFixed(6))", [0, 0.942809]),
    ("PlumbCharts.smooth([1e9, 1e9 + 1, 1e9], 1e6).deviation.map(v => +v.toFixed(3))", [0, 0.5, 0.471]),
    ("PlumbCharts.ticks(0.1, 1, 4)", [0.25, 0.5, 0.75, 1]),
    ("PlumbCharts.ticks(-3, 7, 2)", [0, 5]),
    ("[[], [4], [1, 5, 9]].map(x => PlumbCharts.nearest(x, 6))", [-1, 0, 1]),
    ("[0, 0.5, 12, 123.456, 12345, 1e8, 1e-5, null, NaN].map(v => PlumbCharts.format(v))",
     ["0", "0.500", "12", "123.5", "12\u202f345", "100 M", "1.0e\u22125", "not finite", "\u2013"]),
    ("[0.0123, 0.5, 1].map(v => PlumbCharts.format(v, true))", ["1.2 %", "50 %", "100 %"]),
    ("[0, 59.6, 754, 7384, 200000].map(PlumbCharts.duration)", ["0 s", "1 min 0 s", "12 min 34 s", "2 h 3 min", "2 d 7 h"]),
    # A share looks back over that part of the curve; a weight w over (1 + w) / (1 - w) points, of curves with more than 60.
    ("[[{share: 0.05}, 1000], [{weight: 0.6}, 61], [{weight: 0.6}, 60], [{weight: 0}, 1000]].map(([how, n]) => "
     "+PlumbCharts.windowOf(how, n).toFixed(6))", [50, 4, 1, 1]),
]


class Browser:
    """Chromium, and the DevTools protocol over its descriptors 3 and 4: JSON, each message ended by a zero."""

    def __init__(self, program, folder):
        to_read, self.write = os.pipe()
        self.read, to_write = os.pipe()
        # 3 and 4 are the numbers that the browser expects.
        line = [program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe",
                f"--user-data-dir={folder}", "--no-first-run", "--disable-extensions", "about:blank"]
        shell = f"exec 3<&{to_read} 4>&{to_write}; exec \"$0\" \"$@\""
        self.process = subprocess.Popen(["bash", "-c", shell] + line, pass_fds=[to_read, to_write],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(to_read)
        os.close(to_write)
        self.buffer, self.number, self.events, self.session = b"", 0, [], None

    def next_message(self):
        while b"\0" not in self.buffer:
            piece = os.read(self.read, 1 << 16)
            if not piece:
                raise RuntimeError("the browser has ended")
            self.buffer += piece
        message, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(message)

    def call(self, method, **parameters):
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.next_message()
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self.events.append(answer)

    def wait(self, method):
        while True:
            for event in self.events:
                if event.get("method") == method:
                    return
            self.events.append(self.next_message())

    def value(self, expression):
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(json.dumps(result["exceptionDetails"]))
        return result["result"].get("value")

    def end(self):
        self.process.kill()
        self.process.wait()


def complaints(events, page):
    found = []
    for event in events:
        method, parameters = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            found.append("exception: " + details.get("exception", {}).get("description", details["text"]))
        elif method == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning", "assert"):
            found.append("console: " + json.dumps(parameters["args"]))
        elif method == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
            found.append("log: " + parameters["entry"]["text"])
        elif method == "Network.requestWillBeSent" and not parameters["request"]["url"].startswith((page, "data:", "about:")):
            found.append("asks for " + parameters["request"]["url"])
    return found


def look(browser, page, size, arguments):
    width, height = map(int, size.split("x"))
    browser.events = []
    browser.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
    if arguments.dark:
        browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    began = time.monotonic()
    browser.call("Page.navigate", url=page)
    browser.wait("Page.loadEventFired")
    browser.value("new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))")
    seen = browser.value(LOOK)
    seen["opened_s"] = round(time.monotonic() - began, 2)
    seen.update(browser.value(USE))
    wrong = [f"{expression} is {found}, not {expected}" for expression, expected in KNOWN
             if (found := browser.value(expression)) != expected]
    wrong += complaints(browser.events, page)
    if seen["needs"] > seen["width"]:
        wrong.append(f"needs {seen['needs']} pixels of {seen['width']}")
    if seen["empty"]:
        wrong.append(f"charts without a line: {seen['empty']}")
    if seen["bad"]:
        wrong.append(f"{seen['bad']} shapes with a coordinate that is no number")
    if seen["charts"] and not (seen["changed"] or seen["pointed"]):
        wrong.append("neither pointing nor the slider does anything")
    if seen["charts"] and not (seen["keyed"] and seen["grown"]):
        wrong.append("the arrow keys, or the button that makes a chart large, do nothing")
    if arguments.picture:
        whole = browser.value("document.documentElement.scrollHeight")
        for part, top in enumerate(range(0, whole, PART)):
            clip = {"x": 0, "y": top, "width": width, "height": min(PART, whole - top), "scale": 1}
            picture = browser.call("Page.captureScreenshot", captureBeyondViewport=True, format="png", clip=clip)
            pathlib.Path(f"{arguments.picture}-{size}{'-dark' * arguments.dark}-{part}.png").write_bytes(base64.b64decode(picture["data"]))
    print(json.dumps({"size": size, **seen, "wrong": wrong}))
    return not wrong


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("page")
    parser.add_argument("--size", action="append")
    parser.add_argument("--picture", help="pictures of the whole page, as PICTURE-SIZE-0.png and on")
    parser.add_argument("--dark", action="store_true")
    arguments = parser.parse_args()
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        print("no chromium here: apt-get install chromium")
        return 77
    page = pathlib.Path(arguments.page).resolve().as_uri()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        browser = Browser(program, folder)
        try:
            target = browser.call("Target.createTarget", url="about:blank")["targetId"]
            browser.session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                browser.call(domain + ".enable")
            fine = [look(browser, page, size, arguments) for size in arguments.size or ["1440x900", "390x844"]]
        finally:
            browser.end()
    return 0 if all(fine) else 1


if __name__ == "__main__":
    sys.exit(main())
