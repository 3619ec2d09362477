"""Every Lua script is a file with a contract and exactly one caller that bears its name."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("admin", "catalog", "extauth", "gate", "publisher", "ratelimit", "runtime", "tollkeeper")
BUDGETS = (
    (
        "ratelimit/windows/lua/take.lua",
        "ratelimit/windows/lua/take_windows.lua",
        "ratelimit/windows/lua/take_format1.lua",
    ),
    ("ratelimit/tokens/lua/values.lua", "ratelimit/tokens/lua/reservations.lua", "ratelimit/tokens/lua/settle.lua"),
)
PARTS = ("values.lua", "reservations.lua", "take_fence.lua", "take_windows.lua", "take_format1.lua", "past.lua")
"""Files that stand in a script before or among others: their header says what they own."""
RECORDS = ("catalog/store/lua/announce.lua", "catalog/store/lua/commit.lua", "catalog/store/lua/lift.lua")
FILES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.lua"))
SCRIPTS = [path for path in FILES if path.name not in PARTS]


ENVOYS = {
    ROOT / "publisher/envoy/lua/meter.lua": (r"\bCalled\b", r"\bTells\b", r"\bKeeps\b"),
    ROOT / "publisher/envoy/lua/rewrite.lua": (r"\bCalled\b", r"\bReads\b"),
}
"""Run by Envoy for each answer or request, and not by a store; what their headers say."""


def _loads(module: ast.Module, script: Path) -> bool:
    """Whether code of the module, not its prose, names the script's file."""
    return any(isinstance(node, ast.Constant) and node.value == f"lua/{script.name}" for node in ast.walk(module))


def _callers(script: Path) -> list[ast.Module]:
    room = script.parents[1]
    modules = [ast.parse(path.read_text()) for path in sorted(room.glob("*.py"))]
    return [module for module in modules if _loads(module, script)]


def _wrappers(module: ast.Module, name: str) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    functions = [node for node in ast.walk(module) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return [function for function in functions if function.name == name]


def test_there_are_scripts() -> None:
    """The walk finds the taking script, so it would find others."""
    assert ROOT / "ratelimit/windows/lua/take.lua" in SCRIPTS


@pytest.mark.parametrize("script", FILES, ids=lambda path: path.name)
def test_a_script_stands_in_its_rooms_lua_folder(script: Path) -> None:
    """``<package>/lua/<name>.lua``: beside the module that calls it."""
    assert script.parent.name == "lua"
    assert (script.parents[1] / "__init__.py").is_file()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_has_one_typed_caller_of_its_name(script: Path) -> None:
    """One module loads it; there one function bears the script's name, and all it takes and returns is typed."""
    (module,) = _callers(script)
    (wrapper,) = _wrappers(module, script.stem)
    arguments = wrapper.args
    assert wrapper.returns is not None
    assert all(each.annotation for each in [*arguments.args, *arguments.kwonlyargs] if each.arg != "self")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_states_its_contract(script: Path) -> None:
    """The header says what it takes and returns: a store's script keys and arguments, Envoy's what it is called at."""
    header = "\n".join(line for line in script.read_text().splitlines()[:60] if line.startswith("--"))
    takes = ENVOYS.get(script, (r"\bKEYS\b", r"\bARGV\b"))
    for word in (*takes, r"\bReturns\b"):
        assert re.search(word, header), f"{script.name}: no {word} in its header"


@pytest.mark.parametrize(
    "layout", ["<BI6I4I4B", "<BI4", "<Hc0BI4I4I4d", "<Bc0", "<BBI6I6I6I6B", "<BI6", "<BI6I6I6", "<BBBI6Bc0"]
)
def test_scripts_agree_on_what_is_stored(layout: str) -> None:
    """The layouts of values and reservations are the same where they are written and where they are changed."""
    for scripts in BUDGETS:
        assert f"'{layout}'" in "".join((ROOT / script).read_text() for script in scripts)


def test_scripts_count_epochs_alike() -> None:
    """Whoever moves an epoch reads the feed's counter by the same text, and keeps a feed of the same length."""
    assert len({_function(script, "feed_counter") for script in RECORDS}) == 1
    assert len({_constants(script, "FEED_LENGTH") for script in RECORDS}) == 1


def _function(script: str, name: str) -> str:
    found = re.search(rf"^local function {name}\(.*?^end$", (ROOT / script).read_text(), re.MULTILINE | re.DOTALL)
    assert found, f"{script} has no function {name}"
    return found.group()


def _constants(script: str, first: str) -> str:
    """The definition of a constant and those beside it, without what is said of them."""
    found = re.search(rf"^local {first}\b.*?(?= --|$)", (ROOT / script).read_text(), re.MULTILINE)
    assert found, f"{script} has no constant {first}"
    return found.group()
