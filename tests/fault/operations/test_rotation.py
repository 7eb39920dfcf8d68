"""Keys and certificates change while everything runs: nothing is restarted, no stream is cut, and
who should not get in does not (operations.md 6, 28 to 32 and 57)."""

import http.client
import json
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

import grpc
import pytest
from certificates import Authority

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "gateway"))
from processes import BUILD, TINY, Process, body, free_port, until  # noqa: E402


@pytest.fixture
def start():
    started = []

    def run(name, *arguments):
        started.append(Process(name, *arguments, "--metrics-listen", "127.0.0.1:0"))
        return started[-1]

    yield run
    for one in started:
        one.kill()


def text_side(start, *tls):
    return start("behemoth-tokenizer", "--model", TINY, "--listen", "127.0.0.1:0", *tls)


def engine(start, *tls):
    return start("behemoth-worker", "--model", TINY, "--served-model-name", "tiny", "--backend",
                 "cpu", "--cpu-threads", "1", "--listen", "127.0.0.1:0", *tls)


def gateway(start, tokenizer, worker, *arguments):
    return start("behemoth-gateway", "--tokenizer", tokenizer, "--worker", worker, "--listen",
                 "127.0.0.1:0", *arguments)


def ask(port, key=None, method="GET", path="/v1/models", payload=None, tls=None):
    connection = (http.client.HTTPSConnection("localhost", port, timeout=30, context=tls) if tls
                  else http.client.HTTPConnection("127.0.0.1", port, timeout=30))
    try:
        headers = {"Content-Type": "application/json"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        connection.request(method, path, payload, headers)
        reply = connection.getresponse()
        return reply.status, reply.read()
    finally:
        connection.close()


def healthy(port, tls=None):
    try:
        return ask(port, path="/health", tls=tls)[0] == 200
    except OSError:
        return False


@pytest.fixture
def served(start):
    """(start a gateway over a plaintext tokenizer and worker)"""
    tokenizer, worker = text_side(start), engine(start)

    def run(*arguments, tls=None):
        one = gateway(start, f"127.0.0.1:{tokenizer.port}", f"127.0.0.1:{worker.port}", *arguments)
        until(lambda: healthy(one.port, tls), 30, "a healthy gateway")
        return one

    return run


class Chat:
    """A raw streamed chat, so that a test can hold it open across a change."""

    def __init__(self, port, key, tokens, request_id="long", tls=None):
        self.connection = (http.client.HTTPSConnection("localhost", port, timeout=60, context=tls)
                           if tls else http.client.HTTPConnection("127.0.0.1", port, timeout=60))
        headers = {"Content-Type": "application/json", "X-Request-Id": request_id}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        self.connection.request("POST", "/v1/chat/completions", body(tokens, True), headers)
        self.reply = self.connection.getresponse()
        assert self.reply.status == 200
        self.first = self.reply.readline()

    def rest(self):
        text = self.reply.read()
        self.connection.close()
        return text


def test_a_rotated_key_lets_in_and_out_without_a_restart(served, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("old-key\n")
    one = served("--api-key-file", keys)
    assert ask(one.port, "old-key")[0] == 200 and ask(one.port, "new-key")[0] == 401
    running = Chat(one.port, "old-key", 300)
    keys.write_text("new-key\n")
    until(lambda: ask(one.port, "new-key")[0] == 200, 5, "the new key")
    assert ask(one.port, "old-key")[0] == 401
    assert running.rest().rstrip().endswith(b"data: [DONE]")  # its stream is unaffected

    keys.write_text("new-key scope=emperor\n")  # refused as a whole, the old keys stay
    until(lambda: "ok=false" in "".join(one.log), 5, "the refusal")
    assert ask(one.port, "new-key")[0] == 200
    assert "new-key" not in "".join(one.log) and "old-key" not in "".join(one.log)


def test_a_mounted_secret_changes_by_its_link(served, tmp_path):
    for version, key in (("v1", "first"), ("v2", "second")):
        (tmp_path / version).mkdir()
        (tmp_path / version / "api-keys").write_text(key + "\n")
    (tmp_path / "..data").symlink_to("v1")
    (tmp_path / "api-keys").symlink_to("..data/api-keys")
    one = served("--api-key-file", tmp_path / "api-keys")
    assert ask(one.port, "first")[0] == 200
    (tmp_path / "..next").symlink_to("v2")
    (tmp_path / "..next").rename(tmp_path / "..data")
    until(lambda: ask(one.port, "second")[0] == 200, 5, "the key behind the new link")
    assert ask(one.port, "first")[0] == 401


def test_scopes_only_an_admin_ends_requests_of_others(served, tmp_path):
    keys = tmp_path / "keys"
    digest = subprocess.run(["sha256sum"], input="boss", text=True, capture_output=True).stdout.split()[0]
    keys.write_text(f"ann\nbob\nsha256:{digest} scope=admin\n")
    one = served("--api-key-file", keys)
    running = Chat(one.port, "ann", 1500, "anns")
    assert ask(one.port, "bob", "POST", "/v1/requests/anns/cancel")[0] == 404
    assert ask(one.port, "boss", "POST", "/v1/requests/anns/cancel")[0] == 200
    assert b'"finish_reason"' in running.rest()


def certificate_of(port, authority):
    context = ssl.create_default_context(cafile=str(authority.cert))
    with socket.create_connection(("127.0.0.1", port), timeout=5) as raw:
        with context.wrap_socket(raw, server_hostname="localhost") as tls:
            return tls.getpeercert()["subject"], tls.version()


def test_https_follows_its_files_and_speaks_no_old_tls(served, tmp_path):
    authority = Authority(tmp_path, "ours")
    key, cert = authority.issue("first")
    live_key, live_cert = tmp_path / "tls.key", tmp_path / "tls.crt"
    live_key.write_bytes(key.read_bytes())
    live_cert.write_bytes(cert.read_bytes())
    trusting = ssl.create_default_context(cafile=str(authority.cert))
    one = served("--tls-cert-file", live_cert, "--tls-key-file", live_key, tls=trusting)
    subject, version = certificate_of(one.port, authority)
    assert (("commonName", "first"),) in subject and version in ("TLSv1.2", "TLSv1.3")
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError), socket.create_connection(("127.0.0.1", one.port)) as raw:
        old.wrap_socket(raw)

    running = Chat(one.port, None, 300, tls=trusting)
    key, cert = authority.issue("second")
    live_cert.write_bytes(cert.read_bytes())  # half a pair: the old one stays
    until(lambda: "certificate reloaded ok=false" in "".join(one.log), 5, "the refusal")
    assert (("commonName", "first"),) in certificate_of(one.port, authority)[0]
    live_key.write_bytes(key.read_bytes())
    until(lambda: (("commonName", "second"),) in certificate_of(one.port, authority)[0], 5,
          "the new certificate")
    assert running.rest().rstrip().endswith(b"data: [DONE]")
    assert str(tmp_path) not in "".join(line for line in one.log if "reloaded" in line)

    with socket.create_connection(("127.0.0.1", one.port), timeout=5) as raw:  # plaintext to TLS
        began = time.monotonic()
        raw.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
        assert not raw.recv(1000).startswith(b"HTTP") and time.monotonic() - began < 5


def mutual(authority, name, host):
    key, cert = authority.issue(name, host)
    return ["--tls-cert-file", cert, "--tls-key-file", key, "--tls-client-ca-file", authority.cert]


def client(authority, name):
    key, cert = authority.issue(name)
    return ["--upstream-tls-ca-file", authority.cert, "--upstream-tls-client-cert-file", cert,
            "--upstream-tls-client-key-file", key]


def test_mutual_tls_inside_with_names_that_are_checked(start, tmp_path):
    """As the chart sets it up: the worker is dialled by address and known by its service's name."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    ours, theirs = Authority(tmp_path / "a", "ours"), Authority(tmp_path / "b", "theirs")
    health = free_port()
    tokenizer = text_side(start, *mutual(ours, "tokenizer", "localhost"))
    worker = engine(start, *mutual(ours, "worker", "story-worker.serving.svc"), "--health-listen",
                    f"127.0.0.1:{health}")
    addresses = f"localhost:{tokenizer.port}", f"127.0.0.1:{worker.port}"

    right = gateway(start, *addresses, *client(ours, "gateway"), "--worker-tls-name",
                    "story-worker.serving.svc")
    until(lambda: healthy(right.port), 30, "a gateway that shows and sees the right certificates")
    assert ask(right.port, None, "POST", "/v1/chat/completions", body(4))[0] == 200

    wrong_name = gateway(start, *addresses, *client(ours, "gateway2"), "--worker-tls-name",
                         "another.svc")
    stranger = gateway(start, *addresses, *client(theirs, "gateway3"), "--worker-tls-name",
                       "story-worker.serving.svc")
    plain = gateway(start, *addresses)
    time.sleep(3)
    for one in (wrong_name, stranger, plain):
        status, reply = ask(one.port, path="/health")
        assert status == 503 and json.loads(reply)["workers"]["usable"] == 0
    # What a kubelet asks: plaintext, and nothing but health.
    service = "behemoth.worker.v1.WorkerService"
    assert check_health(f"127.0.0.1:{health}/{service}").returncode == 0
    assert check_health(f"127.0.0.1:{worker.port}/{service}").returncode == 1


def check_health(target):
    return subprocess.run([BUILD / "bin/behemoth-tokenizer", f"--check-health={target}"],
                          capture_output=True, text=True)


def test_health_can_be_asked_for_by_the_binaries_themselves(served):
    one = served()
    program = BUILD / "bin/behemoth-gateway"
    for target, code in ((f"http://127.0.0.1:{one.port}/live", 0),
                         (f"http://127.0.0.1:{one.port}/nowhere", 1),
                         (f"http://127.0.0.1:{free_port()}/live", 1), ("nonsense", 2)):
        result = subprocess.run([program, "--check-health", target], capture_output=True, text=True)
        assert result.returncode == code, (target, result.stderr)
        assert (result.stderr == "") == (code == 0)


def test_hardened_processes_have_nothing_to_look_up(start):
    def lists(port):
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            ask_for = channel.stream_stream(
                "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
            return list(ask_for(iter([b"\x3a\x00"]), timeout=10))  # list_services: ""

    for process in (text_side(start), engine(start)):
        assert lists(process.port)
    for process in (text_side(start, "--reflection=false"), engine(start, "--reflection=false")):
        with pytest.raises(grpc.RpcError) as refused:
            lists(process.port)
        assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_sigterm_ends_tokenizer_and_worker_with_0(start):
    for make in (text_side, engine):
        one = make(start)
        one.send(signal.SIGTERM)
        assert one.wait(15) == 0, "".join(one.log)
