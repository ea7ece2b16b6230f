"""Compiler flags by name: what each set does, for which chips, and what it was estimated to gain.

Sources of the TPU sets: MaxText's benchmarks/xla_flags_library.py; of the GPU set: JAX-Toolbox's
docs/GPU_performance.md. Gains are differences between estimates of the same step (LLaMA-2 7B, 64 v5p chips, 256
rows of 4096 tokens), not measurements.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from jaxlm.config.errors import UsageError
from jaxlm.planning.chips import Chip

ALL_TPUS = ("v4", "v5e", "v5p", "v6e", "tpu7x")


@dataclass(frozen=True)
class Flags:
    """A set of flags that belong together."""

    does: str
    gains: str
    """Estimated gain; "unknown" where nobody has estimated one."""
    chips: tuple[str, ...]
    values: Mapping[str, str | Mapping[str, str]]
    """Flag -> value, or the value by chip."""
    how: Literal["compile", "init"] = "compile"
    """Given to each compilation, or read once from LIBTPU_INIT_ARGS when the compiler is loaded."""
    calibrated: bool = True
    """Whether estimates under these flags have been compared with measured steps."""

    def on(self, chip: Chip) -> dict[str, str]:
        """Flag -> value for one chip."""
        return {
            flag: value if isinstance(value, str) else value[chip.name]
            for flag, value in self.values.items()
            if isinstance(value, str) or chip.name in value
        }


def _all(value: str, *names: str) -> dict[str, str]:
    return dict.fromkeys(names, value)


FLAGS = {
    "async_gathers": Flags(
        "all-gathers start early and go on behind the matrix products",
        "19 of 23 GiB of gathered weights a step hide: 57 of 2480 ms",
        ALL_TPUS,
        _all(
            "true",
            "xla_tpu_enable_async_collective_fusion",
            "xla_tpu_enable_async_collective_fusion_fuse_all_gather",
            "xla_tpu_enable_async_collective_fusion_multiple_steps",
            "xla_tpu_overlap_compute_collective_tc",
            "xla_enable_async_all_gather",
        ),
    ),
    "vmem": Flags(
        "a fusion may use half of the vector memory or more instead of 16 MiB: larger tiles, fewer passes over "
        "HBM; compiling takes four times as long",
        "2143 -> 1874 ms of compute with 48 MiB; 2422 -> 1852 ms for MaxText with 96 MiB",
        ("v5e", "v5p", "v6e"),
        {"xla_tpu_scoped_vmem_limit_kib": {"v5e": "49152", "v5p": "49152", "v6e": "65536"}},
        calibrated=False,
    ),
    "vmem_96": Flags(
        "as vmem, with the 96 MiB that MaxText uses on v6e and for its largest models on v5p",
        "2422 -> 1852 ms of compute for MaxText",
        ("v5p", "v6e"),
        {"xla_tpu_scoped_vmem_limit_kib": "98304"},
        calibrated=False,
    ),
    "plain_products": Flags(
        "no collective matrix products (windowed einsum): a tensor-parallel product waits for its collective "
        "instead of being cut into permutations",
        "17483 -> 6342 ms for GPT-3 175B on fsdp 32 x tensor 2; the cycles of windowed products are over-estimated",
        ALL_TPUS,
        {"xla_jf_spmd_threshold_for_windowed_einsum_mib": "1000000"},
    ),
    "async_reductions": Flags(
        "all-reduces of gradients along data overlap with the backward pass",
        "unknown; no difference where gradients are reduce-scattered",
        ALL_TPUS,
        _all(
            "true",
            "xla_tpu_enable_data_parallel_all_reduce_opt",
            "xla_tpu_data_parallel_opt_different_sized_ops",
        ),
    ),
    "sparse_core": Flags(
        "collectives run on the SparseCores; not together with async_gathers",
        "unknown",
        ("v6e", "tpu7x"),
        _all(
            "true",
            "xla_tpu_enable_sparse_core_collective_offload_all_gather",
            "xla_tpu_enable_sparse_core_collective_offload_reduce_scatter",
            "xla_tpu_enable_sparse_core_collective_offload_all_reduce",
        ),
    ),
    "gpu_pipelining": Flags(
        "collectives of a loop's next iteration start in this one, which is unrolled once",
        "unknown",
        ("h100",),
        _all(
            "true",
            "xla_gpu_enable_pipelined_all_gather",
            "xla_gpu_enable_pipelined_reduce_scatter",
            "xla_gpu_enable_pipelined_all_reduce",
            "xla_gpu_enable_while_loop_double_buffering",
        ),
    ),
}
"""The sets that `--flags` can name."""


def choose(names: Sequence[str], chip: Chip, how: str = "compile") -> dict[str, str]:
    """Flag -> value of some sets on a chip. Raises UsageError for an unknown set or one for other chips."""
    chosen: dict[str, str] = {}
    for name in names:
        if name not in FLAGS:
            raise UsageError(f"--flags {name}: there are {', '.join(of_chip(chip))} for {chip.name}")
        if chip.name not in FLAGS[name].chips:
            raise UsageError(
                f"--flags {name} is for {', '.join(FLAGS[name].chips)}; {chip.name} has {_listed(chip)}"
            )
        if FLAGS[name].how == how:
            chosen |= FLAGS[name].on(chip)
    return chosen


def _listed(chip: Chip) -> str:
    return ", ".join(of_chip(chip)) or "none"


def of_chip(chip: Chip) -> list[str]:
    """Names of the sets that a chip can take."""
    return [name for name, flags in FLAGS.items() if chip.name in flags.chips]
