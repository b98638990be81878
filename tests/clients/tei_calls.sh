#!/usr/bin/env bash
# The calls in the documentation of text-embeddings-inference (README.md and docs/source/en/quick_tour.md at 0d124dc,
# Apache-2.0), word for word but for the address, against one `sconce serve` for each kind of model, as there.
#
#     tei_calls.sh KIND ADDRESS        with KIND embed, rerank, predict or sparse
#
# Needs curl. The embedder is served under the name that the documented call of OpenAI's route has.
set -euo pipefail

usage='usage: tei_calls.sh KIND ADDRESS'
kind=${1:?$usage}
address=${2:?$usage}
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# documented WHAT CHECK <<CALL: runs the call; CHECK is an expression of Python over the `answer`.
documented() {
    local call answer
    call=$(sed "s/127\.0\.0\.1:8080\|localhost:8080/$address/")
    answer=$(bash -euc "$call" 2>"$log") || { cat "$log" >&2; exit 1; }
    python3 - "$1" "$2" "$answer" <<'PYTHON'
import json, sys

_, what, check, text = sys.argv
answer = json.loads(text)
if not eval(check):
    sys.exit(f"{what}: not true of the answer: {check}\n{text[:2000]}")
print(f"text-embeddings-inference by curl: {what}")
PYTHON
}

embed() {
    documented 'embed one text' 'len(answer) == 1 and len(answer[0]) == 384' <<'CALL'
curl 127.0.0.1:8080/embed \
    -X POST \
    -d '{"inputs":"What is Deep Learning?"}' \
    -H 'Content-Type: application/json'
CALL
    documented 'embed two texts' '[len(row) for row in answer] == [384, 384] and answer[0] != answer[1]' <<'CALL'
curl 127.0.0.1:8080/embed \
    -X POST \
    -d '{"inputs":["Today is a nice day", "I like you"]}' \
    -H 'Content-Type: application/json'
CALL
    documented "embed by OpenAI's route" 'len(answer["data"][0]["embedding"]) == 384' <<'CALL'
curl http://localhost:8080/v1/embeddings \
  -H "Content-Type: application/json" \
  -d '{
    "input": "What is Deep Learning?",
    "model": "text-embeddings-inference",
    "encoding_format": "float"
  }'
CALL
}

rerank() {
    local ranked='sorted(rank["index"] for rank in answer) == [0, 1] and answer[0]["score"] >= answer[1]["score"]'
    documented 'rerank' "$ranked" <<'CALL'
curl 127.0.0.1:8080/rerank \
    -X POST \
    -d '{"query": "What is Deep Learning?", "texts": ["Deep Learning is not...", "Deep learning is..."]}' \
    -H 'Content-Type: application/json'
CALL
    documented 'rerank without raw scores' "$ranked" <<'CALL'
curl 127.0.0.1:8080/rerank \
    -X POST \
    -d '{"query":"What is Deep Learning?", "texts": ["Deep Learning is not...", "Deep learning is..."], "raw_scores": false}' \
    -H 'Content-Type: application/json'
CALL
}

predict() {
    documented 'classify one text' 'answer[0]["label"] == "positive" and len(answer) == 2' <<'CALL'
curl 127.0.0.1:8080/predict \
    -X POST \
    -d '{"inputs":"I like you."}' \
    -H 'Content-Type: application/json'
CALL
    documented 'classify two texts' 'len(answer) == 2 and abs(sum(it["score"] for it in answer[1]) - 1) < 1e-5' <<'CALL'
curl 127.0.0.1:8080/predict \
    -X POST \
    -d '{"inputs":[["I like you."], ["I hate pineapples"]]}' \
    -H 'Content-Type: application/json'
CALL
}

sparse() {
    documented 'embed sparsely' 'answer[0] and all(it["value"] > 0 and it["index"] >= 0 for it in answer[0])' <<'CALL'
curl 127.0.0.1:8080/embed_sparse \
    -X POST \
    -d '{"inputs":"I like you."}' \
    -H 'Content-Type: application/json'
CALL
}

case $kind in
    embed | rerank | predict | sparse) "$kind" ;;
    *) echo "$usage" >&2; exit 2 ;;
esac
