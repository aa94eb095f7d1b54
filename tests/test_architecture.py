"""The one-way streets of the design, and other rules that no single module can hold by itself."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OURS = ("cyclegan", "train")
MODULES = sorted(path for package in OURS for path in (ROOT / package).rglob("*.py"))
CORE = [path for path in MODULES if path.is_relative_to(ROOT / "cyclegan") and "ui" not in path.parts]
UI = [path for path in MODULES if path.is_relative_to(ROOT / "cyclegan" / "ui")]
TRAIN = [path for path in MODULES if path.is_relative_to(ROOT / "train")]


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(source: str, package: str) -> Iterator[str]:
    """Full names of everything imported, at the top or inside functions; ``package`` resolves relative imports.

    ``from a import b`` gives ``a`` and ``a.b``, since b may be a module.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def forbidden(source: str, package: str, *names: str) -> list[str]:
    return [found for found in imports(source, package) if any(f"{found}.".startswith(f"{name}.") for name in names)]


def undocumented(source: str) -> list[str]:
    """Public functions, classes and methods without a docstring, and "module" where that has none.

    ``forward`` of a network is described by its class.
    """
    tree = ast.parse(source)
    missing = ["module"] if tree.body and not ast.get_docstring(tree) else []
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    for node in (node for node in tree.body if isinstance(node, kinds)):
        members = [child for child in node.body if isinstance(child, kinds)] if isinstance(node, ast.ClassDef) else []
        for entry in [node, *members] if not node.name.startswith("_") else []:
            if not entry.name.startswith("_") and entry.name != "forward" and not ast.get_docstring(entry):
                missing.append(entry.name if entry is node else f"{node.name}.{entry.name}")
    return missing


def package_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).parent.parts)


def test_the_helpers_see_what_they_should():
    source = (
        "import gradio.themes as g\ndef f():\n    from ..ui import page\n    from . import zoo\n    import gradients"
    )
    names = {"gradio.themes", "gradients", "cyclegan.ui", "cyclegan.ui.page", "cyclegan.faces", "cyclegan.faces.zoo"}
    assert set(imports(source, "cyclegan.faces")) == names
    assert forbidden(source, "cyclegan.faces", "gradio") == ["gradio.themes"]
    assert forbidden("from cyclegan import ui", "train", "cyclegan.ui") == ["cyclegan.ui"]
    assert undocumented("class A:\n    def b(self): pass\n    def forward(self): pass\ndef _c(): pass") == [
        "module",
        "A",
        "A.b",
    ]
    assert len(CORE) > 5 and len(UI) > 1 and len(TRAIN) > 5


@pytest.mark.parametrize("path", CORE, ids=relative)
def test_the_core_imports_neither_the_page_nor_training(path):
    assert not forbidden(path.read_text(encoding="utf-8"), package_of(path), "gradio", "train", "cyclegan.ui", "app")


@pytest.mark.parametrize("path", TRAIN, ids=relative)
def test_training_imports_no_page(path):
    assert not forbidden(path.read_text(encoding="utf-8"), package_of(path), "gradio", "cyclegan.ui", "app")


@pytest.mark.parametrize("path", UI, ids=relative)
def test_the_page_imports_no_training(path):
    assert not forbidden(path.read_text(encoding="utf-8"), package_of(path), "train", "app")


def test_the_app_only_puts_the_page_together():
    found = list(imports((ROOT / "app.py").read_text(encoding="utf-8"), ""))
    # `spaces` is what a Space on ZeroGPU has to import before anything else.
    outside = [name for name in found if name.split(".")[0] not in {*sys.stdlib_module_names, "cyclegan", "spaces"}]
    assert not outside
    assert any(name.startswith("cyclegan.ui") for name in found)


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_everything_public_has_a_docstring(path):
    assert not undocumented(path.read_text(encoding="utf-8"))


def test_no_file_is_over_10_megabytes():
    git = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(git, capture_output=True, text=True, check=True).stdout.split("\0")
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"this is not a git checkout: {error}")
    files = [ROOT / name for name in listed if name and (ROOT / name).is_file()]
    assert ROOT / "cyclegan" / "images.py" in files
    assert [relative(path) for path in files if path.stat().st_size > 10_000_000] == []
