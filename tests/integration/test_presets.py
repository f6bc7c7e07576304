"""Presets at what they are for: judging, virtual environments, Node.js, builds without a network, an agent in a project."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from support.cli import cli
from support.programs import HANG, text

import proc_sandbox as ps


def need(*tools: str) -> None:
    for tool in tools:
        if not shutil.which(tool):
            pytest.skip(f"{tool} is not installed")


def run(command: Sequence[str | os.PathLike[str]], config: ps.Config, **more: Any) -> ps.Result:
    return ps.run(command, config=config, **more)


# --- judge ---

SUM = "#include <stdio.h>\nint main(void) { long a, b; if (scanf(\"%ld %ld\", &a, &b) != 2) return 1; printf(\"%ld\\n\", a + b); return 0; }"
WRONG = '#include <stdio.h>\nint main(void) { puts("42"); return 0; }'
ENDLESS = "int main(void) { for (volatile long i = 0;; i++); }"
SLEEPING = "#include <unistd.h>\nint main(void) { for (;;) pause(); }"
# Bounded by itself too: a child has no children.
BOMB = """
#include <stdio.h>
#include <unistd.h>
#include <sys/wait.h>
int main(void) {
    int made = 0;
    for (int i = 0; i < 100; i++) {
        pid_t child = fork();
        if (child == 0) { pause(); _exit(0); }
        made += child > 0;
    }
    printf("%d\\n", made);
    return 0;
}
"""
HUNGRY = """
#include <stdlib.h>
#include <string.h>
int main(void) { for (int i = 0; i < 1024; i++) { char *block = malloc(1 << 20); if (block) memset(block, 1, 1 << 20); } return 0; }
"""
TALKATIVE = '#include <stdio.h>\nint main(void) { for (int i = 0; i < 40 << 20; i++) putchar(\'x\'); return 0; }'
CURIOUS = '#include <stdio.h>\nint main(void) { return fopen("solution.c", "r") || fopen("/etc/hostname", "r") ? 0 : 3; }'
CASES = [(b"1 2", b"3\n"), (b"20 22", b"42\n"), (b"-5 5", b"0\n")]


def compiled(directory: Path, source: str) -> Path:
    """Compile a submission by the preset for builds, as a judge would."""
    need("gcc")
    (directory / "solution.c").write_text(source)
    run(["gcc", "-O1", "-o", "solution", "solution.c"], ps.Config.preset("build", working_dir=directory), check=True)
    return directory / "solution"


@pytest.fixture
def submission(tmp_path: Path) -> Path:
    directory = tmp_path / "submission"
    directory.mkdir()
    return directory


def judged(program: Path, given: bytes = b"", **changes: object) -> ps.Result:
    return run([program], ps.Config.preset("judge", allowed_dirs=[program], **changes), input=given)  # type: ignore[arg-type]


def test_judge_a_right_and_a_wrong_answer(submission: Path) -> None:
    program = compiled(submission, SUM)
    for given, expected in CASES:
        result = judged(program, given)
        assert (result.ok, result.stdout, result.reason) == (True, expected, ps.Reason.EXITED)
    assert judged(program, b"nonsense").exit_code == 1
    wrong = compiled(submission, WRONG)
    assert [judged(wrong, given).stdout == expected for given, expected in CASES] == [False, True, False]


def test_judge_an_endless_one(submission: Path) -> None:
    result = judged(compiled(submission, ENDLESS))
    assert result.reason in (ps.Reason.CPU_TIME, ps.Reason.TIMEOUT), "on a loaded machine the clock may be faster"
    assert judged(compiled(submission, SLEEPING), timeout=0.5).reason is ps.Reason.TIMEOUT


def test_judge_one_that_forks(submission: Path) -> None:
    result = judged(compiled(submission, BOMB))
    assert result.processes_exceeded is not False, "None where RLIMIT_NPROC refuses: nobody counts"
    assert 0 < int(text(result)) < 16


def test_judge_one_that_is_hungry(submission: Path) -> None:
    assert judged(compiled(submission, HUNGRY)).reason is ps.Reason.MEMORY


def test_judge_one_that_talks_too_much(submission: Path) -> None:
    result = judged(compiled(submission, TALKATIVE))
    assert result.output_truncated.stdout
    assert len(result.stdout) == 16 << 20


def test_judge_one_that_looks_around(submission: Path) -> None:
    program = compiled(submission, CURIOUS)
    assert subprocess.run([program], cwd=submission, timeout=HANG, check=False).returncode == 0, "the control"
    assert judged(program).exit_code == 3


# --- python ---


@pytest.fixture(params=["--symlinks", "--copies"])
def environment(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A virtual environment with a package in it."""
    directory = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", request.param, directory], check=True, timeout=HANG)
    (packages,) = directory.glob("lib/python*/site-packages")
    (packages / "greeting").mkdir()
    (packages / "greeting" / "__init__.py").write_text("def greet(): return 'hello from a package'\n")
    return directory


USE = "import greeting, json, ssl, sqlite3; print(greeting.greet())"


def test_a_virtual_environment_by_its_path(environment: Path) -> None:
    result = run([environment / "bin" / "python", "-c", USE], ps.Config.preset("python"))
    assert text(result) == "hello from a package\n", result
    write = "import greeting; open(greeting.__file__, 'a')"
    assert not run([environment / "bin" / "python", "-c", write], ps.Config.preset("python")).ok


def test_a_virtual_environment_by_its_name(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{environment}/bin:{os.environ['PATH']}")
    assert text(run(["python", "-c", USE], ps.Config.preset("python"))) == "hello from a package\n"


def test_a_script_of_a_virtual_environment(environment: Path) -> None:
    script = environment / "bin" / "greet"
    script.write_text(f"#!{environment}/bin/python\n{USE}\n")
    script.chmod(0o755)
    assert text(run([script], ps.Config.preset("python"))) == "hello from a package\n"


@pytest.mark.parametrize("interpreter", [sys.executable, "python3", "/usr/bin/python3"])
def test_any_interpreter_with_processes_and_threads(interpreter: str) -> None:
    need(interpreter)
    code = """
import multiprocessing, threading, tempfile, os
def double(x): return 2 * x
if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    with context.Pool(8) as pool:
        print(sum(pool.map(double, range(10))))
    threads = [threading.Thread(target=len, args=("",)) for _ in range(20)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    with tempfile.TemporaryFile() as file:
        file.write(bytes(50 << 20))
    print(os.getcwd())
"""
    result = run([interpreter, "-c", code], ps.Config.preset("python"))
    assert result.ok, result.stderr
    assert text(result).splitlines()[0] == "90"


# --- node ---

NODE = """
const {Worker} = require('worker_threads');
const crypto = require('crypto');
const {execFileSync} = require('child_process');
function hot(n) { let sum = 0; for (let i = 0; i < n; i++) sum = (sum + i * i) % 1000003; return sum; }
const kept = [];
for (let i = 0; i < 1e6; i++) kept.push({i});
let left = 8;
for (let i = 0; i < 8; i++)
    new Worker('require("worker_threads").parentPort.postMessage(1)', {eval: true}).on('message', () => {
        if (!--left) console.log('workers', hot(1e7) > 0, kept.length);
    });
crypto.pbkdf2('a', 'b', 1000, 32, 'sha256', (error, key) => console.log('crypto', key.length));
console.log('child', execFileSync(process.execPath, ['-p', '6 * 7']).toString().trim());
WebAssembly.compile(new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0])).then(() => console.log('wasm'));
"""


def test_node(tmp_path: Path) -> None:
    need("node")
    (tmp_path / "main.js").write_text(NODE)
    result = run(["node", tmp_path / "main.js"], ps.Config.preset("node", allowed_dirs=[tmp_path]))
    assert result.ok, result.stderr
    assert set(text(result).splitlines()) == {"workers true 1000000", "crypto 32", "child 42", "wasm"}
    closed = "require('net').connect(9, '127.0.0.1').on('error', e => { console.log(e.code); })"
    assert text(run(["node", "-e", closed], ps.Config.preset("node"))).strip() in ("EAFNOSUPPORT", "EPERM", "EACCES", "ENETUNREACH", "ECONNREFUSED")


def test_node_that_is_hungry() -> None:
    need("node")
    hungry = "const kept = []; for (;;) kept.push(Buffer.alloc(1 << 20, 1))"
    assert run(["node", "-e", hungry], ps.Config.preset("node", memory_limit="256M")).reason is ps.Reason.MEMORY


# --- build ---

MAKEFILE = """
CACHE ?= /nowhere
app: main.o part.o
\t$(CC) -o $@ $^ && cp $@ $(CACHE)/
%.o: %.c
\t$(CC) -O2 -c -o $@ $<
"""


def test_make_with_a_cache(tmp_path: Path) -> None:
    need("make", "gcc")
    project, cache = tmp_path / "project", tmp_path / "cache"
    project.mkdir()
    cache.mkdir()
    (project / "Makefile").write_text(MAKEFILE)
    (project / "part.c").write_text("int part(void) { return 42; }")
    (project / "main.c").write_text("#include <stdio.h>\nint part(void);\nint main(void) { printf(\"%d\\n\", part()); }")
    config = ps.Config.preset("build", working_dir=project, writable_dirs=[cache], env={"CACHE": str(cache)})
    result = run(["make", "-j4"], config)
    assert result.ok, result.stderr
    assert subprocess.run([cache / "app"], capture_output=True, timeout=HANG, check=True).stdout == b"42\n"


def test_pip_installs_from_a_local_wheel(tmp_path: Path) -> None:
    """Into a directory of the project; nothing is fetched."""
    pip = [sys.executable, "-m", "pip"]
    if subprocess.run([*pip, "--version"], capture_output=True, timeout=HANG, check=False).returncode:
        pytest.skip("the tests' interpreter has no pip")
    project = tmp_path / "project"
    project.mkdir()
    wheel = make_wheel(project)
    config = ps.Config.preset("build", working_dir=project)
    result = run([*pip, "install", "--target", "installed", "--find-links", ".", "greeting"], config)
    assert result.ok, (result.stdout, result.stderr)
    assert (project / "installed" / "greeting.py").read_text() == "hello = 1\n"
    missing = run([*pip, "install", "--target", "installed", "not-there-at-all"], config)
    assert b"No matching distribution" in missing.stderr, "told at once, for there is no index"
    assert wheel.exists()


def make_wheel(directory: Path) -> Path:
    import zipfile

    path = directory / "greeting-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("greeting.py", "hello = 1\n")
        file.writestr("greeting-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n")
        file.writestr("greeting-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr("greeting-1.0.dist-info/RECORD", "greeting.py,,\ngreeting-1.0.dist-info/METADATA,,\ngreeting-1.0.dist-info/WHEEL,,\ngreeting-1.0.dist-info/RECORD,,\n")
    return path


# --- agent ---


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory with keys and tools."""
    directory = tmp_path / "home"
    for name, content in ((".ssh/id_ed25519", "the secret"), (".aws/credentials", "the secret"), (".netrc", "the secret")):
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(content)
    tool = directory / ".local" / "bin" / "my-tool"
    tool.parent.mkdir(parents=True)
    tool.write_text("#!/bin/sh\necho my tool\n")
    tool.chmod(0o755)
    monkeypatch.setenv("HOME", str(directory))
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    return directory


@pytest.fixture
def project(home: Path) -> Path:
    """A git repository with secrets in it."""
    need("git")
    directory = home / "code" / "project"
    (directory / "src").mkdir(parents=True)
    (directory / "src" / "main.py").write_text("print('before')\n")
    (directory / ".gitignore").write_text(".env\n")

    def git(*words: str) -> None:
        who = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
        subprocess.run(["git", *who, *words], cwd=directory, check=True, capture_output=True, timeout=HANG)

    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    (directory / ".git" / "hooks").mkdir(exist_ok=True)
    (directory / ".env").write_text("TOKEN=the secret\n")
    (directory / ".envrc").write_text("export A=1\n")
    (directory / ".vscode").mkdir()
    (directory / ".vscode" / "settings.json").write_text("{}")
    return directory


def test_an_agent_at_work(project: Path) -> None:
    config = ps.Config.preset("agent", working_dir=project)
    script = """
cat src/main.py
echo "print('after')" > src/main.py
mkdir new && echo x > new/file && mv new moved
git status --short && git diff --stat && git log --oneline | wc -l
python3 src/main.py
my-tool
"""
    result = run(["sh", "-ec", script], config)
    assert result.ok, result.stderr
    said = text(result)
    for part in ("print('before')", " M src/main.py", "?? moved/", "1 file changed", "after\n", "my tool\n"):
        assert part in said, said
    assert (project / "moved" / "file").read_text() == "x\n"
    assert (project / "src" / "main.py").read_text() == "print('after')\n"


def by_command_line(command: Sequence[str], project: Path, **paths: Sequence[Path]) -> subprocess.CompletedProcess[bytes]:
    """Run a command by the preset for agents, as `proc-sandbox` does."""
    words = [word for name, given in paths.items() for path in given for word in (f"--{name.replace('_', '-')}", str(path))]
    return cli("run", "--preset", "agent", "-C", str(project), *words, "--", *command)


def by_function(command: Sequence[str], project: Path, **paths: Sequence[Path]) -> ps.Result:
    return run(command, ps.Config.preset("agent", working_dir=project, **paths))  # type: ignore[arg-type]


def by_policy(command: Sequence[str], project: Path, **paths: Sequence[Path]) -> ps.Result:
    lines = [f"{name} = {[str(path) for path in given]}\n" for name, given in paths.items()]
    file = project.parent / "policy.toml"
    file.write_text(f"[policies.mine]\nextends = 'agent'\nworking_dir = '{project}'\n{''.join(lines)}")
    try:
        return run(command, ps.Config.from_toml(file))
    finally:
        file.unlink()


every_way = pytest.mark.parametrize("way", [by_function, by_command_line, by_policy])
READING = [".env", "{home}/.ssh/id_ed25519", "{home}/.aws/credentials", "{home}/.netrc", "{home}/code/../.ssh/id_ed25519"]


@every_way
@pytest.mark.parametrize("path", READING)
def test_an_agent_reads_no_secrets(project: Path, home: Path, path: str, way: Any) -> None:
    (home / "neighbour").write_text("beside the keys\n")
    read = ["cat", "src/main.py", f"{home}/neighbour", path.format(home=home)]
    control = subprocess.run(read, cwd=project, capture_output=True, timeout=HANG, check=True)
    assert b"the secret" in control.stdout
    for granted in ([], [home]):  # also where the caller grants all of the home directory
        said = way(read, project, allowed_dirs=granted).stdout
        assert b"the secret" not in said
        assert said.startswith(b"print('before')\n"), "what is no secret is read in the same run"
        assert (b"beside the keys" in said) == bool(granted)


WRITING = [
    "echo evil > .git/hooks/pre-commit",
    "echo evil >> .git/config",
    "git config core.fsmonitor evil",
    "echo ../evil > .git/commondir",
    "mv .git moved",
    "rm -rf .git/hooks && mkdir .git/hooks",
    "echo evil > .envrc",
    "mv .envrc x || rm .envrc",
    "echo evil > .vscode/tasks.json",
    "mv .vscode x",
    "echo evil > .env",
    "echo evil > {home}/.local/bin/my-tool",
    "echo evil > {home}/.bashrc",
]


@every_way
@pytest.mark.parametrize("script", WRITING)
def test_an_agent_leaves_nothing_that_runs_in_the_users_name(project: Path, home: Path, script: str, way: Any) -> None:
    command = ["sh", "-c", script.format(home=home)]

    def seen(top: Path) -> dict[str, bytes]:
        return {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*") if path.is_file()}

    before = seen(home)
    result = way(command, project)
    assert result.returncode or ".bashrc" in script, "below /tmp the way to the project is the run's own"
    assert seen(home) == before
    control = subprocess.run(command, cwd=project, capture_output=True, timeout=HANG, check=False)
    assert control.returncode == 0, control
    assert seen(home) != before, "the control"


def test_an_agent_writes_no_hooks_where_gits_config_has_them(project: Path) -> None:
    hooks = project / "scripts" / "hooks"
    hooks.mkdir(parents=True)
    (hooks / "post-commit").write_text("#!/bin/sh\n")
    subprocess.run(["git", "config", "core.hooksPath", "scripts/hooks"], cwd=project, check=True, timeout=HANG)
    for script in ("echo evil > scripts/hooks/pre-commit", "echo evil >> scripts/hooks/post-commit", "mv scripts moved"):
        assert not run(["sh", "-c", script], ps.Config.preset("agent", working_dir=project)).ok
        assert os.listdir(hooks) == ["post-commit"]
    assert run(["sh", "-c", "echo evil > scripts/hooks/pre-commit"], ps.Config.preset("build", working_dir=project)).ok, "the control"


COMMIT = """
for who in AUTHOR COMMITTER; do export GIT_${who}_NAME=a GIT_${who}_EMAIL=a@example.org; done
echo x > src/new.py; git add src; git commit -qm second; git log --oneline | wc -l
"""


@every_way
def test_an_agent_that_may_commit(project: Path, way: Any) -> None:
    result = way(["sh", "-ec", COMMIT], project, writable_dirs=[project / ".git"])
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == b"2"
    for script in ("echo evil > .git/hooks/pre-commit", "git config core.fsmonitor evil", "mv .git moved"):
        assert way(["sh", "-c", script], project, writable_dirs=[project / ".git"]).returncode
    assert not (project / ".git" / "hooks" / "pre-commit").exists()


@every_way
def test_what_a_link_of_the_projects_leads_to_is_hidden(project: Path, tmp_path: Path, way: Any) -> None:
    """In the project, and in what the caller grants beside it."""
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "env").write_text("the secret")
    (shared / "plain").write_text("plain\n")
    (project / "env.local").write_text("the secret")
    (project / ".env").unlink()
    (project / ".env").symlink_to(shared / "env")
    (project / ".env.local").symlink_to("env.local")
    read = ["cat", shared / "plain", shared / "env", ".env", "env.local"]
    control = ps.run(read, working_dir=project, allowed_dirs=[shared])
    assert text(control) == "plain\n" + "the secret" * 3
    assert way(read, project, allowed_dirs=[shared]).stdout == b"plain\n"


def test_an_agent_does_not_see_the_password_in_gits_config(project: Path) -> None:
    config = project / ".git" / "config"
    look = ["sh", "-c", "cat .git/config; git status --short; git log --oneline | wc -l"]
    before = config.read_text() + '[remote "origin"]\n\turl = https://user:hunter2@example.org/x.git\n'
    config.write_text(before)
    assert b"hunter2" in run(look, ps.Config(working_dir=project)).stdout, "the control"
    for granted in ([], [project / ".git"]):
        result = run(look, ps.Config.preset("agent", working_dir=project, writable_dirs=granted))
        assert result.ok
        assert "hunter2" not in text(result)
        assert text(result).splitlines()[-1].strip() == "1", "git works without it"
    assert config.read_text() == before


def test_what_appears_after_the_config_was_made_is_not_covered(project: Path) -> None:
    """As the documentation says."""
    config = ps.Config.preset("agent", working_dir=project)
    (project / ".env.later").write_text("later")
    assert run(["cat", ".env.later"], config).stdout == b"later"
    assert run(["cat", ".env.later"], ps.Config.preset("agent", working_dir=project)).stdout == b""


# --- on a laptop: no root, no cgroups ---


@pytest.mark.parametrize("name", ["judge", "python", "node", "build", "agent"])
def test_without_cgroups_nothing_is_missing(name: str, tmp_path: Path) -> None:
    from dataclasses import replace

    from proc_sandbox.backends import current
    from proc_sandbox.planner import compile_plan

    project = tmp_path / "project"
    project.mkdir()
    (project / ".env").write_text("x")
    config = ps.Config.preset(name, working_dir=project)
    backend = current()
    host = replace(backend.probe(config), cgroup=None)
    plan = compile_plan(config, ["true"], host, backend.survey(config, ["true"])[1])
    assert all(isinstance(how, ps.Enforced) for how in plan.enforcement.values()), plan.enforcement
