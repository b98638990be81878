"""Makes the models of answers other than one vector or one label of a text, with what the reference libraries answer:
entities (transformers' token-classification pipeline), sparse vectors and vectors of tokens (sentence-transformers).

usage: kinds_of_answers.py, in this folder. Needs transformers 5.24, sentence-transformers 6.2, torch.
"""

import json
import os

import torch
import transformers as t
from sentence_transformers import SparseEncoder
from sentence_transformers.sparse_encoder.modules import MLMTransformer, SpladePooling
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors

torch.manual_seed(5)
WORDS = "the cat sat on a red mat candle light wall ada lovelace of london".split()
TEXTS = [
    "ada lovelace sat on the mat",
    "the Candle light, on a red wall: Ada!",
    "\u00c9dith of London sat \u4e2d on mats",
    "ada " * 40,
    "red",
    "a [SEP] b  unbreakable-word  \U0001f600 ada",
]
SIZES = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, max_position_embeddings=48)


def tokenizer():
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *("##" + c for c in letters), *",.!:-", *WORDS]
    words = list(dict.fromkeys(words))
    made = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    made.add_special_tokens([AddedToken(word, special=True) for word in words[:5]])
    return made, len(words)


def random(model):
    with torch.no_grad():
        for name, weights in model.named_parameters():
            is_scale = "norm" in name.lower() and name.endswith("weight")
            weights.copy_(torch.randn_like(weights) * 0.3 + (1.0 if is_scale else 0.0))
    return model.eval()


def save(name, model, made):
    os.makedirs(name, exist_ok=True)
    model.save_pretrained(name)
    made.save(f"{name}/tokenizer.json")
    settings = {"tokenizer_class": "BertTokenizer", "model_max_length": SIZES["max_position_embeddings"]}
    json.dump(settings, open(f"{name}/tokenizer_config.json", "w"))


def entities(made, words):
    labels = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
    config = t.BertConfig(**SIZES, vocab_size=words, id2label=dict(enumerate(labels)))
    save("entities", random(t.BertForTokenClassification(config)), made)
    answers = {}
    for strategy in ["none", "simple", "first", "average", "max"]:
        pipeline = t.pipeline("token-classification", model="entities", aggregation_strategy=strategy, device="cpu")
        answers[strategy] = []
        for text in TEXTS:
            found = [
                {
                    "entity_group": one.get("entity_group", one.get("entity")),
                    "score": float(one["score"]),
                    "start": len(text[: one["start"]].encode()),
                    "end": len(text[: one["end"]].encode()),
                }
                for one in pipeline(text)
            ]
            answers[strategy].append({"text": text, "entities": found})
    return answers


def sparse(made, words):
    sizes = dict(dim=16, n_layers=2, n_heads=2, hidden_dim=32, max_position_embeddings=48)
    os.makedirs("splade", exist_ok=True)
    save("splade", random(t.DistilBertForMaskedLM(t.DistilBertConfig(**sizes, vocab_size=words))), made)
    encoder = SparseEncoder(modules=[MLMTransformer("splade"), SpladePooling("max")], device="cpu")
    answers = [{"text": text, "vector": encoder.encode(text).to_dense().tolist()} for text in TEXTS]
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.sparse_encoder.models.MLMTransformer"},
        {"idx": 1, "name": "1", "path": "1_SpladePooling", "type": "sentence_transformers.sparse_encoder.models.SpladePooling"},
    ]
    json.dump(modules, open("splade/modules.json", "w"))
    os.makedirs("splade/1_SpladePooling", exist_ok=True)
    pooling = {"pooling_strategy": "max", "activation_function": "relu", "word_embedding_dimension": words}
    json.dump(pooling, open("splade/1_SpladePooling/config.json", "w"))
    json.dump({"model_type": "SparseEncoder"}, open("splade/config_sentence_transformers.json", "w"))
    return answers


def tokens(made, words):
    from safetensors.torch import save_file

    model = random(t.BertModel(t.BertConfig(**SIZES, vocab_size=words), add_pooling_layer=False))
    save("colbert", model, made)
    dense = torch.randn(8, 16)
    os.makedirs("colbert/1_Dense", exist_ok=True)
    save_file({"linear.weight": dense}, "colbert/1_Dense/model.safetensors")
    config = {
        "in_features": 16,
        "out_features": 8,
        "bias": False,
        "activation_function": "torch.nn.modules.linear.Identity",
        "module_input_name": "token_embeddings",
    }
    json.dump(config, open("colbert/1_Dense/config.json", "w"))
    os.makedirs("colbert/2_Normalize", exist_ok=True)
    json.dump({"module_input_name": "token_embeddings"}, open("colbert/2_Normalize/config.json", "w"))
    kinds = ["Transformer", "Dense", "Normalize"]
    paths = ["", "1_Dense", "2_Normalize"]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(zip(kinds, paths))
    ]
    json.dump(modules, open("colbert/modules.json", "w"))
    answers = []
    for text in TEXTS:
        made.enable_truncation(SIZES["max_position_embeddings"])
        encoding = made.encode(text)
        with torch.no_grad():
            vectors = model(input_ids=torch.tensor([encoding.ids])).last_hidden_state[0] @ dense.T
        answers.append({"text": text, "vectors": torch.nn.functional.normalize(vectors, dim=-1).tolist()})
    made.no_truncation()
    return answers


def families(made, words):
    """One file for each family, with a head that guesses words and a classifier of tokens on the same encoder."""
    from safetensors.torch import save_file

    sizes = dict(hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, vocab_size=words)
    places, labels = dict(max_position_embeddings=24), dict(num_labels=3)
    of_bert = dict(**sizes, **places, **labels)
    of_roberta = dict(**of_bert, type_vocab_size=1, pad_token_id=0)
    of_distil = dict(dim=8, n_layers=2, n_heads=2, hidden_dim=16, vocab_size=words, **places, **labels)
    of_modern = dict(**of_bert, pad_token_id=0, cls_token_id=2, sep_token_id=3, bos_token_id=2, eos_token_id=3, local_attention=4)
    made_of = {
        "bert": ("Bert", t.BertConfig(**of_bert)),
        "roberta": ("Roberta", t.RobertaConfig(**of_roberta)),
        "xlm-roberta": ("XLMRoberta", t.XLMRobertaConfig(**of_roberta)),
        "camembert": ("Camembert", t.CamembertConfig(**of_roberta)),
        "distilbert": ("DistilBert", t.DistilBertConfig(**of_distil)),
        "electra": ("Electra", t.ElectraConfig(**of_bert, embedding_size=6)),
        "albert": ("Albert", t.AlbertConfig(**of_bert, embedding_size=6, hidden_act="gelu_new")),
        "mpnet": ("MPNet", t.MPNetConfig(**of_bert)),
        "modernbert": ("ModernBert", t.ModernBertConfig(**of_modern, attn_implementation="eager")),
    }
    answers = []
    for family, (prefix, config) in made_of.items():
        guesser = random(getattr(t, f"{prefix}ForMaskedLM")(config))
        classifier = random(getattr(t, f"{prefix}ForTokenClassification")(config))
        weights = {**classifier.state_dict(), **guesser.state_dict()}
        classifier.load_state_dict(weights, strict=False)
        tied = ["decoder.weight", "decoder.bias"] if family != "modernbert" else ["decoder.weight"]
        tied += ["vocab_projector.weight", "generator_lm_head.weight"]
        kept = {name: values.clone() for name, values in weights.items() if not name.endswith(tuple(tied))}
        kept = {name: values for name, values in kept.items() if values.is_floating_point()}
        folder = f"heads/{family}"
        os.makedirs(folder, exist_ok=True)
        guesser.config.save_pretrained(folder)
        made.save(f"{folder}/tokenizer.json")
        json.dump({"tokenizer_class": "BertTokenizer"}, open(f"{folder}/tokenizer_config.json", "w"))
        save_file(kept, f"{folder}/model.safetensors")
        for text in ["ada lovelace sat", "the red candle of london, ada!"]:
            ids = {"input_ids": torch.tensor([made.encode(text).ids])}
            with torch.no_grad():
                words_of = torch.log1p(torch.relu(guesser(**ids).logits[0])).max(0).values.tolist()
                tokens_of = classifier(**ids).logits[0].flatten().tolist()
            answers.append({"family": family, "prefix": prefix, "text": text, "words": words_of, "logits": tokens_of})
    return answers


made, words = tokenizer()
answers = {"entities": entities(made, words), "sparse": sparse(made, words), "tokens": tokens(made, words)}
answers["families"] = families(made, words)
json.dump(answers, open("kinds_of_answers.json", "w"), ensure_ascii=False)
