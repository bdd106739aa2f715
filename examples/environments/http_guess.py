#!/usr/bin/env python3
"""An environment on another machine: kind = "http", a POST for each request. Argument: PORT (0: any; it is printed)."""
import http.server
import json
import sys

numbers = {}


def answer(request):
    if request["call"] == "hello":
        return {"ready": True}
    reply, episode = {"id": request["id"]}, request["episode"]
    if request["call"] == "begin":
        numbers[episode] = request["ground_truth"]
        reply["observation"] = "I think of a number from 1 to 20. Write a number."
    elif request["call"] == "end":
        numbers.pop(episode, None)
    else:
        right = request["text"].strip() == numbers[episode]
        reply.update(observation="right" if right else "wrong", reward=float(right), done=right)
    return reply


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.dumps(answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
