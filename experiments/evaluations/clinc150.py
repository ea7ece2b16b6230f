"""CLINC150: what 4,500 requests to an assistant want, one of 150 intents (Larson et al. 2019, arXiv:1909.02027),
read off the requests' vectors.

    jaxlm eval MODEL experiments/evaluations/clinc150.py
    jaxlm eval MODEL experiments/evaluations/clinc150.py --train.limit 3000 --limit 1000        # by chance

A linear probe and a vote of neighbors learn from the 15,000 training requests. `clinc150_clusters.py` looks for the
intents without any.
"""

from jaxlm.config import Neighbors, Probe, Records, Task

SOURCE = "https://github.com/clinc/oos-eval (data/data_full.json and data/domains.json, CC BY 3.0)"


def part(name: str) -> Records:
    return Records(path="classify/clinc150_full.json", rows=name, names=("text", "intent"), seed=0, source=SOURCE)


def tasks() -> tuple[Task, ...]:
    given = {"train": part("train"), "data": part("test"), "label": "{intent}"}
    return (
        Probe(name="clinc150_probe", **given),
        Probe(name="clinc150_neighbors", reader=Neighbors(), **given),
    )
