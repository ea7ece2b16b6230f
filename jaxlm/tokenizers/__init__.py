"""One protocol, `Tokenizer`, and its implementations. Imports no jax."""

from jaxlm.tokenizers.build import build
from jaxlm.tokenizers.bytes import ByteTokenizer
from jaxlm.tokenizers.protocol import Tokenizer, stream
from jaxlm.tokenizers.sentencepiece import SentencePieceTokenizer, load, train
