"""An experiment: what is computed, and where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jaxlm.config.adapter import Adapter, NoAdapter
from jaxlm.config.data import Corpus, Data, Packing, SentencePiece, Stream, Tokenizer
from jaxlm.config.model import Decoder, Model
from jaxlm.config.objective import Autoregressive, Objective
from jaxlm.config.optimizer import AdamW, Optimizer
from jaxlm.config.quantization import NoQuantization, Quantization
from jaxlm.config.surgery import Cut


@dataclass(frozen=True)
class Train:
    """How long, on how much, from which seed."""

    steps: int = 1000
    batch: int = 16
    """Rows of a global batch."""
    length: int = 256
    """Tokens of a row."""
    seed: int = 0
    clip: float | None = 1.0
    """Largest global gradient norm; None does not clip."""
    ema: float | None = None
    """Decay of an exponential moving average of the parameters; None keeps none."""


@dataclass(frozen=True)
class Samples:
    """Text drawn from the trained model, with the log-probability of every token."""

    prompts: tuple[str, ...] = ()
    tokens: int = 100
    temperature: float = 0.8


@dataclass(frozen=True)
class Mesh:
    """Devices along each axis; `data` = 0 takes all that the other axes leave."""

    data: int = 0
    """Replicas of parameters, each with rows of its own."""
    fsdp: int = 1
    """Shards of parameters, which are gathered before use, and of rows."""
    tensor: int = 1
    """Shards of heads, MLP features and vocabulary, and in between of a row's positions."""
    context: int = 1
    """Shards of a row's positions, and of parameters."""
    expert: int = 1
    """Shards of the experts of a mixture, and of rows."""
    pipeline: int = 1
    """Stages of layers, through which micro-batches flow, and shards of rows outside of them."""
    replica: int = 1
    """Slices of chips that only a network joins, each with all parameters and rows of its own."""


@dataclass(frozen=True)
class Pipeline:
    """How micro-batches flow through the stages of `where.mesh.pipeline` = S; a stage idles S - 1 ticks of
    rounds * micro_batches + S - 1.
    """

    micro_batches: int = 0
    """Parts of the rows that the stages share, in flight together; 0 is four for each stage, beyond which the
    bubble hardly matters (GPipe, arXiv:1811.06965, section 2.3).
    """
    rounds: int = 1
    """Pieces of layers that each stage holds: a micro-batch passes all stages this often."""

    def flight(self, stages: int) -> int:
        """Micro-batches in flight."""
        return self.micro_batches or 4 * stages


@dataclass(frozen=True)
class Every:
    """Cadences in steps; 0 is never."""

    log: int = 10
    evaluate: int = 200
    checkpoint: int = 200
    telemetry: int = 0
    """Root mean squares of parameters, gradients, updates and activations by layer."""
    tasks: int = 0
    """What `where.tasks` ask."""


@dataclass(frozen=True)
class Where:
    """How the same numbers are computed: recorded for each attempt, free to change on resume."""

    mesh: Mesh = Mesh()
    micro_batches: int = 1
    """Sequential parts of a batch."""
    pipeline: Pipeline = Pipeline()
    layers: Literal["scan", "unroll"] = "scan"
    """One compiled layer in a loop, or all of them in line (faster on CPU, slower to compile)."""
    remat: str = "none"
    """What the backward pass computes again: "none", "full" (all but each layer's input), "dots" (all but
    products), or all but what is named, as in "query+key+value+attention+middle+gate+up"; "@up" is kept in host
    memory.
    """
    attention: str = "auto"
    recurrence: Literal["auto", "scan", "chunked"] = "auto"
    """Recurrent models token by token, in chunks of tokens, or the faster of both."""
    flags: tuple[str, ...] = ()
    """Sets of compiler flags by name, of `config.flags`; devices that are no known chip take none."""
    every: Every = Every()
    tasks: tuple[str, ...] = ()
    """Files of tasks that the model is asked while it is trained, at the cadence `every.tasks`."""


@dataclass(frozen=True)
class OfInitial:
    """That of the run or model whose parameters this one starts from (`--init`), in whose place it then stands."""


OF_INITIAL = ("model", "tokenizer", "quantization")
"""Fields that can be `OfInitial`."""


@dataclass(frozen=True)
class Experiment:
    """Everything outside `where` decides what is computed and is hashed."""

    name: str
    model: Model | OfInitial = Decoder()
    tokenizer: Tokenizer | OfInitial = SentencePiece()
    data: Data = Corpus()
    packing: Packing = Stream()
    objective: Objective = Autoregressive()
    adapter: Adapter = NoAdapter()
    """What is trained in place of all parameters."""
    quantization: Quantization | OfInitial = NoQuantization()
    """How many bits numbers have, stored or in training."""
    optimizer: Optimizer = AdamW()
    train: Train = Train()
    precision: Literal["float32", "bfloat16", "bfloat16_all"] = "float32"
    """A row of `config.precision.PRECISIONS`."""
    initial: str = ""
    """A run whose parameters this one starts from, `RUN` or `RUN@DIGEST`: the digest of the parameters decides."""
    cut: Cut = Cut()
    """What is kept of the initial model, where that is larger."""
    teacher: str = ""
    """A run that this one learns from, `RUN` or `RUN@DIGEST`, where the objective asks for one."""
    samples: Samples = Samples()
    where: Where = Where()
