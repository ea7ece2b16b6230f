"""What experiments are made of: frozen dataclasses, importable without jax or numpy."""

from jaxlm.config.adapter import (
    BitFit,
    Bottleneck,
    Dora,
    Ia3,
    Lora,
    NoAdapter,
    PrefixTuning,
    PromptTuning,
    Vera,
)
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
    NormedInput,
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
    Shared,
    Unbiased,
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
    Labeled,
    Pairs,
    PythonText,
    SentencePiece,
    SentencePieceFile,
    Stream,
    TextFiles,
    Tfds,
    TokenizerJson,
    Whitespace,
    WordPiece,
    WordPieceFile,
)
from jaxlm.config.experiment import Every, Experiment, Mesh, OfInitial, Pipeline, Samples, Train, Where
from jaxlm.config.head import NoHead, Tied, Transformed, Untied
from jaxlm.config.model import (
    Classifier,
    Decoder,
    Encoder,
    EncoderDecoder,
    Factorized,
    Generator,
    NoClassifier,
    NoGenerator,
    Normed,
    Scaled,
    Unchanged,
)
from jaxlm.config.objective import (
    Autoregressive,
    Classification,
    Contrastive,
    Custom,
    Denoiser,
    FillInTheMiddle,
    Infilling,
    MaskedLm,
    MultiToken,
    NextSentence,
    PrefixLm,
    ReplacedTokens,
    SpanCorruption,
    Ul2,
)
from jaxlm.config.optimizer import Adafactor, AdamW, Constant, Cosine, Linear, Lion, Muon, WarmupStableDecay
from jaxlm.config.parametrization import MuP, Standard
from jaxlm.config.position import (
    Alibi,
    Disentangled,
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
from jaxlm.config.quantization import NoQuantization
from jaxlm.config.records import Records
from jaxlm.config.recurrent import Rwkv4, Rwkv5, Rwkv6, Rwkv7
from jaxlm.config.study import Arm, Study
from jaxlm.config.tasks import (
    SQUAD,
    Choices,
    DrawnShots,
    Generation,
    LastWord,
    ListedShots,
    MinimalPairs,
    Normalization,
    Perplexity,
    Task,
    ZeroShot,
)
from jaxlm.config.vector_tasks import (
    Clustering,
    Labels,
    Logistic,
    Neighbors,
    Probe,
    Retrieval,
    Similarity,
    Vectors,
)
