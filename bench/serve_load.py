#!/usr/bin/env python3
"""Many clients on a server in OpenAI's form, for some seconds: what failed, how long the first token took, how fast tokens came.

    bench/serve_load.py [--url http://127.0.0.1:8000/v1] [--model NAME] [--connections 32] [--seconds 30] [--max-tokens 64]
                        [--prompt TEXT] [--chat] [--api-key-env NAME]

Each connection asks, reads the stream to its end and asks again until the time is over; what runs then is read to its end and
counted. A request has failed whose status is not 200, whose stream says an error, or that ends without [DONE]; 429 counts as
refused, apart. Tokens are those of the answers' usage. Seeds differ from request to request and are the same from run to run. Where
the server shares its cores with this script, the script's own share is in the numbers; the load of the machine stands beside.
Any server of this API can be asked. Exit code 1: a request failed."""
import argparse
import http.client
import json
import os
import sys
import threading
import time
import urllib.parse


class Client(threading.Thread):
    def __init__(self, options, number, until):
        super().__init__(daemon=True)
        self.options, self.number, self.until = options, number, until
        self.first, self.whole, self.tokens = [], [], 0
        self.failed, self.refused, self.problems = 0, 0, []

    def run(self):
        asked = 0
        while time.monotonic() < self.until:
            seed = self.number * 1000003 + asked
            asked += 1
            try:
                self.ask(seed)
            except (OSError, http.client.HTTPException, ValueError, KeyError) as problem:
                self.fail(repr(problem))

    def fail(self, why):
        self.failed += 1
        if len(self.problems) < 3:
            self.problems.append(why)

    def ask(self, seed):
        o = self.options
        place = urllib.parse.urlsplit(o.url)
        body = {"max_tokens": o.max_tokens, "seed": seed, "stream": True, "stream_options": {"include_usage": True}}
        if o.model:
            body["model"] = o.model
        if o.chat:
            body["messages"] = [{"role": "user", "content": o.prompt}]
        else:
            body["prompt"] = o.prompt
        headers = {"Content-Type": "application/json"}
        if o.api_key_env:
            headers["Authorization"] = "Bearer " + os.environ[o.api_key_env]
        connection = http.client.HTTPConnection(place.hostname, place.port, timeout=300)
        begin = time.monotonic()
        try:
            connection.request("POST", place.path + ("/chat" if o.chat else "") + "/completions", json.dumps(body), headers)
            reply = connection.getresponse()
            if reply.status == 429:
                self.refused += 1
                reply.read()
                time.sleep(0.1)
                return
            if reply.status != 200:
                self.fail(f"{reply.status} {reply.read(300)!r}")
                return
            first, done = None, False
            for line in reply:
                if line.startswith(b"data: [DONE]"):
                    done = True
                elif line.startswith(b"data: "):
                    event = json.loads(line[6:])
                    if "error" in event:
                        self.fail(str(event["error"]))
                        return
                    if first is None:
                        first = time.monotonic() - begin
                    if event.get("usage"):
                        self.tokens += event["usage"]["completion_tokens"]
            if not done:
                self.fail("the stream ended without [DONE]")
                return
            self.first.append(first)
            self.whole.append(time.monotonic() - begin)
        finally:
            connection.close()


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--url", default="http://127.0.0.1:8000/v1")
    parser.add_argument("--model", default="")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--prompt", default="Write one sentence about the sea.")
    parser.add_argument("--chat", action="store_true")
    parser.add_argument("--api-key-env", default="")
    options = parser.parse_args()
    begin = time.monotonic()
    clients = [Client(options, i, begin + options.seconds) for i in range(options.connections)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    seconds = time.monotonic() - begin
    first = [t for c in clients for t in c.first]
    whole = [t for c in clients for t in c.whole]
    tokens, failed = sum(c.tokens for c in clients), sum(c.failed for c in clients)
    print(f"{options.connections} connections, {seconds:.1f} s, load of the machine {os.getloadavg()[0]:.1f}")
    print(f"answered {len(whole)}, failed {failed}, refused (429) {sum(c.refused for c in clients)}")
    print(f"first token: p50 {percentile(first, 0.5):.3f} s, p99 {percentile(first, 0.99):.3f} s")
    print(f"whole answer: p50 {percentile(whole, 0.5):.3f} s, p99 {percentile(whole, 0.99):.3f} s")
    print(f"{tokens} tokens, {tokens / seconds:.1f} tokens/s")
    for problem in [p for c in clients for p in c.problems][:5]:
        print("failed:", problem, file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
