#!/usr/bin/env bash
# grpcurl by reflection against `sconce serve`.
#
#     grpcurl.sh ADDRESS
#
# Needs the virtual environment of requirements.txt in PATH.
set -euo pipefail

address=${1:?usage: grpcurl.sh ADDRESS}
command -v grpcurl >/dev/null || {
    echo "grpcurl is not in PATH; activate the virtual environment of requirements.txt" >&2
    exit 1
}

# expect WHAT PATTERN ARGUMENT…: the answer without white space must match.
expect() {
    local what=$1 pattern=$2 answer
    shift 2
    answer=$(grpcurl -plaintext "$@")
    if ! grep -Eq "$pattern" <<<"$(tr -d '[:space:]' <<<"$answer")"; then
        printf '%s: expected %s, but got:\n%s\n' "$what" "$pattern" "$answer" >&2
        exit 1
    fi
    echo "grpcurl: $what"
}

service=inference.GRPCInferenceService
text='{"name":"text","datatype":"BYTES","shape":[1],"contents":{"bytes_contents":["'$(printf wonderful | base64)'"]}}'

for name in grpc.health.v1.Health "$service"; do
    expect "lists $name" "$name" "$address" list
done
expect 'describes ModelInfer' 'rpcModelInfer\(\.inference\.ModelInferRequest\)' "$address" describe "$service"
expect 'ServerLive' '"live":true' "$address" "$service/ServerLive"
expect 'ServerReady' '"ready":true' "$address" "$service/ServerReady"
expect 'health of the server' '"status":"SERVING"' "$address" grpc.health.v1.Health/Check
expect 'health of a model' '"status":"SERVING"' \
    -d '{"service":"tiny-bert-sentiment"}' "$address" grpc.health.v1.Health/Check
expect 'health of all' '"tiny-bert-sentiment":\{"status":"SERVING"\}' "$address" grpc.health.v1.Health/List
expect 'ModelMetadata' '"datatype":"BYTES"' -d '{"name":"tiny-bert-sentiment"}' "$address" "$service/ModelMetadata"
# The label comes as base64, as JSON carries bytes.
expect 'ModelInfer' "\"bytesContents\":\[\"$(printf positive | base64)\"\]" \
    -d '{"model_name":"tiny-bert-sentiment","inputs":['"$text"']}' "$address" "$service/ModelInfer"
