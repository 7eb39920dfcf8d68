"""Certificates made here by openssl, for tests that speak TLS."""

import subprocess


class Authority:
    """A certificate authority in a folder."""

    def __init__(self, folder, name):
        self.folder, self.name = folder, name
        self.key, self.cert = folder / f"{name}.key", folder / f"{name}.pem"
        openssl("req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                "-keyout", self.key, "-out", self.cert, "-days", "2", "-subj", f"/CN={name}")

    def issue(self, name, host="localhost", start=None, end=None):
        """(key, certificate) paths; `start`, `end` as YYYYMMDDHHMMSSZ make it out of date."""
        key, request, cert = (self.folder / f"{name}.{kind}" for kind in ("key", "csr", "pem"))
        openssl("req", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                "-keyout", key, "-out", request, "-subj", f"/CN={name}")
        extensions = self.folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName=DNS:{host},IP:127.0.0.1\n" if host == "localhost"
                              else f"subjectAltName=DNS:{host}\n")
        if start is None:
            openssl("x509", "-req", "-in", request, "-CA", self.cert, "-CAkey", self.key,
                    "-CAcreateserial", "-days", "2", "-extfile", extensions, "-out", cert)
        else:
            self.issue_dated(request, cert, start, end)
        return key, cert

    def issue_dated(self, request, cert, start, end):
        (self.folder / "index.txt").write_text("")
        (self.folder / "serial").write_text("77\n")
        (self.folder / "ca.cnf").write_text(
            f"[ca]\ndefault_ca=d\n[d]\ndatabase={self.folder}/index.txt\n"
            f"serial={self.folder}/serial\nnew_certs_dir={self.folder}\ndefault_md=sha256\n"
            "policy=p\n[p]\ncommonName=supplied\n")
        openssl("ca", "-batch", "-config", self.folder / "ca.cnf", "-in", request, "-out", cert,
                "-cert", self.cert, "-keyfile", self.key, "-startdate", start, "-enddate", end,
                "-notext")


def openssl(*arguments):
    result = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
