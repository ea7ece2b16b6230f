"""Chat templates: a list of messages as the text that a model was trained on, by a template in Jinja."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from jaxlm.config.errors import Failure
from jaxlm.tokenizers import files

if TYPE_CHECKING:
    from jinja2 import Template
    from jinja2.sandbox import ImmutableSandboxedEnvironment

FILE, SETTINGS = "chat_template.jinja", "tokenizer_config.json"


def template_beside(directory: Path) -> str:
    """The chat template of a directory: `chat_template.jinja`, else that of `tokenizer_config.json` (of several the
    one named "default"); empty where there is none. Raises Failure for a damaged file.
    """
    if (directory / FILE).is_file():
        return files.text(directory / FILE)
    found = files.tree(directory / SETTINGS).get("chat_template") if (directory / SETTINGS).is_file() else None
    if isinstance(found, list):
        several = [one for one in found if isinstance(one, dict)]
        found = next((one.get("template") for one in several if one.get("name") == "default"), None)
    if found is not None and not isinstance(found, str):
        raise Failure(f"{str(directory / SETTINGS)!r} is damaged: its chat_template is no text")
    return found or ""


def render(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    *,
    generation: bool = False,
    variables: Mapping[str, Any] | None = None,
) -> str:
    """The text of a conversation, special tokens written out.

    A message has a `role` and a `content`; `generation` ends with what begins the model's answer; `variables` are
    what else the template reads: `bos_token`, `eos_token`, `tools`. All of them are plain data, as in JSON.
    The template runs in Jinja's immutable sandbox, with what templates of transformers use: `raise_exception`,
    `strftime_now`, `tojson`, loop controls, blocks trimmed.

    Raises Failure with the template's own words and line where it refuses the messages, is no template, or reaches
    out of the sandbox.
    """
    from jinja2.exceptions import SecurityError, TemplateError, TemplateSyntaxError

    given = {"tools": None, "documents": None, **dict(variables or {})}
    try:
        compiled = _compiled(template)
        return compiled.render(messages=_plain(messages), add_generation_prompt=generation, **_plain(given))
    except TemplateSyntaxError as error:
        raise Failure(f"the chat template is damaged: line {error.lineno}: {error.message}") from None
    except SecurityError as error:
        raise Failure(f"the chat template reaches for what it may not have: {error}") from None
    except TemplateError as error:
        raise Failure(f"the chat template refuses these messages: {error}") from None
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise Failure(f"the chat template fails on these messages: {type(error).__name__}: {error}") from None


@lru_cache(maxsize=16)
def _compiled(template: str) -> Template:
    return _environment().from_string(template)


def _environment() -> ImmutableSandboxedEnvironment:
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _generation()]
    )
    environment.filters["tojson"] = _tojson
    environment.globals |= {"raise_exception": _raise, "strftime_now": _now, "namespace": _namespace()}
    return environment


def _namespace() -> type:
    """Jinja's, without names that begin with "_": an attribute of Python itself must not be put in place."""
    from jinja2.exceptions import SecurityError
    from jinja2.utils import Namespace

    def checked(name: Any) -> None:
        if str(name).startswith("_"):
            raise SecurityError(f"a namespace takes no name like {name!r}")

    class Names(Namespace):
        def __init__(*given: Any, **named: Any):
            own, *rest = given
            for name in dict(*rest, **named):
                checked(name)
            Namespace.__init__(own, *rest, **named)

        def __setitem__(self, name: str, value: Any) -> None:
            checked(name)
            super().__setitem__(name, value)

    return Names


def _generation() -> type:
    """`{% generation %}` marks the model's words in templates of transformers; the text is that between."""
    from jinja2 import nodes
    from jinja2.ext import Extension
    from jinja2.parser import Parser

    class Generation(Extension):
        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Parser) -> nodes.Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body).set_lineno(line)

    return Generation


def _raise(message: str) -> NoReturn:
    from jinja2.exceptions import TemplateError

    raise TemplateError(message)


def _now(form: str) -> str:
    return datetime.datetime.now().strftime(form)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own filter escapes HTML, which no model was trained on."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _plain(value: Any) -> Any:
    """A copy of plain data; objects with methods of their own would be a way out of the sandbox.

    Raises Failure for them.
    """
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, Mapping):
        return {_plain(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    raise Failure(f"a chat template takes plain data, as in JSON, not {type(value).__name__}")
