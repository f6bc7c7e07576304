"""Bad input: each a clear error, before anything starts."""

from __future__ import annotations

import math
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from support.programs import inside

import proc_sandbox as ps

EVERY_BACKEND = True

TOO_MUCH = 2**64
BAD_VALUES: list[tuple[str, Any]] = [
    *(
        ("timeout", value)
        for value in (-1, 0, "soon", math.nan, math.inf, True, [], b"5", TOO_MUCH, timedelta(-1), "5 parsecs")
    ),
    *(
        ("memory_limit", value)
        for value in (-1, 0, "lots", "256 MB", "256MB", 1.5, True, [], b"1M", TOO_MUCH, "-5M", "", "M", math.nan)
    ),
    *(("cpu_limit", value) for value in (-1, 0, "half", math.nan, math.inf, True, [], TOO_MUCH)),
    *(("cpu_time_limit", value) for value in (-1, 0, "soon", math.nan, math.inf, True, [], TOO_MUCH)),
    *(("max_processes", value) for value in (-1, 0, "ten", 1.5, True, [], TOO_MUCH)),
    *(("max_output", value) for value in (-1, "lots", 1.5, True, [], TOO_MUCH)),
    *(("max_file_size", value) for value in (-1, "lots", 1.5, True, [], TOO_MUCH)),
    *(("max_open_files", value) for value in (-1, 0, 1, "many", 1.5, True, [], TOO_MUCH)),
    *(("tmp_size", value) for value in (-1, "lots", 1.5, True, [], TOO_MUCH)),
    *(
        ("working_dir", value)
        for value in (5, True, [], "with\0nul", "", "/proc/self/fd/7", "/proc", "/sys", "/dev", "/")
    ),
    *(
        (field, value)
        for field in ("allowed_dirs", "read_only_dirs", "writable_dirs", "hidden_paths")
        for value in (
            5,
            "a string is a list of letters",
            ["with\0nul"],
            [""],
            [5],
            [None],
            ["/proc/self/fd/7"],
            ["/"],
            ["/dev"],
        )
    ),
    *(
        ("env", value)
        for value in (
            5,
            "A=B",
            {"": "x"},
            {"A=B": "x"},
            {"A": 5},
            {"A\0": "x"},
            {"A": "\0"},
            ["A"],
            [5],
            {"A": "\ud800"},
            {5: "x"},
        )
    ),
    *(("pass_env", value) for value in (5, "HOME", [""], ["A=B"], [5], ["A\0"])),
    *(("stdin", value) for value in (-99, 1.5, [], object(), "with\0nul")),
    *(("stdout", value) for value in (-99, 1.5, [], object(), "with\0nul", ps.STDOUT)),
    *(("stderr", value) for value in (-99, 1.5, [], object())),
    *(("network_access", value) for value in (5, "everything", None)),
    *(("pass_fds", value) for value in (5, [-1], [0], [2], ["3"], [1.5], [True])),
    *(("hostname", value) for value in ("", "x" * 65, "with\0nul", 5)),
    *(("umask", value) for value in (-1, 0o1000, "022", 1.5, True)),
    *(("nice", value) for value in (-1, 20, "low", 1.5, True)),
    *(("core_dumps", value) for value in (5, "yes", None)),
    *(("enforcement", value) for value in ("loose", 5, None, True)),
]


def show(value: object) -> str:
    """A test name that is legible and the same on every worker."""
    return "object" if type(value) is object else repr(value)[:24]


@pytest.mark.parametrize(("field", "value"), BAD_VALUES, ids=show)
def test_a_bad_value_is_named(field: str, value: Any, tmp_path: Path) -> None:
    witness = tmp_path / "started"
    with pytest.raises(ps.ConfigError) as caught:
        ps.run(["touch", str(witness)], **{"writable_dirs": [tmp_path], field: value})
    error = caught.value
    assert isinstance(error, ValueError)
    assert isinstance(error, ps.SandboxError)
    assert error.field == field
    assert str(error).startswith(field) or field in str(error)
    assert error.remedy
    assert "\n" not in str(error)
    assert not witness.exists()
    with pytest.raises(ps.ConfigError):
        ps.Config(**{field: value})


@pytest.mark.parametrize(
    "args", ["ls -l", b"ls", "", [], (), [""], ["ls", "with\0nul"], [5], [None], 5, None, ["\0"]], ids=show
)
def test_a_bad_command_is_named(args: Any) -> None:
    with pytest.raises(ps.ConfigError) as caught:
        ps.run(args)
    assert caught.value.field == "args"


def test_a_string_is_shown_the_way() -> None:
    with pytest.raises(ps.ConfigError, match="sh.*-c"):
        ps.run("ls | wc -l")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["memory_limits", "time_out", "cwd", "shell", "preexec_fn"])
def test_an_unknown_field_is_named(name: str) -> None:
    for call in (lambda: ps.run(["true"], **{name: 1}), lambda: ps.Sandbox(**{name: 1})):
        with pytest.raises(ps.ConfigError, match=name) as caught:
            call()
        assert caught.value.field == name
    with pytest.raises(ps.ConfigError, match="memory_limit"):
        ps.run(["true"], memory_limits=1)  # type: ignore[call-arg]


def test_input_and_stdin_are_one_too_many() -> None:
    with pytest.raises(ps.ConfigError) as caught:
        inside(["cat"], input=b"x", stdin=ps.DEVNULL)
    assert caught.value.field in {"input", "stdin"}


@pytest.mark.parametrize("value", [5, [], object()], ids=show)
def test_input_is_bytes_or_text(value: Any) -> None:
    with pytest.raises(ps.ConfigError) as caught:
        inside(["cat"], input=value)
    assert caught.value.field == "input"


def test_both_writable_and_read_only(tmp_path: Path) -> None:
    for other in ("read_only_dirs", "allowed_dirs"):
        with pytest.raises(ps.ConfigError) as caught:
            ps.Config(**{"writable_dirs": [str(tmp_path)], other: [f"{tmp_path}/"]})
        assert caught.value.field in {"writable_dirs", other}
        assert str(tmp_path) in str(caught.value)
    with pytest.raises(ps.ConfigError):
        ps.Config(working_dir=tmp_path, read_only_dirs=[tmp_path])


def test_a_missing_file_for_stdin(tmp_path: Path) -> None:
    with pytest.raises((FileNotFoundError, ps.ConfigError), match="missing"):
        inside(["cat"], stdin=str(tmp_path / "missing"))


def test_a_place_for_stdout_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises((FileNotFoundError, ps.ConfigError), match="missing"):
        inside(["echo"], stdout=str(tmp_path / "missing" / "file"))


def test_a_closed_descriptor(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    os.close(descriptor)
    for field, value in (("pass_fds", [descriptor]), ("stdin", descriptor), ("stdout", descriptor)):
        with pytest.raises((OSError, ps.ConfigError)):
            inside(["true"], **{field: value})
    assert inside(["true"]).ok


def test_a_closed_sandbox() -> None:
    box = ps.Sandbox()
    assert box.run(["true"]).ok
    assert not box.closed
    box.cleanup()
    box.cleanup()
    assert box.closed
    with pytest.raises(ps.SandboxClosedError):
        box.run(["true"])
    with pytest.raises(ValueError, match="closed"), box:
        pass
    with ps.Sandbox() as other:
        pass
    with pytest.raises(ps.SandboxError):
        other.run(["true"])


def test_overrides_are_checked_like_fields() -> None:
    with ps.Sandbox(timeout=5) as box:
        with pytest.raises(ps.ConfigError):
            box.run(["true"], timeout=-1)
        assert box.run(["sleep", "600"], timeout=0.2).timed_out
        assert box.config.timeout == 5


def test_good_values_of_every_spelling() -> None:
    config = ps.Config(
        timeout=timedelta(seconds=90),
        memory_limit="256M",
        cpu_limit=50,
        cpu_time_limit="2m",
        max_processes=10,
        max_output="1M",
        tmp_size="16M",
    )
    assert (config.timeout, config.memory_limit, config.cpu_time_limit) == (90, 256 << 20, 120)
    assert inside(["true"], config=config, timeout=50).ok


def test_what_cannot_be_enforced_is_not_skipped_in_silence() -> None:
    """Whatever this host lacks: strict refuses it with a remedy, best-effort lists it; nothing is in between."""
    everything = {"memory_limit": "256M", "cpu_limit": 50, "max_processes": 20, "cpu_time_limit": 20}
    for field, value in everything.items():
        try:
            result = inside(["true"], **{field: value})
        except ps.UnsupportedError as error:
            assert error.field == field
            assert error.reason
            assert error.remedy
            with pytest.warns(ps.UnenforcedWarning):
                result = inside(["true"], enforcement=ps.best_effort(field), **{field: value})
            assert isinstance(result.enforcement[field], ps.Unenforced)
        else:
            assert isinstance(result.enforcement[field], ps.Enforced)
