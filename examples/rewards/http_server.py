"""A reward as an HTTP server of the form that OpenRLHF users have: POST /get_reward. Standard library only.

    python3 http_server.py 8000

    [[reward.parts]]
    name = "numbers"
    kind = "http"
    api = "openrlhf"
    endpoint = "http://127.0.0.1:8000/get_reward"

The same server answers slime's form at /rm: POST {"prompt","response","label"} (api = "slime").
"""
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def score(answer, label):
    """1 for the right number as the last word, 0.1 for any number, else 0."""
    words = answer.rstrip(".").split()
    if words and words[-1] == label:
        return 1.0
    return 0.1 if any(word.isdigit() for word in words) else 0.0


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keeps the connection open between groups
    disable_nagle_algorithm = True  # headers and body are two writes: the second would wait 40 ms for the first to arrive

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/get_reward":
            answers = [query[len(prompt):] for query, prompt in zip(request["query"], request["prompts"])]
            rewards = [score(answer, label) for answer, label in zip(answers, request["labels"])]
            reply = {"rewards": rewards, "scores": rewards, "extra_logs": {"words": [len(a.split()) for a in answers]}}
        else:
            reply = {"score": score(request["response"], request["label"])}
        body = json.dumps(reply).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass  # one line a request is too much


server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
print("http://127.0.0.1:%d" % server.server_port, flush=True)
server.serve_forever()
