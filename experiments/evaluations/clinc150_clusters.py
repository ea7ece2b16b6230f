"""CLINC150: 4,500 requests to an assistant (Larson et al. 2019, arXiv:1909.02027), grouped by their vectors, with
its 150 intents, and their 10 domains, as the groups that are to be found.

    jaxlm eval MODEL experiments/evaluations/clinc150_clusters.py
"""

from experiments.evaluations.clinc150 import part
from jaxlm.config import Clustering, Task


def tasks() -> tuple[Task, ...]:
    given = {"data": part("test"), "label": "{intent}"}
    return (
        Clustering(name="clinc150_intents", **given),
        Clustering(name="clinc150_domains", merged="classify/clinc150_domains.json", **given),
    )
