"""The public names: all there twice, lazy at run time, typed for any type checker."""

import ast
import json
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import plainchant as pc
from plainchant.config import Method, SynthesisConfig, SynthesisFields

SOURCE = Path(pc.__file__).parents[1]
# what a bare import must not bring
HEAVY = ("torch", "transformers", "numpy", "scipy", "sklearn", "pydantic", "matplotlib", "pyarrow")


def in_a_process(code):
    environment = os.environ | {"PYTHONPATH": str(SOURCE)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_importing_plainchant_brings_nothing_heavy():
    brought = in_a_process("import plainchant, json, sys; print(json.dumps(sorted(sys.modules)))")
    assert not set(HEAVY) & set(brought)
    assert not [name for name in brought if name.startswith("plainchant.")]


def test_a_configuration_and_its_plan_need_no_torch():
    brought = in_a_process(
        "import plainchant as pc, json, sys; pc.plan(pc.SynthesisConfig()); print(json.dumps(sorted(sys.modules)))"
    )
    assert not {"torch", "transformers"} & set(brought)


def test_every_name_is_the_same_thing_the_second_time():
    # in a fresh process, and with everything imported in between that could stand in a name's place
    changed = in_a_process("""
import importlib, json, pkgutil
import plainchant as pc
first = {name: getattr(pc, name) for name in pc.__all__}
for module in pkgutil.walk_packages(pc.__path__, "plainchant."):
    if module.name != "plainchant.__main__":
        importlib.import_module(module.name)
print(json.dumps([name for name in pc.__all__ if getattr(pc, name) is not first[name]]))
""")
    assert changed == []


def test_no_name_is_also_a_submodule():
    assert not set(pc.__all__) & {module.name for module in pkgutil.iter_modules(pc.__path__)}


def test_type_checkers_see_the_names_that_there_are():
    tree = ast.parse(Path(pc.__file__).read_text(encoding="utf-8"))
    guarded = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    seen = {
        (imported.asname or imported.name): (node.module.removeprefix("plainchant."), imported.name)
        for node in guarded.body
        if isinstance(node, ast.ImportFrom)
        for imported in node.names
    }
    homes = {name: tuple((home if ":" in home else f"{home}:{name}").split(":")) for name, home in pc._HOMES.items()}
    assert seen == homes
    assert sorted(seen) == pc.__all__ == dir(pc)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nonsense"):
        pc.nonsense  # type: ignore[attr-defined]  # noqa: B018


def test_the_fields_that_type_checkers_know_are_those_of_the_configuration():
    assert list(SynthesisFields.__annotations__) == list(SynthesisConfig.model_fields)
    for name in ("method", "clusters", "aggregate", "support", "clipping", "accounting"):
        enumeration, *literals = SynthesisFields.__annotations__[name].__args__
        known = {value for literal in literals for value in getattr(literal, "__args__", ())}
        assert known == {member.value for member in enumeration}, name
    assert isinstance(SynthesisConfig(method="public").method, Method)


# mypy on a client, once for all of these tests

CLIENT = """\
import plainchant as pc

pc.SynthesisConfig(epsilom=3)
pc.SynthesisConfig(method="plainchent")
pc.PerformanceOptions(devise="cpu")
pc.nonsense
config = pc.SynthesisConfig(method="clustered-mean", epsilon=8, labels=["a"], label_column="l", centres=20)
options = pc.PerformanceOptions(device="cpu", rows=8)
"""


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    """What mypy --strict without any plugin says about CLIENT, and the type it gives every public name, by name."""
    folder = tmp_path_factory.mktemp("client")
    names = "".join(f"reveal_type(pc.{name})\n" for name in pc.__all__)
    (folder / "client.py").write_text(CLIENT + names, encoding="utf-8")
    # other packages are left out: they take a minute and change nothing here
    (folder / "documented.py").write_text(pc.__doc__.split("\n", 1)[1], encoding="utf-8")
    settings = "".join(f"[mypy-{package}.*]\nfollow_imports = skip\n" for package in ("torch", "transformers", "ray"))
    (folder / "mypy.ini").write_text(f"[mypy]\n{settings}", encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--follow-imports=silent",
        "--no-error-summary",
        "client.py",
        "documented.py",
    ]
    environment = os.environ | {"MYPYPATH": str(SOURCE)}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, check=False)
    assert not done.stderr, done.stderr
    assert "documented.py" not in done.stdout, done.stdout
    lines = re.findall(r"^client\.py:(\d+): (error|note): (.*)$", done.stdout, re.MULTILINE)
    errors = {int(line): message for line, kind, message in lines if kind == "error"}
    first = CLIENT.count("\n") + 1
    types = {
        pc.__all__[int(line) - first]: message for line, kind, message in lines if kind == "note" and "Rev" in message
    }
    return errors, types


def test_a_wrong_field_is_an_error_to_mypy(checked):
    errors, _ = checked
    assert 'Unexpected keyword argument "epsilom"' in errors[3]
    assert "incompatible type \"Literal['plainchent']\"" in errors[4]
    assert 'Unexpected keyword argument "devise"' in errors[5]
    assert 'no attribute "nonsense"' in errors[6]


def test_what_is_right_is_no_error_to_mypy(checked):
    errors, _ = checked
    assert set(errors) == {3, 4, 5, 6}


def test_every_public_name_has_a_type(checked):
    _, types = checked
    assert set(types) == set(pc.__all__)
    assert not [name for name, shown in types.items() if shown.endswith('"Any"')]
    assert '-> plainchant.planning.Plan"' in types["plan"]
    assert "-> plainchant.auditing.runs.Audit" in types["audit"]
