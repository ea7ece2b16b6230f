"""Templates with the fields of an item: `{field}`, or jinja2's."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from jaxlm.config.errors import UsageError
from jaxlm.config.suggest import nearest
from jaxlm.evaluate.records import Item

if TYPE_CHECKING:
    from jinja2 import Template

FIELD = re.compile(r"\{([A-Za-z_][\w.]*)\}")


def render(template: str, item: Item) -> str:
    """The text of a template.

    Raises UsageError for a field that the item does not have, or that is no text or number, and for what jinja2
    refuses.
    """
    if "{{" in template or "{%" in template:
        return _jinja(template, item)
    return FIELD.sub(lambda found: _plain(found[1], value(found[1], item)), template)


def values(template: str, item: Item) -> list[str]:
    """The texts of a template that is one field with a list; of any other its one text."""
    whole = FIELD.fullmatch(template)
    found = value(whole[1], item) if whole else None
    return [_plain(whole[1], each) for each in found] if isinstance(found, list) else [render(template, item)]


def value(path: str, item: Item) -> Any:
    """What is at a dotted path; of a list of objects what is there in each. Raises UsageError."""
    found: Any = item
    for name in path.split("."):
        if isinstance(found, list) and all(isinstance(each, dict) and name in each for each in found):
            found = [each[name] for each in found]
        elif isinstance(found, dict) and name in found:
            found = found[name]
        else:
            known = list(found) if isinstance(found, dict) else []
            near = f"; nearest: {', '.join(nearest(name, known))}" if known else ""
            raise UsageError(f"items have no field {{{path}}}{near}")
    return found


def _plain(path: str, found: Any) -> str:
    if isinstance(found, bool) or not isinstance(found, str | int | float):
        kind = type(found).__name__
        raise UsageError(f"the field {{{path}}} is a {kind}, expected text or a number: {str(found)[:60]}")
    return str(found)


def _jinja(template: str, item: Item) -> str:
    from jinja2.exceptions import SecurityError, TemplateError

    try:
        return _compiled(template).render(**item)
    except SecurityError as error:
        raise UsageError(f"the template {template[:40]!r} reaches for what it may not have: {error}") from None
    except (TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise UsageError(f"the template {template[:40]!r} fails: {type(error).__name__}: {error}") from None


@lru_cache(maxsize=64)
def _compiled(template: str) -> Template:
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
    return environment.from_string(template)
