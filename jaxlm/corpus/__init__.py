"""Documents in, documents out: sources, filters, duplicates, the held-out split. Imports no jax."""

from jaxlm.corpus.baselines import baselines
from jaxlm.corpus.conversations import conversations, messages, spoken
from jaxlm.corpus.deduplicate import deduplicate
from jaxlm.corpus.documents import Document, Raw, documents, fingerprint
from jaxlm.corpus.filters import clean, verdict
from jaxlm.corpus.labeled import labeled, others, plain
from jaxlm.corpus.split import decontaminate, hold_out
