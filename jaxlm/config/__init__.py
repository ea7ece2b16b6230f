"""What experiments are made of: frozen dataclasses, importable without jax or numpy."""

from jaxlm.config.block import (
    AllHeads,
    Attention,
    Balance,
    Block,
    Capacity,
    Dropless,
    EachHead,
    Gated,
    LayerNorm,
    Moe,
    NoNorm,
    OfModel,
    Parallel,
    ParallelTwoNorms,
    Pattern,
    Plain,
    PostNorm,
    PreNorm,
    ResPostNorm,
    RMSNorm,
    Sandwich,
    ZeroCentered,
)
from jaxlm.config.data import (
    BestFit,
    Bytes,
    ChatTemplate,
    Conversations,
    Corpus,
    Filters,
    Gpt2Files,
    Joined,
    PythonText,
    SentencePiece,
    SentencePieceFile,
    Stream,
    TextFiles,
    Tfds,
    TokenizerJson,
    Whitespace,
    WordPieceFile,
)
from jaxlm.config.experiment import Every, Experiment, Mesh, OfInitial, Pipeline, Samples, Train, Where
from jaxlm.config.model import Decoder, Encoder, EncoderDecoder, Normed, Scaled, Tied, Unchanged, Untied
from jaxlm.config.objective import Autoregressive, Custom
from jaxlm.config.optimizer import Adafactor, AdamW, Constant, Cosine, Linear, Lion, Muon, WarmupStableDecay
from jaxlm.config.position import (
    Alibi,
    DynamicNtk,
    Interpolated,
    Learned,
    Llama3,
    NoPosition,
    RelativeBias,
    Rope,
    Shaw,
    Sinusoidal,
    TransformerXl,
    Unscaled,
    Yarn,
)
from jaxlm.config.precision import PRECISIONS, Precision
from jaxlm.config.recurrent import Rwkv4, Rwkv5, Rwkv6, Rwkv7
