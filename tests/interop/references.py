"""Models of transformers with every parameter random, and the logits of both sides."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers

from jaxlm import config
from jaxlm.models.encoder import Encoder
from jaxlm.models.encoder_decoder import EncoderDecoder
from jaxlm.models.pooling import pooled
from tests.interop import pairs
from tests.interop.cases import CASES, implementation
from tests.tiny import CALL, tokens

ROWS, LENGTH = 2, 96


def write(case: str, directory: Path) -> torch.nn.Module:
    """Writes the model of a case as transformers does, and returns it."""
    name, settings = CASES[case]
    kind = getattr(transformers, f"{name}{'Text' if name == 'Gemma3' else ''}Config")
    told = kind(**settings, attn_implementation=implementation(settings))
    default = f"{name}{'LMHeadModel' if name == 'GPT2' else 'ForCausalLM'}"
    (architecture,) = settings.get("architectures", [default])
    reference = getattr(transformers, architecture)(told, **without_pooler(architecture))
    if name in pairs.UNTIED and not settings.get("tie_word_embeddings", name == "T5"):
        # transformers ties every head at first, and none whose tensor a file has.
        reference.lm_head.weight = torch.nn.Parameter(reference.lm_head.weight.clone())
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in reference.parameters():
            center = 1.0 if parameter.ndim == 1 and parameter.mean() > 0.5 else 0.0
            parameter.copy_(center + 0.2 * torch.randn(parameter.shape, generator=generator))
    reference.eval().save_pretrained(directory)
    return reference


def without_pooler(architecture: str) -> dict[str, bool]:
    """How an encoder's hidden states are had alone."""
    pools = ("BertModel", "RobertaModel", "AlbertModel")
    return {"add_pooling_layer": False} if architecture in pools else {}


def ids(vocab: int) -> np.ndarray:
    """Two rows of tokens, longer than every window and every length that positions are scaled from."""
    return np.random.default_rng(0).integers(1, vocab, (ROWS, LENGTH))


def types(vocab: int, most: int) -> np.ndarray:
    """Types of the same tokens."""
    return np.random.default_rng(1).integers(0, most, ids(vocab).shape)


def theirs(reference: torch.nn.Module, vocab: int) -> np.ndarray:
    """Logits of transformers; of an encoder all that it returns, flat."""
    with torch.no_grad():
        if type(reference).__name__.endswith(("ForCausalLM", "LMHeadModel")):
            return reference(torch.tensor(ids(vocab))).logits.numpy()
        if type(reference).__name__.endswith("ForConditionalGeneration"):
            source, seen, target = map(torch.tensor, pairs.ids(vocab))
            return reference(input_ids=source, attention_mask=seen, decoder_input_ids=target).logits.numpy()
        inputs, told = {"input_ids": torch.tensor(ids(vocab))}, reference.config
        if most := getattr(told, "type_vocab_size", 0):
            inputs["token_type_ids"] = torch.tensor(types(vocab, most))
        if told.model_type == "roberta" and told.pad_token_id > 0:  # it would take some of these tokens for padding
            inputs["position_ids"] = torch.arange(LENGTH)[None].repeat(ROWS, 1) + told.pad_token_id + 1
        if type(reference).__name__.endswith("MultipleChoice"):
            inputs = {name: value[:, None] for name, value in inputs.items()}
        return _flat(reference(**inputs))


def _flat(output: transformers.utils.ModelOutput) -> np.ndarray:
    """All scores of an output one after the other, those of a start and an end as two labels."""
    parts = [np.asarray(one) for one in output.values() if isinstance(one, torch.Tensor)]
    parts = [np.stack(parts, axis=-1)] if "start_logits" in output else parts
    return np.concatenate([part.ravel() for part in parts])


@jax.jit
def _logits(model, inputs):
    hidden = model(inputs, CALL).hidden
    if not isinstance(model, Encoder):
        return model.logits(hidden, CALL)
    found, kind = [], model.config.classifier
    if model.config.head != config.NoHead():
        found.append(model.logits(hidden, CALL))
    if isinstance(kind, config.Classifier):
        scores = model.classify(pooled(hidden, inputs, kind.of, CALL), CALL)
        found.append(scores if kind.of == "tokens" else scores[:, 0])
    return jnp.concatenate([one.ravel() for one in found or [hidden]])


def ours(model, vocab: int) -> np.ndarray:
    """The same of ours; compiled once for all models that differ in their arrays only."""
    if isinstance(model, EncoderDecoder):
        return pairs.logits(model, vocab)
    inputs = tokens(ids(vocab))
    if most := getattr(model.config, "types", 0):
        inputs = inputs.replace(types=jnp.asarray(types(vocab, most), jnp.int32))
    return np.asarray(_logits(model, inputs))
