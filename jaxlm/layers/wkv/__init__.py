"""RWKV's recurrences, each token by token and in chunks of tokens; every state is float32."""

from jaxlm.layers.wkv.v4 import WkvState, wkv4
from jaxlm.layers.wkv.v6 import wkv6
from jaxlm.layers.wkv.v7 import wkv7
