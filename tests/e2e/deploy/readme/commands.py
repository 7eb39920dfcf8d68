"""Every command of the three READMEs of deploy/, and who runs it: the tests of this folder, a test
elsewhere, or nobody here, with the reason. A command that is in no list fails test_commands.py."""

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tools import ROOT  # noqa: E402

READMES = ["deploy/README.md", "deploy/docker/README.md", "deploy/helm/behemoth/README.md"]
# A span of running text is a command if it begins with one of these and goes on.
PROGRAM = r"(?:kubectl|helm|docker|debootstrap|grpcurl|behemoth-\w+|[\w./-]+\.(?:sh|py)) \S"

INSTALL = ("helm install demo deploy/helm/behemoth -f "
           "deploy/helm/behemoth/examples/cpu-demo.yaml")
BY_HAND = "tests/e2e/deploy/monitoring/test_by_hand.py"
NO_ENGINE = ("no container engine here; hadolint, the flags of each file (flags/), the same steps in a "
             "chroot (run_images.sh)")

# As written, from the root of the repository.
RUN_HERE = ["behemoth-worker --check-model tests/models/tiny --check-memory-gib 80"]
# With these words behind it, because there is no cluster.
RUN_DRY = {INSTALL: "--dry-run=client"}
# As written, against the API server of cluster/ where there is one.
RUN_ON_A_SERVER = [INSTALL, "kubectl get pods -l app.kubernetes.io/component=gateway",
                   "kubectl describe pod", "kubectl get certificate"]
# With the ports that the test got.
RUN_ELSEWHERE = {re.compile(r"grpcurl -plaintext .*"): BY_HAND}
NOT_HERE = {
    "helm test demo --logs": f"needs pods; the scripts that it runs: {BY_HAND}",
    "helm test": "a name; see helm test demo --logs",
    "helm upgrade": "a name; tests/e2e/deploy/cluster does it where there is an API server",
    "kubectl logs --previous": "the pod's name is the reader's, and there is no kubelet",
    "docker build -f deploy/docker/Dockerfile --target gateway -t behemoth/gateway:0.1.0 .": NO_ENGINE,
    "docker build -f deploy/docker/Dockerfile --target tokenizer -t behemoth/tokenizer:0.1.0 .":
        NO_ENGINE,
    "docker build -f deploy/docker/Dockerfile --target worker -t behemoth/worker:0.1.0 "
    "--build-arg BACKEND=cuda .": NO_ENGINE,
    "docker compose -f deploy/docker/compose.yaml up": NO_ENGINE,
    "debootstrap --variant=minbase bookworm": "needs root, and a system of its own to fill",
    "deploy/docker/image.sh install": "changes the machine; by hand, in a chroot",
    "deploy/docker/image.sh build": "a build of a quarter of an hour; by hand, in a chroot",
    "deploy/docker/image.sh collect /out": "needs image.sh build",
    "deploy/docker/image.sh collect": "a name; see the line with a folder",
    "tests/e2e/deploy/run_images.sh /out": "needs root and image.sh collect; by hand",
    "soak.py --minutes 30.5 --clients 4": "half an hour; half a minute of it is in tests/fault",
}


def commands():
    """What the READMEs tell a reader to type, blanks made one."""
    found = set()
    for name in READMES:
        text = (ROOT / name).read_text()
        fenced = re.findall(r"^```bash\n(.*?)^```$", text, re.M | re.S)
        lines = [line for block in fenced for line in block.splitlines() if line.strip()]
        prose = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
        lines += re.findall(rf"`({PROGRAM}[^`]*)`", prose)
        found |= {" ".join(line.split()) for line in lines}
    return found


def is_listed(command):
    return (command in RUN_HERE or command in RUN_DRY or command in RUN_ON_A_SERVER
            or command in NOT_HERE
            or any(pattern.fullmatch(command) for pattern in RUN_ELSEWHERE))
