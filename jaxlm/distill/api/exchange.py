"""One request over HTTP and what came back, with no key in anything that is returned or raised."""

from __future__ import annotations

import email.utils
import http.client
import os
import re
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from jaxlm.config.errors import Failure, UsageError

MOST_BYTES = 64 * 2**20
"""Of a reply."""
PIECE = 2**16


@dataclass(frozen=True)
class Response:
    """What a server sent."""

    status: int
    body: bytes
    retry_after: float | None = None
    """Seconds that it asks to be left alone."""


class Unreached(Exception):
    """No reply. `sent` says whether the request may have arrived, and so may be paid for."""

    def __init__(self, message: str, sent: Literal["no", "maybe"]):
        super().__init__(message)
        self.sent = sent


Send = Callable[[bytes, Mapping[str, str]], Response]
"""(A request's body, further headers) -> the response, of any status. Raises Unreached."""


def secret_of(name: str) -> str:
    """The key in an environment variable. Raises UsageError for one that is not set or no key."""
    if not name:
        return ""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise UsageError("--key-env takes the name of an environment variable, not the key itself")
    value = os.environ.get(name, "").strip()
    if not value:
        raise UsageError(f"--key-env {name}: there is no such environment variable, or it is empty")
    if not re.fullmatch(r"[!-~]+", value):
        raise UsageError(f"--key-env {name}: its value is no key: it has spaces or other than ASCII characters")
    return value


def endpoint(url: str) -> str:
    """The address of /chat/completions below a base such as http://127.0.0.1:8000/v1. Raises UsageError."""
    try:
        parts = urllib.parse.urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port)
    except ValueError:
        good = False
    if not good:
        raise UsageError("--teacher takes the base of an API, such as http://127.0.0.1:8000/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise UsageError("--teacher takes an address without a key in it: name the key's variable by --key-env")
    base = url.rstrip("/")
    return base if base.endswith("/chat/completions") else f"{base}/chat/completions"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A key goes to the named server and to no other."""

    def redirect_request(self, *_):
        return None


def sender(url: str, secret: str, timeout: float) -> Send:
    """Requests to one address, each given up after `timeout` seconds without a whole reply.

    Raises (on sending) Failure for a certificate that does not hold.
    """
    opener = urllib.request.build_opener(_NoRedirect)
    fixed = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "jaxlm"}
    if secret:
        fixed["Authorization"] = f"Bearer {secret}"

    def hidden(text: str) -> str:
        return text.replace(secret, "[key]") if secret else text

    def send(body: bytes, headers: Mapping[str, str]) -> Response:
        deadline = time.monotonic() + timeout
        request = urllib.request.Request(url, body, {**fixed, **headers}, method="POST")
        try:
            try:
                reply = opener.open(request, timeout=timeout)
            except urllib.error.HTTPError as error:
                reply = error
            with reply:
                raw = _read(reply, deadline, timeout)
                after = _seconds(reply.headers.get("Retry-After"))
                return Response(reply.status, raw.replace(secret.encode(), b"[key]") if secret else raw, after)
        except urllib.error.URLError as error:  # before the whole request was sent
            if isinstance(error.reason, ssl.SSLCertVerificationError):
                raise Failure(f"{url}: {hidden(str(error.reason))}") from None
            raise Unreached(hidden(f"cannot reach the teacher: {_named(error.reason)}"), "no") from None
        except TimeoutError:
            raise Unreached(f"no whole reply within {timeout:g} s", "maybe") from None
        except (OSError, http.client.HTTPException) as error:
            raise Unreached(hidden(f"the connection broke: {_named(error)}"), "maybe") from None

    return send


def _read(reply: http.client.HTTPResponse | urllib.error.HTTPError, deadline: float, timeout: float) -> bytes:
    """The whole body. Raises TimeoutError, also for one that trickles, and what the connection raises."""
    pieces, size = [], 0
    while piece := reply.read1(PIECE):
        pieces.append(piece)
        size += len(piece)
        if time.monotonic() > deadline:
            raise TimeoutError
        if size > MOST_BYTES:
            raise http.client.HTTPException(f"the reply has more than {MOST_BYTES:,} bytes")
    if getattr(reply, "length", None):  # read1 does not complain of a body that ends too soon
        raise http.client.IncompleteRead(b"".join(pieces), reply.length)
    return b"".join(pieces)


def _named(error: object) -> str:
    """The error's own words, or its kind where it has none."""
    if isinstance(error, http.client.IncompleteRead):
        return "the reply ends too soon"
    text = getattr(error, "strerror", None) or str(error)
    return text if text else type(error).__name__


def _seconds(value: str | None) -> float | None:
    """Retry-After: seconds, or a date (RFC 9110, section 10.2.3)."""
    if value is None:
        return None
    if re.fullmatch(r"\s*\d+(\.\d+)?\s*", value):
        return float(value)
    try:
        return max(email.utils.parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    except (TypeError, ValueError):
        return None
