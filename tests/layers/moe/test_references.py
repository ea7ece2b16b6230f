"""The layer and its load balance against the references in transformers."""

import numpy as np
import pytest

from jaxlm import config
from tests.layers.moe.test_moe import DEEPSEEK, EMBED, MIXTRAL, SEGMENTS, X, having, mixture, run

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


def as_torch(leaf):
    return torch.tensor(np.array(leaf))


def test_deepseek():
    """Probabilities as they are, and shared experts (arXiv:2401.06066)."""
    from transformers.models.deepseek_v2.modeling_deepseek_v2 import DeepseekV2Moe

    narrow = having(DEEPSEEK, width=4)
    reference = DeepseekV2Moe(
        transformers.DeepseekV2Config(
            hidden_size=EMBED,
            num_attention_heads=2,
            moe_intermediate_size=4,
            n_routed_experts=6,
            num_experts_per_tok=3,
            n_shared_experts=5,
            routed_scaling_factor=1.0,
            topk_method="greedy",
            hidden_act="silu",
        )
    )
    model = mixture(narrow)
    experts = {name: as_torch(getattr(model.experts, name).kernel) for name in ("gate", "up", "down")}
    state = {
        "gate.weight": as_torch(model.router.kernel).T,
        "experts.gate_up_proj": torch.cat([experts["gate"], experts["up"]], dim=2).transpose(1, 2),
        "experts.down_proj": experts["down"].transpose(1, 2),
    }
    for name in ("gate", "up", "down"):
        state[f"shared_experts.{name}_proj.weight"] = as_torch(getattr(model.shared, name).kernel).T
    reference.load_state_dict(state)
    with torch.no_grad():
        wanted = reference(torch.tensor(X)).numpy()
    real = SEGMENTS > 0
    got = np.asarray(run(model, X)[0])
    np.testing.assert_allclose(got[real], wanted[real], atol=2e-5 * wanted.std())
    renormalized = run(model.replace(config=having(narrow, weights="renormalized")), X)[0]
    assert np.abs(renormalized - wanted)[real].max() > 2e-3 * wanted.std(), "the control"


@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_load_balance(top_k):
    """Theirs counts every choice as a whole token: top_k times ours."""
    from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

    model = mixture(having(MIXTRAL, top_k=top_k, balance=config.Balance(over="batch")))
    logits = torch.tensor((X @ np.asarray(model.router.kernel)).reshape(-1, 6))
    mask = torch.tensor((SEGMENTS > 0).astype(np.int64))
    wanted = float(load_balancing_loss_func((logits,), 6, top_k, mask))
    got = run(model, X)[1]["load_balance"]
    np.testing.assert_allclose(top_k * float(got), wanted, rtol=1e-5)
