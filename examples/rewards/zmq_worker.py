"""A reward as a ZeroMQ worker: one JSON message in, one out. Needs pyzmq (Debian: python3-zmq, PyPI: pyzmq).

    python3 zmq_worker.py tcp://127.0.0.1:5555

    [[reward.parts]]
    name = "numbers"
    kind = "zmq"
    endpoint = "tcp://127.0.0.1:5555"

With keys (`plumb keys generate worker`, `plumb keys generate run`) it may stand on another machine:

    python3 zmq_worker.py "tcp://*:5555" worker.key allowed.txt
"""
import sys

import zmq


def score(prompt, completion, ground_truth):
    """1 for the right number as the last word, 0.1 for any number, else 0; None would say: does not apply."""
    words = completion.rstrip(".").split()
    if words and words[-1] == ground_truth:
        return 1.0
    return 0.1 if any(word.isdigit() for word in words) else 0.0


def guard(context, socket, key_file, allowed_file):
    """Only the clients whose public keys stand in allowed_file, one a line, may ask."""
    from zmq.auth.thread import ThreadAuthenticator
    keys = dict(line.split() for line in open(key_file) if not line.startswith("# "))
    socket.curve_publickey, socket.curve_secretkey = keys["public"].encode(), keys["secret"].encode()
    socket.curve_server = True
    allowed = {line.split()[0].encode() for line in open(allowed_file) if line.strip() and not line.startswith("# ")}

    class Allowed:
        def callback(self, domain, key):
            return key in allowed  # 40 characters of Z85

    authenticator = ThreadAuthenticator(context)
    authenticator.start()
    authenticator.configure_curve_callback(domain="*", credentials_provider=Allowed())
    return authenticator


def main():
    context = zmq.Context()
    socket = context.socket(zmq.REP)
    authenticator = guard(context, socket, *sys.argv[2:4]) if len(sys.argv) > 2 else None
    socket.bind(sys.argv[1])
    print("ready", flush=True)
    try:
        while True:
            request = socket.recv_json()
            scores = [score(request["prompt"], completion, request["ground_truth"]) for completion in request["completions"]]
            socket.send_json({"id": request["id"], "scores": scores})
    finally:
        if authenticator:
            authenticator.stop()


main()
