"""Memory of the machine, and of a container that has less."""

from pathlib import Path

import pytest

from plainchant.models.transformers import load
from plainchant.models.transformers.load import container_limits, device_memory


def tree(folder: Path, groups: str, **limits: str) -> list[int]:
    """Limits of a process in these groups; `limits` are the contents of files, / written as __ and . as _DOT_."""
    (folder / "cgroup").write_text(groups)
    for name, content in limits.items():
        file = folder / "fs" / name.replace("__", "/").replace("_DOT_", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return container_limits(folder / "cgroup", folder / "fs")


def test_limits_of_a_group_and_of_those_above(tmp_path: Path) -> None:
    found = tree(
        tmp_path, "0::/a/b\n", a__b__memory_DOT_max="max\n", a__memory_DOT_max="4096\n", memory_DOT_max="8192\n"
    )
    assert sorted(found) == [4096, 8192]


def test_limits_of_the_first_version(tmp_path: Path) -> None:
    groups = "4:memory:/box/1\n3:cpuset:/\n"
    assert tree(tmp_path, groups, memory__box__1__memory_DOT_limit_in_bytes="1024\n") == [1024]


def test_a_container_that_sees_its_own_groups_alone(tmp_path: Path) -> None:
    assert tree(tmp_path, "0::/../../elsewhere\n", memory_DOT_max="512\n") == [512]


def test_no_groups_and_no_limit(tmp_path: Path) -> None:
    assert container_limits(tmp_path / "none", tmp_path) == []
    assert tree(tmp_path, "0::/\n", memory_DOT_max="max\n") == []


def test_the_smaller_of_machine_and_container_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = device_memory("cpu")
    monkeypatch.setattr(load, "container_limits", lambda: [2**62])
    assert device_memory("cpu") >= whole
    monkeypatch.setattr(load, "container_limits", lambda: [2**62, 2**30])
    assert device_memory("cpu") == 1.0
