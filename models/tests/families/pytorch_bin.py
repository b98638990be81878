"""Writes distilbert/model.safetensors again as distilbert-bin/pytorch_model.bin, in the layout of torch.save of PyTorch 2:
a zip archive without compression, with a pickle of protocol 2. Three tensors are as checkpoints also have them: a
parameter, a transposed view, and integers.

usage: pip install numpy==2.4.6 safetensors==0.8.0; python pytorch_bin.py
"""

import collections
import io
import pickle
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

HERE = Path(__file__).parent


def named(module, name, kind):
    """A class or function that pickles as `module.name`, as torch's own would."""
    kind.__module__, kind.__name__, kind.__qualname__ = module, name, name
    setattr(sys.modules.setdefault(module, types.ModuleType(module)), name, kind)
    return kind


sys.modules["torch"] = types.ModuleType("torch")
rebuild_tensor = named("torch._utils", "_rebuild_tensor_v2", lambda *_: None)
rebuild_parameter = named("torch._utils", "_rebuild_parameter", lambda *_: None)
storages = {
    "float16": named("torch", "HalfStorage", type("HalfStorage", (), {})),
    "float32": named("torch", "FloatStorage", type("FloatStorage", (), {})),
    "int64": named("torch", "LongStorage", type("LongStorage", (), {})),
}


class Storage:
    def __init__(self, key, values):
        self.key, self.values = key, values


class Tensor:
    """A tensor, as torch describes it to pickle."""

    def __init__(self, storage, shape, strides, parameter=False):
        self.arguments = (storage, 0, tuple(shape), tuple(strides), False, collections.OrderedDict())
        self.parameter = parameter

    def __reduce_ex__(self, _):
        if self.parameter:
            return rebuild_parameter, (Tensor(self.arguments[0], *self.arguments[2:4]), True, collections.OrderedDict())
        return rebuild_tensor, self.arguments


class Pickler(pickle.Pickler):
    def persistent_id(self, value):
        if isinstance(value, Storage):
            return "storage", storages[value.values.dtype.name], value.key, "cpu", value.values.size
        return None


def strides(shape):
    return [int(np.prod(shape[at + 1 :])) for at in range(len(shape))]


tensors = dict(load_file(HERE / "distilbert" / "model.safetensors"))
tensors["embeddings.position_ids"] = np.arange(128, dtype=np.int64)[None]
state, kept = collections.OrderedDict(), []
for number, (name, values) in enumerate(sorted(tensors.items())):
    if name.endswith("ffn.lin1.weight"):
        storage = Storage(str(number), np.ascontiguousarray(values.T))
        state[name] = Tensor(storage, values.shape, reversed(strides(values.T.shape)))
    else:
        storage = Storage(str(number), np.ascontiguousarray(values))
        state[name] = Tensor(storage, values.shape, strides(values.shape), name.endswith("q_lin.bias"))
    kept.append(storage)

written = io.BytesIO()
Pickler(written, 2).dump(state)
target = HERE / "distilbert-bin" / "pytorch_model.bin"
target.parent.mkdir(exist_ok=True)
with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
    put = lambda name, content: archive.writestr(zipfile.ZipInfo(f"pytorch_model/{name}", (1980, 1, 1, 0, 0, 0)), content)
    put("data.pkl", written.getvalue())
    put("byteorder", "little")
    for storage in kept:
        put(f"data/{storage.key}", storage.values.tobytes())
    put("version", "3\n")
