#!/usr/bin/env bash
# AIPerf against `sconce serve` by OpenAI's embeddings: every request must be answered.
#
#     aiperf.sh ADDRESS
#
# Needs the virtual environment of requirements-aiperf.txt in PATH.
set -euo pipefail

address=${1:?usage: aiperf.sh ADDRESS}
requests=100
max_seconds=300
zoo=$(realpath "$(dirname "$0")/../../models/zoo")
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

timeout "$max_seconds" aiperf profile --model encoder-mini --url "$address" --endpoint-type embeddings \
    --tokenizer "$zoo/encoder-mini" --synthetic-input-tokens-mean 20 --concurrency 4 --request-count "$requests" \
    --workers-max 1 --record-processors 1 --ui none --output-artifact-dir "$scratch" >"$scratch/report" 2>&1 ||
    { cat "$scratch/report" >&2; exit 1; }
python3 - "$scratch/profile_export_aiperf.json" "$requests" <<'PYTHON'
import json, sys

with open(sys.argv[1]) as file:
    figures = json.load(file)
answered, failed = (figures.get(name, {}).get("avg", 0) for name in ("request_count", "error_request_count"))
assert (answered, failed) == (int(sys.argv[2]), 0), figures
print(f"aiperf: {answered:.0f} requests, {figures['request_throughput']['avg']:.0f} a second")
PYTHON
