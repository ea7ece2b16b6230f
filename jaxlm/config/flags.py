"""Compiler flags by name: what each set does, for which chips, and what it was estimated to gain.

Sources of the TPU sets: MaxText's benchmarks/xla_flags_library.py; of the GPU set: JAX-Toolbox's
docs/GPU_performance.md. Gains are differences between estimates of the same step (LLaMA-2 7B, 64 v5p chips, 256
rows of 4096 tokens), not measurements.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jaxlm.config.chips import Chip, of_kind
from jaxlm.config.errors import UsageError
from jaxlm.config.suggest import nearest

Value = bool | int
"""Not text: GPU compilers refuse "true" where a flag is true or false."""
ALL_TPUS = ("v4", "v5e", "v5p", "v6e", "tpu7x")


@dataclass(frozen=True)
class Flags:
    """A set of flags that belong together."""

    does: str
    gains: str
    """Estimated gain; "unknown" where nobody has estimated one."""
    chips: tuple[str, ...]
    values: Mapping[str, Value | Mapping[str, Value]]
    """Flag -> value, or the value by chip."""
    calibrated: bool = True
    """Whether estimates under these flags have been compared with measured steps."""

    def on(self, chip: Chip) -> dict[str, Value]:
        """Flag -> value for one chip."""
        each = {
            flag: value.get(chip.name) if isinstance(value, Mapping) else value
            for flag, value in self.values.items()
        }
        return {flag: value for flag, value in each.items() if value is not None}


def _on(*names: str) -> dict[str, bool]:
    return dict.fromkeys(names, True)


FLAGS = {
    "async_gathers": Flags(
        "all-gathers start early and go on behind the matrix products",
        "19 of 23 GiB of gathered weights a step hide: 57 of 2480 ms",
        ALL_TPUS,
        _on(
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
        {"xla_tpu_scoped_vmem_limit_kib": {"v5e": 49_152, "v5p": 49_152, "v6e": 65_536}},
        calibrated=False,
    ),
    "vmem_96": Flags(
        "as vmem, with the 96 MiB that MaxText uses on v6e and for its largest models on v5p",
        "2422 -> 1852 ms of compute for MaxText",
        ("v5p", "v6e"),
        {"xla_tpu_scoped_vmem_limit_kib": 98_304},
        calibrated=False,
    ),
    "plain_products": Flags(
        "no collective matrix products (windowed einsum): a tensor-parallel product waits for its collective "
        "instead of being cut into permutations",
        "17483 -> 6342 ms for GPT-3 175B on fsdp 32 x tensor 2; the cycles of windowed products are over-estimated",
        ALL_TPUS,
        {"xla_jf_spmd_threshold_for_windowed_einsum_mib": 1_000_000},
    ),
    "async_reductions": Flags(
        "all-reduces of gradients along data overlap with the backward pass",
        "unknown; no difference where gradients are reduce-scattered",
        ALL_TPUS,
        _on(
            "xla_tpu_enable_data_parallel_all_reduce_opt",
            "xla_tpu_data_parallel_opt_different_sized_ops",
        ),
    ),
    "sparse_core": Flags(
        "collectives run on the SparseCores; not together with async_gathers",
        "unknown",
        ("v6e", "tpu7x"),
        _on(
            "xla_tpu_enable_sparse_core_collective_offload_all_gather",
            "xla_tpu_enable_sparse_core_collective_offload_reduce_scatter",
            "xla_tpu_enable_sparse_core_collective_offload_all_reduce",
        ),
    ),
    "one_order": Flags(
        "sums in one order only: two runs of the same, and one that was resumed, end in the same bits",
        "none: 10 % fewer tokens a second with 135 M parameters, measured on one H100; the gradient of a large "
        "embedding takes more memory than there is (289 GiB for Llama 3.2 1B)",
        ("h100",),
        _on("xla_gpu_deterministic_ops"),
    ),
    "gpu_pipelining": Flags(
        "collectives of a loop's next iteration start in this one, which is unrolled once",
        "unknown",
        ("h100",),
        _on(
            "xla_gpu_enable_pipelined_all_gather",
            "xla_gpu_enable_pipelined_reduce_scatter",
            "xla_gpu_enable_pipelined_all_reduce",
            "xla_gpu_enable_while_loop_double_buffering",
        ),
    ),
}
"""The sets that `where.flags` can name."""


def find(name: str) -> Flags:
    """A set by name. Raises UsageError with the nearest for one that is not there."""
    if name not in FLAGS:
        raise UsageError(f"where.flags: no set {name!r}; nearest: {', '.join(nearest(name, list(FLAGS)))}")
    return FLAGS[name]


def choose(names: Sequence[str], chip: Chip) -> dict[str, Value]:
    """Flag -> value of some sets on a chip. Raises UsageError for an unknown set or one for other chips."""
    chosen: dict[str, Value] = {}
    for name in names:
        flags = find(name)
        if chip.name not in flags.chips:
            raise UsageError(
                f"where.flags: {name} is for {', '.join(flags.chips)}; {chip.name} has "
                f"{', '.join(of_chip(chip)) or 'none'} (--where.flags alone takes none)"
            )
        chosen |= flags.on(chip)
    return chosen


def of_devices(names: Sequence[str], kind: str) -> dict[str, Value]:
    """Flag -> value of some sets on devices of a kind (jax's `device_kind`); those of no known chip take none.

    Raises UsageError as `choose` does.
    """
    chip = of_kind(kind)
    return {} if chip is None else choose(names, chip)


def of_chip(chip: Chip) -> list[str]:
    """Names of the sets that a chip can take."""
    return [name for name, flags in FLAGS.items() if chip.name in flags.chips]
