"""The wheel's tag: a statically linked program is for every Linux of its processor."""

from __future__ import annotations

import importlib.util
import struct
from pathlib import Path
from types import ModuleType

import pytest

HOOK = Path(__file__).parents[2] / "hatch_build.py"


@pytest.fixture(scope="module")
def hook() -> ModuleType:
    if not HOOK.exists():
        pytest.skip("the tests are not in a working tree")
    spec = importlib.util.spec_from_file_location("hatch_build", HOOK)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def elf(machine: int, *headers: int) -> bytes:
    """Return the beginning of an ELF program with program headers of these types: elf(5)."""
    start, size = 64, 56
    head = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 3, machine, 1, 0, start, 0, 0, 64, size, len(headers), 0, 0, 0)
    return head + b"".join(struct.pack("<I", kind) + bytes(size - 4) for kind in headers)


@pytest.mark.parametrize(
    ("machine", "headers", "tag"),
    [
        (62, (1, 2), "manylinux_2_17_x86_64.musllinux_1_1_x86_64"),
        (183, (1,), "manylinux_2_17_aarch64.musllinux_1_1_aarch64"),
        (62, (6, 3, 1, 2), "linux_x86_64"),
        (183, (3,), "linux_aarch64"),
    ],
)
def test_linux(hook: ModuleType, machine: int, headers: tuple[int, ...], tag: str) -> None:
    assert hook.linux_tag(elf(machine, *headers)) == tag


def test_another_processor_is_named_as_the_system_does(hook: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hook.platform, "machine", lambda: "riscv64")
    assert hook.linux_tag(elf(243, 1)) == "linux_riscv64"


@pytest.mark.parametrize(("target", "tag"), [("", "11_0"), ("11.0", "11_0"), ("10.13", "10_13"), ("14", "14_0"), ("15.4", "15_0")])
def test_macos(hook: ModuleType, monkeypatch: pytest.MonkeyPatch, target: str, tag: str) -> None:
    monkeypatch.setenv("MACOSX_DEPLOYMENT_TARGET", target)
    monkeypatch.setattr(hook.platform, "machine", lambda: "arm64")
    assert hook.platform_tag(None, "darwin") == f"macosx_{tag}_arm64"


def test_other_systems(hook: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "any" not in hook.platform_tag(None, "win32").split(".")
    monkeypatch.setattr(hook.sysconfig, "get_platform", lambda: "freebsd-14.3-RELEASE-amd64")
    assert hook.platform_tag(None, "freebsd14") == "freebsd_14_3_release_amd64"
