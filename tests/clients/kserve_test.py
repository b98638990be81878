#!/usr/bin/env python3
"""KServe's client over REST and gRPC against `sconce serve`.

    kserve_test.py HTTP_ADDRESS GRPC_ADDRESS [unittest options]
"""

import sys
import unittest

import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig

SENTIMENT = "tiny-bert-sentiment"
DIGITS = "digits-cnn"


def texts(binary):
    tensor = InferInput("text", [2, 1], "BYTES")
    tensor.set_data_from_numpy(np.array([[b"great"], [b"awful"]], object), binary_data=binary)
    return InferRequest(SENTIMENT, [tensor], request_id="a request")


def image(binary):
    tensor = InferInput("image", [1, 1, 8, 8], "FP32")
    tensor.set_data_from_numpy(np.ones((1, 1, 8, 8), np.float32), binary_data=binary)
    return InferRequest(DIGITS, [tensor])


def output(answer, name):
    (found,) = [it for it in answer.outputs if it.name == name]
    return found.as_numpy()


class KServe(unittest.IsolatedAsyncioTestCase):
    http = grpc = ""

    async def asyncSetUp(self):
        self.url = f"http://{self.http}"
        self.rest = InferenceRESTClient(RESTConfig(protocol="v2", retries=0))
        self.rpc = InferenceGRPCClient(self.grpc)
        self.addAsyncCleanup(self.rest.close)
        self.addAsyncCleanup(self.rpc.close)

    async def test_the_server_and_its_models_are_ready_over_both_protocols(self):
        self.assertTrue(await self.rest.is_server_live(self.url) and await self.rest.is_server_ready(self.url))
        self.assertTrue(await self.rpc.is_server_live() and await self.rpc.is_server_ready())
        self.assertTrue(await self.rest.is_model_ready(self.url, SENTIMENT))
        self.assertTrue(await self.rpc.is_model_ready(SENTIMENT))

    async def test_texts_are_classified_over_both_protocols(self):
        answers = [await self.rest.infer(self.url, texts(binary), SENTIMENT) for binary in (True, False)]
        answers += [await self.rpc.infer(texts(binary)) for binary in (True, False)]
        for answer in answers:
            self.assertEqual(answer.model_name, SENTIMENT)
            self.assertEqual(answer.id, "a request")
            labels = [label if isinstance(label, str) else label.decode() for label in output(answer, "label").flat]
            self.assertEqual(labels, ["positive", "negative"])
            self.assertEqual(output(answer, "scores").argmax(axis=1).tolist(), [1, 0])

    async def test_images_have_the_same_scores_over_both_protocols(self):
        answers = [await self.rest.infer(self.url, image(binary), DIGITS) for binary in (True, False)]
        answers += [await self.rpc.infer(image(binary)) for binary in (True, False)]
        expected = output(answers[0], "scores")
        self.assertEqual(expected.shape, (1, 10))
        for answer in answers[1:]:
            np.testing.assert_array_equal(output(answer, "scores"), expected)


if __name__ == "__main__":
    KServe.http, KServe.grpc = sys.argv.pop(1), sys.argv.pop(1)
    unittest.main()
