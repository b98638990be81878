"""The answers that every engine must give: BERT in f64, text by text, without padding, batching or fusing. Plain on purpose.

    reference.py MODEL_DIRECTORY INPUTS.json OUT_DIRECTORY

INPUTS.json is {shape: [[token id, ...], ...]}. Writes OUT_DIRECTORY/SHAPE.f64: one mean-pooled row per text, not
normalised, f64, little-endian.
"""

import json
import math
import pathlib
import sys

import numpy as np
from scipy.special import erf

import checkpoint


def layer_norm(x, gain, bias, epsilon):
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + epsilon) * gain + bias


def softmax(x):
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def gelu(x):
    return 0.5 * x * (1 + erf(x / math.sqrt(2)))


def embed(model, ids):
    """The mean of the token vectors of one text, from its token ids."""

    def linear(x, layer, name):
        weight, bias = model.linear(layer, name)
        return x @ weight + bias

    def norm(x, prefix):
        return layer_norm(x, model[f"{prefix}.weight"], model[f"{prefix}.bias"], model.epsilon)

    def split(x):  # [tokens, hidden] -> [heads, tokens, head size]
        return x.reshape(len(ids), model.heads, -1).transpose(1, 0, 2)

    x = model["embeddings.word_embeddings.weight"][ids]
    x = x + model["embeddings.position_embeddings.weight"][: len(ids)]
    x = x + model["embeddings.token_type_embeddings.weight"][0]
    x = norm(x, "embeddings.LayerNorm")
    for layer in range(model.layers):
        q, k, v = (split(linear(x, layer, f"attention.self.{part}")) for part in ("query", "key", "value"))
        scores = q @ k.transpose(0, 2, 1) / math.sqrt(model.hidden / model.heads)
        context = (softmax(scores) @ v).transpose(1, 0, 2).reshape(len(ids), model.hidden)
        x = norm(x + linear(context, layer, "attention.output.dense"), f"encoder.layer.{layer}.attention.output.LayerNorm")
        up = gelu(linear(x, layer, "intermediate.dense"))
        x = norm(x + linear(up, layer, "output.dense"), f"encoder.layer.{layer}.output.LayerNorm")
    return x.mean(axis=0)


def main():
    directory, inputs, out = map(pathlib.Path, sys.argv[1:4])
    model = checkpoint.read(directory, np.float64)
    out.mkdir(parents=True, exist_ok=True)
    for shape, texts in json.loads(inputs.read_text()).items():
        rows = np.stack([embed(model, ids) for ids in texts])
        rows.astype("<f8").tofile(out / f"{shape}.f64")


if __name__ == "__main__":
    main()
