"""Makes tiny random models of every family, and writes what transformers answers for them into expected.json.

usage: pip install torch==2.15.0 transformers==5.24.0 numpy; python make.py

Each model has two blocks (ModernBERT four) of 32 elements. Weights are rounded to f16, in which they are saved, before
transformers computes with them in f32. Embeddings have length 1.
"""

import json
import shutil
from pathlib import Path

import torch
import transformers as T
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer, UnigramTrainer

HERE = Path(__file__).parent
HIDDEN, VOCABULARY = 32, 360
WORDS = (
    "the a of and to in is it was cat dog sat mat hello world good bad news red blue green light candle wall holds house"
    " river stone query passage train station"
).split()
TEXTS = [
    "hello world",
    "The cat sat on the red mat, and it was GOOD!",
    "candle light on a stone wall",
    "river " * 9 + "holds the train",
    "the dog sat in the house and the cat sat on the wall of stone " * 3,
]
PAIRS = [("hello world", "the cat sat on the mat"), ("query light", "a candle holds light on the wall " * 4)]
NAMES = [("Anna", "met"), ("the", "cat")]

torch.manual_seed(5)
cases = []


def wordpiece():
    letters = "abcdefghijklmnopqrstuvwxyz"
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = [*special, *letters, *("##" + letter for letter in letters), *"0123456789.,:;!?'-", *WORDS]
    ids = {word: number for number, word in enumerate(dict.fromkeys(words))}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
    return tokenizer


def byte_level(bos, eos, pad, roberta):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=VOCABULARY - 8,
        special_tokens=[bos, pad, eos, "<unk>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([" ".join(WORDS)] * 20 + TEXTS, trainer)
    first, last = tokenizer.token_to_id(bos), tokenizer.token_to_id(eos)
    tokenizer.post_processor = (
        processors.RobertaProcessing((eos, last), (bos, first), add_prefix_space=False, trim_offsets=True)
        if roberta
        else processors.TemplateProcessing(
            single=f"{bos} $A {eos}", pair=f"{bos} $A {eos} $B {eos}", special_tokens=[(bos, first), (eos, last)]
        )
    )
    return tokenizer


def unigram():
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = UnigramTrainer(
        vocab_size=120,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        unk_token="<unk>",
        show_progress=False,
    )
    tokenizer.train_from_iterator([" ".join(WORDS)] * 20 + TEXTS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer


def randomized(model):
    with torch.no_grad():
        for name, weights in model.named_parameters():
            around = 1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0
            weights.copy_((torch.randn_like(weights) * 0.25 + around).half())
    return model.eval()


def run(model, tokenizer, *text):
    encoding = tokenizer.encode(*text)
    inputs = {"input_ids": torch.tensor([encoding.ids])}
    if getattr(model.config, "type_vocab_size", 0) > 1:
        inputs["token_type_ids"] = torch.tensor([encoding.type_ids])
    with torch.no_grad():
        return model(**inputs)


def save(name, model, tokenizer, expected, files=None):
    directory = HERE / name
    shutil.rmtree(directory, ignore_errors=True)
    model.half().save_pretrained(directory)
    tokenizer.save(str(directory / "tokenizer.json"))
    for file, content in (files or {}).items():
        (directory / file).parent.mkdir(exist_ok=True)
        (directory / file).write_text(json.dumps(content))
    cases.append({"name": name, "expected": expected})
    print(name, sum(file.stat().st_size for file in directory.rglob("*")) // 1024, "KiB")


def sentence_transformer(pooling):
    def module(index, path, kind):
        return {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}

    modes = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
    return {
        "modules.json": [module(0, "", "Transformer"), module(1, "1_Pooling", "Pooling"), module(2, "2_Normalize", "Normalize")],
        "1_Pooling/config.json": {
            "word_embedding_dimension": HIDDEN,
            **{f"pooling_mode_{mode}": mode == pooling for mode in modes},
        },
    }


def embed(name, model, tokenizer, pooling="mean_tokens"):
    model, expected = randomized(model), []
    for text in TEXTS:
        hidden = run(model, tokenizer, text).last_hidden_state[0]
        pooled = {"mean_tokens": hidden.mean(0), "cls_token": hidden[0], "lasttoken": hidden[-1]}[pooling]
        expected.append({"text": text, "embedding": torch.nn.functional.normalize(pooled, dim=0).tolist()})
    save(name, model, tokenizer, expected, sentence_transformer(pooling))


def classify(name, model, tokenizer, scores):
    model = randomized(model)
    expected = [{"text": text, "scores": scores(run(model, tokenizer, text).logits[0]).tolist()} for text in TEXTS]
    save(name, model, tokenizer, expected)


def rerank(name, model, tokenizer):
    model = randomized(model)
    expected = [{"pair": pair, "logit": run(model, tokenizer, *pair).logits[0].tolist()} for pair in PAIRS]
    save(name, model, tokenizer, expected)


def label_tokens(name, model, tokenizer):
    model = randomized(model)
    expected = [{"text": text, "logits": run(model, tokenizer, text).logits[0].tolist()} for text in TEXTS[:3]]
    save(name, model, tokenizer, expected)


def sparse(name, model, tokenizer):
    """SPLADE: ln(1 + relu(x)) of the greatest logit of each word over all tokens."""
    model = randomized(model)
    weights = lambda text: torch.log1p(torch.relu(run(model, tokenizer, text).logits[0])).max(0).values
    save(name, model, tokenizer, [{"text": text, "weights": weights(text).tolist()} for text in TEXTS[:3]])


def rerank_by_words(name):
    """A language model as a reranker: the logit of "yes" less that of "no" after the question of Qwen3-Reranker's card."""
    before = (
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct provided. "
        'Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
    )
    after = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    instruction = "Given a web search query, retrieve relevant passages that answer the query"
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=VOCABULARY - 8,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["yes", "no", before, " ".join(WORDS)] * 20, trainer)
    config = T.Qwen3Config(**(qwen | {"max_position_embeddings": 512, "tie_word_embeddings": True}))
    model, expected = randomized(T.Qwen3ForCausalLM(config)), []
    ids = lambda text: tokenizer.encode(text, add_special_tokens=False).ids
    yes, no = tokenizer.token_to_id("yes"), tokenizer.token_to_id("no")
    for query, document in PAIRS:
        question = ids(f"<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}")
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids(before) + question + ids(after)])).logits[0, -1]
        expected.append({"pair": [query, document], "logit": [(logits[yes] - logits[no]).item()]})
    save(name, model, tokenizer, expected)


def as_on_the_hub(name, copy):
    """Copies a GTE of transformers with the names and fields of the code on the hub."""
    shutil.rmtree(HERE / copy, ignore_errors=True)
    shutil.copytree(HERE / name, HERE / copy)
    tensors = load_file(HERE / name / "model.safetensors")
    tensors = {tensor.replace("gte.", "new."): values for tensor, values in tensors.items()}
    save_file(tensors, HERE / copy / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((HERE / name / "config.json").read_text())
    config["rope_theta"] = config.pop("rope_parameters")["rope_theta"]
    config |= {"model_type": "new", "layer_norm_type": "layer_norm", "position_embedding_type": "rope", "pack_qkv": True}
    config["architectures"] = [architecture.replace("Gte", "New") for architecture in config["architectures"]]
    (HERE / copy / "config.json").write_text(json.dumps(config))
    cases.append({"name": copy, "expected": next(case for case in cases if case["name"] == name)["expected"]})


base = {
    "hidden_size": HIDDEN,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": VOCABULARY,
}
roberta = {**base, "max_position_embeddings": 202, "type_vocab_size": 1, "pad_token_id": 1}
modern = {
    **base,
    "num_hidden_layers": 4,
    "max_position_embeddings": 256,
    "local_attention": 16,
    "pad_token_id": 1,
    "cls_token_id": 0,
    "sep_token_id": 2,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "attn_implementation": "eager",
}
distil = {
    "dim": HIDDEN,
    "n_layers": 2,
    "n_heads": 4,
    "hidden_dim": 64,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 100,
}
qwen = {
    **base,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "pad_token_id": 1,
    "attn_implementation": "eager",
}
words, pieces = wordpiece(), unigram()
bytes_roberta, bytes_modern = byte_level("<s>", "</s>", "<pad>", True), byte_level("[CLS]", "[SEP]", "[PAD]", False)
softmax, sigmoid = lambda x: x.softmax(0), lambda x: x.sigmoid()

embed("bert", T.BertModel(T.BertConfig(**base, max_position_embeddings=100), add_pooling_layer=False), words)
embed("roberta", T.RobertaModel(T.RobertaConfig(**roberta), add_pooling_layer=False), bytes_roberta)
embed("xlm-roberta", T.XLMRobertaModel(T.XLMRobertaConfig(**roberta), add_pooling_layer=False), pieces, "cls_token")
embed("camembert", T.CamembertModel(T.CamembertConfig(**roberta), add_pooling_layer=False), pieces)
embed("distilbert", T.DistilBertModel(T.DistilBertConfig(**distil)), words)
embed(
    "mpnet",
    T.MPNetModel(
        T.MPNetConfig(**base, max_position_embeddings=202, relative_attention_num_buckets=32, pad_token_id=1),
        add_pooling_layer=False,
    ),
    pieces,
)
embed("electra", T.ElectraModel(T.ElectraConfig(**base, embedding_size=20, max_position_embeddings=100)), words, "cls_token")
embed(
    "albert",
    T.AlbertModel(T.AlbertConfig(**base, embedding_size=20, max_position_embeddings=100), add_pooling_layer=False),
    words,
)
embed("modernbert", T.ModernBertModel(T.ModernBertConfig(**modern)), bytes_modern)
embed("qwen3", T.Qwen3Model(T.Qwen3Config(**qwen)), bytes_roberta, "lasttoken")
embed("nomic-bert", T.NomicBertModel(T.NomicBertConfig(**base, max_position_embeddings=256)), words)
embed("gte", T.GteModel(T.GteConfig(**base, max_position_embeddings=256)), pieces, "cls_token")
classify("distilbert-sst2", T.DistilBertForSequenceClassification(T.DistilBertConfig(**distil, num_labels=2)), words, softmax)
classify(
    "roberta-multilabel",
    T.RobertaForSequenceClassification(
        T.RobertaConfig(**roberta, num_labels=4, problem_type="multi_label_classification")
    ),
    bytes_roberta,
    sigmoid,
)
classify("mpnet-labels", T.MPNetForSequenceClassification(T.MPNetConfig(**base, max_position_embeddings=202, pad_token_id=1, num_labels=3)), pieces, softmax)
classify("electra-labels", T.ElectraForSequenceClassification(T.ElectraConfig(**base, embedding_size=32, max_position_embeddings=100, num_labels=3)), words, softmax)
classify("albert-labels", T.AlbertForSequenceClassification(T.AlbertConfig(**base, embedding_size=20, max_position_embeddings=100, num_labels=3)), words, softmax)
rerank("bert-cross-encoder", T.BertForSequenceClassification(T.BertConfig(**base, max_position_embeddings=100, num_labels=1)), words)
rerank("xlm-roberta-reranker", T.XLMRobertaForSequenceClassification(T.XLMRobertaConfig(**roberta, num_labels=1)), pieces)
rerank("modernbert-reranker", T.ModernBertForSequenceClassification(T.ModernBertConfig(**modern, num_labels=1, classifier_pooling="mean")), bytes_modern)
rerank("gte-reranker", T.GteForSequenceClassification(T.GteConfig(**base, max_position_embeddings=256, num_labels=1)), pieces)
as_on_the_hub("gte-reranker", "new-reranker")
rerank("qwen3-reranker", T.Qwen3ForSequenceClassification(T.Qwen3Config(**qwen, num_labels=1)), bytes_roberta)
label_tokens("bert-ner", T.BertForTokenClassification(T.BertConfig(**base, max_position_embeddings=100, num_labels=3, id2label={0: "O", 1: "B-PER", 2: "I-PER"})), words)
sparse("bert-splade", T.BertForMaskedLM(T.BertConfig(**base, max_position_embeddings=100)), words)
rerank_by_words("qwen3-word-reranker")

(HERE / "expected.json").write_text(json.dumps(cases) + "\n")
print(len(cases), "models")
