"""TLS and mutual TLS with certificates made here by openssl: who gets in, who does not."""

import os
import subprocess

import grpc
import pytest
from certificates import Authority
from tokenizer_process import BINARY, TINY, TokenizerProcess


def credentials(authority, pair=None):
    key, cert = pair or (None, None)
    return grpc.ssl_channel_credentials(
        root_certificates=authority.cert.read_bytes(),
        private_key=key and key.read_bytes(), certificate_chain=cert and cert.read_bytes())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("certificates")


@pytest.fixture(scope="module")
def authority(folder):
    return Authority(folder, "ours")


@pytest.fixture(scope="module")
def stranger(folder):
    (folder / "stranger").mkdir()
    return Authority(folder / "stranger", "stranger")


@pytest.fixture(scope="module")
def server_pair(authority):
    return authority.issue("server")


def serve(stubs, server_pair, *arguments, client):
    key, cert = server_pair
    return TokenizerProcess(TINY, stubs, ["--tls-cert-file", cert, "--tls-key-file", key, *arguments],
                            credentials=client)


@pytest.fixture(scope="module")
def tls(stubs, authority, server_pair):
    process = serve(stubs, server_pair, client=credentials(authority))
    yield process
    assert process.stop() == 0, "".join(process.log)


@pytest.fixture(scope="module")
def mutual(stubs, authority, server_pair):
    client = credentials(authority, authority.issue("client"))
    process = serve(stubs, server_pair, "--tls-client-ca-file", authority.cert, client=client)
    yield process
    assert process.stop() == 0, "".join(process.log)


def refused(process, channel):
    """The call fails before any handler runs, within its deadline; the process stays healthy."""
    stub = process.stub.__class__(channel)
    with channel, pytest.raises(grpc.RpcError) as error:
        stub.GetVocabulary(process.pb.GetVocabularyRequest(), timeout=20)
    assert process.encode(["Hello"])
    return error.value.code() == grpc.StatusCode.UNAVAILABLE


def test_tls_serves_who_knows_the_authority(tls):
    assert tls.encode(["Hello"])


def test_tls_refuses_plaintext_and_a_strange_authority(tls, stranger):
    assert refused(tls, grpc.insecure_channel(tls.address))
    assert refused(tls, grpc.secure_channel(tls.address, credentials(stranger)))


def test_a_client_refuses_a_name_the_certificate_does_not_hold(tls, authority):
    options = [("grpc.ssl_target_name_override", "elsewhere.example")]
    assert refused(tls, grpc.secure_channel(tls.address, credentials(authority), options))


def test_mutual_tls_serves_a_client_of_the_authority(mutual):
    assert mutual.encode(["Hello"])


def test_mutual_tls_refuses_all_other_clients(mutual, authority, stranger):
    expired = authority.issue("expired", start="20200101000000Z", end="20200102000000Z")
    future = authority.issue("future", start="20700101000000Z", end="20710101000000Z")
    for pair in (None, stranger.issue("intruder"), expired, future):
        assert refused(mutual, grpc.secure_channel(mutual.address, credentials(authority, pair)))
    assert refused(mutual, grpc.insecure_channel(mutual.address))


@pytest.mark.parametrize("flags, named", [
    ({"--tls-cert-file": "cert"}, "--tls-key-file"),
    ({"--tls-key-file": "key"}, "--tls-cert-file"),
    ({"--tls-client-ca-file": "cert"}, "--tls-client-ca-file"),
    ({"--tls-cert-file": "cert", "--tls-key-file": "nowhere"}, "--tls-key-file"),
    ({"--tls-cert-file": "empty", "--tls-key-file": "key"}, "--tls-cert-file"),
    ({"--tls-cert-file": "cert", "--tls-key-file": "key", "--tls-client-ca-file": "empty"},
     "--tls-client-ca-file"),
])
def test_half_a_pair_or_a_broken_file_names_its_flag(flags, named, server_pair, folder):
    (folder / "empty").write_text("")
    paths = {"key": server_pair[0], "cert": server_pair[1], "empty": folder / "empty",
             "nowhere": folder / "nowhere"}
    result = subprocess.run(
        [BINARY, "--model", TINY, "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0",
         *(x for flag, path in flags.items() for x in (flag, paths[path]))],
        capture_output=True, text=True, timeout=60, env=dict(os.environ))
    assert result.returncode == 1
    assert named in result.stderr
