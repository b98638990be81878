#!/usr/bin/env bash
# wrk (Debian: wrk) with 32 requests in flight against `sconce serve` over HTTP: every answer must be a right one.
#
#     wrk.sh ADDRESS
set -euo pipefail
cd "$(dirname "$0")"

address=${1:?usage: wrk.sh ADDRESS}

# load PATH BODY PART: every answer must hold PART.
load() {
    local report
    report=$(wrk --threads 2 --connections 32 --duration 2s --script wrk.lua "http://$address" -- "$@")
    grep -qE '^wrk: [1-9][0-9]* requests, 0 failed$' <<<"$report" || { echo "$report" >&2; exit 1; }
    echo "$(grep '^wrk:' <<<"$report") at $1"
}

load /v1/embeddings '{"model": "encoder-mini", "input": "a sconce holds candles"}' '"embedding":[-0.0367'
load /v2/models/tiny-bert-sentiment/infer \
    '{"inputs": [{"name": "text", "shape": [1, 1], "datatype": "BYTES", "data": ["wonderful"]}]}' '"positive"'
