"""Processes of the test: a Redis, replicas of `sconce serve`, and an nginx before them."""

import http.client
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

MODEL = "encoder-mini"
STARTS_WITHIN = 60
DRAIN_DELAY = 2

NGINX = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx-errors.log warn;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream http_replicas {{ {http} keepalive 32; }}
    upstream grpc_replicas {{ {grpc} keepalive 32; }}
    proxy_http_version 1.1;
    proxy_set_header Connection "";

    # An inference changes nothing, so a request that a replica leaves unanswered goes to the next.
    server {{
        listen {passing_http};
        location / {{
            proxy_pass http://http_replicas;
            proxy_next_upstream error timeout http_503 non_idempotent;
        }}
    }}

    # As nginx is by default: it does not repeat a POST, so the client has to.
    server {{
        listen {plain_http};
        location / {{ proxy_pass http://http_replicas; }}
    }}

    # Nginx streams gRPC and so keeps nothing that it could repeat, but for connections that are refused.
    server {{
        listen {grpc_port} http2;
        location / {{
            grpc_pass grpc://grpc_replicas;
            grpc_next_upstream error timeout http_503 non_idempotent;
        }}
    }}
}}
"""


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_until(condition, what):
    """Looks every 20 ms until `condition()` gives something true, which is returned."""
    end = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < end:
        if result := condition():
            return result
        time.sleep(0.02)
    raise AssertionError(f"{what}: not within {STARTS_WITHIN} s")


def accepts(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    except OSError:
        return False


class Redis:
    def __init__(self, folder):
        port = free_port()
        self.url = f"redis://127.0.0.1:{port}"
        command = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", str(folder)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        wait_until(lambda: accepts(port), "Redis listens")


class Replica:
    """A replica on free ports."""

    def __init__(self, sconce, redis_url, log: Path):
        self.log = log
        command = [sconce, "serve", "--model", MODEL, "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0"]
        command += ["--cpu-threads", "1", "--cache-redis", redis_url, "--drain-delay", str(DRAIN_DELAY)]
        with log.open("w") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=output)

    def wait(self):
        """Waits until it listens."""
        self.grpc = wait_until(lambda: self._listens("gRPC"), "a replica listens for gRPC")
        self.http = wait_until(lambda: self._listens("HTTP"), "a replica listens for HTTP")

    def _listens(self, protocol):
        if self.process.poll() is not None:
            raise AssertionError(f"a replica ended before it listened:\n{self.log.read_text()}")
        found = re.search(rf"^{protocol} .* on ([0-9.:]+)$", self.log.read_text(), re.MULTILINE)
        return found and found[1]

    def status(self, path):
        connection = http.client.HTTPConnection(self.http, timeout=10)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        finally:
            connection.close()


class Nginx:
    """A balancer of both protocols over `replicas`, on three ports: see `NGINX`."""

    def __init__(self, folder, replicas):
        self.folder = folder
        self.ports = {name: free_port() for name in ("passing_http", "plain_http", "grpc_port")}
        self._configure(replicas)
        command = ["nginx", "-c", str(folder / "nginx.conf"), "-p", str(folder), "-e", str(folder / "start.log")]
        self.process = subprocess.Popen(command)
        for port in self.ports.values():
            wait_until(lambda: accepts(port), "nginx listens")

    def serve_only(self, replicas):
        """Sends new requests to `replicas` alone, as a balancer does that has seen the others turn not ready."""
        self._configure(replicas)
        self.process.send_signal(signal.SIGHUP)

    def _configure(self, replicas):
        servers = {name: " ".join(f"server {getattr(it, name)};" for it in replicas) for name in ("http", "grpc")}
        listens = {name: f"127.0.0.1:{port}" for name, port in self.ports.items()}
        (self.folder / "nginx.conf").write_text(NGINX.format(folder=self.folder, **servers, **listens))
