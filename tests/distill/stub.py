"""A teacher that misbehaves as it is told to, and remembers every request."""

import contextlib
import json
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def reply(body, *texts, reason="stop", usage=(10, 5), **more):
    """A reply of status 200; without texts, what is asked and its seed."""
    count = body.get("n", 1)
    texts = texts or [f"{body['messages'][-1]['content']} #{body.get('seed', 0) + i}" for i in range(count)]
    choices = [
        {"index": i, "message": {"role": "assistant", "content": text}, "finish_reason": reason}
        for i, text in enumerate(texts)
    ]
    told = {"prompt_tokens": usage[0], "completion_tokens": usage[1] * count} if usage else None
    return 200, {"id": "x", "model": "stub-1", "choices": choices, "usage": told} | more


class Stub:
    """`behave(body, tries) -> (status, JSON or bytes, headers)`, or a function that is given the handler; tries
    counts the requests with the same messages and seed, this one included.
    """

    def __init__(self, behave=lambda body, tries: reply(body)):
        self.behave, self.lock = behave, threading.Lock()
        self.bodies, self.headers, self.times, self.tries = [], [], [], Counter()
        self.flying = self.most_flying = 0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_address[1]}/v1"

    def answer(self, handler):
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self.lock:
            self.bodies.append(body)
            self.headers.append(dict(handler.headers))
            self.times.append(time.monotonic())
            self.tries[name := (json.dumps(body["messages"]), body.get("seed"))] += 1
            tries = self.tries[name]
            self.flying += 1
            self.most_flying = max(self.flying, self.most_flying)
        try:
            found = self.behave(body, tries)
            if callable(found):
                found(handler)
                return
            status, content, *headers = found
            raw = content if isinstance(content, bytes) else json.dumps(content).encode()
            handler.send_response(status)
            for header, value in {"Content-Length": str(len(raw)), **(headers[0] if headers else {})}.items():
                handler.send_header(header, value)
            handler.end_headers()
            handler.wfile.write(raw)
        finally:
            with self.lock:
                self.flying -= 1


@contextlib.contextmanager
def stubbed(*given):
    stub = Stub(*given)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                stub.answer(self)

        def log_message(self, *_):
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False
        request_queue_size = 64

    stub.server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=stub.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield stub
    finally:
        stub.server.shutdown()
        stub.server.server_close()
