"""A small OpenAI-compatible server around the sampler: /v1/models, /v1/completions, /v1/chat/completions.

Requests are answered one at a time, in the order in which they came; the choices of one are drawn together. Who
has hung up by then is passed over. Nothing is streamed. With a seed the texts are those of `jaxlm generate` (of a
conversation of one question: `jaxlm chat`) with that seed; without one they differ from request to request.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import secrets
import signal
import socket
import sys
import time
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from jaxlm.config.errors import Failure, UsageError
from jaxlm.config.sampling import as_trained
from jaxlm.layers.contracts import Call
from jaxlm.models.encoder import Encoder
from jaxlm.runs.directory import read_experiment
from jaxlm.sampling.loop import unstacked
from jaxlm.sampling.several import Prompt, asked, several
from jaxlm.serve import protocol
from jaxlm.serve.protocol import Refused, Wanted
from jaxlm.tokenizers import Tokenizer
from jaxlm.tokenizers.answers import end_of_turn
from jaxlm.tokenizers.conversation import begun, encode
from jaxlm.tokenizers.huggingface import HuggingFaceTokenizer

try:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route
except ImportError as error:
    raise UsageError(f"a server needs {error.name}: pip install 'jaxlm[serve]'") from None

MOST_BYTES = 16 * 2**20
"""Of a request's body."""
PATIENCE = 30
"""Seconds that requests begun before a SIGTERM have to end."""


@dataclass
class Served:
    """A model and what it is asked by."""

    name: str
    model: Any
    tokenizer: Tokenizer
    call: Call
    experiment: Any
    context: int
    """Most tokens of a prompt and its answer together."""
    created: int = 0
    """Seconds since 1970."""


def opened(run: str, name: str, context: int = 0) -> Served:
    """The newest checkpoint of a run under a name; `context` 0 is the length that it was trained with.

    Raises UsageError for an encoder, and what `load_run` raises.
    """
    from jaxlm.train.load import load_run

    experiment = read_experiment(run)
    model, tokenizer, call = load_run(run)
    if isinstance(model, Encoder):
        raise UsageError(f"{run} is an encoder, which draws no text: jaxlm embed compares texts by it")
    length = context or experiment.train.length
    return Served(name, unstacked(model), tokenizer, call, experiment, length, int(time.time()))


def completions(served: Served, body: dict[str, Any]) -> dict[str, Any]:
    """The reply to a request for text that goes on. Raises Refused."""
    _addressed(served, body)
    wanted = protocol.completion(body)
    return _reply(served, wanted, wanted.prompts, served.tokenizer.eos, "cmpl", "text_completion")


def conversation(served: Served, body: dict[str, Any]) -> dict[str, Any]:
    """The reply to a conversation, by the tokenizer's chat template. Raises Refused."""
    _addressed(served, body)
    wanted = protocol.chat(body)
    tokenizer = served.tokenizer
    if not isinstance(tokenizer, HuggingFaceTokenizer) or not tokenizer.template:
        raise Refused(f"{served.name}'s tokenizer has no chat template: ask /v1/completions", "messages")
    try:
        prompt = begun(tokenizer, encode(tokenizer, wanted.messages, generation=True))
    except Failure as error:  # the template's own words
        raise Refused(str(error), "messages") from None
    ids = tuple(prompt.ids.tolist())
    return _reply(served, wanted, (ids,), end_of_turn(tokenizer), "chatcmpl", "chat.completion")


def _addressed(served: Served, body: dict[str, Any]) -> None:
    model = body.get("model")
    if not isinstance(model, str):
        raise Refused(f"model must be a name: there is {served.name!r}", "model")
    _named(served, model)


def _named(served: Served, model: str) -> None:
    if model != served.name:
        raise Refused(f"there is no model {model!r}, only {served.name!r}", "model", "model_not_found", 404)


def _reply(
    served: Served, wanted: Wanted, prompts: tuple[Prompt, ...], stop: int, prefix: str, kind: str
) -> dict[str, Any]:
    options = as_trained(wanted.options, served.experiment)
    if not wanted.seeded:
        options = dataclasses.replace(options, seed=secrets.randbelow(2**31))
    if len(prompts) * options.samples > protocol.MOST_CHOICES:
        raise Refused(f"{len(prompts)} prompts x n {options.samples}: at most {protocol.MOST_CHOICES} answers", "n")
    try:
        read = asked(served.model, served.tokenizer, prompts, options, served.call)
        longest = max(read.lengths)
        room = served.context - longest
        options = options if options.tokens else dataclasses.replace(options, tokens=max(room, 1))
        if options.tokens > room:
            raise Refused(
                f"the prompt has {longest} tokens and {options.tokens} were asked for: together at most "
                f"{served.context}",
                "max_tokens" if longest < served.context else "messages" if wanted.messages else "prompt",
                "context_length_exceeded",
            )
        drawn = several(
            served.model,
            served.tokenizer,
            read,
            options,
            served.call,
            stop=stop,
            texts=wanted.stop,
            best=wanted.best,
        )
    except UsageError as error:
        raise Refused(str(error)) from None
    told, said = sum(read.lengths), sum(one.tokens for one in drawn)
    return {
        "id": f"{prefix}-{secrets.token_hex(12)}",
        "object": kind,
        "created": int(time.time()),
        "model": served.name,
        "choices": [protocol.choice(served.tokenizer, i, one, wanted) for i, one in enumerate(drawn)],
        "usage": {"prompt_tokens": told, "completion_tokens": said, "total_tokens": told + said},
    }


# --- HTTP --------------------------------------------------------------------------------------------------


def application(served: Served) -> Starlette:
    """The server as an ASGI application."""
    turn = asyncio.Lock()

    def posted(answer: Callable[[Served, dict[str, Any]], dict[str, Any]]) -> Callable[..., Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            start = time.monotonic()
            reply = await _guarded(lambda: _answered(request, turn, lambda body: answer(served, body)))
            print(f"{request.url.path} {reply.status_code} {time.monotonic() - start:.2f} s", file=sys.stderr)
            return reply

        return endpoint

    def model() -> dict[str, Any]:
        return {"id": served.name, "object": "model", "created": served.created, "owned_by": "jaxlm"}

    async def models(request: Request) -> Response:
        return _json({"object": "list", "data": [model()]})

    async def one_model(request: Request) -> Response:
        async def found() -> dict[str, Any]:
            _named(served, request.path_params["name"])
            return model()

        return await _guarded(found)

    async def missing(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        said = f"{request.method} {request.url.path!a}: {getattr(error, 'detail', 'failed')}"
        return _json(Refused(said, status=status).as_json(), status)

    routes = [
        Route("/v1/models", models),
        Route("/v1/models/{name:path}", one_model),
        Route("/v1/completions", posted(completions), methods=["POST"]),
        Route("/v1/chat/completions", posted(conversation), methods=["POST"]),
    ]
    return Starlette(routes=routes, exception_handlers={HTTPException: missing})


async def _answered(
    request: Request, turn: asyncio.Lock, answer: Callable[[dict[str, Any]], dict[str, Any]]
) -> dict[str, Any]:
    raw = b""
    async for piece in request.stream():
        raw += piece
        if len(raw) > MOST_BYTES:
            raise Refused(f"the body has more than {MOST_BYTES:,} bytes", status=413)
    body = protocol.body_of(raw)
    async with turn:
        if await request.is_disconnected():  # it was given up, and may have been asked again
            raise Refused("nobody waits for the answer", status=499)
        return await asyncio.to_thread(answer, body)


async def _guarded(found: Callable[[], Awaitable[dict[str, Any]]]) -> Response:
    """What is found as JSON, or why it is not."""
    try:
        return _json(await found())
    except Refused as refused:
        return _json(refused.as_json(), refused.status)
    except Failure as error:
        return _json(Refused(str(error), status=500).as_json(), 500)
    except Exception:
        traceback.print_exc()
        return _json(Refused("the server failed; its own output says why", status=500).as_json(), 500)


def _json(body: dict[str, Any], status: int = 200) -> Response:
    """In ASCII: no text that a client sends can make an answer impossible to write."""
    return Response(json.dumps(body, allow_nan=False), status, media_type="application/json")


def serve(served: Served, host: str, port: int, say: Callable[[str], None]) -> None:
    """Answers until a SIGTERM or an interruption; requests begun by then are answered. Port 0 is any that is free.

    `say` is told the address once requests are taken. Raises Failure for an address that cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
        except OSError as error:
            raise Failure(f"cannot serve at {host}, port {port}: {error.strerror or error}") from None
        listening.listen(128)
        shown = f"[{host}]" if family == socket.AF_INET6 else host
        say(f"http://{shown}:{listening.getsockname()[1]}/v1")
        settings = uvicorn.Config(
            application(served),
            log_level="warning",
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=PATIENCE,
        )
        # uvicorn raises the signal that ended it again, for the handler that was there before its own.
        before = signal.signal(signal.SIGTERM, lambda *_: None)
        try:
            uvicorn.Server(settings).run(sockets=[listening])
        finally:
            signal.signal(signal.SIGTERM, before)
