"""The two Windowses that the tests have: the fake one, everywhere, and the one around us, be it Wine.

A child does what its words say, in order: "print:TEXT", "spawn:WORDS;OF;ITS;CHILD", "exit:3" (support/windows_child.py).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from proc_sandbox.backends.windows.process import command_line, environment_block
from proc_sandbox.backends.windows.winapi import CREATE_BREAKAWAY_FROM_JOB, Creation, Win32, Win32Error
from support.fake_win32 import FakeProcess, FakeWin32

__all__ = ["HANG", "Changed", "FakeWindows", "RealWindows", "Windows", "failing", "parse"]

HANG = 60_000
"""Milliseconds after which a test counts as hung; nothing is ever expected to take as long."""


class Windows(Protocol):
    """Where a test runs."""

    real: bool

    @property
    def win32(self) -> Win32: ...

    def child(self, *words: str) -> Creation:
        """What starts a child that does what the words say."""


class FakeWindows:
    """The one in memory."""

    real = False

    def __init__(self) -> None:
        self.win32 = FakeWin32({r"c:\child.exe": act})

    def child(self, *words: str) -> Creation:
        return Creation(r"C:\child.exe", command_line(["child", *words]), directory="C:\\")


class RealWindows:
    """The one around us."""

    real = True

    def __init__(self) -> None:
        from proc_sandbox.backends.windows.native import Native

        self.win32 = Native()

    def child(self, *words: str) -> Creation:
        script = str(Path(__file__).with_name("windows_child.py"))
        line = command_line([sys.executable, "-I", "-S", script, *words])
        return Creation(sys.executable, line, environment_block([("SYSTEMROOT", os.environ["SYSTEMROOT"])]))


def parse(line: str) -> list[str]:
    """Take a line apart as CommandLineToArgvW and the C runtime do ("Parsing C command-line arguments")."""
    name, rest = parse_program(line)
    arguments = [name]
    rest = rest.lstrip(" \t")
    while rest:
        argument, rest = parse_argument(rest)
        arguments.append(argument)
        rest = rest.lstrip(" \t")
    return arguments


def parse_program(line: str) -> tuple[str, str]:
    if line.startswith('"'):
        name, _, rest = line[1:].partition('"')
        return name, rest
    end = next((index for index, letter in enumerate(line) if letter in " \t"), len(line))
    return line[:end], line[end:]


def parse_argument(line: str) -> tuple[str, str]:
    done, quoted, index = "", False, 0
    while index < len(line) and (quoted or line[index] not in " \t"):
        slashes = len(line[index:]) - len(line[index:].lstrip("\\"))
        index += slashes
        if line[index : index + 1] != '"':
            done += "\\" * slashes
            if not slashes:
                done += line[index]
                index += 1
            continue
        done += "\\" * (slashes // 2)
        if slashes % 2 or (quoted and line[index : index + 2] == '""'):
            done += '"'
            index += 1 + (not slashes % 2)
        else:
            quoted = not quoted
            index += 1
    return done, line[index:]


def act(process: FakeProcess) -> None:
    """The fake's child."""
    arguments = parse(process.creation.command_line)
    children: list[FakeProcess] = []
    for word in arguments[1:]:
        name, _, value = word.partition(":")
        if name in SIMPLE:
            SIMPLE[name](process, value)
        elif name in ("spawn", "spawn-free"):
            spawn(process, children, value, CREATE_BREAKAWAY_FROM_JOB if name == "spawn-free" else 0)
        elif name == "wait":
            for child in children:
                process.wait(child)
        elif name == "arguments":
            process.print(json.dumps(arguments))


def spawn(process: FakeProcess, children: list[FakeProcess], words: str, flags: int) -> None:
    try:
        children.append(process.spawn(command_line(["child", *words.split(";")]), flags=flags))
    except Win32Error as error:
        process.print(f"refused {error.code}\n")
    else:
        process.print("spawned\n")


def echo(process: FakeProcess, _: str) -> None:
    while data := process.read(1 << 16):
        process.write(process.stream(1), data)


def environment(process: FakeProcess, name: str) -> None:
    pairs = (entry.split("=", 1) for entry in process.creation.environment.split("\0") if "=" in entry)
    process.print({key.upper(): value for key, value in pairs}.get(name.upper(), "(unset)"))


SIMPLE: dict[str, Callable[[FakeProcess, str], object]] = {
    "print": lambda process, text: process.print(text),
    "error": lambda process, text: process.print(text, 2),
    "nothing": lambda process, _: process.write(process.stream(1), b""),
    "flood": lambda process, size: process.print("x" * int(size)),
    "flood-error": lambda process, size: process.print("x" * int(size), 2),
    "echo": echo,
    "read": lambda process, size: process.write(process.stream(1), process.read(int(size))),
    "environment": environment,
    "directory": lambda process, _: process.print(process.creation.directory or ""),
    "hang": lambda process, _: process.hang(),
    "allocate": lambda process, size: process.print("allocated\n" if process.allocate(int(size)) else "refused 1455\n"),
    "burn": lambda process, milliseconds: process.burn(int(milliseconds) * 10_000),
    "handle": lambda process, number: process.print("open\n" if int(number) in process.handles else "closed\n"),
    "crash": lambda process, _: process.crash(),
    "exit": lambda process, code: process.exit(int(code)),
}


class Changed:
    """A Win32 of which some functions are replaced; the rest is as it was."""

    def __init__(self, win32: Win32, **functions: Callable[..., object]) -> None:
        self.win32 = win32
        self.functions = functions

    def __getattr__(self, name: str) -> Any:
        return self.functions.get(name) or getattr(self.win32, name)


def failing(function: str, code: int) -> Callable[..., object]:
    """A function of Windows that fails."""

    def fail(*_: object, **__: object) -> object:
        raise Win32Error(function, code)

    return fail
