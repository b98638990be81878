#!/usr/bin/env python3
"""Holds the manifests and the Grafana board against the schemas of Kubernetes, KEDA, the Prometheus operator, KServe and Grafana.

Kinds that have no JSON schema here go through classes that are made of their schemas, and must come out as they went in:
a field that a class does not know is lost on the way.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import kubernetes_validate
import kserve
import yaml
from cloudcoil.models.keda.v1alpha1 import ScaledObject
from cloudcoil.models.prometheus_operator.v1 import PodMonitor
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

FOLDER = Path(__file__).resolve().parent
KUBERNETES = kubernetes_validate.latest_version()


def by_kubernetes(manifest):
    kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


def by_model(model):
    def check(manifest):
        read = model.model_validate(manifest)
        assert_kept(manifest, read.model_dump(mode="json", by_alias=True, exclude_none=True))

    return check


def by_kserve(model):
    """Follows the fields of KServe's class; the containers in them are those of a pod of Kubernetes."""

    def check(manifest):
        follow(manifest, model.__name__, "")

    return check


def follow(value, type_name, path):
    """Checks `value`, at `path`, as being of a type as KServe's classes write it: a class, str, list[T] or dict(str, T)."""
    if type_name == "list[V1Container]":
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": {"containers": value}}
        by_kubernetes(pod)
    elif item := re.fullmatch(r"list\[(.*)]", type_name):
        for at, each in enumerate(value):
            follow(each, item[1], f"{path}[{at}]")
    elif model := getattr(kserve.models, type_name, None):
        types = {model.attribute_map[name]: of for name, of in model.openapi_types.items()}
        for name, each in value.items():
            assert name in types, f"{path}.{name} is not known; known are: {', '.join(sorted(types))}"
            follow(each, types[name], f"{path}.{name}")
    elif native := {"str": str, "int": int, "bool": bool}.get(type_name):
        assert type(value) is native, f"{path} is {value!r}, but must be {type_name}"
    else:
        known = type_name.startswith(("dict(", "V1ObjectMeta"))
        assert known, f"{path} has the type {type_name}, which is not checked here"


def board(path):
    written = json.loads(path.read_text())
    register_default_plugins()
    assert_kept(written, json.loads(JSONEncoder(sort_keys=True).encode(Dashboard.from_json(written))))
    panels = [panel for panel in written["panels"] if panel["type"] != "row"]
    assert panels and all(panel["targets"] and panel["description"] for panel in panels)
    targets = [target["expr"] for panel in panels for target in panel["targets"]]
    assert_parses(targets + [it["expr"] for it in written["annotations"]["list"]])
    ids = [panel["id"] for panel in written["panels"]]
    assert len(set(ids)) == len(ids), "two panels have one id"


def autoscaling(manifest):
    by_model(ScaledObject)(manifest)
    assert_parses(trigger["metadata"]["query"] for trigger in manifest["spec"]["triggers"])


def assert_parses(queries):
    """Checks queries of Prometheus, in which Grafana's variables may stand."""
    filled = [re.sub(r"\$(\w+)", lambda it: "1m" if it[1] == "__rate_interval" else "x", query) for query in queries]
    rules = [{"record": f"query_{at}", "expr": query} for at, query in enumerate(filled)]
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}, file)
        checked = subprocess.run(["promtool", "check", "rules", file.name], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr + checked.stdout


def assert_kept(written, read):
    lost = list(differences(written, read, ""))
    assert not lost, f"not known to the schema: {lost}"


def differences(written, read, path):
    if isinstance(written, dict) and isinstance(read, dict):
        for key, value in written.items():
            yield from differences(value, read.get(key), f"{path}.{key}")
    elif isinstance(written, list) and isinstance(read, list) and len(written) == len(read):
        for at, (one, other) in enumerate(zip(written, read)):
            yield from differences(one, other, f"{path}[{at}]")
    elif written != read:
        yield path, written, read


CHECKS = {
    "ScaledObject": autoscaling,
    "PodMonitor": by_model(PodMonitor),
    "ClusterServingRuntime": by_kserve(kserve.V1alpha1ClusterServingRuntime),
    "InferenceService": by_kserve(kserve.V1beta1InferenceService),
    # Kustomize's own; what it names is looked for.
    "Kustomization": lambda it: [(FOLDER / "kubernetes" / name).resolve(strict=True) for name in it["resources"]],
}


def main():
    for path in sorted(FOLDER.glob("k*/*.yaml")):
        for manifest in yaml.safe_load_all(path.read_text()):
            try:
                CHECKS.get(manifest["kind"], by_kubernetes)(manifest)
            except Exception as error:
                sys.exit(f"{path}: {manifest['kind']}: {error}")
            print(f"{path.relative_to(FOLDER)}: {manifest['apiVersion']} {manifest['kind']}")
    board(FOLDER / "grafana" / "sconce.json")
    print("grafana/sconce.json")


if __name__ == "__main__":
    main()
