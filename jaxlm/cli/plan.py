"""usage: jaxlm plan EXPERIMENT --topology v5p:4x4x4 [--search N] [--save] [--price USD] [OVERRIDES]

Compiles the real training step for chips that are not there and says whether it fits, what binds it, how long
a step will take by estimate, and what to try. Touches no accelerator; needs the extra `tpu` or `cuda`.

  --topology v5p:4x4x4     chips and their shape: v5e:16x16, h100:8, ... (an unknown one lists all)
  --init MODEL_OR_RUN      what it starts from, as for jaxlm run
  --price USD              price of a chip for an hour, for the cost of the run
  --json FILE              write the plan as data
  --hlo FILE               write the program that was compiled
  --search N               rank all meshes, micro-batches and policies by closed forms and compile the best N
  --save                   keep the plan (of a search, the best) beside the experiment, in plans/: jaxlm run
                           on these chips prints what it measures beside it
  --where.mesh.fsdp 16     set a field, as for jaxlm run
  --where.flags A B        sets of compiler flags by name; one of another chip lists those of this one
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from jaxlm.cli import experiment, models
from jaxlm.cli.planned import milliseconds, pages, share
from jaxlm.cli.text import size, table
from jaxlm.config import flags
from jaxlm.config.errors import Failure, UsageError
from jaxlm.config.load import directory
from jaxlm.planning import topology
from jaxlm.planning.kept import kept
from jaxlm.runs import plans

if TYPE_CHECKING:
    from jaxlm.config.experiment import Experiment
    from jaxlm.planning.explain import Plan
    from jaxlm.planning.search import Compiled
    from jaxlm.planning.topology import Topology

OPTIONS = ("init", "topology", "price", "json", "hlo", "search")
BARE = ("save",)
USAGE = "jaxlm plan EXPERIMENT --topology v5p:4x4x4"


def main(argv: list[str]) -> int:
    """Compiles and prints the plan. Returns the exit code."""
    request = experiment.parse(models.with_init(["plan", *argv]), OPTIONS, USAGE, BARE)
    if request.help:
        print(experiment.fields(request.experiment))
        return 0
    given = request.options
    if "topology" not in given:
        raise UsageError(f"which chips? {USAGE}")
    where = topology.parse(given["topology"])
    flags.choose(request.experiment.where.flags, where.chip)
    price = _price(given.get("price"))
    count = _count(given.get("search"))
    topology.check_installed(where)
    topology.environment(where)

    from jaxlm.planning.explain import make_plan

    if count is not None:
        found = _search(request.experiment, where, price, count)
        _write(given.get("json"), json.dumps([one.data() for one in found], indent=1) + "\n")
        _save(request, found[0].plan, found[0].candidate.change)
        return 0
    plan, text = make_plan(request.experiment, where, price)
    print("\n\n".join(part for part in pages(plan) if part))
    _write(given.get("json"), json.dumps(plan.json(), indent=1) + "\n")
    _write(given.get("hlo"), text)
    _save(request, plan)
    return 0


def _save(request: experiment.Request, plan: Plan | None, change: tuple[str, ...] = ()) -> None:
    """Keeps a plan that was asked to be kept; `change` is what a search has changed."""
    if "save" not in request.options:
        return
    if plan is None:
        raise Failure("every candidate was refused: there is no plan to save")
    command = ["jaxlm", "plan", request.name, "--topology", plan.topology, *request.words, *change]
    path = plans.write(kept(plan.json(), command), directory(request.name) / plans.DIRECTORY)
    print(f"\nkept as {path}")


def _price(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        price = float(text)
    except ValueError:
        price = -1.0
    if not 0 <= price < float("inf"):
        raise UsageError(f"--price {text}: expected USD an hour and chip")
    return price


def _count(text: str | None) -> int | None:
    if text is not None and (not text.isdigit() or int(text) < 1):
        raise UsageError(f"--search {text}: expected a number of candidates to compile")
    return None if text is None else int(text)


def _search(tree: Experiment, where: Topology, price: float | None, count: int) -> list[Compiled]:
    """Compiles the best candidates, prints them as they come and then ranked. Returns them so."""
    from jaxlm.planning import search
    from jaxlm.planning.explain import make_plan

    devices = len(topology.devices(where))
    some = search.candidates(tree, where.chip, devices)
    if not some:
        raise Failure(f"{tree.name} on {where}: by closed forms nothing fits; take more chips")
    chosen = search.best(some, count)
    print(f"{len(some)} ways divide and fit by closed forms; compiling {len(chosen)}")
    found = []
    for one in search.compile_best(chosen, lambda tree: make_plan(tree, where, price)[0]):
        said = one.refusal or f"{milliseconds(one.seconds)} ms, MFU {share(one.mfu, 1)}"
        print(f"  {' '.join(one.candidate.change) or 'as it is'}: {said}", flush=True)
        found.append(one)
    found = search.ranked(found)
    rows = [
        (
            " ".join(one.candidate.change) or "as it is",
            milliseconds(one.candidate.seconds),
            size(one.candidate.bytes),
            "-" if one.seconds is None else milliseconds(one.seconds),
            "-" if one.mfu is None else share(one.mfu, 1),
            "-" if one.peak is None else size(one.peak),
        )
        for one in found
    ]
    print("\n" + table(("change", "closed form, ms", "bytes", "compiled, ms", "MFU", "peak"), rows))
    return found


def _write(path: str | None, content: str) -> None:
    if path is None:
        return
    try:
        Path(path).write_text(content)
    except OSError as error:
        raise Failure(f"{path} cannot be written: {error.strerror}") from None
