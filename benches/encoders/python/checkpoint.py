"""A BERT directory as Hugging Face ships it, read into numpy."""

import dataclasses
import json
import pathlib

import numpy as np
from safetensors.numpy import load_file


@dataclasses.dataclass
class Checkpoint:
    layers: int
    hidden: int
    heads: int
    epsilon: float
    weights: dict[str, np.ndarray]

    def __getitem__(self, name: str) -> np.ndarray:
        return self.weights[name]

    def layer(self, index: int, name: str) -> np.ndarray:
        return self.weights[f"encoder.layer.{index}.{name}"]

    def linear(self, index: int, name: str) -> tuple[np.ndarray, np.ndarray]:
        """The matrix as [in, out] (x @ w), and the bias."""
        return self.layer(index, f"{name}.weight").T, self.layer(index, f"{name}.bias")


def read(directory: pathlib.Path, dtype) -> Checkpoint:
    config = json.loads((directory / "config.json").read_text())
    if config["hidden_act"] != "gelu":
        raise SystemExit(f"{directory}/config.json: field 'hidden_act' is '{config['hidden_act']}'; only 'gelu' is known")
    tensors = load_file(directory / "model.safetensors")
    return Checkpoint(
        layers=config["num_hidden_layers"],
        hidden=config["hidden_size"],
        heads=config["num_attention_heads"],
        epsilon=config["layer_norm_eps"],
        weights={name.removeprefix("bert."): t.astype(dtype) for name, t in tensors.items() if t.dtype.kind == "f"},
    )
