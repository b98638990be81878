"""Writes a BERT directory as ONNX graphs, in f32 and quantised to int8.

    graphs.py MODEL_DIRECTORY OUT_DIRECTORY

fused.onnx       ONNX Runtime's own operators (com.microsoft), as its transformer optimiser leaves a BERT
plain.onnx       standard operators alone; the runtime that loads it fuses what it can
fused-int8.onnx  both by quantize_dynamic: int8 weights with a scale per channel, uint8 activations with one scale per
plain-int8.onnx  tensor, found anew in each call

Each takes input_ids, token_type_ids and attention_mask, int32 [batch, tokens], and gives `pooled`, f32 [batch, hidden]:
the mean of a text's token vectors, not normalised. Files that are up to date are not written again.
"""

import hashlib
import importlib.metadata
import logging
import math
import pathlib
import sys

import numpy as np
import onnx
import onnx.shape_inference
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

import checkpoint

OPSET, MICROSOFT = 17, "com.microsoft"


class Graph:
    """Collects nodes and initializers; each method adds one node and returns the name of its first output."""

    def __init__(self):
        self.nodes, self.initializers = [], []

    def constant(self, name, array):
        if all(known.name != name for known in self.initializers):
            self.initializers.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
        return name

    def add(self, operator, *inputs, outputs=1, domain="", **attributes):
        names = [f"{operator}_{len(self.nodes)}_{index}" for index in range(outputs)]
        self.nodes.append(helper.make_node(operator, inputs, names, names[0], domain=domain, **attributes))
        return names[0] if outputs == 1 else names

    def linear(self, x, name, weight_bias):
        """x @ w + b with plain operators."""
        weight, bias = weight_bias
        product = self.add("MatMul", x, self.constant(f"{name}.weight", weight))
        return self.add("Add", product, self.constant(f"{name}.bias", bias))

    def mean(self, hidden, mask):
        """Means over the tokens that the mask keeps, as a product: no intermediate as large as `hidden`."""
        kept = self.add("Cast", mask, to=TensorProto.FLOAT)
        rows = self.add("Unsqueeze", kept, self.constant("axis 1", np.array([1])))
        sums = self.add("Squeeze", self.add("MatMul", rows, hidden), self.constant("axis 1", np.array([1])))
        count = self.add("ReduceSum", kept, self.constant("axis 1", np.array([1])), keepdims=1)
        return self.add("Div", sums, count)

    def save(self, path, pooled, hidden_size):
        self.nodes.append(helper.make_node("Identity", [pooled], ["pooled"]))
        inputs = [
            helper.make_tensor_value_info(name, TensorProto.INT32, ["batch", "tokens"])
            for name in ("input_ids", "token_type_ids", "attention_mask")
        ]
        output = helper.make_tensor_value_info("pooled", TensorProto.FLOAT, ["batch", hidden_size])
        graph = helper.make_graph(self.nodes, "bert", inputs, [output], self.initializers)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
        made = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        # With known shapes ONNX Runtime fuses more: residual and layer norm of the plain graph.
        onnx.save(onnx.shape_inference.infer_shapes(made), path)


def fused(model, path):
    graph = Graph()

    def weights(*names):
        return [graph.constant(name, model[name]) for name in names]

    def skip_norm(x, skip, bias, prefix):
        inputs = [x, skip, *weights(f"{prefix}.weight", f"{prefix}.bias", bias)]
        return graph.add("SkipLayerNormalization", *inputs, domain=MICROSOFT, epsilon=model.epsilon)

    x, lengths = graph.add(
        "EmbedLayerNormalization",
        "input_ids",
        "token_type_ids",
        *weights(*(f"embeddings.{table}_embeddings.weight" for table in ("word", "position", "token_type"))),
        *weights("embeddings.LayerNorm.weight", "embeddings.LayerNorm.bias"),
        "attention_mask",
        outputs=2,
        domain=MICROSOFT,
        epsilon=model.epsilon,
    )
    for layer in range(model.layers):
        prefix = f"encoder.layer.{layer}"
        qkv = [model.linear(layer, f"attention.self.{part}") for part in ("query", "key", "value")]
        context = graph.add(
            "Attention",
            x,
            graph.constant(f"{prefix}.qkv.weight", np.concatenate([weight for weight, _ in qkv], axis=1)),
            graph.constant(f"{prefix}.qkv.bias", np.concatenate([bias for _, bias in qkv])),
            lengths,
            domain=MICROSOFT,
            num_heads=model.heads,
        )

        def product(x, name):
            return graph.add("MatMul", x, graph.constant(f"{prefix}.{name}.weight", model.linear(layer, name)[0]))

        out = f"{prefix}.attention.output"
        x = skip_norm(product(context, "attention.output.dense"), x, f"{out}.dense.bias", f"{out}.LayerNorm")
        up = product(x, "intermediate.dense")
        up = graph.add("BiasGelu", up, *weights(f"{prefix}.intermediate.dense.bias"), domain=MICROSOFT)
        out = f"{prefix}.output"
        x = skip_norm(product(up, "output.dense"), x, f"{out}.dense.bias", f"{out}.LayerNorm")
    graph.save(path, graph.mean(x, "attention_mask"), model.hidden)


def plain(model, path):
    graph = Graph()
    head_size = model.hidden // model.heads
    number = lambda name, value: graph.constant(name, np.array(value, np.float32))
    shape = lambda name, *sizes: graph.constant(name, np.array(sizes))

    def norm(x, prefix):
        inputs = [graph.constant(f"{prefix}.{part}", model[f"{prefix}.{part}"]) for part in ("weight", "bias")]
        return graph.add("LayerNormalization", x, *inputs, axis=-1, epsilon=model.epsilon)

    def gelu(x):
        erf = graph.add("Erf", graph.add("Div", x, number("sqrt 2", math.sqrt(2))))
        return graph.add("Mul", graph.add("Mul", x, graph.add("Add", erf, number("one", 1))), number("half", 0.5))

    def lookup(table, indices):
        name = f"embeddings.{table}_embeddings.weight"
        return graph.add("Gather", graph.constant(name, model[name]), indices)

    tokens = graph.add("Gather", graph.add("Shape", "input_ids"), graph.constant("index 1", np.array(1)), axis=0)
    positions = graph.add("Range", graph.constant("zero", np.array(0)), tokens, graph.constant("step", np.array(1)))
    x = graph.add("Add", lookup("word", "input_ids"), lookup("token_type", "token_type_ids"))
    x = norm(graph.add("Add", x, lookup("position", positions)), "embeddings.LayerNorm")

    # Masked tokens get the lowest f32 added to their scores: [batch, 1, 1, tokens].
    kept = graph.add("Cast", "attention_mask", to=TensorProto.FLOAT)
    kept = graph.add("Unsqueeze", kept, graph.constant("axes 1 2", np.array([1, 2])))
    lowest = number("lowest", np.finfo(np.float32).min)
    mask = graph.add("Mul", graph.add("Sub", number("one", 1), kept), lowest)

    for layer in range(model.layers):
        prefix = f"encoder.layer.{layer}"

        def linear(x, name):
            return graph.linear(x, f"{prefix}.{name}", model.linear(layer, name))

        def split(part, order):  # [batch, tokens, hidden] -> heads in front
            x4 = graph.add("Reshape", linear(x, f"attention.self.{part}"), shape("split", 0, 0, model.heads, head_size))
            return graph.add("Transpose", x4, perm=order)

        scores = graph.add("MatMul", split("query", [0, 2, 1, 3]), split("key", [0, 2, 3, 1]))
        scores = graph.add("Div", scores, number("sqrt head size", math.sqrt(head_size)))
        shares = graph.add("Softmax", graph.add("Add", scores, mask), axis=-1)
        context = graph.add("Transpose", graph.add("MatMul", shares, split("value", [0, 2, 1, 3])), perm=[0, 2, 1, 3])
        context = graph.add("Reshape", context, shape("join", 0, 0, model.hidden))
        x = graph.add("Add", linear(context, "attention.output.dense"), x)
        x = norm(x, f"{prefix}.attention.output.LayerNorm")
        up = gelu(linear(x, "intermediate.dense"))
        x = norm(graph.add("Add", linear(up, "output.dense"), x), f"{prefix}.output.LayerNorm")
    graph.save(path, graph.mean(x, "attention_mask"), model.hidden)


def quantise(source, target):
    # Shape inference does not know ONNX Runtime's own operators: an output of unknown type is f32.
    options = {"DefaultTensorType": TensorProto.FLOAT}
    quantize_dynamic(source, target, per_channel=True, weight_type=QuantType.QInt8, extra_options=options)


def fingerprint(directory):
    """Digest of everything that the graphs are made from."""
    digest = hashlib.sha256()
    for path in (pathlib.Path(__file__), directory / "config.json", directory / "model.safetensors"):
        digest.update(path.read_bytes())
    versions = [f"{package} {importlib.metadata.version(package)}" for package in ("onnx", "onnxruntime")]
    return "\n".join([digest.hexdigest(), *versions])


def main():
    directory, out = map(pathlib.Path, sys.argv[1:3])
    made_from = out / "made-from"
    wanted = fingerprint(directory)
    if made_from.exists() and made_from.read_text() == wanted:
        return
    logging.disable(logging.WARNING)  # advice to run a preprocessing that does nothing for these graphs
    out.mkdir(parents=True, exist_ok=True)
    model = checkpoint.read(directory, np.float32)
    for name, write in (("fused", fused), ("plain", plain)):
        write(model, out / f"{name}.onnx")
        quantise(out / f"{name}.onnx", out / f"{name}-int8.onnx")
    made_from.write_text(wanted)


if __name__ == "__main__":
    main()
