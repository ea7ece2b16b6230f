"""Models of transformers with every parameter random, and the logits of both sides."""

from pathlib import Path

import jax
import numpy as np
import torch
import transformers

from tests.interop.cases import CASES, implementation
from tests.tiny import CALL, tokens

ROWS, LENGTH = 2, 96


def write(case: str, directory: Path) -> torch.nn.Module:
    """Writes the model of a case as transformers does, and returns it."""
    name, settings = CASES[case]
    kind = getattr(transformers, f"{name}{'Text' if name == 'Gemma3' else ''}Config")
    told = kind(**settings, attn_implementation=implementation(settings))
    reference = getattr(transformers, f"{name}{'LMHeadModel' if name == 'GPT2' else 'ForCausalLM'}")(told)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in reference.parameters():
            center = 1.0 if parameter.ndim == 1 and parameter.mean() > 0.5 else 0.0
            parameter.copy_(center + 0.2 * torch.randn(parameter.shape, generator=generator))
    reference.eval().save_pretrained(directory)
    return reference


def ids(vocab: int) -> np.ndarray:
    """Two rows of tokens, longer than every window and every length that positions are scaled from."""
    return np.random.default_rng(0).integers(1, vocab, (ROWS, LENGTH))


def theirs(reference: torch.nn.Module, vocab: int) -> np.ndarray:
    """Logits of transformers."""
    with torch.no_grad():
        return reference(torch.tensor(ids(vocab))).logits.numpy()


@jax.jit
def _logits(model, inputs):
    return model.logits(model(inputs, CALL).hidden, CALL)


def ours(model, vocab: int) -> np.ndarray:
    """Logits of ours; compiled once for all models that differ in their arrays only."""
    return np.asarray(_logits(model, tokens(ids(vocab))))
