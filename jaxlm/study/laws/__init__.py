"""Scaling laws: how the loss falls with parameters and tokens, and which model a budget of FLOPs should train.

Four fits, each a function of runs (of `envelope`, of their curves in training) that takes a law to begin from.
"""

from jaxlm.study.laws import envelope, isoflop, parametric, projection
from jaxlm.study.laws.bootstrap import Fitted, bootstrap
from jaxlm.study.laws.form import PUBLISHED, Exponents, Fit, Frontier, Law, Optimum
from jaxlm.study.laws.held_out import Check, check
from jaxlm.study.laws.points import Cost, Points

APPROACHES = {
    "projection": projection.fit,
    "parametric": parametric.fit,
    "isoflop": isoflop.fit,
    "envelope": envelope.fit,
}
"""The last takes curves, the others points. The first is the one to believe: see README."""
