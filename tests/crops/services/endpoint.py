"""A real HTTP server on a free port whose answers a test writes: status, headers and body per request. No
test in here.
"""

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def completion(text, tokens=10):
    return {
        "choices": [{"message": {"role": "assistant", "content": text}}],
        "usage": {"total_tokens": tokens},
    }


def videos(*captions):
    def video(caption):
        return {
            "caption": caption,
            "tags": ["t"],
            "cover": "",
            "keywords": ["k"],
            "related_queries": [f"find {caption}"],
        }

    return json.dumps({"videos": [video(caption) for caption in captions]})


class Endpoint:
    """`reply(n, body)` of the n-th request (from 0) gives (status, headers, text or JSON); requests are
    recorded with times.
    """

    def __init__(self, reply):
        self.reply, self.bodies, self.times, self.lock = reply, [], [], threading.Lock()
        self.now = self.most = 0
        self.url = ""

    def take(self, body):
        with self.lock:
            self.bodies.append(body)
            self.times.append(time.monotonic())
            self.now += 1
            self.most = max(self.most, self.now)
            return len(self.bodies) - 1

    def left(self):
        with self.lock:
            self.now -= 1

    @property
    def questions(self):
        return [body["messages"][-1]["content"] for body in self.bodies]


@contextmanager
def served(reply):
    found = Endpoint(reply)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            number = found.take(body)
            try:
                status, headers, answer = found.reply(number, body)
            finally:
                found.left()
            time.sleep(float(headers.get("X-Before-S", 0)))
            data = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            pause_s = float(headers.get("X-Per-Byte-S", 0))
            for piece in [data[i : i + 1] for i in range(len(data))] if pause_s else [data]:
                self.wfile.write(piece)
                time.sleep(pause_s)

        def log_message(self, *_args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_args: (
        None
    )  # a client that was killed or ran out of time is part of the tests
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    found.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
