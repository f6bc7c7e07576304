"""The two files of `batch`: jobs, one JSON object a line, and results, a line for each job as it ends.

Both may have a million lines: they are read line by line, and of each line eight bytes are kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import sys
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from itertools import pairwise
from typing import Any, BinaryIO, NamedTuple

import proc_sandbox as ps
from proc_sandbox.cli import options
from proc_sandbox.config import check_command

__all__ = ["Done", "Job", "JobError", "Results", "Survey", "read_jobs", "survey"]

OWN = ("id", "args", "input")
"""Keys of a job beside the fields of Config."""
FIELDS = tuple(field.name for field in fields(ps.Config))
READERS: dict[str, Callable[[str], object]] = {
    "stdin": options.read_stream,
    "stdout": options.read_stream,
    "stderr": options.read_stream,
    "enforcement": options.read_enforcement,
    "umask": options.read_octal,
}
"""Fields whose values have words in JSON that they do not have in Python."""
SHARED = {"stdin": ps.INHERIT}
"""What many jobs cannot have at the same time."""


class JobError(Exception):
    """A line is no valid job; the message says where, which key, and what to do. id: the job's, or its line's number."""

    def __init__(self, place: str, reason: str, id: str | int) -> None:
        super().__init__(f"{place}: {reason}")
        self.id = id


class Job(NamedTuple):
    """One command with its Config. digest: 16 hexadecimal digits of what it is, limits and grants of the command line included."""

    id: str | int
    args: list[str]
    input: str | None
    config: ps.Config
    digest: str

    @property
    def key(self) -> int:
        """What is remembered of it: 64 bits of its id and digest."""
        return key_of(self.id, self.digest)


def key_of(id: object, digest: str) -> int:
    text = json.dumps([id, digest])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def digest_of(args: list[str], given: str | None, config: ps.Config) -> str:
    """Return what tells one job from another: a result is kept as long as nothing of this changes."""
    facts = [
        args,
        given,
        {name: getattr(config, name) for name in FIELDS if getattr(config, name) != getattr(options.DEFAULT, name)},
    ]
    return hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=8).hexdigest()


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object.

    Raises:
        ValueError: a key is there twice.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, _ in pairs if sum(key == other for other, _ in pairs) > 1)
        raise ValueError(f"{twice!r} is there twice")
    return found


def read_object(line: bytes) -> dict[str, Any]:
    """Return the JSON object of a line.

    Raises:
        ValueError: it is none.
    """
    try:
        found = json.loads(line.decode("utf-8"), object_pairs_hook=unique)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if isinstance(found, dict):
        return found
    raise ValueError('a JSON object is needed, as in {"args": ["true"]}')


def make_job(line: bytes, number: int, place: str, base: ps.Config, files: Sequence[str] = ()) -> Job:
    """Return the job of a line.

    Args:
        line, number, place: The line, its number, and what it is called in errors.
        base: What the job has where it does not say otherwise.
        files: Where it must not be able to write.

    Raises:
        JobError: it is not valid.
    """
    try:
        facts = read_object(line)
    except ValueError as error:
        raise JobError(place, f"not a job: {error}", number) from None
    name = facts.pop("id", number)
    if isinstance(name, bool) or not isinstance(name, (int, str)):
        raise JobError(f"{place}:id", "must be a string or a whole number", number)
    try:
        job = job_of(name, facts, base)
        check_out_of_reach(job.config, files)
        return job
    except ps.ConfigError as error:
        shown = ascii(error.value)
        shown = shown if len(shown) <= 200 else shown[:200] + "..."
        raise JobError(f"{place}:{error.field}", f"{shown}: {error.remedy}", name) from None


def job_of(name: str | int, facts: dict[str, Any], base: ps.Config) -> Job:
    args, given = facts.pop("args", None), facts.pop("input", None)
    if not isinstance(args, list) or not args:
        raise ps.ConfigError("args", args, 'a list that is not empty is needed, as in ["ls", "-l"]')
    if any(not isinstance(word, str) for word in args):
        raise ps.ConfigError("args", args, "each argument must be a string")
    check_command(args)
    if given is not None and not isinstance(given, str):
        raise ps.ConfigError("input", given, "must be a string")
    check_text(given)
    if given is not None and facts.get("stdin") is not None:
        raise ps.ConfigError("input", given, "stdin is given too; name one of them")
    config = base.replace(**{field: read_value(field, value) for field, value in facts.items()})
    check_shared(config)
    return Job(name, args, given, config, digest_of(args, given, config))


def check_text(given: str | None) -> None:
    try:
        (given or "").encode()
    except UnicodeEncodeError:
        raise ps.ConfigError("input", given, "half of a surrogate pair cannot be encoded") from None


def check_shared(config: ps.Config) -> None:
    """Refuse a Config whose streams are the caller's own.

    Raises:
        ConfigError: many jobs cannot have them.
    """
    for name, value in SHARED.items():
        if getattr(config, name) == value:
            raise ps.ConfigError(
                name, "inherit", "the jobs of a batch cannot all read from it; name a file, or give input"
            )


def check_out_of_reach(config: ps.Config, files: Sequence[str]) -> None:
    """Refuse a job that could change what is to be run, or what is told of it.

    Raises:
        ConfigError: one of the files lies where it can write.
    """
    for name in ("stdout", "stderr"):
        place = getattr(config, name)
        if isinstance(place, str) and any(is_same(place, file) for file in files):
            raise ps.ConfigError(name, place, "jobs and results lie there; name another file")
    for place in config.writable_places():
        top = os.path.realpath(place)
        for file in files:
            if file == top or file.startswith(top.rstrip(os.sep) + os.sep):
                field = "working_dir" if place == config.working_dir else "writable_dirs"
                raise ps.ConfigError(
                    field, place, f"a job could write to {file}; let jobs and results lie in another directory"
                )


def is_same(path: str, file: str) -> bool:
    with contextlib.suppress(OSError, ValueError):  # there is none, or cannot be one
        return os.path.realpath(path) == file or os.path.samefile(path, file)
    return False


def read_value(field: str, value: Any) -> Any:
    """Return a value of JSON as Config takes it."""
    if field in options.PASS_THROUGH and value is not None and not isinstance(value, str):
        raise ps.ConfigError(field, value, "must be a path, or a word as on the command line")
    return READERS[field](value) if isinstance(value, str) and field in READERS else value


def lines_of(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that are not empty, with their numbers from 1 on."""
    return ((number, line) for number, line in enumerate(file, 1) if line.strip())


def open_jobs(path: str) -> BinaryIO:
    """Open a file of jobs.

    Raises:
        ConfigError: it cannot be read, or is no regular file.
    """
    try:
        # Not to wait for the other end of a FIFO.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except OSError as error:
        raise ps.ConfigError("JOBS", path, f"name a file with one job a line ({error.strerror})") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ps.ConfigError("JOBS", path, "write the jobs into a file: it is read twice")
    return os.fdopen(descriptor, "rb")


def read_jobs(path: str, base: ps.Config, out: str) -> Iterator[Job | JobError]:
    """Yield the jobs of a file one by one; for a line that is none, why. out: the file of results.

    Raises:
        ConfigError: the file cannot be read.
    """
    files = tuple(map(os.path.realpath, (path, out)))
    with open_jobs(path) as file:
        for number, line in lines_of(file):
            try:
                yield make_job(line, number, f"{path}:{number}", base, files)
            except JobError as error:
                yield error


class Survey(NamedTuple):
    """What there is in a file of jobs: how many, the first errors, how many there are, and the ids (as hashes) that are there
    twice.
    """

    jobs: int
    errors: list[str]
    wrong: int
    twice: frozenset[int]


MOST_ERRORS = 20
"""That are told; of the others how many there are."""


def survey(path: str, base: ps.Config, out: str) -> Survey:
    """Look at all jobs of a file before any is run.

    Raises:
        ConfigError: the file cannot be read.
    """
    count, wrong = 0, 0
    errors: list[str] = []
    ids = array("Q")
    for job in read_jobs(path, base, out):
        count += 1
        if isinstance(job, JobError):
            wrong += 1
            errors += [str(job)] * (len(errors) < MOST_ERRORS)
        else:
            ids.append(key_of(job.id, ""))
    ordered = sorted(ids)
    twice = frozenset(one for one, other in pairwise(ordered) if one == other)
    if twice:
        repeated = (job for job in read_jobs(path, base, out) if isinstance(job, Job) and key_of(job.id, "") in twice)
        for _, job in zip(range(MOST_ERRORS - len(errors)), repeated, strict=False):
            errors.append(f"{path}: the id {job.id!r} is there twice")
        wrong += len(twice)
    return Survey(count, list(dict.fromkeys(errors)), wrong, twice)


class Done:
    """The jobs that have a result already: which, and whether that is ok."""

    def __init__(self) -> None:
        self.keys = {True: array("Q"), False: array("Q")}

    def note(self, facts: dict[str, Any]) -> None:
        """Take a line of results. What could not be run is to be tried again."""
        if "error_type" not in facts:
            self.keys[bool(facts["ok"])].append(key_of(facts["id"], facts["job"]))

    def close(self) -> None:
        """Be ready for questions."""
        self.keys = {ok: array("Q", sorted(keys)) for ok, keys in self.keys.items()}

    def __contains__(self, job: Job) -> bool:
        return self.is_ok(job) or self.has(job, ok=False)

    def has(self, job: Job, *, ok: bool) -> bool:
        """Return whether there is a result of a job that is ok, or not."""
        keys, key = self.keys[ok], job.key
        at = bisect_left(keys, key)
        return at < len(keys) and keys[at] == key

    def is_ok(self, job: Job) -> bool:
        """Return whether there is a result of a job that is ok."""
        return self.has(job, ok=True)


class Results:
    """The file of results: what is in it, and what is added, a whole line at a time."""

    def __init__(self, path: str, jobs: str) -> None:
        """Open it; nothing in it is changed but for half a line at its end, which is cut off.

        Raises:
            ConfigError: it cannot be written, is in use, or is something else.
        """
        self.path = path
        try:
            self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666)
        except OSError as error:
            raise ps.ConfigError("--out", path, f"name a file that you may write ({error.strerror})") from error
        try:
            self.check(jobs)
            lock(self.descriptor, path)
            self.done = self.read()
        except BaseException:
            os.close(self.descriptor)
            raise

    def check(self, jobs: str) -> None:
        if not stat.S_ISREG(os.fstat(self.descriptor).st_mode):
            raise ps.ConfigError("--out", self.path, "name a regular file: what is in it tells what is done already")
        if os.path.samestat(os.fstat(self.descriptor), os.stat(jobs)):
            raise ps.ConfigError("--out", self.path, "it is the file of jobs")

    def read(self) -> Done:
        """Return what is done, and cut off half a line.

        Raises:
            ConfigError: there are other things in it than results.
        """
        done, end = Done(), 0
        with open(self.descriptor, "rb", closefd=False) as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    os.ftruncate(self.descriptor, end)  # the power went, or somebody killed us
                    break
                end += len(line)
                try:
                    done.note(read_object(line))
                except (ValueError, KeyError, TypeError):
                    remedy = "this line is no result; name another file, or take the line out"
                    raise ps.ConfigError("--out", f"{self.path}:{number}", remedy) from None
        done.close()
        return done

    def add(self, facts: dict[str, Any]) -> None:
        """Write a line."""
        left = memoryview(json.dumps(facts).encode() + b"\n")
        while left:
            left = left[os.write(self.descriptor, left) :]

    def close(self) -> None:
        """Let go of the file, when all of it is on the disk."""
        try:
            with contextlib.suppress(OSError):  # a file system without it
                os.fsync(self.descriptor)
        finally:
            os.close(self.descriptor)


def lock(descriptor: int, path: str) -> None:
    """See to it that nobody else writes to a file of results.

    Raises:
        ConfigError: somebody does.
    """
    if sys.platform == "win32":
        return  # there a file that another process has open for writing can be shared, and has no lock that goes with its owner
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ps.ConfigError("--out", path, "another batch writes to it") from None
