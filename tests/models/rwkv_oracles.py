"""RWKV-5, 6 and 7 from the equations of their papers: one token after the other, one head after the other, float64.

Weights are the model's leaves by name; a layer remembers the last inputs of its two mixes and a matrix a head.
"""

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def normed(x, scale, bias, epsilon):
    return (x - x.mean()) / np.sqrt(x.var() + epsilon) * scale + bias


class Layer:
    """The leaves of one layer, matrices of heads as ones of features, and its past."""

    def __init__(self, flat, path, at, heads, removal):
        leaves = {n.removeprefix(path): np.asarray(x, np.float64) for n, x in flat.items() if n.startswith(path)}
        self.leaves = leaves if at is None else {name: leaf[at] for name, leaf in leaves.items()}
        self.embed = len(self["time_norm.scale"])
        self.heads, self.size, self.removal = heads, self.embed // heads, removal
        self.time = self.channel = np.zeros(self.embed)
        self.states = [np.zeros((self.size, self.size)) for _ in range(heads)]

    def __getitem__(self, name):
        return self.leaves[name]

    def __contains__(self, name):
        return name in self.leaves

    def matrix(self, name):
        """[inputs, outputs]."""
        kernel = self[f"{name}.kernel"]
        if kernel.ndim == 2:
            return kernel
        into = name.endswith("out")
        return kernel.reshape(-1, self.embed) if into else kernel.reshape(self.embed, -1)

    def own(self, vector, head):
        """A head's part of the features."""
        return vector[head * self.size : (head + 1) * self.size]

    def group_norm(self, x, name, epsilon):
        parts = []
        for head in range(self.heads):
            part = self.own(x, head)
            parts.append((part - part.mean()) / np.sqrt(part.var() + epsilon))
        return np.concatenate(parts) * self[f"{name}.scale"] + self[f"{name}.bias"]


def eagle_time(layer, x, _):
    """arXiv:2404.05892, section 4.1."""
    lerp = {}
    for name in ("receptance", "key", "value", "gate"):
        mu = layer[f"time.{name}_shift.mix"]
        lerp[name] = mu * x + (1 - mu) * layer.time
    decay = np.exp(-np.exp(layer["time.rates.log_decay"]))
    return _attend(layer, lerp, decay, layer["time.rates.bonus"]), None


def finch_time(layer, x, _):
    """Section 4.2: ddlerp and a decay of each token's own."""
    difference = layer.time - x
    common = x + difference * layer["time.shifts.common.mix"]
    low = np.tanh(common @ layer.matrix("time.shifts.narrow"))
    rank = len(low) // 5
    lerp = {}
    for place, name in enumerate(("decay", "key", "value", "receptance", "gate")):
        part = low[place * rank : (place + 1) * rank]
        share = layer[f"time.shifts.{name}.mix"] + part @ layer.matrix(f"time.shifts.{name}.wide")
        lerp[name] = x + difference * share
    d = layer["time.decay.base"] + np.tanh(lerp["decay"] @ layer.matrix("time.decay.narrow")) @ layer.matrix(
        "time.decay.wide"
    )
    return _attend(layer, lerp, np.exp(-np.exp(d)), layer["time.bonus"]), None


def _attend(layer, lerp, decay, bonus):
    r, k, v, g = (lerp[n] @ layer.matrix(f"time.mixing.{n}") for n in ("receptance", "key", "value", "gate"))
    wkv = []
    for head in range(layer.heads):
        rh, kh, vh, wh, uh = (layer.own(one, head) for one in (r, k, v, decay, bonus))
        state = layer.states[head]
        wkv.append(rh @ (state + np.diag(uh) @ np.outer(kh, vh)))
        layer.states[head] = np.diag(wh) @ state + np.outer(kh, vh)
    # the released code divides by 8 before a norm with epsilon 1e-5
    mixed = layer.group_norm(np.concatenate(wkv) / 8, "time.mixing.norm", 1e-5)
    return (mixed * g * sigmoid(g)) @ layer.matrix("time.mixing.out")


def goose_time(layer, x, first):
    """arXiv:2503.14456, section 4.1, states as there: S is [value, key]."""

    def lerp(name):
        return x + layer[f"time.{name}_shift.mix"] * (layer.time - x)

    def low(name, inputs, f=lambda y: y):
        return f(inputs @ layer.matrix(f"time.{name}.narrow")) @ layer.matrix(f"time.{name}.wide")

    r, k, v = (lerp(name) @ layer.matrix(f"time.{name}") for name in ("receptance", "key", "value"))
    decay = np.exp(-np.exp(-0.5) * sigmoid(layer["time.decay.base"] + low("decay", lerp("decay"), np.tanh)))
    if "time.residual.base" in layer:
        share = sigmoid(layer["time.residual.base"] + low("residual", lerp("value")))
        v = (1 - share) * v + share * first
    else:
        first = v
    rate = sigmoid(layer["time.rate.base"] + low("rate", lerp("rate")))
    gate = low("gate", lerp("gate"), sigmoid)
    removal = k * layer["time.removal"]
    replacement = k * (1 + (rate - 1) * layer["time.relaxation"])
    read, bonus = [], []
    for head in range(layer.heads):
        rh, kh, vh, wh, ah, zh, rho = (
            layer.own(one, head) for one in (r, replacement, v, decay, rate, removal, layer["time.bonus"])
        )
        zh = zh / np.linalg.norm(zh)
        transition = np.diag(wh) - layer.removal * np.outer(zh, ah * zh)
        layer.states[head] = layer.states[head] @ transition + np.outer(vh, kh)
        read.append(layer.states[head] @ rh)
        bonus.append(np.sum(rh * rho * kh) * vh)
    mixed = layer.group_norm(np.concatenate(read), "time.norm", 64e-5) + np.concatenate(bonus)
    return (gate * mixed) @ layer.matrix("time.out"), first


def eagle_channel(layer, x):
    lerp = {}
    for name in ("key", "receptance"):
        mu = layer[f"channel.{name}_shift.mix"]
        lerp[name] = mu * x + (1 - mu) * layer.channel
    return _gated(layer, lerp)


def finch_channel(layer, x):
    lerp = {n: x + layer[f"channel.{n}_shift.mix"] * (layer.channel - x) for n in ("key", "receptance")}
    return _gated(layer, lerp)


def _gated(layer, lerp):
    hidden = np.maximum(lerp["key"] @ layer.matrix("channel.up"), 0) ** 2
    return sigmoid(lerp["receptance"] @ layer.matrix("channel.receptance")) * (
        hidden @ layer.matrix("channel.down")
    )


def goose_channel(layer, x):
    shifted = x + layer["channel.shift.mix"] * (layer.channel - x)
    return np.maximum(shifted @ layer.matrix("channel.up"), 0) ** 2 @ layer.matrix("channel.down")


MIXES = {5: (eagle_time, eagle_channel), 6: (finch_time, finch_channel), 7: (goose_time, goose_channel)}


def logits(version, flat, places, heads, ids, removal=1.0):
    """Scores of the tokens of one document; `places` are (path, index) of each layer's leaves."""
    time_mix, channel_mix = MIXES[version]
    layers = [Layer(flat, f"blocks.{path}.", at, heads, removal) for path, at in places]
    top = {name: np.asarray(leaf, np.float64) for name, leaf in flat.items() if not name.startswith("blocks")}
    found = []
    for token in ids:
        x = top["embedding.kernel"][token]
        x, first = normed(x, top["embedding_norm.scale"], top["embedding_norm.bias"], 1e-5), None
        for layer in layers:
            y = normed(x, layer["time_norm.scale"], layer["time_norm.bias"], 1e-5)
            change, first = time_mix(layer, y, first)
            layer.time, x = y, x + change
            z = normed(x, layer["channel_norm.scale"], layer["channel_norm.bias"], 1e-5)
            change = channel_mix(layer, z)
            layer.channel, x = z, x + change
        found.append(normed(x, top["norm.scale"], top["norm.bias"], 1e-5) @ top["head.kernel"])
    return np.array(found)
