#!/usr/bin/env python3
"""Three replicas of `sconce serve` behind nginx with a shared Redis, under load over HTTP and gRPC.

    replicas_test.py SCONCE_BINARY [unittest options]
"""

import json
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from contextlib import ExitStack
from pathlib import Path

from cluster import DRAIN_DELAY, MODEL, Nginx, Redis, Replica, wait_until
from load import Load, ask_over_grpc, ask_over_http

TEXTS = [f"Text number {number} is about {'sconces and candles ' * (number % 7)}." for number in range(400)]
CALLERS = 4


class Replicas(unittest.TestCase):
    sconce = ""

    @classmethod
    def setUpClass(cls):
        # The answers of a process of its own, which knows no cache.
        texts = "\n".join(TEXTS).encode()
        embed = subprocess.run([cls.sconce, "embed", "--model", MODEL], input=texts, stdout=subprocess.PIPE, check=True)
        answers = [json.loads(line)["embedding"] for line in embed.stdout.splitlines()]
        cls.expected = dict(zip(TEXTS, answers, strict=True))

    def setUp(self):
        stack = ExitStack()
        self.addCleanup(stack.close)
        self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        self.stack = stack
        self.redis = self.started(Redis(self.folder))
        self.replicas = [self.started(Replica(self.sconce, self.redis.url, self.folder / f"{n}.log")) for n in range(3)]
        for replica in self.replicas:
            replica.wait()
        self.nginx = self.started(Nginx(self.folder, self.replicas))

    def started(self, process):
        self.stack.callback(end, process.process)
        return process

    def load(self):
        asks = {"passing_http": ask_over_http, "plain_http": ask_over_http, "grpc_port": ask_over_grpc}
        ports = self.nginx.ports
        callers = [(name, ask(f"127.0.0.1:{ports[name]}")) for name, ask in asks.items() for _ in range(CALLERS)]
        return Load(callers, self.expected)

    def assert_all_answered(self, load):
        self.assert_none(load.failed, "failed twice")
        self.assert_none(load.wrong, "were answered wrongly")

    def assert_none(self, requests, what):
        if requests:
            logs = [f"{log.name}:\n{log.read_text(errors='replace')}" for log in sorted(self.folder.glob("*.log"))]
            self.fail(f"requests that {what}: {requests}\n" + "\n".join(logs))

    def test_no_request_fails_twice_when_a_replica_is_killed_and_none_once_when_one_is_told_to_stop(self):
        first, second, third = self.replicas
        with self.load() as load:
            load.wait_for_more(50)
            first.process.kill()
            first.process.wait()
            load.wait_for_more(50)
            killed = list(load.retried)

            self.nginx.serve_only([second, third])
            load.wait_for_more(10)
            settled = time.monotonic()
            second.process.send_signal(signal.SIGTERM)
            wait_until(lambda: second.status("/readyz") == 503, "health says not ready")
            self.assertEqual(second.status("/livez"), 200)
            # It still answers, so that a balancer may take its time to notice.
            answer, _ = ask_over_http(second.http)(TEXTS[0])
            self.assertEqual(len(answer), len(self.expected[TEXTS[0]]))
            self.nginx.serve_only([third])
            self.assertEqual(second.process.wait(timeout=60), 0, second.log.read_text())
            self.assertGreater(time.monotonic() - settled, DRAIN_DELAY)
            load.wait_for_more(50)
        self.assert_all_answered(load)
        self.assert_none([it for it in load.retried if it.at > settled], "failed once after a replica was told to stop")
        # Nginx passed on what the killed replica left, where it may.
        self.assert_none([it for it in killed if it.caller == "passing_http"], "were not passed on")
        self.assertGreater(load.sources["redis"], 0, load.sources)
        print(f"answered {load.answered} from {dict(load.sources)}; {len(load.retried)} were repeated")

    def test_replicas_share_answers_by_redis_and_a_new_one_finds_them(self):
        self.assertIn(ask_over_http(self.replicas[0].http)(TEXTS[0])[1], (None, "computed"))
        fresh = self.started(Replica(self.sconce, self.redis.url, self.folder / "fresh.log"))
        fresh.wait()
        for replica in [*self.replicas[1:], fresh]:
            answer, source = ask_over_http(replica.http)(TEXTS[0])
            self.assertEqual(source, "redis")
            self.assertEqual(answer, ask_over_http(self.replicas[0].http)(TEXTS[0])[0])


def end(process):
    # An nginx that is killed would leave its workers behind.
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


if __name__ == "__main__":
    Replicas.sconce = sys.argv.pop(1)
    unittest.main()
