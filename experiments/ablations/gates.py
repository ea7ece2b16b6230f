"""Is a gate worth its third matrix? Gated MLPs (Shazeer 2020, arXiv:2002.05202) beside plain ones of equal size.

    jaxlm study experiments/ablations/gates.py --together

The width of the plain MLPs is solved for, so that both models have as many parameters to 1 %.
"""

from experiments.ablations.positions import study as positions
from jaxlm.config import Arm, Study


def study() -> Study:
    base = positions().base
    return Study(
        name="gates",
        base=base,
        arms=(
            Arm("gated"),
            Arm("plain", ("model.block.mlp:plain", "--model.block.mlp.activation=silu")),
            Arm("relu", ("model.block.mlp:plain", "--model.block.mlp.activation=relu")),
        ),
        seeds=(0, 1, 2, 3, 4),
        differs=("model.block.mlp", "flops_per_token"),
        match="parameters",
        solve="model.block.mlp.width",
        multiple=8,
        metric="bits_per_byte",
    )
