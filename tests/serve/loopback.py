"""A server of a tiny random model on a free port of this machine, and one request to it."""

import contextlib
import json
import socket
import threading
import urllib.error
import urllib.request

import uvicorn

from jaxlm import config
from jaxlm.interop import exchange
from jaxlm.interop.imported import bring
from jaxlm.serve.minimal import application, opened
from tests.tiny import random_model
from tests.tokenizers import trained

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools') }}{% endif %}"
    "{{ m.role + ': ' + m.content + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
BLOCK = config.Block(config.Attention(heads=2, kv_heads=1, head=8), config.Gated(24))
KIND = config.Decoder(vocab=453, embed=16, layers=2, block=BLOCK)


def run_of(path):
    """The run of a model that answers by a chat template."""
    files = trained.write("byte_bpe", path / "files", chat_template=TEMPLATE)
    contents = {one.name: one.read_bytes() for one in files.iterdir()}
    exchange.save(KIND, random_model(KIND, std=1.0), path / "small", length=256, files=contents)
    with contextlib.chdir(path):
        return str((path / bring(path / "small")).resolve())


@contextlib.contextmanager
def serving(run, name="tiny"):
    """Its address while it serves, in a thread."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        settings = uvicorn.Config(application(opened(run, name)), log_level="warning", lifespan="off")
        server = uvicorn.Server(settings)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        finally:
            server.should_exit = True
            thread.join()


def ask(url, body=None, method=None):
    """(Status, JSON) of a GET, or of a POST of a body, which is JSON or bytes."""
    raw = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, raw, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
