"""Runs one ONNX graph under ONNX Runtime for the side-by-side harness.

    ort_worker.py GRAPH.onnx INPUTS.json THREADS

Speaks the line protocol of `worker/mod.rs`: says `ready VERSION`, then answers `run SHAPE MILLISECONDS MIN_CALLS` with
the times of its calls as JSON and `out SHAPE FILE` by writing the rows as f32, until standard input ends.
"""

import gc
import json
import signal
import sys
import time

import numpy as np
import onnxruntime


def padded(texts):
    """Token ids padded to the longest text, and the mask of the tokens."""
    ids = np.zeros((len(texts), max(map(len, texts))), np.int32)
    mask = np.zeros_like(ids)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = text
        mask[row, : len(text)] = 1
    return {"input_ids": ids, "token_type_ids": np.zeros_like(ids), "attention_mask": mask}


def time_calls(forward, milliseconds, min_calls):
    forward()  # brings weights back into the cache; not counted
    wall, cpu = [], []
    started = time.perf_counter()
    while len(wall) < min_calls or time.perf_counter() - started < milliseconds / 1e3:
        # The outer clock costs more, so that wall time does not include it.
        cpu_from, wall_from = time.process_time_ns(), time.perf_counter_ns()
        forward()
        wall_to, cpu_to = time.perf_counter_ns(), time.process_time_ns()
        wall.append((wall_to - wall_from) / 1e6)
        cpu.append((cpu_to - cpu_from) / 1e6)
    wait_until_quiet()
    return {"wall_ms": wall, "cpu_ms": cpu}


def wait_until_quiet(period_s=0.010, max_busy_s=0.001):
    """Waits until helper threads, which spin for some 40 ms after a call, no longer disturb the next engine."""
    busy = max_busy_s
    while busy >= max_busy_s:
        before = time.process_time()
        time.sleep(period_s)
        busy = time.process_time() - before


def main():
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the harness ends its workers itself
    graph, inputs, threads = sys.argv[1:4]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(threads)
    options.log_severity_level = 3  # errors
    # All other options keep their defaults, as for users: every optimisation, and helper threads that spin a while.
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    with open(inputs, encoding="utf-8") as file:
        # Bound once, so that a timed call copies nothing and converts nothing.
        feeds = {shape: padded(texts) for shape, texts in json.load(file).items()}
    bindings = {}
    for shape, feed in feeds.items():
        bindings[shape] = session.io_binding()
        for name, array in feed.items():
            bindings[shape].bind_cpu_input(name, array)
        bindings[shape].bind_output("pooled")
    gc.disable()
    print("ready", onnxruntime.__version__, flush=True)
    for line in sys.stdin:
        verb, shape, *rest = line.rstrip("\n").split(" ", 2)
        if verb == "run":
            milliseconds, min_calls = map(int, rest[0].split())
            calls = time_calls(lambda: session.run_with_iobinding(bindings[shape]), milliseconds, min_calls)
            print(json.dumps(calls), flush=True)
        elif verb == "out":
            session.run_with_iobinding(bindings[shape])
            bindings[shape].copy_outputs_to_cpu()[0].astype("<f4").tofile(rest[0])
            print("ok", flush=True)
        else:
            raise SystemExit(f"ort_worker: unknown verb '{verb}'; known are: run, out")


if __name__ == "__main__":
    main()
