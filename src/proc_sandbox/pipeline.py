"""Pipelines: commands that are connected by pipes of the kernel's, each in a sandbox with rules of its own.

    (ps.cmd(["curl", url], network_access=True) | ps.cmd(["python3", "parse.py"], read_only_dirs=["parser"])).run()

All runs go on at the same time. What a command writes goes to the next one without passing through this process, whose copies of
the pipes are closed as soon as the commands have theirs: so who writes to a command that has ended gets SIGPIPE, and who reads from
one that has ended comes to the end. Each run has its own limits and its own verdict.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, overload

from proc_sandbox.backends import current
from proc_sandbox.config import CAPTURE, PIPE, Config, check_command
from proc_sandbox.errors import ConfigError
from proc_sandbox.execution import Args, Execution
from proc_sandbox.result import Result, StreamT_co
from proc_sandbox.sandbox import check_input, configured
from proc_sandbox.streams import check_streams, is_constant, shown, with_encoded_input
from proc_sandbox.text import Decoding, as_text, check_decoding, input_bytes

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from proc_sandbox.config import Options
    from proc_sandbox.sandbox import Sandbox
    from proc_sandbox.streams import PipeEnd
    from proc_sandbox.text import Encoded, InBytes, InEither, InText

__all__ = ["Command", "Pipeline", "PipelineResult", "cmd"]


@dataclass(frozen=True)
class Command:
    """A command with its rules, to be run alone or in a pipeline: command | command.

    sandbox: in whose private directory it runs; None: in one of its own.
    """

    args: tuple[str, ...]
    config: Config
    sandbox: Sandbox | None = None

    def __or__(self, other: Command | Pipeline) -> Pipeline:
        return Pipeline((self,)) | other

    @overload
    def run(self, *, input: bytes | str | None = None, check: bool = False, **how: Unpack[InBytes]) -> Result: ...

    @overload
    def run(self, *, input: bytes | str | None = None, check: bool = False, **how: Unpack[InText]) -> Result[str]: ...

    @overload
    def run(self, *, input: bytes | str | None = None, check: bool = False, **how: Unpack[Encoded]) -> Result[str]: ...

    @overload
    def run(self, *, input: bytes | str | None = None, check: bool = False, **how: Unpack[InEither]) -> Result[Any]: ...

    def run(
        self,
        *,
        input: bytes | str | None = None,
        check: bool = False,
        text: bool | None = None,
        encoding: str | None = None,
        errors: str | None = None,
    ) -> Result[Any]:
        """Run it alone; as run() and Sandbox.run()."""
        whole = Pipeline((self,)).run(input=input, check=check, text=text, encoding=encoding, errors=errors)
        return whole.results[0]


def cmd(args: Args, config: Config | None = None, **overrides: Unpack[Options]) -> Command:
    """Return a command with its rules; nothing is run yet. See Command, and Sandbox.cmd().

    Raises:
        ConfigError: a value is not valid.
    """
    return command(args, config, overrides)


def command(args: Args, config: Config | None, overrides: Mapping[str, Any], sandbox: Sandbox | None = None) -> Command:
    """Return a Command."""
    return Command(check_command(args), configured(config, overrides), sandbox)


@dataclass(frozen=True)
class PipelineResult(Generic[StreamT_co]):
    """The verdicts on a pipeline's commands, in their order; with output as text where that was asked for.

    Each is told as it is: a command that was still writing when the next one ended, as "yes" into "head", was ended by SIGPIPE. Its
    result is not ok, and so the pipeline's is not, as with a shell's pipefail. Where that is expected, results[-1].ok is what counts.
    """

    results: tuple[Result[StreamT_co], ...]

    @property
    def ok(self) -> bool:
        """Every command ended by itself, with exit status 0."""
        return all(result.ok for result in self.results)

    @property
    def stdout(self) -> StreamT_co:
        """What the last command wrote to stdout."""
        return self.results[-1].stdout

    @property
    def stderr(self) -> tuple[StreamT_co, ...]:
        """What each command wrote to stderr."""
        return tuple(result.stderr for result in self.results)

    def check(self) -> PipelineResult[StreamT_co]:
        """Return this if it is ok.

        Raises:
            TimeLimitExceeded, MemoryLimitExceeded, ExecutionError: of the last command that is not ok: what comes before it may have
                failed because it did.
        """
        for result in reversed(self.results):
            result.check()
        return self

    def to_dict(self) -> dict[str, object]:
        """Return it as JSON-ready data."""
        return {"ok": self.ok, "results": [result.to_dict() for result in self.results]}


@dataclass(frozen=True)
class Pipeline:
    """Commands, of which each reads what the one before it writes to stdout."""

    commands: tuple[Command, ...]

    def __or__(self, other: Command | Pipeline) -> Pipeline:
        if isinstance(other, Command):
            return Pipeline((*self.commands, other))
        if isinstance(other, Pipeline):
            return Pipeline(self.commands + other.commands)
        return NotImplemented

    @overload
    def run(self, *, input: bytes | str | None = None, check: bool = False, **how: Unpack[InBytes]) -> PipelineResult: ...

    @overload
    def run(self, *, input: bytes | str | None = None, check: bool = False, **how: Unpack[InText]) -> PipelineResult[str]: ...

    @overload
    def run(self, *, input: bytes | str | None = None, check: bool = False, **how: Unpack[Encoded]) -> PipelineResult[str]: ...

    @overload
    def run(self, *, input: bytes | str | None = None, check: bool = False, **how: Unpack[InEither]) -> PipelineResult[Any]: ...

    def run(
        self,
        *,
        input: bytes | str | None = None,
        check: bool = False,
        text: bool | None = None,
        encoding: str | None = None,
        errors: str | None = None,
    ) -> PipelineResult[Any]:
        """Run all commands at the same time, and return when all have ended.

        Args:
            input: What the first command reads from stdin; instead of its Config's stdin.
            check: Raise ExecutionError (or a class of it) unless all of them exited with 0; see PipelineResult.check().
            text: As of run(): whether what the Results have of output is str. What goes through the pipes stays as it is.
            encoding: As of run().
            errors: As of run().

        Raises:
            As run(), for any of the commands: the others are killed, and nothing is left.
            SandboxClosedError: cleanup() of one of the Sandboxes was called; nothing was started.
        """
        self.check(input)
        decoding = check_decoding(text, encoding, errors)
        results = Started(self.commands, input_bytes(input, decoding), decoding).results()
        whole: PipelineResult[Any] = PipelineResult(tuple(in_words(results, decoding)))
        return whole.check() if check else whole

    def check(self, input: bytes | str | None) -> None:
        """Refuse streams that leave no room for a pipe, and those that are closed.

        Raises:
            ConfigError: such a stream.
        """
        if input is not None:
            check_input(input, {"stdin": self.commands[0].config.stdin})
        for each in self.commands:
            check_streams(each.config)
        for each in self.commands[1:]:
            if each.config.stdin is not None and not is_constant(each.config.stdin, PIPE):
                raise ConfigError("stdin", shown(each.config.stdin), "it is the pipe from the command before; name none")
        for each in self.commands[:-1]:
            if not is_constant(each.config.stdout, CAPTURE) and not is_constant(each.config.stdout, PIPE):
                raise ConfigError("stdout", shown(each.config.stdout), "it is the pipe to the next command; name none")


def in_words(results: list[Result], how: Decoding | None) -> Iterable[Result[Any]]:
    return results if how is None else (as_text(result, how) for result in results)


class Started:
    """The runs of one pipeline."""

    def __init__(self, commands: tuple[Command, ...], data: bytes | None, decoding: Decoding | None) -> None:
        self.commands = commands
        self.data, self.decoding = data, decoding
        self.runs: list[Execution] = []

    def results(self) -> list[Result]:
        """Start all of them, wait until all have ended, and return what became of each."""
        with contextlib.ExitStack() as stack:
            for each in self.commands:
                self.enter(each, stack)
            stack.callback(self.close)
            self.start(stack)
            outcomes = self.runs[0].backend.communicate([(one.run, one.streams) for one in self.runs])
        return [one.result(outcome) for one, outcome in zip(self.runs, outcomes, strict=True)]

    def enter(self, each: Command, stack: contextlib.ExitStack) -> None:
        """Have a Sandbox wait for us, from before anything is planned."""
        if each.sandbox is not None:
            token = object()
            stack.callback(each.sandbox.leave, token)
            each.sandbox.enter(token)

    def start(self, stack: contextlib.ExitStack) -> None:
        """Start the commands from left to right; each end of a pipe is closed here when its command has it."""
        pipes = current(self.commands[0].config.backend).open_pipes(len(self.commands) - 1)
        with contextlib.ExitStack() as ends:
            for end in (end for pipe in pipes for end in pipe):
                ends.callback(end.close)
            for number, each in enumerate(self.commands):
                stdin = pipes[number - 1][0] if number else None
                stdout = pipes[number][1] if number < len(pipes) else None
                self.begin(each, stdin, stdout, stack)
                for end in filter(None, (stdin, stdout)):
                    end.close()

    def begin(self, each: Command, stdin: PipeEnd | None, stdout: PipeEnd | None, stack: contextlib.ExitStack) -> None:
        changes = {name: end for name, end in (("stdin", stdin), ("stdout", stdout)) if end is not None}
        config = each.config.replace(**changes) if changes else each.config  # type: ignore[arg-type]
        if not self.runs:
            config = with_encoded_input(config, self.decoding)
        private = each.sandbox.directory if each.sandbox is not None else None
        one = Execution(each.args, config, data=None if self.runs else self.data, private=private)
        self.runs.append(one)
        if each.sandbox is not None:
            stack.callback(each.sandbox.let_go, one.run)
            each.sandbox.hold(one.run)

    def close(self) -> None:
        """End what has not ended: all are killed before any is waited for."""
        with contextlib.ExitStack() as stack:
            for one in self.runs:
                stack.callback(one.close)
            for one in self.runs:
                one.run.kill()
