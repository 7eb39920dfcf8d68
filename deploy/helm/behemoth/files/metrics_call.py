"""Each address must serve its process's metrics: `helm test`. Standard library only.

usage: metrics_call.py http://HOST:PORT ...
"""

import re
import sys
import urllib.request

for address in sys.argv[1:]:
    with urllib.request.urlopen(f"{address}/metrics", timeout=10) as reply:
        text = reply.read().decode()
    process = re.search(r'^behemoth_build_info\{.*process="(behemoth-\w+)"', text, re.M)
    if not process:
        sys.exit(f"{address}: no behemoth_build_info among {len(text)} bytes of metrics")
    print(f"{address}: {process.group(1)}, {text.count('# TYPE')} families")
