"""The examples with which the help begins. Each one works as it is written here: a test runs them all.

They are run in a directory with script.py, jobs.jsonl, sandbox.toml and the directories data and out.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["TOPICS", "Topic", "text_for"]


class Topic(NamedTuple):
    """What is said of an action before its options: about, a sentence or two; examples, command lines and what they do."""

    about: str
    examples: tuple[tuple[str, str], ...]


TOPICS: dict[str, Topic] = {
    "": Topic(
        "Run commands that nobody should trust, under limits, and be told truthfully what happened.",
        (
            ("proc-sandbox run -t 10 -m 256M --pids 20 -- python3 -c 'print(6 * 7)'", "ten seconds, 256 MiB, 20 tasks"),
            ("proc-sandbox run -C . -- python3 script.py", "in this directory, which it may write to"),
            ("proc-sandbox run -C out --ro data -- sh -c 'ls ../data > list'", "a directory to write to, one to read"),
            ("proc-sandbox doctor", "what this host can enforce, and what would bring the rest"),
            ("proc-sandbox batch jobs.jsonl --out results.jsonl", "many commands; the same again goes on"),
        ),
    ),
    "run": Topic(
        "Run one command in a sandbox. What is not granted is denied; a limit that is not named is not set.",
        (
            ("proc-sandbox run -t 10 -m 256M --pids 20 -- python3 -c 'print(6 * 7)'", "time, memory, tasks"),
            ("proc-sandbox run -C out --ro data -- sh -c 'ls ../data > list'", "a directory to write to, one to read"),
            ("proc-sandbox run -C . -e LEVEL=3 -- python3 script.py", "working directory and environment"),
            ("echo 3 4 | proc-sandbox run --cpu-time-limit 500ms -- wc -w", "streams pass through"),
            ("proc-sandbox run --policy sandbox.toml:strict -t 2 -- true", "a policy from a file; options win over it"),
            ("proc-sandbox run --preset judge -m 512M -- true", "limits that come with this program"),
            ("proc-sandbox run --stats --json result.json -- true", "what was used, and the whole truth as JSON"),
        ),
    ),
    "shell": Topic(
        "Open a shell in the current directory, on a terminal of its own. The directory can be written; nothing else of yours is there.\n"
        "Ctrl-] three times within a second ends a command that listens to nothing else.",
        (
            ("proc-sandbox shell", "your shell, or bash, or sh"),
            ("proc-sandbox shell -m 1G --pids 200 --net yes", "with limits and grants, as run"),
            ("proc-sandbox shell -C out --ro data", "another directory, and one to read"),
            ("proc-sandbox shell -t 60 -- python3 script.py", "another command than a shell"),
        ),
    ),
    "plan": Topic(
        "Print what would be done for a command. Nothing runs.",
        (
            ("proc-sandbox plan -t 5 -m 64M -- python3 script.py", "all of it, for people"),
            ("proc-sandbox plan --words -- true", "the launcher's command line, to repeat a run by hand"),
            ("proc-sandbox plan --json --ro data -- ls data", "for programs"),
        ),
    ),
    "doctor": Topic(
        "Say what this host can enforce, by which mechanism, and prove with one run that it works.",
        (
            ("proc-sandbox doctor", "everything"),
            ("proc-sandbox doctor -t 5 --pids 10", "can these be enforced here?"),
            ("proc-sandbox doctor --policy sandbox.toml:strict", "can a policy?"),
            ("proc-sandbox doctor --json", "for programs"),
        ),
    ),
    "batch": Topic(
        "Run the jobs of a file, one JSON object a line, and write one line for each as it ends.\n"
        "Interrupted, the same command goes on.",
        (
            ("proc-sandbox batch jobs.jsonl --out results.jsonl", "a job for each processor at a time"),
            (
                "proc-sandbox batch jobs.jsonl -o results.jsonl -w 4 -t 10 -m 256M",
                "limits for each job that has none of its own",
            ),
            (
                "proc-sandbox batch jobs.jsonl -o results.jsonl --policy sandbox.toml:strict --keep-going",
                "what is not valid is told and left out",
            ),
        ),
    ),
    "ps": Topic(
        "List the runs that are alive, of all processes that use this library.",
        (
            ("proc-sandbox ps", "a table"),
            ("proc-sandbox ps --json", "for programs"),
        ),
    ),
    "kill": Topic(
        "End runs, each with all of its processes.",
        (("proc-sandbox kill 4242", "the run that `proc-sandbox ps` calls 4242"),),
    ),
    "policy": Topic(
        "Policies are limits and grants with a name, in TOML files; presets are those that come with this program.",
        (
            ("proc-sandbox policy list", "all that have a name"),
            ("proc-sandbox policy show judge", "what a preset comes to"),
            ("proc-sandbox policy show sandbox.toml:strict", "what a policy of a file comes to"),
            ("proc-sandbox policy check sandbox.toml", "what is wrong in a file, by line and key"),
            ("proc-sandbox policy schema > sandbox.schema.json", "for editors"),
        ),
    ),
    "completion": Topic(
        "Print what completes this command line in a shell.",
        (
            ("proc-sandbox completion bash > proc-sandbox.bash", "source it in ~/.bashrc"),
            ("proc-sandbox completion zsh > _proc-sandbox", "put it into a directory of $fpath"),
            ("proc-sandbox completion fish > proc-sandbox.fish", "put it into ~/.config/fish/completions"),
        ),
    ),
}
"""By action; "" is the program itself."""


def text_for(name: str) -> str:
    """Return how the help of an action begins. What is a part of another action ("policy show") has its examples there."""
    topic = TOPICS.get(name) or TOPICS[name.split(" ")[0]]
    examples = [each for each in topic.examples if name in TOPICS or each[0].startswith(f"proc-sandbox {name} ")]
    examples = examples or [each for each in topic.examples if each[0] == f"proc-sandbox {name}"]
    lines = "".join(f"  # {what}\n  {line}\n" for line, what in examples)
    return f"{topic.about}\n\nexamples:\n{lines}\n"
