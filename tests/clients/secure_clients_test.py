#!/usr/bin/env python3
"""Clients over TLS with a token, against a server that asks for both.

    secure_clients_test.py GRPC_ADDRESS HTTP_ADDRESS CERTIFICATE [unittest arguments]
"""

import ssl
import subprocess
import sys
import unittest

import grpc
import numpy as np
import openai
import tritonclient.grpc as triton_grpc
from tritonclient.utils import InferenceServerException

GRPC, HTTP, CERTIFICATE = sys.argv[1:4]
TOKEN = "a-token-of-the-clients"
HEADERS = {"authorization": f"Bearer {TOKEN}"}
MODEL = "tiny-bert-sentiment"


def texts(module, *values):
    tensor = module.InferInput("text", [len(values), 1], "BYTES")
    tensor.set_data_from_numpy(np.array([[value.encode()] for value in values], object))
    return [tensor]


class SecureClients(unittest.TestCase):
    def test_tritonclient_over_grpc(self):
        client = triton_grpc.InferenceServerClient(GRPC, ssl=True, root_certificates=CERTIFICATE)
        self.assertTrue(client.is_server_live(), "health needs no token")
        answer = client.infer(MODEL, texts(triton_grpc, "What a wonderful day!"), headers=HEADERS)
        self.assertEqual(answer.as_numpy("label").flatten()[0], b"positive")
        with self.assertRaises(InferenceServerException) as raised:
            client.infer(MODEL, texts(triton_grpc, "no token"))
        self.assertEqual(raised.exception.status(), "StatusCode.UNAUTHENTICATED")

    def test_grpc_without_tls_is_refused(self):
        channel = grpc.insecure_channel(GRPC)
        with self.assertRaises(grpc.FutureTimeoutError):
            grpc.channel_ready_future(channel).result(timeout=1)

    def test_openai(self):
        http = openai.DefaultHttpxClient(verify=ssl.create_default_context(cafile=CERTIFICATE))
        client = openai.OpenAI(base_url=f"https://{HTTP}/v1", api_key=TOKEN, http_client=http)
        answer = client.embeddings.create(model="encoder-mini", input=["one", "two"])
        self.assertEqual(len(answer.data), 2)
        stranger = openai.OpenAI(base_url=f"https://{HTTP}/v1", api_key="sk-of-nobody", http_client=http)
        with self.assertRaises(openai.AuthenticationError) as raised:
            stranger.embeddings.create(model="encoder-mini", input="one")
        self.assertEqual(raised.exception.code, "invalid_api_key")

    def test_curl_in_both_versions_of_http(self):
        for version in ["--http1.1", "--http2"]:
            command = ["curl", "-sS", version, "--cacert", CERTIFICATE, "-w", " %{http_version}", f"https://{HTTP}/v2"]
            said = subprocess.run([*command, "-H", f"Authorization: Bearer {TOKEN}"], capture_output=True, text=True)
            self.assertEqual(said.returncode, 0, said.stderr)
            self.assertIn('"name":"sconce"', said.stdout.replace(" ", ""))
            self.assertTrue(said.stdout.endswith(version.removeprefix("--http").removesuffix(".0")), said.stdout)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[4:]])
