"""Makes a BERT-base (12 layers, 768 wide) with random weights: the same on every machine, and nothing to download.

    bert_base.py OUT_DIRECTORY TOKENIZER.json

The initialisation is BERT's own (normal, 0.02); the tokenizer is only there because a model directory has one.
"""

import json
import pathlib
import shutil
import sys

import numpy as np
from safetensors.numpy import save_file

SEED, DEVIATION = 20181011, 0.02
CONFIG = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "hidden_act": "gelu",
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "vocab_size": 30522,
    "pad_token_id": 0,
    "initializer_range": DEVIATION,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
}


def tensors():
    random = np.random.Generator(np.random.PCG64(SEED))
    hidden, wide = CONFIG["hidden_size"], CONFIG["intermediate_size"]

    def normal(*shape):
        return random.standard_normal(shape, np.float32) * np.float32(DEVIATION)

    def linear(name, inputs, outputs):
        return {f"{name}.weight": normal(outputs, inputs), f"{name}.bias": normal(outputs)}

    def norm(name):
        return {f"{name}.weight": 1 + normal(hidden), f"{name}.bias": normal(hidden)}

    made = {
        "embeddings.word_embeddings.weight": normal(CONFIG["vocab_size"], hidden),
        "embeddings.position_embeddings.weight": normal(CONFIG["max_position_embeddings"], hidden),
        "embeddings.token_type_embeddings.weight": normal(CONFIG["type_vocab_size"], hidden),
        **norm("embeddings.LayerNorm"),
    }
    for layer in range(CONFIG["num_hidden_layers"]):
        prefix = f"encoder.layer.{layer}"
        for part in ("query", "key", "value"):
            made |= linear(f"{prefix}.attention.self.{part}", hidden, hidden)
        made |= linear(f"{prefix}.attention.output.dense", hidden, hidden)
        made |= norm(f"{prefix}.attention.output.LayerNorm")
        made |= linear(f"{prefix}.intermediate.dense", hidden, wide)
        made |= linear(f"{prefix}.output.dense", wide, hidden)
        made |= norm(f"{prefix}.output.LayerNorm")
    return made | linear("pooler.dense", hidden, hidden)


def main():
    out, tokenizer = map(pathlib.Path, sys.argv[1:3])
    weights, unfinished = out / "model.safetensors", out / "model.safetensors.part"
    if weights.exists():
        return
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.json").write_text(json.dumps(CONFIG, indent=2))
    shutil.copy(tokenizer, out / "tokenizer.json")
    save_file(tensors(), unfinished)
    unfinished.rename(weights)


if __name__ == "__main__":
    main()
