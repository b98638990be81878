#!/usr/bin/env bash
# perf_analyzer over gRPC and HTTP against `sconce serve`: each run must complete with a throughput above zero and with
# the server's own figures.
#
#     perf_analyzer.sh GRPC_ADDRESS HTTP_ADDRESS
#
# Needs the virtual environment of requirements.txt in PATH, and libb64 (Debian: libb64-0d), which is unpacked into
# that environment if the system lacks it.
set -euo pipefail

usage='usage: perf_analyzer.sh GRPC_ADDRESS HTTP_ADDRESS'
grpc=${1:?$usage}
http=${2:?$usage}
requests=300
max_seconds=120

perf_analyzer=$(command -v perf_analyzer) || {
    echo "perf_analyzer is not in PATH; activate the virtual environment of requirements.txt" >&2
    exit 1
}
environment=$(dirname "$(dirname "$perf_analyzer")")
python=$environment/bin/python3
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

libcudart=$("$python" -c 'import nvidia.cuda_runtime as runtime; print(runtime.__path__[0] + "/lib")')
libraries=$libcudart
if ! ldconfig -p | grep -q 'libb64\.so\.0d'; then
    libb64=$environment/lib/libb64
    if [ ! -d "$libb64" ]; then
        (cd "$scratch" && apt-get download -qq -o APT::Sandbox::User=root libb64-0d && dpkg -x libb64-0d_*.deb unpacked)
        mkdir "$libb64"
        cp "$scratch"/unpacked/usr/lib/*/libb64.so.0d "$libb64"
    fi
    libraries=$libraries:$libb64
fi

# measure NAME PROTOCOL ARGUMENT…, with the protocol grpc or http
measure() {
    local name=$1 protocol=$2
    shift 2
    echo "== perf_analyzer: $name"
    LD_LIBRARY_PATH=$libraries timeout "$max_seconds" "$perf_analyzer" \
        -i "$protocol" -u "${!protocol}" --request-count "$requests" -f "$scratch/$name.csv" "$@"
    "$python" - "$scratch/$name.csv" <<'PYTHON'
import csv, sys

with open(sys.argv[1], newline="") as file:
    row = next(csv.DictReader(file))
assert float(row["Inferences/Second"]) > 0, row
assert float(row["Server Compute Infer"]) > 0, row
PYTHON
}

measure text grpc -m tiny-bert-sentiment --concurrency-range 4 --string-data 'Quite a good film, all in all.'
measure random-text grpc -m encoder-mini --concurrency-range 2 --string-length 40
measure digits grpc -m digits-cnn --concurrency-range 4
measure streaming grpc -m tiny-bert-sentiment --concurrency-range 8 --streaming \
    --string-data 'Quite a good film, all in all.'
measure shared-memory grpc -m digits-cnn --concurrency-range 4 --shared-memory system --output-shared-memory-size 4096
measure streaming-shared-memory grpc -m digits-cnn --concurrency-range 4 --streaming --shared-memory system \
    --output-shared-memory-size 4096
measure digits-in-batches grpc -m digits-cnn --concurrency-range 2 -b 8 --async
measure text-over-http http -m tiny-bert-sentiment --concurrency-range 4 --string-data 'Quite a good film, all in all.'
measure text-as-json http -m encoder-mini --concurrency-range 2 --string-length 40 \
    --input-tensor-format json --output-tensor-format json
measure digits-in-batches-over-http http -m digits-cnn --concurrency-range 2 -b 8 --async
measure shared-memory-over-http http -m digits-cnn --concurrency-range 4 --shared-memory system \
    --output-shared-memory-size 4096
