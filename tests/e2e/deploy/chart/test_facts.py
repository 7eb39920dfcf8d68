"""What must hold of every workload for every set of values (operations.md 6, item 67)."""

import math
import re
from functools import cache

import pytest
import yaml
from rendering import CHART, NAMESPACE, containers, manifests, matrix, merged, workloads

DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text())
CASES = pytest.mark.parametrize("case", matrix())
CLOSING_S = 10  # after the drain: last bytes, exit


@cache
def values_of(case):
    return merged(DEFAULTS, matrix()[case])


def component(metadata):
    return metadata["labels"]["app.kubernetes.io/component"]


@CASES
def test_pods_are_restricted(case):
    for name, _, spec in workloads(case):
        pod = spec["securityContext"]
        assert pod["runAsNonRoot"] is True and pod["runAsUser"] > 0, name
        assert pod["seccompProfile"]["type"] == "RuntimeDefault", name
        assert spec["automountServiceAccountToken"] is False and not spec["enableServiceLinks"], name
        assert not any(spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")), name
        for one in containers(spec):
            context = one["securityContext"]
            assert context["readOnlyRootFilesystem"] and not context["allowPrivilegeEscalation"], name
            assert context["capabilities"] == {"drop": ["ALL"]} and not context["privileged"], name
            assert "limits" in one["resources"] and "requests" in one["resources"], name
        if values_of(case)["model"]["source"] != "hostPath":
            assert not any("hostPath" in volume for volume in spec.get("volumes", [])), name


@CASES
def test_images_are_versions(case):
    for name, _, spec in workloads(case):
        for one in containers(spec):
            assert re.fullmatch(r"[\w./-]+(:(?!latest$)[\w.-]+|@sha256:[0-9a-f]{64})", one["image"]), name


@CASES
def test_grace_is_enough_for_the_drain_that_the_process_is_told(case):
    for name, metadata, spec in workloads(case):
        if component(metadata) == "test":
            continue
        main = spec["containers"][0]
        drain = next(int(a.split("=")[1]) for a in main["args"] if a.startswith("--drain-timeout-s="))
        sleep = main.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        assert sleep == values_of(case)[component(metadata)]["drain"]["preStopSeconds"], name
        assert spec["terminationGracePeriodSeconds"] >= sleep + drain + CLOSING_S, name
        live = main["livenessProbe"].get("terminationGracePeriodSeconds")
        assert live and live < spec["terminationGracePeriodSeconds"], name


@CASES
def test_the_gateway_outlives_the_longest_stream_of_a_draining_worker(case):
    grace = {component(metadata): spec["terminationGracePeriodSeconds"]
             for _, metadata, spec in workloads(case) if component(metadata) != "test"}
    values = values_of(case)
    assert grace["gateway"] >= values["worker"]["drain"]["timeoutSeconds"] + CLOSING_S


@CASES
def test_probes_ask_the_right_question(case):
    for name, metadata, spec in workloads(case):
        part = component(metadata)
        if part == "test":
            continue
        main = spec["containers"][0]
        ports = {port["name"]: port["containerPort"] for port in main["ports"]}
        probes = {kind: main[f"{kind}Probe"] for kind in ("startup", "liveness", "readiness")}
        if part == "gateway":
            https = bool(values_of(case)["gateway"]["tls"]["existingSecret"])
            for kind, path in (("startup", "/live"), ("liveness", "/live"), ("readiness", "/health")):
                assert probes[kind]["httpGet"] == {
                    "path": path, "port": "http", "scheme": "HTTPS" if https else "HTTP"}, name
            continue
        for probe in probes.values():
            assert probe["grpc"]["port"] == ports["health"], name
        assert "service" not in probes["liveness"]["grpc"], name
        assert probes["readiness"]["grpc"]["service"].startswith(f"behemoth.{part}.v1."), name


@CASES
def test_the_startup_budget_is_the_slowest_load_and_a_half(case):
    values = values_of(case)["worker"]["startup"]
    seconds = values["budgetSeconds"] or 1.5 * (
        values["weightsGB"] * 1000 / values["slowestReadMBPerSecond"] + values["warmUpSeconds"])
    for _, metadata, spec in workloads(case):
        if component(metadata) == "worker":
            probe = spec["containers"][0]["startupProbe"]
            assert probe["periodSeconds"] * probe["failureThreshold"] == math.ceil(seconds / 5) * 5
            assert "initialDelaySeconds" not in probe  # a fast disk is not made to wait


def test_the_default_budget_is_half_an_hour():
    probe = next(spec for _, metadata, spec in workloads("base")
                 if component(metadata) == "worker")["containers"][0]["startupProbe"]
    assert 1750 <= probe["periodSeconds"] * probe["failureThreshold"] <= 1850


@CASES
def test_no_secret_is_written_down(case):
    for name, _, spec in workloads(case):
        for one in containers(spec):
            assert not one.get("env"), name  # nothing of ours needs one
            for argument in [*one.get("command", []), *one.get("args", [])]:
                assert not re.match(r"--api-key(=|$)", argument), name
    assert not [one for one in manifests(case) if one["kind"] == "Secret"]


@CASES
def test_the_network_is_closed_but_for_what_is_needed(case):
    values = values_of(case)
    policies = {one["metadata"]["name"].rsplit("-", 1)[1]: one["spec"]
                for one in manifests(case) if one["kind"] == "NetworkPolicy"}
    if not values["networkPolicy"]["enabled"]:
        assert policies == {}
        return
    default = policies["default"]
    assert default["policyTypes"] == ["Ingress", "Egress"] and default["ingress"] == []
    assert [sorted((p["port"], p["protocol"]) for p in rule["ports"]) for rule in default["egress"]] \
        == [[(53, "TCP"), (53, "UDP")]]
    for part in ("tokenizer", "worker"):
        assert policies[part]["egress"] == []
        for rule in policies[part]["ingress"]:
            assert rule["from"], part
        grpc = policies[part]["ingress"][0]
        assert [peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"]
                for peer in grpc["from"]] == ["gateway"]
    reached = {rule["to"][0]["podSelector"]["matchLabels"]["app.kubernetes.io/component"]
               for rule in policies["gateway"]["egress"]}
    assert reached == {"tokenizer", "worker"}
    labels = [metadata["labels"] for _, metadata, _ in workloads(case)]
    assert all(default["podSelector"]["matchLabels"].items() <= one.items() for one in labels)


@CASES
def test_selectors_find_their_pods_and_never_name_a_version(case):
    pods = {component(m): m["labels"] for _, m, _ in workloads(case)}
    for one in manifests(case):
        kind, spec = one["kind"], one.get("spec", {})
        selector = {"Service": lambda: spec["selector"],
                    "PodDisruptionBudget": lambda: spec["selector"]["matchLabels"],
                    "InferencePool": lambda: spec["selector"]["matchLabels"],
                    "Deployment": lambda: spec["selector"]["matchLabels"],
                    "StatefulSet": lambda: spec["selector"]["matchLabels"]}.get(kind)
        if selector:
            chosen = selector()
            assert chosen.items() <= pods[chosen["app.kubernetes.io/component"]].items(), kind
            assert "app.kubernetes.io/version" not in chosen and "helm.sh/chart" not in chosen


@CASES
def test_names_are_labels_and_the_namespace_is_helm_s(case):
    for one in manifests(case):
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", one["metadata"]["name"])
        assert len(one["metadata"]["name"]) <= 63
        assert "namespace" not in one["metadata"]


@CASES
def test_addresses_name_services_that_are_there(case):
    services = {one["metadata"]["name"]: {p["port"] for p in one["spec"]["ports"]}
                for one in manifests(case) if one["kind"] == "Service"}
    for name, _, spec in workloads(case):
        for one in containers(spec):
            for host, port in re.findall(rf"([\w-]+)\.{NAMESPACE}\.svc:(\d+)", " ".join(one["args"])):
                assert int(port) in services[host], name
        for claim in (v["secret"]["secretName"] for v in spec.get("volumes", []) if "secret" in v):
            if claim.endswith("-mtls"):
                assert claim in {c["spec"]["secretName"] for c in manifests(case)
                                 if c["kind"] == "Certificate"}


@CASES
def test_certificates_carry_the_names_that_are_dialled(case):
    certificates = {one["metadata"]["name"].rsplit("-", 2)[1]: one["spec"]
                    for one in manifests(case) if one["kind"] == "Certificate"
                    and one["metadata"]["name"].endswith("-mtls")}
    for _, metadata, spec in workloads(case):
        if certificates and component(metadata) == "gateway":
            arguments = " ".join(spec["containers"][0]["args"])
            for part in ("tokenizer", "worker"):
                host = re.search(rf"--{part}=dns:///([^:]+):", arguments).group(1)
                assert host in certificates[part]["dnsNames"]


def test_presets_roll_the_pods():
    def checksum(case):
        return next(m for _, m, _ in workloads(case) if component(m) == "gateway").get(
            "annotations", {}).get("checksum/presets")
    assert checksum("presets") and not checksum("base")
    both = next(name for name in matrix() if {"presets", "annotated"} <= set(name.split("+")))
    pod = next(m for _, m, _ in workloads(both) if component(m) == "gateway")
    assert {"a", "checksum/presets"} <= set(pod["annotations"])


@pytest.mark.parametrize("case, resource", [("two_gpus", 2), ("base", 1), ("cpu", None)])
def test_gpus_are_asked_for_as_ranks_are(case, resource):
    spec = next(s for _, m, s in workloads(case) if component(m) == "worker")
    main = spec["containers"][0]
    assert main["resources"]["limits"].get("nvidia.com/gpu") == resource
    assert f"--tensor-parallel-size={resource or 1}" in main["args"]
    assert any(v["name"] == "shared-memory" for v in spec.get("volumes", [])) == (resource == 2)


@CASES
def test_no_value_changes_an_immutable_field(case):
    """helm upgrade with any values changes in place what Kubernetes lets change in place."""
    if "fullnameOverride" in matrix()[case]:
        return  # another name is another object

    def immutable(name):
        found = {}
        for one in manifests(name):
            spec = one.get("spec", {})
            key = (one["kind"], one["metadata"]["name"].split("-", 2)[-1])
            if one["kind"] in ("Deployment", "StatefulSet"):
                found[key] = [spec["selector"], spec.get("serviceName"),
                              spec.get("podManagementPolicy"), spec.get("volumeClaimTemplates")]
            elif one["kind"] == "Service":
                found[key] = spec.get("clusterIP")
        return found
    assert immutable(case) == immutable("base")
