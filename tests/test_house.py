"""The rules of the house: layers, sizes, where SQL and frameworks may stand, a mirror test and docstrings for all."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lumeproxy"
MODULES = sorted(PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text("utf-8")) for path in MODULES}
MODULE_LINES, FUNCTION_LINES, FOLDERS_DEEP = 400, 60, 1

# A module may import its own layer's folder and any lower layer, nothing above; folders of one level don't know each other.
LAYERS = [
    {"__init__", "errors", "clock"},
    {"logs", "folder", "binding", "background", "sections"},
    {"settings", "core"},
    {"dialects", "upstreams"},
    {"store"},
    {"routes"},
    {"proxy", "dashboard", "clients"},
    {"compose"},
    {"fleet"},
    {"reload", "greeting", "discovery", "front", "administration"},
    {"app"},
    {"doctor"},  # looks at everything, and starts a server of its own where none runs
    {"cli"},
    {"__main__"},
]
# Where a foreign package may be imported, by the first part of our module's name.
ALLOWED = {
    "aiohttp": {"app", "administration", "compose", "reload", "front", "upstreams", "proxy", "dashboard", "doctor"},
    "aiosqlite": {"store"},
    "sqlite3": {"store"},
    "pydantic": {"settings", "sections"},
    "pydantic_settings": {"settings"},
    "genai_prices": {"core"},
    "jinja2": {"dashboard"},
    "markupsafe": {"dashboard"},
    "argon2": {"dashboard"},
    "click": {"cli"},
    "tomlkit": {"clients"},
    "structlog": {"logs", "app", "compose", "fleet", "discovery", "greeting", "reload", "proxy", "dashboard"},
}
IMPURE = {"asyncio", "socket", "time", "os", "random", "secrets", "logging", "subprocess", "threading", "aiohttp"}
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}
SQL = re.compile(r"\b(SELECT|INSERT INTO|UPDATE \w+ SET|DELETE FROM|CREATE TABLE|PRAGMA|BEGIN IMMEDIATE)\b")
WIRE_WORDS = re.compile(r"message_start|message_delta|content_block|response\.(completed|failed|created)|include_usage|"
                        r"cache_creation_input_tokens|prompt_tokens|chat\.completion")  # fmt: skip


def part(path: Path) -> str:
    """The first part of a module's name below the package: a folder or a top-level module."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def level(name: str) -> int:
    return next(number for number, names in enumerate(LAYERS) if name in names)


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names if node.module == "lumeproxy")


def strings(tree: ast.AST) -> Iterator[str]:
    """String constants that are not docstrings."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docs = {id(n.body[0].value) for n in ast.walk(tree)
            if isinstance(n, documented) and n.body and isinstance(n.body[0], ast.Expr)}  # fmt: skip
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in docs:
            if isinstance(node.value, str):
                yield node.value
            elif isinstance(node.value, bytes):
                yield node.value.decode("latin-1")


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_one_way(path):
    mine = part(path)
    for imported in imports(TREES[path]):
        names = imported.split(".")
        if names[0] != "lumeproxy":
            homes = ALLOWED.get(names[0])
            assert homes is None or mine in homes, f"{imported} may be imported in {homes} only"
        elif len(names) > 1 and names[1] not in (mine, "__version__"):
            assert level(names[1]) < level(mine), f"{mine} must not import {imported}"


@pytest.mark.parametrize("folder", ["core", "dialects"])
def test_the_pure_layers_know_no_clock_and_no_io(folder):
    for path in (PACKAGE / folder).glob("*.py"):
        found = {name.split(".")[0] for name in imports(TREES[path])} & IMPURE
        assert not found, name_of(path)
        assert not any(isinstance(node, ast.Await | ast.AsyncFunctionDef) for node in ast.walk(TREES[path]))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_modules_and_functions_stay_small(path):
    assert len(path.read_text("utf-8").splitlines()) <= MODULE_LINES
    for function in functions(TREES[path]):
        body = function.body[1:] if ast.get_docstring(function) else function.body
        lines = (function.end_lineno or 0) - body[0].lineno + 1 if body else 0
        assert lines <= FUNCTION_LINES, function.name


def test_folders_are_one_level_deep_and_named_for_a_noun():
    for path in MODULES:
        assert len(path.relative_to(PACKAGE).parts) <= FOLDERS_DEEP + 1
        assert not set(path.with_suffix("").parts) & FORBIDDEN_NAMES


def test_sql_stands_in_the_store_only():
    for path, tree in TREES.items():
        if part(path) != "store":
            assert [text for text in strings(tree) if SQL.search(text)] == [], name_of(path)


def test_one_sqlite_serves_the_whole_process():
    for path, tree in TREES.items():
        found = {name.split(".")[0] for name in imports(tree)} & {"sqlite3", "pysqlite3"}
        assert not found or name_of(path) == "lumeproxy/store/sqlite.py"


def test_wire_formats_stand_in_the_dialects_only():
    for path, tree in TREES.items():
        if part(path) != "dialects":
            assert [text for text in strings(tree) if WIRE_WORDS.search(text)] == [], name_of(path)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_module_has_a_mirror_test(path):
    if path.name == "__init__.py":
        return
    inside = path.relative_to(PACKAGE)
    name = "test_main.py" if path.name == "__main__.py" else f"test_{path.name}"
    assert (ROOT / "tests" / inside.parent / name).is_file()


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_public_name_has_a_docstring(path):
    tree = TREES[path]
    assert ast.get_docstring(tree)
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    named = [node for body in (tree.body, *(owner.body for owner in classes)) for node in body]
    for node in named:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.name[0] != "_":
            assert ast.get_docstring(node), node.name


def test_no_float_touches_money():
    names = ("money", "pricing", "settlement"), ("entry", "ledger", "audit")
    for name in (*(f"core/{name}.py" for name in names[0]), *(f"store/{name}.py" for name in names[1])):
        for node in ast.walk(TREES[PACKAGE / name]):
            assert not (isinstance(node, ast.Constant) and isinstance(node.value, float)), name
            assert not (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div)), name


def test_nothing_lives_in_a_global_that_changes():
    """A module-level name in capitals is a constant; one in small letters would be state."""
    for path, tree in TREES.items():
        for node in tree.body:
            targets = (
                node.targets
                if isinstance(node, ast.Assign)
                else [node.target]
                if isinstance(node, ast.AnnAssign)
                else []
            )
            for target in targets:
                if isinstance(target, ast.Name):
                    constant = (
                        target.id.upper() == target.id
                        or target.id.lstrip("_")[:1].isupper()
                        or target.id.startswith("__")
                    )
                    assert constant, f"{name_of(path)}: {target.id}"
        assert not any(isinstance(node, ast.Global) for node in ast.walk(tree)), name_of(path)


def test_no_file_names_a_machine_or_a_registry():
    words = ["/" + "work/", "/" + "root/", "pypi" + ".org", "npmjs" + ".org"]
    files = [path for path in ROOT.iterdir() if path.is_file() and path.name != ".coverage"]
    files += [path for name in ("lumeproxy", "tests", ".ci") for path in (ROOT / name).rglob("*") if path.is_file()]
    for path in files:
        if "__pycache__" not in path.parts:
            text = path.read_text("utf-8", "replace")
            assert not [word for word in words if word in text], name_of(path)
