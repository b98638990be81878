"""Callers in a closed loop that check each answer and repeat a request once if it fails."""

import http.client
import json
import random
import threading
import time
from collections import Counter
from typing import NamedTuple

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from cluster import MODEL

TIMEOUT = 20
# Answers to one text differ by rounding alone, whatever batch it was in; those to two texts differ by far more.
CLOSE = 1e-5


def ask_over_http(address):
    """A caller with a connection for each request, as a balancer may close a kept one at any time."""

    def ask(text):
        connection = http.client.HTTPConnection(address, timeout=TIMEOUT)
        try:
            body = json.dumps({"model": MODEL, "input": text})
            connection.request("POST", "/v1/embeddings", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            read = answer.read()
            if answer.status != 200:
                raise OSError(f"status {answer.status}: {read[:200]}")
            return json.loads(read)["data"][0]["embedding"], answer.headers["x-sconce-source"]
        finally:
            connection.close()

    return ask


def ask_over_grpc(address):
    """A caller with one connection for all its requests."""
    client = triton.InferenceServerClient(address)

    def ask(text):
        tensor = triton.InferInput("text", [1, 1], "BYTES")
        tensor.set_data_from_numpy(np.array([[text.encode()]], object))
        answer = client.infer(MODEL, [tensor], client_timeout=TIMEOUT)
        source = answer.get_response().parameters["source"].string_param
        return answer.as_numpy(answer.get_response().outputs[0].name)[0], source

    return ask


class Failure(NamedTuple):
    at: float
    caller: str
    error: str


FAILURES = (OSError, http.client.HTTPException, InferenceServerException)


class Load:
    """Callers that ask for random texts until they are stopped."""

    def __init__(self, callers, expected):
        self.expected = expected
        self.texts = list(expected)
        self.answered = {name: 0 for name, _ in callers}
        self.sources, self.retried, self.failed, self.wrong = Counter(), [], [], []
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        self.threads = [
            threading.Thread(target=self._call, args=(name, ask, number), daemon=True)
            for number, (name, ask) in enumerate(callers)
        ]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        for thread in self.threads:
            thread.join(timeout=3 * TIMEOUT)
        assert not any(thread.is_alive() for thread in self.threads), "a caller still waits for an answer"

    def wait_for_more(self, requests):
        """Waits until every kind of caller has had that many more answers."""
        wanted = {name: self.answered[name] + requests for name in self.answered}
        end = time.monotonic() + 3 * TIMEOUT
        while any(self.answered[name] < count for name, count in wanted.items()):
            assert time.monotonic() < end, f"too few answers: {self.answered}, wanted {wanted}"
            time.sleep(0.01)

    def _call(self, name, ask, seed):
        choose = random.Random(seed)
        while not self.stopping.is_set():
            text = choose.choice(self.texts)
            self._ask(name, ask, text)

    def _ask(self, name, ask, text):
        for attempt in range(2):
            try:
                answer, source = ask(text)
            except FAILURES as error:
                with self.lock:
                    (self.failed if attempt else self.retried).append(Failure(time.monotonic(), name, repr(error)))
                continue
            right = np.allclose(answer, self.expected[text], rtol=0, atol=CLOSE)
            with self.lock:
                self.answered[name] += 1
                self.sources[source or "computed"] += 1
                if not right:
                    self.wrong.append((name, text))
            return
