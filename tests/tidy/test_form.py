"""The form of the code itself: sizes, banned calls, words that must not appear."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("broker", "protocol", "storage", "vector", "senselog")
FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70
# Who may open files: one module per concern, so that tests can replace the disk.
OPENERS = {
    "storage/file_system.py",
    "vector/index/files.py",
}
BANNED_WORDS = ("TODO", "FIXME", "XXX")


def sources() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring."""
    length = (function.end_lineno or function.lineno) - function.lineno + 1
    first = function.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        length -= (first.end_lineno or first.lineno) - first.lineno + 1
    return length


def test_there_are_sources() -> None:
    """The checks below look at something."""
    assert len(sources()) > 40


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_form(path: Path) -> None:
    """A file fits in one head, a function on one screen, and nobody but the openers touches files or prints."""
    name = str(path.relative_to(ROOT))
    text = path.read_text()
    faults = []
    if (lines := len(text.splitlines())) > FILE_LINES_MAX:
        faults.append(f"{name}: {lines} lines, at most {FILE_LINES_MAX}")
    faults += [f"{name}: contains {word}" for word in BANNED_WORDS if word in text]
    tree = ast.parse(text)
    for function in functions(tree):
        if (size := code_lines(function)) > FUNCTION_LINES_MAX:
            faults.append(f"{name}:{function.lineno} {function.name}: {size} lines, at most {FUNCTION_LINES_MAX}")
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == "open"
            and name not in OPENERS
        ):
            faults.append(f"{name}:{node.lineno}: open() belongs to {', '.join(sorted(OPENERS))}")
    assert not faults, "\n".join(faults)


def test_every_module_is_imported_somewhere() -> None:
    """A module nobody imports is dead; handlers are found by the registry, launchers by their name."""
    text = "\n".join(
        path.read_text()
        for path in [
            *sources(),
            *(ROOT / "tests").rglob("*.py"),
            *(ROOT / "scripts").rglob("*.py"),
            *(ROOT / "benchmarks").rglob("*.py"),
        ]
    )
    text += (ROOT / "Makefile").read_text()
    dead = []
    for path in sources():
        name = str(path.relative_to(ROOT))
        if path.name in {"__init__.py", "__main__.py"} or name.startswith("broker/handlers/"):
            continue
        module = name.removesuffix(".py").replace("/", ".")
        package, _, last = module.rpartition(".")
        if module not in text and f"from {package} import" not in text and f"import {last}" not in text:
            dead.append(name)
    assert not dead, f"imported by nothing: {dead}"


def test_nothing_fetched_or_built_is_committed() -> None:
    """The repository holds sources only: no binaries, no models, no data files of others."""
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    bad = [
        name
        for name in tracked
        if name.endswith((".so", ".onnx", ".safetensors", ".jar", ".whl", ".faiss", ".bin", ".gz", ".zst"))
    ]
    assert not bad, f"not sources: {bad}"


def test_the_page_of_supported_apis_is_current() -> None:
    """docs/protocol-support.md says what the API table says."""
    done = subprocess.run([sys.executable, "scripts/protocol_support.py", "--check"], cwd=ROOT, check=False)
    assert not done.returncode, "run: python scripts/protocol_support.py"
