#!/usr/bin/env python3
"""Prints what an image holds as SPDX 2.3: every Debian package of which a file is in it, with its
version, and our own binary.

usage: sbom.py NAME TREE
"""

import datetime
import json
import os
import subprocess
import sys
from pathlib import Path


def owners(tree):
    """{package: version} of the files below a folder that Debian packages own, and what is left."""
    files = ["/" + str(path.relative_to(tree)) for path in tree.rglob("*")
             if path.is_file() and path.suffix != ".pyc"]
    # Merged /usr: a package may know a file of /usr/lib by its old path, and the other way round.
    asked = files + [f.removeprefix("/usr") for f in files if f.startswith("/usr/")] + \
        ["/usr" + f for f in files if f.startswith("/lib")]
    listing = subprocess.run(["dpkg-query", "--search", *asked], capture_output=True, text=True)
    packages, owned = set(), set()
    for line in listing.stdout.splitlines():
        names, _, path = line.rpartition(": ")
        if names.startswith("diversion by"):
            continue
        packages.update(name.strip().split(":")[0] for name in names.split(","))
        owned.update({path, path.removeprefix("/usr"), "/usr" + path})
    found = {}
    for line in subprocess.run(
            ["dpkg-query", "-W", "-f", "${Package}\t${Version}\t${db:Status-Abbrev}\n",
             *sorted(packages)], capture_output=True, text=True).stdout.splitlines():
        name, version, status = line.split("\t")
        if status.startswith("ii"):
            found[name] = version
    return found, [f for f in files if f not in owned]


def document(name, tree):
    packages, others = owners(tree)
    ours = subprocess.run([tree / f"usr/bin/behemoth-{name}", "--version"], capture_output=True,
                          text=True, check=True).stdout.split()[1]
    made = datetime.datetime.fromtimestamp(int(os.environ.get("SOURCE_DATE_EPOCH", 0)),
                                           datetime.timezone.utc)
    entries = [{"SPDXID": f"SPDXRef-behemoth-{name}", "name": f"behemoth-{name}",
                "versionInfo": ours, "downloadLocation": "NOASSERTION",
                "licenseConcluded": "Apache-2.0"}]
    entries += [{"SPDXID": f"SPDXRef-deb-{package.replace('+', 'p')}", "name": package,
                 "versionInfo": version, "downloadLocation": "NOASSERTION",
                 "externalRefs": [{"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl",
                                   "referenceLocator": f"pkg:deb/debian/{package}@{version}"}]}
                for package, version in sorted(packages.items())]
    return {"spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT",
            "name": f"behemoth-{name}", "documentNamespace": f"urn:behemoth:{name}:{ours}",
            "creationInfo": {"created": made.strftime("%Y-%m-%dT%H:%M:%SZ"),
                             "creators": ["Tool: deploy/docker/sbom.py"]},
            "packages": entries,
            "annotations": [{"annotationType": "OTHER", "annotator": "Tool: deploy/docker/sbom.py",
                             "annotationDate": made.strftime("%Y-%m-%dT%H:%M:%SZ"),
                             "comment": "not of a package: " + ", ".join(sorted(others))}]}


if __name__ == "__main__":
    print(json.dumps(document(sys.argv[1], Path(sys.argv[2])), indent=1))
