"""/openapi.json: valid, whole, and true of the three real processes (Schemathesis asks them).

BEHEMOTH_SCHEMATHESIS_EXAMPLES: how many examples each operation gets beside those that Schemathesis
derives from the description itself (default 10; 600 makes 10^4 of both together).
"""

import copy
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from conftest import KEY

EXAMPLES = int(os.environ.get("BEHEMOTH_SCHEMATHESIS_EXAMPLES", "10"))


@pytest.fixture(scope="session")
def document(http):
    reply = http.get("/openapi.json")
    assert reply.headers["content-type"] == "application/json"
    return reply.json()


def test_it_is_valid(document):
    assert list(OpenAPIV31SpecValidator(document).iter_errors()) == []


def test_every_route_of_the_specification_is_there(document):
    # spec api.md section 2, without /metrics, which is on the admin port
    assert {"/v1/chat/completions", "/v1/completions", "/v1/chat/completions/render", "/v1/models",
            "/v1/models/{id}", "/tokenize", "/detokenize", "/v1/tokenize", "/v1/detokenize",
            "/v1/thinking/presets", "/v1/requests/{id}/cancel", "/v1/requests/{id}/end_thinking",
            "/health", "/live", "/ping", "/version", "/load", "/"} <= set(document["paths"])


def test_every_described_path_exists(document, http):
    for path, operations in document["paths"].items():
        for method in operations:
            reply = http.request(method, path.replace("{id}", "x"), content=b"")
            assert reply.status_code != 405, path
            assert reply.text.find("nothing at this path") < 0, path


def test_it_is_told_without_a_key_and_names_who_needs_one(document, locked_gateway):
    for path, operations in httpx.get(f"{locked_gateway}/openapi.json").json()["paths"].items():
        for method, operation in operations.items():
            reply = httpx.request(method, locked_gateway + path.replace("{id}", "x"))
            assert (reply.status_code == 401) == ("security" not in operation), path


def test_who_has_a_document_already_gets_304(http):
    for path in ("/", "/openapi.json"):
        first = http.get(path)
        again = http.get(path, headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert http.get(path).content == first.content  # the connection goes on


def schemathesis(url, location, folder, *arguments):
    """No 5xx, no hang, every reply as described; bodies that break the description are refused."""
    config = folder / "schemathesis.toml"
    # A description cannot say that a prompt must fit the context or what needs what: a 400 to a body
    # that it allows is no failure.
    config.write_text("[checks]\npositive_data_acceptance.enabled = false\n")
    # One worker: with two, hypothesis trips over CPython 3.11's ast.parse, which is not thread-safe.
    command = [Path(sys.executable).parent / "schemathesis", "--config-file", config, "run", location,
               "--url", url, "--max-examples", EXAMPLES, "--request-timeout", 60, "--workers", 1,
               "--seed", 20261125, "--no-color", "--suppress-health-check", "all",
               "--generation-database", "none", *arguments]
    run = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=folder)
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    assert httpx.get(f"{url}/health").status_code == 200
    return int(re.search(r"(\d+) generated", run.stdout).group(1))


def narrowed(document):
    """The description with what this server's model and limits add: most bodies of it are served."""
    schemas = document["components"]["schemas"]
    schemas["Message"]["properties"]["role"]["enum"] = ["system", "user", "assistant"]
    for body in ("ChatRequest", "CompletionRequest", "TokenizeRequest", "DetokenizeRequest"):
        fields = schemas[body]["properties"]
        fields["model"]["enum"] = ["tiny", "behemoth/tiny", None]
        # What is refused by the operator's wish or needs another field, and bounds under other names.
        refused = {"chat_template", "chat_template_kwargs", "sampler_order", "dynamic_temperature",
                   "dynatemp_low", "dynatemp_high", "dry_base", "dry_allowed_length", "stream_options",
                   "dry_sequence_breakers", "response_format", "top_logprobs", "prompt_logprobs"}
        for name, field in list(fields.items()):
            main = field.get("x-alias-of", name)
            if main in refused or (main != name and main in {"max_tokens", "prompt", "min_tokens"}):
                del fields[name]
    for body in ("ChatRequest", "CompletionRequest"):
        schemas[body]["properties"]["max_tokens"] = {"type": "integer", "minimum": 1, "maximum": 4}
        schemas[body]["properties"]["min_tokens"]["maximum"] = 1
        schemas[body]["properties"]["best_of"]["maximum"] = 1
        schemas[body]["properties"]["n"]["maximum"] = 1
        schemas[body]["required"].append("max_tokens")
    ids = {"type": "integer", "minimum": 0, "maximum": 4095}
    schemas["Ids"]["items"] = schemas["DetokenizeRequest"]["properties"]["tokens"]["items"] = ids
    return document


def test_schemathesis_finds_nothing_behind_the_description(document, gateway, tmp_path):
    file = tmp_path / "narrowed.json"
    file.write_text(json.dumps(narrowed(copy.deepcopy(document))))
    assert schemathesis(gateway, file, tmp_path, "--phases", "coverage,fuzzing",
                        "--exclude-path-regex", "^/v1/(de)?tokenize",
                        "--exclude-checks", "negative_data_rejection") > 1000  # over 4 tokens is legal


def test_schemathesis_finds_nothing_behind_a_key(locked_gateway, tmp_path):
    assert schemathesis(locked_gateway, f"{locked_gateway}/openapi.json", tmp_path, "--phases",
                        "fuzzing", "-H", f"Authorization: Bearer {KEY}") > 50
