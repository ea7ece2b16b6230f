"""How a process finds the others of its run."""

from __future__ import annotations

import os
from collections.abc import Mapping

from jaxlm.config.errors import UsageError

VARIABLES = ("JAXLM_COORDINATOR", "JAXLM_NUM_PROCESSES", "JAXLM_PROCESS_ID")
"""host:port of process 0, the number of processes, and which of them this is: every process gets all three."""


def processes(environment: Mapping[str, str]) -> tuple[str, int, int] | None:
    """(coordinator, number of processes, this one), or None for a run of one process.

    Raises UsageError when only some of the variables are set, or they make no sense.
    """
    given = [name for name in VARIABLES if environment.get(name)]
    if not given:
        return None
    missing = [name for name in VARIABLES if name not in given]
    if missing:
        raise UsageError(f"{given[0]} is set but {missing[0]} is not: set all of {', '.join(VARIABLES)} or none")
    coordinator, count, index = (environment[name] for name in VARIABLES)
    if not (count.isdigit() and index.isdigit() and int(index) < int(count)) or ":" not in coordinator:
        raise UsageError(
            f"JAXLM_COORDINATOR={coordinator} JAXLM_NUM_PROCESSES={count} JAXLM_PROCESS_ID={index}: expected "
            "host:port, a number, and one below it"
        )
    return coordinator, int(count), int(index)


def join(environment: Mapping[str, str] = os.environ) -> None:
    """Meet the other processes, before any device is used; does nothing for a run of one process."""
    found = processes(environment)
    if found is None:
        return
    import jax

    coordinator, count, index = found
    # A dead process is noticed after two missed heartbeats; the default of 100 seconds wastes a cluster.
    jax.distributed.initialize(
        coordinator, count, index, heartbeat_timeout_seconds=10, coordinator_bind_address=coordinator
    )
