"""One protocol, `Tokenizer`, and its implementations. Imports no jax."""

from jaxlm.tokenizers.build import build, given
from jaxlm.tokenizers.bytes import ByteTokenizer
from jaxlm.tokenizers.huggingface import HuggingFaceTokenizer
from jaxlm.tokenizers.protocol import Tokenizer, stream
from jaxlm.tokenizers.sentencepiece import SentencePieceTokenizer, load
from jaxlm.tokenizers.sentencepiece_training import train
