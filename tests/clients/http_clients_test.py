#!/usr/bin/env python3
"""Clients of OpenAI, Cohere, text-embeddings-inference and their adapters against Sconce's HTTP server.

    http_clients_test.py ADDRESS [unittest options]

The server has the models encoder-mini, tiny-bert-sentiment and bert-cross-encoder. Answers are compared with those of the
library's own reference of encoder-mini, and clients with each other.
"""

import asyncio
import sys
import unittest
from pathlib import Path

import cohere
import httpx
import huggingface_hub
import numpy as np
import openai
from langchain_huggingface import HuggingFaceEndpointEmbeddings
from langchain_openai import OpenAIEmbeddings
from llama_index.embeddings.text_embeddings_inference import TextEmbeddingsInference
from openapi_spec_validator import validate
from safetensors.numpy import load_file

EMBEDDER = "encoder-mini"
SENTIMENT = "tiny-bert-sentiment"
RERANKER = "bert-cross-encoder"
TEXTS = [
    "a man is playing a guitar.",
    "someone plays an acoustic guitar.",
    "the stock market fell sharply today.",
    "short",
]
# The shipped weights are rounded to f16: see tritonclient_test.py.
ROUNDED_WEIGHTS = 1.4e-4


def reference():
    zoo = Path(__file__).resolve().parents[2] / "models" / "zoo"
    return load_file(zoo / EMBEDDER / "reference.safetensors")["sentence_embedding"]


class HttpClients(unittest.TestCase):
    address = ""

    @classmethod
    def setUpClass(cls):
        cls.expected = reference()

    def assert_embeds(self, rows):
        np.testing.assert_allclose(np.array(rows, dtype=np.float32), self.expected, atol=ROUNDED_WEIGHTS)

    def openai(self, **options):
        return openai.OpenAI(base_url=f"{self.address}/v1", api_key="none", max_retries=0, **options)

    def test_openai_embeds_a_list_in_its_default_encoding(self):
        answer = self.openai().embeddings.create(model=EMBEDDER, input=TEXTS)
        self.assert_embeds([item.embedding for item in answer.data])
        self.assertEqual([item.index for item in answer.data], [0, 1, 2, 3])
        self.assertGreater(answer.usage.prompt_tokens, len(TEXTS))
        floats = self.openai().embeddings.create(model=EMBEDDER, input=TEXTS[0], encoding_format="float")
        self.assertEqual(*(np.float32(of.data[0].embedding).tolist() for of in (floats, answer)))

    def test_openai_embeds_without_waiting(self):
        async def embed():
            client = openai.AsyncOpenAI(base_url=f"{self.address}/v1", api_key="none")
            async with client:
                calls = [client.embeddings.create(model=EMBEDDER, input=text) for text in TEXTS]
                return [answer.data[0].embedding for answer in await asyncio.gather(*calls)]

        self.assert_embeds(asyncio.run(embed()))

    def test_openai_cuts_vectors_and_lists_models(self):
        cut = self.openai().embeddings.create(model=EMBEDDER, input="short", dimensions=8).data[0].embedding
        self.assertEqual(len(cut), 8)
        self.assertAlmostEqual(float(np.linalg.norm(cut)), 1.0, places=5)
        self.assertIn(EMBEDDER, [model.id for model in self.openai().models.list()])
        self.assertEqual(self.openai().models.retrieve(EMBEDDER).id, EMBEDDER)

    def test_openai_raises_its_own_errors(self):
        with self.assertRaises(openai.NotFoundError) as raised:
            self.openai().embeddings.create(model="text-embedding-3-small", input="a")
        self.assertEqual(raised.exception.code, "model_not_found")
        with self.assertRaises(openai.BadRequestError) as raised:
            self.openai().embeddings.create(model=EMBEDDER, input="a", extra_body={"dimension": 8})
        self.assertIn("'dimension' is not known", str(raised.exception))
        with self.assertRaises(openai.BadRequestError) as raised:
            self.openai().embeddings.create(model=EMBEDDER, input="a " * 999, extra_body={"truncate": False})
        self.assertIn("tokens", str(raised.exception))

    def test_cohere_reranks(self):
        documents = ["a sconce holds candles", "one", "two three"]
        expected = huggingface_ranks(self.address, "candles", documents)
        for client in [cohere.Client, cohere.ClientV2]:
            answer = client("none", base_url=self.address).rerank(
                model=RERANKER, query="candles", documents=documents, top_n=2
            )
            ranks = [(result.index, result.relevance_score) for result in answer.results]
            self.assertEqual(ranks, expected[:2])

    def test_huggingface_hubs_client_speaks_to_text_embeddings_inference(self):
        client = huggingface_hub.InferenceClient(f"{self.address}/models/{EMBEDDER}/embed")
        self.assert_embeds([client.feature_extraction(text)[0] for text in TEXTS])
        client = huggingface_hub.InferenceClient(f"{self.address}/models/{EMBEDDER}/similarity")
        scores = client.sentence_similarity(TEXTS[0], other_sentences=TEXTS[1:])
        np.testing.assert_allclose(scores, self.expected[1:] @ self.expected[0], atol=1e-3)

    def test_langchain_embeds_by_openais_api(self):
        as_openai = OpenAIEmbeddings(
            base_url=f"{self.address}/v1", api_key="none", model=EMBEDDER, check_embedding_ctx_length=False
        )
        self.assert_embeds(as_openai.embed_documents(TEXTS))
        self.assert_embeds(asyncio.run(as_openai.aembed_documents(TEXTS)))

    def test_langchain_embeds_by_text_embeddings_inference(self):
        embedder = HuggingFaceEndpointEmbeddings(
            model=f"{self.address}/models/{EMBEDDER}/embed", huggingfacehub_api_token="none"
        )
        self.assert_embeds(embedder.embed_documents(TEXTS))
        self.assert_embeds([embedder.embed_query(text) for text in TEXTS])
        self.assert_embeds(asyncio.run(embedder.aembed_documents(TEXTS)))

    def test_llama_index_embeds_by_text_embeddings_inference(self):
        embedder = TextEmbeddingsInference(
            base_url=self.address, endpoint="/embed", model_name=EMBEDDER, text_instruction=" ", query_instruction=" "
        )
        self.assert_embeds(embedder.get_text_embedding_batch(TEXTS))
        self.assert_embeds([embedder.get_query_embedding(text) for text in TEXTS])

    def test_the_openapi_document_is_valid(self):
        validate(httpx.get(f"{self.address}/openapi.json").raise_for_status().json())

    def test_a_list_longer_than_the_queue_is_answered_in_order(self):
        texts = [f"text number {number % 10}" for number in range(3000)]
        answer = self.openai().embeddings.create(model=EMBEDDER, input=texts)
        rows = np.array([item.embedding for item in answer.data])
        self.assertEqual(rows.shape[0], len(texts))
        np.testing.assert_array_equal(rows[:10], rows[-10:])


def huggingface_ranks(address, query, documents):
    """Ranks by the route of text-embeddings-inference."""
    answer = httpx.post(f"{address}/models/{RERANKER}/rerank", json={"query": query, "texts": documents})
    return [(rank["index"], rank["score"]) for rank in answer.raise_for_status().json()]


if __name__ == "__main__":
    HttpClients.address = f"http://{sys.argv.pop(1)}"
    unittest.main()
