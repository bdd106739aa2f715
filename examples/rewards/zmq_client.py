"""Asks a worker (`plumb reward serve RECIPE --bind ADDRESS`, or zmq_worker.py) for the scores of some answers.

    python3 zmq_client.py tcp://127.0.0.1:5555 "What is 2 + 2?" 4 "It is 4" "It is 5"
    python3 zmq_client.py tcp://host:5555 --keys worker.pub run.key "What is 2 + 2?" 4 "It is 4"
"""
import json
import sys

import zmq

arguments = sys.argv[1:]
endpoint = arguments.pop(0)
socket = zmq.Context().socket(zmq.REQ)
socket.linger = 0
if arguments[0] == "--keys":
    keys = dict(line.split() for line in open(arguments[2]) if not line.startswith("# "))
    socket.curve_serverkey = open(arguments[1]).read().strip().encode()
    socket.curve_publickey, socket.curve_secretkey = keys["public"].encode(), keys["secret"].encode()
    del arguments[:3]
socket.connect(endpoint)
prompt, ground_truth, *completions = arguments
socket.send_json({"plumb": 1, "id": "example", "deadline_ms": 10000, "prompt": prompt, "ground_truth": ground_truth,
                  "completions": completions})
if not socket.poll(10000):
    sys.exit("no answer within 10 s from " + endpoint)
reply = socket.recv_json()
if "error" in reply:
    sys.exit(reply["error"])
for completion, score in zip(completions, reply["scores"]):
    print(json.dumps(score), completion)
