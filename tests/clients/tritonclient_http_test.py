#!/usr/bin/env python3
"""Triton's Python client over HTTP against `sconce serve`.

    tritonclient_http_test.py ADDRESS [unittest options]
"""

import sys
import unittest

import numpy as np
import tritonclient.http as triton
import tritonclient.utils.shared_memory as shared_memory
from tritonclient.utils import InferenceServerException

SENTIMENT = "tiny-bert-sentiment"
DIGITS = "digits-cnn"


class Http(unittest.TestCase):
    address = None

    def setUp(self):
        self.client = triton.InferenceServerClient(self.address)
        self.addCleanup(self.client.close)

    def image(self):
        image = triton.InferInput("image", [1, 1, 8, 8], "FP32")
        image.set_data_from_numpy(np.ones((1, 1, 8, 8), np.float32))
        return [image]

    def test_the_server_and_its_models_are_described(self):
        self.assertTrue(self.client.is_server_live() and self.client.is_server_ready())
        self.assertTrue(self.client.is_model_ready(SENTIMENT))
        self.assertFalse(self.client.is_model_ready("no-such"))
        self.assertIn("binary_tensor_data", self.client.get_server_metadata()["extensions"])
        self.assertEqual(self.client.get_model_metadata(DIGITS)["inputs"][0]["shape"], [-1, 1, 8, 8])
        self.assertEqual(self.client.get_model_config(DIGITS)["name"], DIGITS)
        self.assertEqual(len(self.client.get_inference_statistics()["model_stats"]), 4)
        self.assertEqual(len(self.client.get_model_repository_index()), 4)

    def test_settings_are_read_and_not_changed(self):
        self.assertEqual(self.client.get_trace_settings()["trace_level"], ["OFF"])
        self.assertEqual(self.client.get_trace_settings(SENTIMENT)["trace_level"], ["OFF"])
        self.assertTrue(self.client.get_log_settings()["log_error"])
        with self.assertRaises(InferenceServerException) as caught:
            self.client.update_log_settings({"log_verbose_level": 1})
        self.assertIn("RUST_LOG", caught.exception.message())

    def test_inputs_and_outputs_go_through_shared_memory(self):
        pixels = np.ones((1, 1, 8, 8), np.float32)
        expected = self.client.infer(DIGITS, self.image()).as_numpy("scores")
        size = pixels.nbytes + expected.nbytes
        region = shared_memory.create_shared_memory_region("sconce", "/sconce-http-clients-test", size)
        try:
            shared_memory.set_shared_memory_region(region, [pixels])
            self.client.register_system_shared_memory("sconce", "/sconce-http-clients-test", size)
            self.assertEqual(self.client.get_system_shared_memory_status()[0]["byte_size"], size)
            image = triton.InferInput("image", list(pixels.shape), "FP32")
            image.set_shared_memory("sconce", pixels.nbytes)
            scores = triton.InferRequestedOutput("scores")
            scores.set_shared_memory("sconce", expected.nbytes, offset=pixels.nbytes)
            output = self.client.infer(DIGITS, [image], outputs=[scores]).get_output("scores")
            written = shared_memory.get_contents_as_numpy(region, np.float32, output["shape"], offset=pixels.nbytes)
            np.testing.assert_array_equal(written, expected)
            self.client.unregister_system_shared_memory()
            self.assertEqual(self.client.get_system_shared_memory_status(), [])
        finally:
            shared_memory.destroy_shared_memory_region(region)

    def test_tensors_go_as_json_and_binary_and_compressed(self):
        for binary in (True, False):
            text = triton.InferInput("text", [2, 1], "BYTES")
            text.set_data_from_numpy(np.array([[b"great"], [b"awful"]], object), binary_data=binary)
            asked = triton.InferRequestedOutput("scores", class_count=1, binary_data=binary)
            for compression in (None, "gzip", "deflate"):
                answer = self.client.infer(SENTIMENT, [text], request_compression_algorithm=compression)
                self.assertEqual(answer.as_numpy("label").reshape(-1).tolist(), [b"positive", b"negative"])
                self.assertEqual(answer.as_numpy("scores").argmax(axis=1).tolist(), [1, 0])
                best = self.client.infer(SENTIMENT, [text], outputs=[asked]).as_numpy("scores").reshape(-1)
                self.assertEqual([str(it).strip("b'").split(":", 1)[1] for it in best], ["1:positive", "0:negative"])

    def test_many_requests_at_once_are_answered_alike(self):
        expected = self.client.infer(DIGITS, self.image()).as_numpy("scores")
        requests = [self.client.async_infer(DIGITS, self.image()) for _ in range(16)]
        for request in requests:
            np.testing.assert_array_equal(request.get_result().as_numpy("scores"), expected)

    def test_errors_have_their_status_and_words(self):
        with self.assertRaises(InferenceServerException) as caught:
            self.client.infer("no-such", self.image())
        self.assertEqual(caught.exception.status(), "404")
        self.assertIn("no model is named 'no-such'", caught.exception.message())


if __name__ == "__main__":
    Http.address = sys.argv.pop(1)
    unittest.main()
