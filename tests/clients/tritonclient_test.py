#!/usr/bin/env python3
"""Triton's Python client against `sconce serve`, checked against the references of the models that ship.

    tritonclient_test.py ADDRESS [unittest options]
"""

import asyncio
import queue
import sys
import unittest
from pathlib import Path

import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
import tritonclient.utils.shared_memory as shared_memory
from safetensors.numpy import load_file
from tritonclient.utils import InferenceServerException

ZOO = Path(__file__).resolve().parents[2] / "models" / "zoo"
SENTIMENT = "tiny-bert-sentiment"
EMBEDDER = "encoder-mini"
DIGITS = "digits-cnn"
MAGIKA = "magika"
MODELS = [DIGITS, EMBEDDER, MAGIKA, SENTIMENT]

# The texts whose tokens and embeddings are in encoder-mini's reference.
REFERENCE_TEXTS = [
    "a man is playing a guitar.",
    "someone plays an acoustic guitar.",
    "the stock market fell sharply today.",
    "short",
]
# That reference was made before the weights were rounded to f16: the shipped ones are 1.32e-4 away from it even when
# computed in f64.
ROUNDED_WEIGHTS = 1.4e-4


def tensor(name, datatype, array):
    entry = triton.InferInput(name, list(array.shape), datatype)
    entry.set_data_from_numpy(array)
    return entry


def texts(*items, name="text"):
    elements = [item.encode() if isinstance(item, str) else item for item in items]
    return [tensor(name, "BYTES", np.array(elements, dtype=np.object_).reshape(-1, 1))]


def images(array):
    return [tensor("image", {"uint8": "UINT8", "float32": "FP32"}[array.dtype.name], array)]


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def labels(result):
    return [label.decode() for label in result.as_numpy("label").reshape(-1)]


class Client(unittest.TestCase):
    address = None

    def setUp(self):
        self.client = triton.InferenceServerClient(self.address)
        self.addCleanup(self.client.close)

    def refused(self, status, message, model, inputs, **options):
        with self.assertRaises(InferenceServerException) as caught:
            self.client.infer(model, inputs, **options)
        self.assertEqual(caught.exception.status(), f"StatusCode.{status}")
        self.assertIn(message, caught.exception.message())


class Discovery(Client):
    def test_the_server_and_each_model_are_ready(self):
        self.assertTrue(self.client.is_server_live())
        self.assertTrue(self.client.is_server_ready())
        for model in MODELS:
            self.assertTrue(self.client.is_model_ready(model), model)
            self.assertTrue(self.client.is_model_ready(model, "1"), model)
        self.assertFalse(self.client.is_model_ready("bert"))
        self.assertEqual(self.client.get_server_metadata().name, "sconce")

    def test_metadata_and_configuration_agree(self):
        for model in MODELS:
            metadata = self.client.get_model_metadata(model)
            config = self.client.get_model_config(model).config
            self.assertEqual(metadata.name, model)
            self.assertEqual(config.name, model)
            self.assertGreater(config.max_batch_size, 0)
            self.assertTrue(config.HasField("dynamic_batching"))
            for described, configured in [(metadata.inputs, config.input), (metadata.outputs, config.output)]:
                self.assertEqual([t.name for t in described], [t.name for t in configured])
                self.assertEqual([list(t.shape) for t in described], [[-1, *t.dims] for t in configured])

    def test_statistics_count_requests_and_items(self):
        def figures():
            return self.client.get_inference_statistics(SENTIMENT).model_stats[0]

        before = figures()
        self.client.infer(SENTIMENT, texts("one", "two"))
        after = figures()
        self.assertEqual(after.inference_count - before.inference_count, 2)
        self.assertEqual(after.inference_stats.success.count - before.inference_stats.success.count, 1)
        self.assertGreater(after.inference_stats.compute_infer.ns, before.inference_stats.compute_infer.ns)
        self.assertEqual(len(self.client.get_inference_statistics().model_stats), len(MODELS))


class Answers(Client):
    def test_embeddings_equal_the_reference(self):
        expected = load_file(ZOO / EMBEDDER / "reference.safetensors")["sentence_embedding"]
        together = self.client.infer(EMBEDDER, texts(*REFERENCE_TEXTS)).as_numpy("embedding")
        np.testing.assert_allclose(together, expected, rtol=0, atol=ROUNDED_WEIGHTS)
        np.testing.assert_allclose((together * expected).sum(axis=1), 1, atol=1e-6)
        for text, row in zip(REFERENCE_TEXTS, expected):
            alone = self.client.infer(EMBEDDER, texts(text)).as_numpy("embedding")
            np.testing.assert_allclose(alone, [row], rtol=0, atol=ROUNDED_WEIGHTS)

    def test_sentiment_reproduces_its_accuracy_with_many_requests_in_flight(self):
        lines = (ZOO / SENTIMENT / "test.tsv").read_text(encoding="utf-8").splitlines()
        rows = [line.split("\t", 3) for line in lines]
        rows = [(int(label), text) for label, _, _, text in rows]
        answers = queue.Queue()
        in_flight, size = 4, 64
        chunks = [rows[at : at + size] for at in range(0, len(rows), size)]
        right = total = 0

        def send(chunk):
            def answered(result, error):
                answers.put((chunk, result, error))

            self.client.async_infer(SENTIMENT, texts(*[text for _, text in chunk]), answered)

        for chunk in chunks[:in_flight]:
            send(chunk)
        for ahead in range(in_flight, len(chunks) + in_flight):
            chunk, result, error = answers.get(timeout=60)
            self.assertIsNone(error)
            predicted = result.as_numpy("scores").argmax(axis=1)
            right += sum(int(best) == label for best, (label, _) in zip(predicted, chunk))
            total += len(chunk)
            if ahead < len(chunks):
                send(chunks[ahead])
        self.assertEqual((right, total), (1891, 2429))

    def test_digits_equal_the_reference_as_bytes_and_as_floats(self):
        test = load_file(ZOO / DIGITS / "test.safetensors")
        expected = softmax(load_file(ZOO / DIGITS / "test_logits.safetensors")["logits"])
        for pixels in [test["images"], test["images"].astype(np.float32)]:
            result = self.client.infer(DIGITS, images(pixels))
            np.testing.assert_allclose(result.as_numpy("scores"), expected, rtol=0, atol=1e-5)
            right = sum(int(label) == digit for label, digit in zip(labels(result), test["labels"]))
            self.assertEqual(right, 443)

    def test_file_types_equal_the_reference_as_strings_and_as_rows_of_bytes(self):
        reference = load_file(ZOO / MAGIKA / "reference.safetensors")
        contents = []
        for row in reference["bytes"]:
            # 256 stands for no byte; a file too short to fill one side is the same on both.
            first, last = (bytes(side[side < 256].astype(np.uint8)) for side in np.split(row, 2))
            contents.append(first if len(first) < 1024 else first + last)
        result = self.client.infer(MAGIKA, texts(*contents, name="content"))
        np.testing.assert_allclose(result.as_numpy("scores"), reference["probs"], rtol=0, atol=1e-4)
        self.assertEqual(labels(result), ["python", "markdown", "png", "toml", "wav", "c"])

        rows = np.stack([np.frombuffer(content, dtype=np.uint8) for content in contents[:2]])
        result = self.client.infer(MAGIKA, [tensor("content", "UINT8", rows)])
        np.testing.assert_allclose(result.as_numpy("scores"), reference["probs"][:2], rtol=0, atol=1e-4)

    def test_a_file_on_disk_is_an_input(self):
        result = self.client.infer(MAGIKA, texts(Path(__file__).read_bytes(), name="content"))
        self.assertEqual(labels(result), ["python"])

    def test_class_count_gives_the_best_classes_as_text(self):
        wanted = [triton.InferRequestedOutput("scores", class_count=2)]
        review = texts("What a wonderful day!", "The worst film I ever saw.")
        classes = self.client.infer(SENTIMENT, review, outputs=wanted).as_numpy("scores")
        self.assertEqual(classes.shape, (2, 2))
        scores = self.client.infer(SENTIMENT, review).as_numpy("scores")
        for row, values in zip(classes, scores):
            parsed = [entry.decode().split(":") for entry in row]
            order = [int(index) for _, index, _ in parsed]
            self.assertEqual(order, list(np.argsort(-values)))
            self.assertEqual([name for _, _, name in parsed], [["negative", "positive"][at] for at in order])
            np.testing.assert_allclose([float(value) for value, _, _ in parsed], values[order], atol=1e-6)

    def test_outputs_ids_and_compression_are_honoured(self):
        wanted = [triton.InferRequestedOutput("label")]
        for compression in [None, "gzip", "deflate"]:
            result = self.client.infer(
                SENTIMENT,
                texts("What a wonderful day!"),
                outputs=wanted,
                request_id="review-7",
                model_version="1",
                compression_algorithm=compression,
            )
            response = result.get_response()
            self.assertEqual((response.id, response.model_version), ("review-7", "1"))
            self.assertEqual([output.name for output in response.outputs], ["label"])
            self.assertEqual(labels(result), ["positive"])

    def test_an_answer_says_which_precision_made_it_as_the_configuration_does(self):
        for model, inputs in [
            (SENTIMENT, texts("What a wonderful day!")),
            (EMBEDDER, texts("short")),
            (DIGITS, images(np.zeros((1, 1, 8, 8), dtype=np.uint8))),
            (MAGIKA, texts(Path(__file__).read_bytes(), name="content")),
        ]:
            response = self.client.infer(model, inputs).get_response()
            self.assertEqual(response.parameters["precision"].string_param, "f32", model)
            config = self.client.get_model_config(model).config
            self.assertEqual(config.parameters["precision"].string_value, "f32", model)

    def test_numbers_of_another_type_are_taken_if_they_are_exact(self):
        pixels = np.arange(64, dtype=np.float64).reshape(1, 1, 8, 8) / 4
        scores = self.client.infer(DIGITS, [tensor("image", "FP64", pixels)]).as_numpy("scores")
        same = self.client.infer(DIGITS, images(pixels.astype(np.float32))).as_numpy("scores")
        np.testing.assert_array_equal(scores, same)

    def test_the_asyncio_client_gets_its_answers(self):
        async def ask():
            async with triton_aio.InferenceServerClient(self.address) as client:
                requests = [client.infer(SENTIMENT, texts(text)) for text in ["wonderful", "terrible"] * 50]
                return [labels(result)[0] for result in await asyncio.gather(*requests)]

        self.assertEqual(asyncio.run(ask()), ["positive", "negative"] * 50)


class Streams(Client):
    def stream(self, requests, **options):
        """The results and errors of requests to the sentiment model on one stream, in the order in which they came."""
        answers = queue.Queue()
        self.client.start_stream(callback=lambda result, error: answers.put((result, error)), **options)
        for at, request in enumerate(requests):
            self.client.async_stream_infer(
                request.pop("model", SENTIMENT), request.pop("inputs"), request_id=str(at), **request
            )
        answered = [answers.get(timeout=60) for _ in requests]
        self.client.stop_stream()
        return answered

    def test_a_stream_answers_in_the_order_of_its_requests(self):
        requests = [{"inputs": texts(text)} for text in ["wonderful", "terrible"] * 100]
        for compression in [None, "gzip"]:
            answered = self.stream([dict(request) for request in requests], compression_algorithm=compression)
            self.assertEqual([error for _, error in answered], [None] * 200)
            self.assertEqual([labels(result)[0] for result, _ in answered], ["positive", "negative"] * 100)
            self.assertEqual([result.get_response().id for result, _ in answered], [str(at) for at in range(200)])

    def test_an_error_in_a_stream_leaves_it_open(self):
        requests = [
            {"inputs": texts("wonderful")},
            {"inputs": texts(b"\xff")},
            {"inputs": texts("a"), "model": "bert"},
            {"inputs": texts("terrible"), "enable_empty_final_response": True},
        ]
        answered = self.stream(requests)
        self.assertEqual(labels(answered[0][0]), ["positive"])
        self.assertIn("is not UTF-8", answered[1][1].message())
        self.assertIn("no model is named 'bert'", answered[2][1].message())
        last = answered[3][0]
        self.assertEqual(labels(last), ["negative"])
        self.assertTrue(last.get_response().parameters["triton_final_response"].bool_param)

    def test_the_asyncio_client_streams(self):
        async def ask():
            async def requests():
                for text in ["wonderful", "terrible"] * 50:
                    yield {"model_name": SENTIMENT, "inputs": texts(text)}

            async with triton_aio.InferenceServerClient(self.address) as client:
                return [labels(result)[0] async for result, _ in client.stream_infer(requests())]

        self.assertEqual(asyncio.run(ask()), ["positive", "negative"] * 50)


class SharedMemory(Client):
    def test_inputs_and_outputs_go_through_shared_memory(self):
        pixels = load_file(ZOO / DIGITS / "test.safetensors")["images"][:2].astype(np.float32)
        expected = self.client.infer(DIGITS, images(pixels)).as_numpy("scores")
        region = shared_memory.create_shared_memory_region("sconce", "/sconce-clients-test", pixels.nbytes + expected.nbytes)
        try:
            shared_memory.set_shared_memory_region(region, [pixels])
            size = pixels.nbytes + expected.nbytes
            self.client.register_system_shared_memory("sconce", "/sconce-clients-test", size)
            self.assertEqual(self.client.get_system_shared_memory_status().regions["sconce"].byte_size, size)
            image = triton.InferInput("image", list(pixels.shape), "FP32")
            image.set_shared_memory("sconce", pixels.nbytes)
            scores = triton.InferRequestedOutput("scores")
            scores.set_shared_memory("sconce", expected.nbytes, offset=pixels.nbytes)
            output = self.client.infer(DIGITS, [image], outputs=[scores]).get_output("scores")
            written = shared_memory.get_contents_as_numpy(region, np.float32, output.shape, offset=pixels.nbytes)
            np.testing.assert_array_equal(written, expected)
            self.client.unregister_system_shared_memory("sconce")
            self.assertFalse(self.client.get_system_shared_memory_status().regions)
        finally:
            shared_memory.destroy_shared_memory_region(region)
        self.assertFalse(self.client.get_cuda_shared_memory_status().regions)


class Operations(Client):
    def test_the_index_and_the_settings_are_read(self):
        index = self.client.get_model_repository_index().models
        self.assertEqual([(model.name, model.state) for model in index], [(name, "READY") for name in MODELS])
        self.assertEqual(list(self.client.get_trace_settings().settings["trace_level"].value), ["OFF"])
        self.assertTrue(self.client.get_log_settings().settings["log_error"].bool_param)
        with self.assertRaises(InferenceServerException) as caught:
            self.client.update_log_settings({"log_verbose_level": 1})
        self.assertIn("RUST_LOG", caught.exception.message())


class Refusals(Client):
    def test_what_is_wrong_with_names_shapes_and_types_is_said(self):
        pixels = np.zeros((1, 1, 8, 8), dtype=np.uint8)
        table = [
            ("NOT_FOUND", "no model is named 'bert'", "bert", texts("a"), {}),
            ("NOT_FOUND", "has no version '9'", SENTIMENT, texts("a"), {"model_version": "9"}),
            ("INVALID_ARGUMENT", "the model takes: text", SENTIMENT, texts("a", name="content"), {}),
            ("INVALID_ARGUMENT", "the model takes BYTES", SENTIMENT, [tensor("text", "UINT8", pixels)], {}),
            ("INVALID_ARGUMENT", "has shape [1, 8, 8]", DIGITS, images(pixels[0]), {}),
            ("INVALID_ARGUMENT", "the model takes UINT8 or FP32", DIGITS,
             [tensor("image", "BYTES", np.full(pixels.shape, b"0", dtype=np.object_))], {}),
            ("INVALID_ARGUMENT", "'image' has the value 0.1", DIGITS,
             [tensor("image", "FP64", np.full(pixels.shape, 0.1))], {}),
            ("INVALID_ARGUMENT", "the model gives: scores, label", SENTIMENT, texts("a"),
             {"outputs": [triton.InferRequestedOutput("embedding")]}),
            ("INVALID_ARGUMENT", "'text' is there more than once", SENTIMENT, texts("a") * 2, {}),
            ("INVALID_ARGUMENT", "'text' is missing", SENTIMENT, [], {}),
            ("UNIMPLEMENTED", "there are no sequences", SENTIMENT, texts("a"), {"sequence_id": 7}),
        ]
        for status, message, model, inputs, options in table:
            with self.subTest(message):
                self.refused(status, message, model, inputs, **options)

    def test_what_is_wrong_with_an_item_is_said_with_its_index(self):
        infinite = np.full((2, 1, 8, 8), 3, dtype=np.float32)
        infinite[1, 0, 0, 5] = np.nan
        table = [
            ("item 1: input 'text' is not UTF-8", SENTIMENT, texts("fine", b"\xff\xfe"), {}),
            ("item 2: input 'text' has 2097152 bytes", SENTIMENT, texts("fine", " \n", "x" * (2 << 20)), {}),
            ("item 1: input 'image' has the value NaN at element 5", DIGITS, images(infinite), {}),
            ("item 0: input 'text' has more tokens than the", SENTIMENT, texts("day " * 200), {"parameters": {"truncate": False}}),
        ]
        for message, model, inputs, options in table:
            with self.subTest(message):
                self.refused("INVALID_ARGUMENT", message, model, inputs, **options)

    def test_neighbours_of_a_bad_request_are_answered(self):
        async def ask():
            async with triton_aio.InferenceServerClient(self.address) as client:
                bad = b"\xff"
                items = ["wonderful", bad, "terrible"] * 30
                requests = [client.infer(SENTIMENT, texts(item)) for item in items]
                return await asyncio.gather(*requests, return_exceptions=True)

        answers = asyncio.run(ask())
        for at, answer in enumerate(answers):
            if at % 3 == 1:
                self.assertIsInstance(answer, InferenceServerException)
                self.assertIn("is not UTF-8", answer.message())
            else:
                self.assertEqual(labels(answer), ["positive" if at % 3 == 0 else "negative"])

    def test_a_timeout_ends_a_request_on_either_side(self):
        self.refused("DEADLINE_EXCEEDED", "the deadline passed", SENTIMENT, texts("a"), timeout=1)
        # gRPC rounds a client's deadline up to milliseconds, in which a short text is answered.
        long_texts = texts(*["day " * 200] * 64)
        self.refused("DEADLINE_EXCEEDED", "", EMBEDDER, long_texts, client_timeout=1e-6)
        unhurried = self.client.infer(SENTIMENT, texts("wonderful"), timeout=30_000_000, client_timeout=30)
        self.assertEqual(labels(unhurried), ["positive"])


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    Client.address = sys.argv.pop(1)
    unittest.main()
