#!/usr/bin/env python3
"""Runs the commands of the Dockerfile and the manifests and asks them as their probes, clients and Prometheus do.

    commands.py SCONCE_BINARY

Ports, and paths that only containers have, are replaced; everything else is as it stands there.
"""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import yaml

FOLDER = Path(__file__).resolve().parent
ZOO = FOLDER.parent / "models" / "zoo"
MODEL = "encoder-mini"
TOKENS = {"token": "a-client:secret-of-a-client\nprometheus:secret-of-prometheus\n"}
STARTS_WITHIN = 60


class Server:
    """A command of this folder, running."""

    def __init__(self, name, sconce, arguments, folder, probes, environment=()):
        tokens = folder / "token"
        tokens.write_text(TOKENS["token"])
        replaced = {r"(=|^)0\.0\.0\.0:\d+$": r"\g<1>0.0.0.0:0", r"\{\{\.Name}}": MODEL, "/mnt/models": str(ZOO / MODEL)}
        replaced |= {"^--models=/models$": f"--models={ZOO}", "/etc/sconce/tokens/token": str(tokens)}
        for pattern, replacement in replaced.items():
            arguments = [re.sub(pattern, replacement, argument) for argument in arguments]
        self.name, self.probes, self.log = name, probes, folder / f"{name}.log"
        environment = os.environ | {"SCONCE_MODELS": str(ZOO)} | dict(environment)
        with self.log.open("w") as output:
            self.process = subprocess.Popen([sconce, *arguments], stdout=output, stderr=output, env=environment)

    def wait(self):
        self.port = wait_until(self._port, f"{self.name} listens")

    def _port(self):
        log = self.log.read_text()
        if self.process.poll() is not None:
            sys.exit(f"the command of {self.name} ended before it listened:\n{log}")
        found = re.search(r"^HTTP .* on 0\.0\.0\.0:(\d+)$", log, re.MULTILINE)
        return found and int(found[1])

    def ask(self, method, path, body=None, token=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        if body:
            headers["Content-Type"] = "application/json"
        try:
            connection.request(method, path, json.dumps(body) if body else None, headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def embed(self, token=None):
        status, answer = self.ask("POST", "/v1/embeddings", {"model": MODEL, "input": "a sconce"}, token)
        assert status != 200 or len(json.loads(answer)["data"][0]["embedding"]) == 384, answer
        return status

    def expect(self, what, got, wanted):
        if got != wanted:
            sys.exit(f"{self.name}: {what}: got {got}, expected {wanted}\n{self.log.read_text()}")
        print(f"{self.name}: {what}: {got}")


def wait_until(condition, what):
    end = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < end:
        if result := condition():
            return result
        time.sleep(0.05)
    sys.exit(f"{what}: not within {STARTS_WITHIN} s")


def container(path):
    spec = yaml.safe_load((FOLDER / path).read_text())["spec"]
    spec = spec["template"]["spec"] if "template" in spec else spec
    (container,) = spec["containers"]
    probes = [container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")]
    return container["args"], probes


def image_command():
    (command,) = re.findall(r"^CMD (\[.*])$", (FOLDER / "Dockerfile").read_text(), re.MULTILINE)
    return json.loads(command)


def check_metrics(server):
    """Each metric that a rule, the board or the autoscaler names is one that the server has."""
    status, text = server.ask("GET", "/metrics", token="secret-of-prometheus")
    server.expect("status of /metrics with a token", status, 200)
    has = {re.match(r"\w+", line)[0] for line in text.splitlines() if line and not line.startswith("#")}
    for name, kind in re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE):
        suffixes = {"counter": ["", "_total"], "histogram": ["_bucket", "_sum", "_count"]}
        has |= {name + suffix for suffix in suffixes.get(kind, [""])}
    files = ["prometheus/rules.yaml", "prometheus/rules.test.yaml", "grafana/sconce.json", "kubernetes/autoscaling.yaml"]
    for file in files:
        names = set(re.findall(r"\b(?:sconce|process)_[a-z_]+\b", (FOLDER / file).read_text()))
        server.expect(f"metrics of {file} that the server does not have", sorted(names - has), [])


def check_end(server, drains):
    server.process.send_signal(signal.SIGTERM)
    if drains:
        wait_until(lambda: server.ask("GET", "/readyz")[0] == 503, f"{server.name} is not ready")
        server.expect("liveness while it drains", server.ask("GET", "/livez")[0], 200)


def main():
    sconce = sys.argv[1]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))

        def started(*arguments, **options):
            server = Server(arguments[0], sconce, arguments[1], folder, *arguments[2:], **options)
            stack.callback(lambda: (server.process.kill(), server.process.wait()))
            return server

        deployment = started("deployment", *container("kubernetes/deployment.yaml"))
        kserve = started("kserve", *container("kserve/runtime.yaml"))
        image = started("image", image_command(), ["/readyz"], environment={"SCONCE_TOKEN": "secret-of-a-client"})
        servers = [deployment, kserve, image]
        for server in servers:
            server.wait()
            for path in server.probes:
                server.expect(f"status of the probe {path}", server.ask("GET", path)[0], 200)
            ready = subprocess.run([FOLDER / "sconce-ready", str(server.port)], check=False)
            server.expect("exit status of sconce-ready", ready.returncode, 0)
        for server in (deployment, image):
            server.expect("a request without a token", server.embed(), 401)
            server.expect("a request with a token", server.embed("secret-of-a-client"), 200)
        kserve.expect("a request without a token", kserve.embed(), 200)
        check_metrics(deployment)
        for server in servers:
            check_end(server, drains=server is not image)
        for server in servers:
            server.expect("exit status after SIGTERM", server.process.wait(timeout=45), 0)
            ready = subprocess.run([FOLDER / "sconce-ready", str(server.port)], check=False, stderr=subprocess.DEVNULL)
            server.expect("sconce-ready of a server that has ended succeeds", ready.returncode == 0, False)


if __name__ == "__main__":
    main()
