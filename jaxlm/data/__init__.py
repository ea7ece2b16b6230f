"""From raw text to global batches of token rows: numpy only, no jax."""

from jaxlm.data.dataset import Dataset
from jaxlm.data.prepare import Prepared, prepare
from jaxlm.data.rows import Row, Rows, held_out, training
