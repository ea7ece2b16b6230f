"""What experiments are made of: frozen dataclasses, importable without jax or numpy."""

from jaxlm.config.data import (
    Bytes,
    Corpus,
    Filters,
    PythonText,
    SentencePiece,
    SentencePieceFile,
    Stream,
    TextFiles,
    Tfds,
)
from jaxlm.config.experiment import Every, Experiment, Mesh, Pipeline, Samples, Train, Where
from jaxlm.config.model import (
    Alibi,
    AllHeads,
    Attention,
    Balance,
    Block,
    Capacity,
    Decoder,
    Dropless,
    EachHead,
    Encoder,
    EncoderDecoder,
    Gated,
    Interpolated,
    LayerNorm,
    Learned,
    Llama3,
    Moe,
    NoNorm,
    NoPosition,
    Parallel,
    ParallelTwoNorms,
    Pattern,
    Plain,
    PostNorm,
    PreNorm,
    ResPostNorm,
    RMSNorm,
    Rope,
    Rwkv4,
    Sandwich,
    Sinusoidal,
    Tied,
    Unscaled,
    Untied,
    Yarn,
)
from jaxlm.config.objective import Autoregressive, Custom
from jaxlm.config.optimizer import Adafactor, AdamW, Constant, Cosine, Linear, Lion, Muon, WarmupStableDecay
from jaxlm.config.precision import PRECISIONS, Precision
