"""The modules that mypyc may compile hold nothing that it would quietly take for something else (decision 44)."""

from __future__ import annotations

import ast
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_BUILD = tomllib.loads((_ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
_MODULES: list[str] = _BUILD["targets"]["wheel"]["hooks"]["custom"]["compiled"]
_BELOW = ("catalog", "extauth", "gate", "ratelimit", "runtime")
"""The rooms that hold their instances."""
_WORDS_OF_C = {
    f"_{name}"
    for name in ("alignof", "asm", "attribute", "auto_type", "complex", "const", "extension", "imag", "inline",
                 "int128", "label", "real", "restrict", "signed", "thread", "typeof", "volatile")
}  # fmt: skip
"""Attributes that get an underscore in front and are a word of gcc's then."""
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def _faults(tree: ast.Module) -> Iterator[str]:
    """What in a module would do something else once it is compiled."""
    for node in ast.walk(tree):
        match node:
            case ast.Slice():  # `left[sock.send(left) :]` of a memoryview sends twice
                yield from _does_something(node)
            case ast.ClassDef(keywords=[_, *_]):  # `Struct, eq=False, gc=False` would be compared, and collected
                yield f"{node.name} has keywords, which are dropped"
            case ast.Attribute(attr=name) if name in _WORDS_OF_C:
                yield f"{name} becomes a word of C"
            case ast.Assign(value=ast.Tuple() as value) if _has_floats(value):
                yield f"{ast.unparse(node)} counts as never set: annotate it as tuple[float, ...]"
            case ast.AnnAssign(value=ast.Tuple() as value) if _has_floats(value) and not _is_open(node.annotation):
                yield f"{ast.unparse(node)} counts as never set: annotate it as tuple[float, ...]"
            case ast.ImportFrom(module=str(name)) if name.partition(".")[0] in {"mypy_extensions", "librt", "mypyc"}:
                yield f"numbers of {name} overflow where Python's do not"
            case ast.ClassDef(decorator_list=[_, *_]):
                fields = [one for one in node.body if isinstance(one, ast.AnnAssign)]
                yield from (
                    f"{ast.unparse(one)}: the name is looked for in the module, and not found"
                    for one in fields
                    if ast.unparse(one.annotation) == "object"
                )
            case ast.FunctionDef():
                yield from _retyped(node)
                yield from _calls_itself(node)


def _does_something(bounds: ast.Slice) -> Iterator[str]:
    for one in ast.walk(bounds):
        if isinstance(one, ast.NamedExpr | ast.Await) or (isinstance(one, ast.Call) and ast.unparse(one.func) != "len"):
            yield f"[{ast.unparse(bounds)}] may be worked out twice"


def _has_floats(value: ast.Tuple) -> bool:
    return any(isinstance(one, ast.Constant) and isinstance(one.value, float) for one in value.elts)


def _is_open(annotation: ast.expr) -> bool:
    return "tuple[float, ...]" in ast.unparse(annotation)


def _retyped(function: ast.FunctionDef) -> Iterator[str]:
    """The name of an exception keeps the first type that it has in its function: the second is a TypeError."""
    types: dict[str, set[str]] = {}
    for node in _of_its_own(function):
        if isinstance(node, ast.ExceptHandler) and node.name and node.type:
            types.setdefault(node.name, set()).add(ast.unparse(node.type))
    yield from (f"{function.name}: {name} is of {len(all_)} types" for name, all_ in types.items() if len(all_) > 1)


def _calls_itself(function: ast.FunctionDef) -> Iterator[str]:
    """Compiled calls are C's: what nests too deeply is no RecursionError, it is the end of the process."""
    for node in _of_its_own(function):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {function.name, f"self.{function.name}"}:
            yield f"{function.name} calls itself without a bound"


def _of_its_own(function: ast.FunctionDef) -> Iterator[ast.AST]:
    """What stands in it and in no function within."""
    waiting: list[ast.AST] = [*function.body]
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, _SCOPES):
            waiting.extend(ast.iter_child_nodes(node))


@pytest.mark.parametrize("module", _MODULES)
def test_a_module_means_the_same_compiled(module: str) -> None:
    """As far as is known; what is not is for the tests that run on the compiled form."""
    assert [*_faults(ast.parse((_ROOT / module).read_text(encoding="utf-8")))] == []


@pytest.mark.parametrize(
    "source",
    [
        "left = left[sock.send(left):]",
        "part = text[(at := 3):]",
        "class A(Struct, gc=False): ...",
        "A: Final = (0.5, 1)",
        "A = (0.5, 1)",
        "A: Final[tuple[float, float]] = (0.5, 1.0)",
        "@dataclass\nclass A:\n    kept: object",
        "self._thread = None",
        "from mypy_extensions import i64",
        "def f():\n    try: g()\n    except A as error: h(error)\n    except B as error: i(error)",
        "def f(x):\n    return f(x[0])",
        "class A:\n    def f(self, x):\n        return self.f(x[0])",
    ],
)
def test_what_mypyc_gets_wrong_is_seen(source: str) -> None:
    """Each was found in a module of ours once, or would end the process."""
    assert len([*_faults(ast.parse(source))]) == 1


@pytest.mark.parametrize(
    "source",
    [
        "left = left[sent:len(left)]",
        "A: Final[tuple[float, ...]] = (0.5, 1.0)",
        "def f():\n    try: g()\n    except A as e: h(e)\ndef g():\n    try: f()\n    except B as e: i(e)",
    ],
)
def test_what_it_takes_as_it_is_stands(source: str) -> None:
    """So that nothing is written differently without a reason."""
    assert [*_faults(ast.parse(source))] == []


def test_they_exist_and_are_told_once() -> None:
    """A module that was moved takes its line along; they stand in order, each once."""
    assert sorted(set(_MODULES)) == _MODULES
    assert [module for module in _MODULES if not (_ROOT / module).is_file()] == []


def test_nothing_is_held_weakly() -> None:
    """Instances of compiled classes cannot be: the links to two stores were, and every call was answered 503."""
    files = [file for room in _BELOW for file in (_ROOT / room).rglob("*.py")]
    imports = [
        file for file in files for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if (isinstance(node, ast.Import) and any(one.name == "weakref" for one in node.names))
        or (isinstance(node, ast.ImportFrom) and node.module == "weakref")
    ]  # fmt: skip
    assert imports == []


def test_what_they_import_is_what_they_are_kept_by() -> None:
    """What was compiled is kept by a hash of these rooms (`hatch_build.py`); none of the modules looks into others."""
    above = {"admin", "publisher", "tollkeeper"}
    for module in _MODULES:
        assert module.partition("/")[0] in _BELOW
        tree = ast.parse((_ROOT / module).read_text(encoding="utf-8"))
        named = {
            node.module.partition(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module
        }
        assert not named & above


def test_a_checkout_holds_no_extension_module() -> None:
    """So none that is older than its source can be imported in its place."""
    rooms = _BUILD["only-include"]
    assert [path for room in rooms for path in (_ROOT / room).rglob("*.so")] == []
    ignored = subprocess.run(["git", "check-ignore", "dist/x.whl"], cwd=_ROOT, capture_output=True, check=False)
    assert ignored.returncode == 0


def test_nobody_derives_from_what_is_compiled() -> None:
    """Such a class is a TypeError where the other is compiled; whatever stands around one stands around both."""
    names = {module.removesuffix(".py").replace("/", ".") for module in _MODULES}
    found = []
    for folder in ("tests", *_BUILD["only-include"]):
        for file in (_ROOT / folder).rglob("*.py"):
            if str(file.relative_to(_ROOT)) in _MODULES:
                continue
            nodes = [*ast.walk(ast.parse(file.read_text(encoding="utf-8")))]
            imports = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.module in names]
            given = {one.asname or one.name for node in imports for one in node.names}
            classes = [node for node in nodes if isinstance(node, ast.ClassDef)]
            found += [f"{file}: {one.name}" for one in classes for base in one.bases if ast.unparse(base) in given]
    assert found == []
