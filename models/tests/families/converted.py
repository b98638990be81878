"""Converts vectors to the element types of embeddings, as sentence-transformers does, into converted.json.

usage: converted.py, in this folder. Needs sentence-transformers 6.2 and numpy. The ranges of int8 and uint8 are −1…1.
"""

import json

import numpy as np
from sentence_transformers.util import quantize_embeddings

PRECISIONS = ["float32", "int8", "uint8", "binary", "ubinary"]
numbers = np.random.default_rng(5)
vectors = [numbers.normal(size=width) for width in (384, 64, 16, 8, 12, 5)]
vectors = [vector / np.linalg.norm(vector) for vector in vectors]
vectors += [np.array([1.0]), np.array([-1.0, 0.0, -0.0, 1e-30, -1e-30, 6e-8, 0.99999994])]
vectors += [np.linspace(-1, 1, 256), np.arange(-127, 128) / 127.5]

cases = []
for vector in vectors:
    vector = vector.astype(np.float32)
    ranges = np.stack([np.full(vector.shape, -1.0), np.full(vector.shape, 1.0)])
    case = {"vector": vector.tolist(), "float16": vector.astype(np.float16).astype(np.float32).tolist()}
    for precision in PRECISIONS:
        case[precision] = quantize_embeddings(vector[None], precision, ranges=ranges)[0].tolist()
    cases.append(case)

with open("converted.json", "w") as file:
    json.dump(cases, file)
    file.write("\n")
