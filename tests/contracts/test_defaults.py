"""Defaults of what is computed are part of every hash, which leaves them out: none changes, new ones are added."""

import dataclasses
import json
from pathlib import Path

from jaxlm.config import Experiment, Where
from jaxlm.config.paths import classes, element, hints

GOLDEN = Path(__file__).with_name("defaults.json")


def reachable(cls, seen=()):
    """A dataclass and those that its fields may hold, but for `where`."""
    found = {cls, *seen}
    for hint in hints(cls).values():
        for one in classes(element(hint) or hint):
            if one not in found and one is not Where:
                found |= reachable(one, found)
    return found


def shown(value):
    """A value as code, without fields at their defaults."""
    if isinstance(value, tuple):
        return f"({', '.join(map(shown, value))})"
    if not dataclasses.is_dataclass(value):
        return repr(value)
    set_here = (field for field in dataclasses.fields(value) if getattr(value, field.name) != field.default)
    return f"{type(value).__name__}({', '.join(f'{f.name}={shown(getattr(value, f.name))}' for f in set_here)})"


def defaults():
    """`Class.field` -> its default, where it has one."""
    return {
        f"{cls.__name__}.{field.name}": shown(field.default)
        for cls in reachable(Experiment)
        for field in dataclasses.fields(cls)
        if field.default is not dataclasses.MISSING and field.name != "where"
    }


def test_no_default_changes_and_every_new_one_is_recorded():
    found = defaults()
    recorded = json.loads(GOLDEN.read_text())
    changed = {name: (recorded[name], found.get(name)) for name in recorded if found.get(name) != recorded[name]}
    assert not changed, "runs and plans of before would be taken for other experiments' or the reverse"
    missing = {name: found[name] for name in sorted(found.keys() - recorded.keys())}
    assert not missing, f"add to {GOLDEN.name}: {json.dumps(missing, indent=1)}"
