"""The folder tree is the architecture: DESIGN sections 1, 3 and 6 as tests over the tracked files."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def project_files():
    """Tracked and new files, by name; in an unpacked archive, all but hidden and build folders."""
    listing = subprocess.run(
        ["git", "-c", f"safe.directory={ROOT}", "ls-files", "--cached", "--others",
         "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True,
    )
    if listing.returncode == 0:
        return listing.stdout.split("\n")
    names = [path.relative_to(ROOT) for path in ROOT.rglob("*")]
    return [n.as_posix() for n in names
            if n.parts[0] != "build" and not any(part.startswith(".") for part in n.parts)]


TRACKED = project_files()
FILES = [ROOT / name for name in TRACKED if name and (ROOT / name).is_file()]
CODE = [f for f in FILES if f.suffix in {".h", ".cc", ".cu", ".cuh"}]
SCRIPTS = [f for f in FILES if f.suffix in {".py", ".sh"}]
PRODUCT = [f for f in CODE if f.relative_to(ROOT).parts[0] != "tests"]

TOP_LEVEL = {
    "CMakeLists.txt", "README.md", "LICENSE",
    "proto", "gateway", "worker", "tokenizer_svc", "kernels", "deploy", "tests",
}

# Folder -> what its includes must not match. The longest folder that holds a file decides.
GRPC = r"^(grpc|behemoth/.*\.pb\.h|proto/support/(grpc_server|status_convert|health|tls))"
CUDA = r"^(cuda|cub/|thrust/|nccl)"
WALLS = {
    "proto/support": [r"^behemoth/", r"^(gateway|worker|tokenizer_svc|kernels)/"],
    "kernels": [r"^absl/", GRPC, r"^nccl", r"^(worker|gateway|tokenizer_svc|proto)/"],
    "worker": [r"^(gateway|tokenizer_svc)/"],
    "worker/cache": [r"^(gateway|tokenizer_svc)/", r"^worker/(schedule|engine|rpc|model|runner|device)/", GRPC, CUDA],
    "worker/schedule": [r"^(gateway|tokenizer_svc)/", r"^worker/(engine|runner|rpc|model|device|checkpoint)/", GRPC, CUDA, r"^chrono$"],
    "worker/checkpoint": [r"^(gateway|tokenizer_svc)/", r"^worker/(schedule|engine|rpc|cache)/", GRPC],
    "worker/model": [r"^(gateway|tokenizer_svc)/", r"^worker/(engine|rpc|cache)/", r"^worker/schedule/scheduler\.h", GRPC],
    "worker/runner": [r"^(gateway|tokenizer_svc)/", r"^worker/(engine|rpc|cache)/", r"^worker/schedule/scheduler\.h", GRPC],
    "worker/structure": [r"^(gateway|tokenizer_svc)/", r"^worker/(engine|rpc|cache|model|device|runner|checkpoint)/", r"^worker/schedule/(?!form\.h)", GRPC, CUDA],
    "worker/sampling": [r"^(gateway|tokenizer_svc)/", r"^worker/(engine|rpc|cache|model|runner)/", GRPC],
    "worker/engine": [r"^(gateway|tokenizer_svc)/", r"^worker/(rpc|model|device|checkpoint)/", GRPC, CUDA],
    "worker/rpc": [r"^(gateway|tokenizer_svc)/", r"^worker/(model|device|checkpoint|cache)/", r"^worker/schedule/(?!generation\.h)", CUDA],
    "gateway": [r"^(worker|tokenizer_svc|kernels)/", CUDA],
    "gateway/http": [r"^(worker|tokenizer_svc|kernels)/", r"^gateway/(api|chat|text|session|upstream)/", GRPC],
    "gateway/api": [r"^(worker|tokenizer_svc|kernels)/", r"^gateway/(http|chat|session|upstream|admission)/", GRPC],
    "gateway/chat": [r"^(worker|tokenizer_svc|kernels)/", r"^gateway/(http|text|session|upstream|admission)/", GRPC],
    "gateway/text": [r"^(worker|tokenizer_svc|kernels)/", r"^gateway/(http|api|chat|session|upstream|admission)/", GRPC],
    "gateway/session": [r"^(worker|tokenizer_svc|kernels)/", r"^boost/beast", GRPC],
    "tokenizer_svc": [r"^(worker|gateway|kernels)/", CUDA],
}

LONG_FILE_LINES, LONGEST_FILE_LINES = 600, 1000
BANNED_CALLS = {
    r"\bgetenv\s*\(": "flags read the environment, nothing else",
    r"\b(strcpy|strcat|sprintf|gets|alloca)\s*\(": "unbounded",
    r"(?<![\w.])rand\s*\(\s*\)": "not seeded per request",
    r"\bstd::this_thread::sleep|\b(u|nano)?sleep\s*\(": "wake by condition, never by sleep",
    r"(?<!static_)\bassert\s*\(": "CHECK with values, or a status",
}
BANNED_NAMES = re.compile(r"\b(?:class|struct)\s+\w*(Manager|Helper|Util|Utils|Info|Common)\b")


def relative(path):
    return path.relative_to(ROOT).as_posix()


def code_lines(path):
    """Lines with comments and string contents blanked, so that prose is not mistaken for code."""
    text = path.read_text(encoding="utf-8")
    text = re.sub(r"//[^\n]*", "", text)
    text = re.sub(r"/\*.*?\*/", lambda m: "\n" * m.group().count("\n"), text, flags=re.S)
    return re.sub(r'"(?:\\.|[^"\\\n])*"', '""', text).split("\n")


def walls_of(path):
    name, best = relative(path), ""
    for folder in WALLS:
        if name.startswith(folder + "/") and len(folder) > len(best):
            best = folder
    return best


def is_composition_root(path):
    return path.stem == "main" or relative(path) in {
        "worker/worker.cc", "worker/worker.h", "gateway/gateway.cc", "gateway/gateway.h",
    }


def test_the_top_level_is_the_design_s():
    entries = {name.split("/")[0] for name in TRACKED if name}
    assert {e for e in entries if not e.startswith(".")} - TOP_LEVEL == set()


def test_no_include_crosses_a_wall():
    broken = []
    for path in PRODUCT:
        folder = walls_of(path)
        if not folder or is_composition_root(path):
            continue
        for number, line in enumerate(path.read_text().split("\n"), 1):
            match = re.match(r'\s*#\s*include\s*[<"]([^>"]+)[>"]', line)
            if match and any(re.search(wall, match.group(1)) for wall in WALLS[folder]):
                broken.append(f"{relative(path)}:{number}: {match.group(1)}")
    assert broken == []


def test_the_wall_table_refuses_a_known_break():
    assert any(re.search(wall, "grpcpp/grpcpp.h") for wall in WALLS["worker/schedule"])
    assert any(re.search(wall, "worker/schedule/scheduler.h") for wall in WALLS["worker/rpc"])
    assert not any(re.search(wall, "worker/schedule/generation.h") for wall in WALLS["worker/rpc"])


def test_files_are_short():
    long = []
    for path in CODE + SCRIPTS:
        lines = path.read_text(encoding="utf-8").count("\n")
        head = path.read_text(encoding="utf-8")[:1500]
        if lines > LONGEST_FILE_LINES or (lines > LONG_FILE_LINES and "Length:" not in head):
            long.append(f"{relative(path)}: {lines} lines (over 600 needs a 'Length:' reason at the top)")
    assert long == []


def test_lines_fit_100_columns():
    wide = [
        f"{relative(path)}:{number}"
        for path in CODE
        for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1)
        if len(line) > 100 and "http" not in line and "#include" not in line
    ]
    assert wide == []


def functions(path):
    """(first line, name, lines) of the definitions at namespace level of a formatted file."""
    start = None
    for number, line in enumerate(code_lines(path), 1):
        if start is None:
            opens = re.match(r"[A-Za-z_][^;=]*\(", line) and not re.match(r"(namespace|class|struct|enum|using|extern|#)", line)
            if opens and not line.rstrip().endswith("}"):  # not all on one line
                start = (number, line)
        elif line.startswith("}"):
            yield start[0], start[1].strip(), number - start[0] + 1
            start = None
        elif start and line.rstrip().endswith(";") and not line.startswith((" ", "\t")):
            start = None


def test_functions_are_short():
    long = [
        f"{relative(path)}:{line}: {lines} lines: {name}"
        for path in PRODUCT if path.suffix in {".cc", ".h"}
        for line, name, lines in functions(path) if lines > 70
    ]
    assert long == []


def test_banned_calls_and_names_do_not_occur():
    found = []
    for path in PRODUCT:
        for number, line in enumerate(code_lines(path), 1):
            for pattern, why in BANNED_CALLS.items():
                if re.search(pattern, line):
                    found.append(f"{relative(path)}:{number}: {why}")
            if BANNED_NAMES.search(line):
                found.append(f"{relative(path)}:{number}: a name that says nothing")
    assert found == []


def test_no_marks_are_left_over():
    mark = re.compile(r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "X" * 3, "HA" + "CK"]) + r")\b")
    assert [relative(f) for f in CODE + SCRIPTS if mark.search(f.read_text(encoding="utf-8"))] == []


def test_no_test_is_disabled_or_empty():
    found = []
    for path in CODE + SCRIPTS:
        if relative(path).startswith("tests/tidy/"):
            continue
        text = path.read_text(encoding="utf-8")
        if re.search(r"\bDISABLED_\w|EXPECT_TRUE\(true\)|pytest\.mark\.(skip\b|xfail)", text):
            found.append(f"{relative(path)}: disabled")
        if re.search(r"^TEST(_F|_P)?\([^)]*\)\s*\{\s*\}", text, flags=re.M):
            found.append(f"{relative(path)}: empty")
    assert found == []


def test_every_source_is_in_a_build_file():
    builds = [f for f in FILES if f.name == "CMakeLists.txt" or f.suffix == ".cmake"]
    named = "\n".join(b.read_text() for b in builds)
    # A loop names its files as ${kernel}_test.cc.
    patterns = [re.sub(r"\\\$\\\{\w+\\\}", r"\\w+", re.escape(word.split("/")[-1]))
                for word in re.findall(r"[\w./{}$]*\$\{\w+\}[\w.]*\.(?:cc|cu)\b", named)]
    missing = [
        relative(f) for f in CODE
        if f.suffix in {".cc", ".cu"} and not re.search(rf"(?<![\w]){re.escape(f.name)}", named)
        and not any(re.fullmatch(pattern, f.name) for pattern in patterns)
    ]
    assert missing == []


def test_every_pytest_file_is_run_by_ctest():
    builds = "\n".join(f.read_text() for f in FILES if f.name == "CMakeLists.txt" or f.suffix == ".cmake")
    missing = []
    for path in FILES:
        if path.suffix == ".py" and re.match(r"test_|.*_test\.py$", path.name):
            names = [relative(path), *(relative(p) for p in path.parents if p != ROOT and ROOT in p.parents)]
            if not any(f"PATH {name}" in builds for name in names):
                missing.append(relative(path))
    assert missing == []


def test_every_folder_with_code_explains_itself():
    folders = {f.parent for f in PRODUCT}
    crowded = [d for d in folders if sum(1 for f in PRODUCT if f.parent == d) >= 6]
    assert [relative(d) for d in crowded if not (d / "README.md").exists()] == []


def test_headers_are_guarded_and_begin_with_their_contract():
    bad = [
        relative(f) for f in PRODUCT
        if f.suffix in {".h", ".cuh"} and not (f.read_text().startswith("//") and "#pragma once" in f.read_text())
    ]
    assert bad == []


def test_format_is_clang_format_s(tmp_path):
    clang_format = Path(__import__("sys").executable).parent / "clang-format"
    if not clang_format.exists():
        pytest.fail("clang-format of tests/requirements.txt is not installed")
    result = subprocess.run(
        [clang_format, "--dry-run", "-Werror", *map(str, CODE)], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr[:3000]
