"""Prepared sandboxes: used once, confined before they wait, bounded, never stale, gone when idle; what is measured begins at go.

Each test has a caller of its own, and with it a launcher of its own, whose prepared sandboxes are looked at from outside.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support import processes
from support.processes import output_of
from support.programs import ROOT, compile_launcher

from proc_sandbox.backends import current
from proc_sandbox.launcher.process import launcher_path

LOOK = """
import contextlib, json, os, pathlib, shutil, signal, subprocess, sys, tempfile, time
import proc_sandbox as ps
from proc_sandbox.launcher import process

def status(pid):
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return {line.partition(":")[0]: line.partition(":")[2].split() for line in text.splitlines()}

def prepared():
    "Who waits to be told a command: our own program, with the filter of a command."
    found, launcher = {}, str(process.launcher().pid)
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            said = status(pid)
            if said["Name"] == ["launcher"] and said["Seccomp"] == ["2"] and said["State"][0] == "S":
                if status(said["PPid"][0])["PPid"] == [launcher]:
                    found[int(pid)] = said
    return found

def until(look):
    "Look until it is so; a machine under load prepares nothing, so looking is not to be load."
    end = time.monotonic() + 60
    while not (found := look()):
        assert time.monotonic() < end, "it never was so"
        time.sleep(0.01)
    return found

def one():
    return until(prepared)

def run(command, **config):
    config.setdefault("prepared", 1)
    return ps.run(command, timeout=config.pop("timeout", 60), **config)

BIRTH = ["sh", "-c", "read line < /proc/self/stat; echo $line"]

def was_prepared(**config):
    "Whether a run had a process that is older than its own beginning: proc_pid_stat(5), field 22, in clock ticks since boot."
    before = time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK")
    return int(run(BIRTH, **config).stdout.split()[21]) < before - 2

def later():
    "When the clock that processes are born by has gone on."
    born = time.clock_gettime(time.CLOCK_BOOTTIME)
    until(lambda: time.clock_gettime(time.CLOCK_BOOTTIME) > born + 0.1)
"""


@pytest.fixture(scope="module", autouse=True)
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that prepares sandboxes however busy the machine is, and keeps them longer than until() looks: tests run on loaded ones."""
    missing = current("linux").probe().namespaces
    if not missing:
        pytest.skip(f"needs namespaces: {missing.reason}")
    directory = tmp_path_factory.mktemp("launcher")
    directory.chmod(0o755)
    return compile_launcher(directory / "launcher", "-static", "-DSPARE=100000", "-DIDLE_SECONDS=100")


@pytest.fixture(autouse=True)
def callers_launcher(launcher: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every caller's, but where a test names another one."""
    monkeypatch.setattr(
        processes,
        "prelude",
        f"from proc_sandbox.launcher import process; process.launcher_path = lambda: {str(launcher)!r}\n",
    )


def said_by(code: str) -> list[str]:
    """What a caller of its own prints, as words."""
    return output_of(LOOK + code).split()


def test_a_run_gets_what_was_prepared_for_it_and_the_next_another() -> None:
    code = """
assert run(["true"]).ok
first = set(one())
later()
print(was_prepared())
until(lambda: prepared().keys() - first)
print(len(first & prepared().keys()), len(prepared()))
later()
print(was_prepared(), was_prepared(umask=0o77))
"""
    assert said_by(code) == ["True", "0", "1", "True", "False"]


def test_one_that_is_told_its_command_before_it_waits_hears_it() -> None:
    """At whatever step of its preparation: the launcher has let go of the socket before the other end has said that it listens."""
    code = """
for step in range(150):
    end = time.monotonic() + step * 40e-6
    while time.monotonic() < end:
        pass
    assert run(["true"], prepared=2).ok
print("all")
"""
    assert said_by(code) == ["all"]


def test_one_is_prepared_when_runs_follow_one_another_and_none_for_a_single_run() -> None:
    code = """
assert run(["true"], prepared=None).ok
assert run(["true"], umask=0o77, prepared=None).ok
assert run(["true"], umask=0o70).ok
print(len(one()))
assert run(["true"], prepared=None).ok
print(len(until(lambda: len(prepared()) == 2 and prepared())))
assert run(["true"], umask=0o71, prepared=0).ok
assert run(["true"], umask=0o71, prepared=0).ok
assert run(["true"], umask=0o72).ok
print(len(until(lambda: len(prepared()) == 3 and prepared())))
"""
    assert said_by(code) == ["1", "2", "3"]


def test_who_waits_is_confined_already() -> None:
    code = """
assert run(["true"], max_open_files=100).ok
(pid, said), = one().items()
print(said["NoNewPrivs"], said["CapEff"], said["CapBnd"], said["Seccomp"], said["Groups"] if os.geteuid() == 0 else [])
print([os.readlink(f"/proc/{pid}/ns/{name}") == os.readlink(f"/proc/self/ns/{name}") for name in ("user", "mnt", "pid", "net", "ipc")]
      if os.geteuid() == 0 else [False] * 5)
print(sorted(os.readlink(f"/proc/{pid}/fd/{number}").partition(":")[0] for number in os.listdir(f"/proc/{pid}/fd"))
      if os.geteuid() == 0 else ["/dev/null", "socket"])
print(said["Uid"][0] != "0", status(said["PPid"][0])["Seccomp"])
result = run(["sh", "-c", "ulimit -n; ls /proc/self/fd | wc -l"], max_open_files=100)
print(result.stdout.split())
"""
    said = output_of(LOOK + code).splitlines()
    nothing = "['0000000000000000']"
    assert said[0] == f"['1'] {nothing} {nothing} ['2'] []"
    assert said[1:] == ["[False, False, False, False, False]", "['/dev/null', 'socket']", "True ['2']", "[b'100', b'4']"]


@pytest.mark.skipif(not ROOT, reason="whose memory it is only root may ask: kcmp(2)")
def test_who_waits_has_no_memory_of_its_own() -> None:
    """To take down a copy would be half of the work of execve(2); the command has nothing of it."""
    code = """
import ctypes, platform
call = ctypes.CDLL(None, use_errno=True).syscall
number = {"x86_64": 312, "aarch64": 272}[platform.machine()]
assert run(["true"]).ok
(pid, said), = one().items()
print(call(number, pid, int(said["PPid"][0]), 1, 0, 0), ctypes.get_errno())  # KCMP_VM: 0 is the same
"""
    assert said_by(code) == ["0", "0"]


def test_time_and_cpu_time_begin_when_the_command_is_told() -> None:
    code = """
limit = {"timeout": 3}
assert run(["true"], **limit).ok
one()
waited = time.monotonic()
until(lambda: time.monotonic() > waited + 3.3 and prepared())
result = run(["sleep", "0.3"], **limit)
print(result.ok, 0.3 <= result.execution_time < 3, result.cpu_time.total < 1)
one()
print(run(["sleep", "60"], **limit).reason.value)
"""
    assert said_by(code) == ["True", "True", "True", "timeout"]


def test_the_peak_is_that_of_the_command() -> None:
    code = """
limits = {"memory_limit": "256M", "max_processes": 8, "cpu_time_limit": 20, "enforcement": "best-effort"}
fill = [sys.executable, "-I", "-S", "-c", "len(bytearray(60 << 20))"]
import warnings; warnings.simplefilter("ignore")
print(run(fill, **limits).ok)
one()
prepared_one = run(["true"], **limits)
one()
again = run(fill, **limits)
one()
print(prepared_one.peak_memory < 20 << 20, again.peak_memory > 60 << 20, run(["true"], **limits).peak_memory < 20 << 20)
one()
greedy = run([sys.executable, "-I", "-S", "-c", "x = bytearray(900 << 20)"], **limits)
one()
print(greedy.memory_exceeded or greedy.exit_code == 1, run(["true"], **limits).ok)
"""
    assert said_by(code) == ["True", "True", "True", "True", "True", "True"]


MARKS = """
import ctypes, os, signal, socket, subprocess, sys, tempfile
libc = ctypes.CDLL(None)
places = ["/tmp", "/dev/shm", os.environ["HOME"], os.getcwd(), "/var/tmp", "/run", "/"]

def leave():
    for place in places:
        try: open(place + "/mark", "w").write("mark")
        except OSError: pass
    libc.shmget(0x5afe, 4096, 0o1666)
    server = socket.socketpair()  # and what cannot be had by name
    try:
        named = socket.socket(socket.AF_UNIX); named.bind("\\0mark"); named.listen()
    except OSError: pass
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.closerange(0, 1000)
            while True: signal.pause()
        os._exit(0)
    os.wait()
    os.nice(3); os.umask(0o777)
    return named

def found():
    seen = [place for place in places if os.path.exists(place + "/mark")]
    if libc.shmget(0x5afe, 4096, 0) >= 0: seen.append("shm")
    try: socket.socket(socket.AF_UNIX).connect("\\0mark"); seen.append("abstract")
    except OSError: pass
    others = [pid for pid in os.listdir("/proc") if pid.isdigit() and int(pid) not in (1, os.getpid())]
    if others: seen.append("processes")
    try:
        for number in range(2, 400):
            if number != os.getpid(): os.kill(number, 0); seen.append("signals"); break
    except OSError: pass
    return seen
"""


def test_nothing_of_one_run_reaches_the_next_not_even_one_that_waited_beside_it() -> None:
    """The control: what a run leaves behind it finds itself. Then the next ones, prepared while it ran or before, find nothing."""
    code = (
        f"MARKS = {MARKS!r}\n"
        """
python = [sys.executable, "-I", "-S", "-c"]
of_its_own = ", os.getpriority(os.PRIO_PROCESS, 0), os.umask(0))"
config = {"prepared": 2, "max_processes": 20, "enforcement": "best-effort"}
import warnings; warnings.simplefilter("ignore")
assert run(["true"], **config).ok
until(lambda: len(prepared()) == 2)
print(run([*python, MARKS + "named = leave(); print(found()" + of_its_own], **config).stdout.decode().strip().replace(" ", ""))
for _ in range(3):
    result = run([*python, MARKS + "print(found()" + of_its_own], **config)
    print(result.stdout.decode().strip().replace(" ", ""))
"""
    )
    control, *others = said_by(code)
    marks, _, rest = control.partition("]")
    assert len(marks.split(",")) >= 5 and rest == f"3{0o777}", "the control: the same run finds its marks"
    assert others == [f"[]0{0o022}"] * 3


def test_runs_do_not_have_the_same_user_or_pids_of_the_host() -> None:
    if not ROOT:
        pytest.skip("without root every run has its caller's user on the host")
    code = """
assert run(["true"], prepared=2).ok
both = until(lambda: len(prepared()) == 2 and prepared())
print(len({said["Uid"][0] for said in both.values()}))
"""
    assert said_by(code) == ["2"]


def test_there_are_never_more_than_sixteen() -> None:
    code = """
for number in range(5):
    assert run(["true"], umask=number, prepared=5).ok
until(lambda: len(prepared()) == 16)
for number in range(5, 40):
    assert run(["true"], umask=number, prepared=5).ok
    assert len(prepared()) <= 16
print(len(prepared()) <= 16)
"""
    assert said_by(code) == ["True"]


def test_a_busy_machine_prepares_nothing() -> None:
    """By the launcher that everybody has."""
    code = """
process.launcher_path = ORDINARY
spinners = [subprocess.Popen([sys.executable, "-I", "-S", "-c", "while True: pass"]) for _ in range(os.cpu_count() + 1)]
try:
    assert run(["true"]).ok
    begin = time.monotonic()
    until(lambda: time.monotonic() > begin + 1)
    print(len(prepared()))
finally:
    for spinner in spinners:
        spinner.kill()
        spinner.wait()
"""
    ordinary = f"ORDINARY = lambda: {launcher_path()!r}\n"
    assert said_by(ordinary + code) == ["0"]


def test_they_go_when_nobody_uses_them(tmp_path: Path) -> None:
    """With a launcher that has less patience."""
    hasty = compile_launcher(tmp_path / "launcher", "-DIDLE_SECONDS=1", "-DSPARE=100000")
    code = f"""
process.launcher_path = lambda: {str(hasty)!r}
assert run(["true"]).ok
one()
until(lambda: not prepared())
assert run(["true"], prepared=None).ok
begin = time.monotonic()
until(lambda: time.monotonic() > begin + 1.5)
assert run(["true"], prepared=None).ok
begin = time.monotonic()
until(lambda: time.monotonic() > begin + 0.3)
print(len(prepared()), run(["true"]).ok)
"""
    assert said_by(code) == ["0", "True"]


REPLACED = """
import warnings; warnings.simplefilter("ignore")
place = pathlib.Path(tempfile.mkdtemp(prefix="proc-sandbox-test-"), "project")
os.chmod(place.parent, 0o755)
place.mkdir()
(place / "which").write_text("old")
config = {field: FIELD(place), "enforcement": "best-effort"}  # without idmapped mounts (before 5.12) root's files are not the run's
show = ["cat", str(place / "which")]
print(run(show, **config).stdout.decode())
one()
place.rename(place.with_name("moved"))
place.mkdir()
(place / "which").write_text("new")
print(run(show, **config).stdout.decode())
one()
shutil.rmtree(place)
try:
    run(show, **config)
except ps.ConfigError:
    print("refused")
shutil.rmtree(place.parent)
"""


@pytest.mark.parametrize("field", ["working_dir", "allowed_dirs", "writable_dirs", "read_only_dirs"])
def test_a_directory_that_was_replaced_is_the_new_one(field: str) -> None:
    make = "str" if field == "working_dir" else "lambda place: [place]"
    assert said_by(f"field, FIELD = {field!r}, {make}\n" + REPLACED) == ["old", "new", "refused"]


def test_what_a_command_puts_in_the_place_of_its_directory_is_not_followed() -> None:
    """A run renames a granted directory inside another one, and puts a link to a secret there: the next run is refused."""
    code = """
top = pathlib.Path(tempfile.mkdtemp(prefix="proc-sandbox-test-"))
(top / "inner").mkdir()
(top / "secret").mkdir()
(top / "secret" / "key").write_text("secret")
os.chmod(top, 0o777); os.chmod(top / "inner", 0o777)
config = {"writable_dirs": [top / "w"], "allowed_dirs": [top / "w" / "inner"], "enforcement": "best-effort"}
import warnings; warnings.simplefilter("ignore")
(top / "w").mkdir(); os.chmod(top / "w", 0o777); (top / "w" / "inner").mkdir()
assert run(["true"], **config).ok
(top / "w" / "inner").rename(top / "w" / "away")
(top / "w" / "inner").symlink_to(top / "secret")
try:
    print(run(["cat", str(top / "w" / "inner" / "key")], **config).stdout)
except ps.ConfigError:
    print("refused")
shutil.rmtree(top)
"""
    assert said_by(code) == ["refused"]


def test_what_is_read_only_in_a_writable_directory_stays_so_when_it_is_made_anew() -> None:
    """Its mount goes with the directory or the name that it was mounted on, and the new one may have the number of the old one."""
    code = """
import warnings; warnings.simplefilter("ignore")
top = pathlib.Path(tempfile.mkdtemp(prefix="proc-sandbox-test-"))
kept, file = top / "kept", top / "file"
def make():
    kept.mkdir(); (kept / "file").write_text("kept")
    for path in (kept, kept / "file"):
        os.chmod(path, 0o777)
make()
file.write_text("kept")
for path in (top, file):
    os.chmod(path, 0o777)
config = {"writable_dirs": [top], "read_only_dirs": [kept, file], "enforcement": "best-effort"}
write = ["sh", "-c", 'cd "$1"; touch free; echo evil > kept/file; echo evil > file', "sh", str(top)]
assert run(write, **config).returncode
time.sleep(0.5)  # time enough to prepare one, were that done
shutil.rmtree(kept)
make()
os.link(file, top / "link"); file.unlink(); (top / "link").rename(file)
assert run(write, **config).returncode
print((top / "free").exists(), (kept / "file").read_text(), file.read_text())
shutil.rmtree(top)
"""
    assert said_by(code) == ["True", "kept", "kept"]


def test_what_is_hidden_stays_so_when_it_is_replaced_between_two_runs() -> None:
    """The mount goes with the file that it was made on: no sandbox that has one waits."""
    code = """
import warnings; warnings.simplefilter("ignore")
top = pathlib.Path(tempfile.mkdtemp(prefix="proc-sandbox-test-"))
os.chmod(top, 0o777)
config = {"allowed_dirs": [top], "hidden_paths": [top / "secret"], "enforcement": "best-effort"}
for text in ("old", "new"):
    (top / "fresh").write_text(text); (top / "fresh").rename(top / "secret")
    print(run(["cat", str(top / "secret")], **config).stdout)
    time.sleep(0.5)  # time enough to prepare one, were that done
shutil.rmtree(top)
"""
    assert said_by(code) == ["b''"] * 2


def test_a_command_of_very_many_words_is_run_whole(tmp_path: Path) -> None:
    """By a launcher as it is built for users: what too many words would overwrite depends on how it was compiled."""
    optimized = compile_launcher(tmp_path / "launcher", "-O2", "-static", "-DSPARE=100000")
    code = f"""
process.launcher_path = lambda: {str(optimized)!r}
for count in (8000, 9000, 12000, 16000, 20000):
    assert run(["true"]).ok
    one()
    print(int(run(["sh", "-c", "echo $#", "sh", *[""] * count]).stdout) == count)
"""
    assert said_by(code) == ["True"] * 5


MOUNTED = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 1 << 18
assert libc.unshare(CLONE_NEWNS) == 0 and libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None) == 0
place = tempfile.mkdtemp(prefix="proc-sandbox-test-")
os.chmod(place, 0o755)  # where nothing can be idmapped (before Linux 5.12) the command is a stranger there
below = os.path.join(place, "below")
os.mkdir(below)
show = ["sh", "-c", 'ls "$1"; ls /etc/alternatives | wc -l', "sh", below]
config = {"allowed_dirs": [place]}
print(*run(show, **config).stdout.split()[-1:] > [b"0"] and ["full"])
before = set(one())
for target in (below, "/etc/alternatives"):
    assert libc.mount(b"none", target.encode(), b"tmpfs", 0, None) == 0
pathlib.Path(below, "mounted").touch()
until(lambda: not before & prepared().keys())
print(*run(show, **config).stdout.decode().split())
before = set(one())
for target in (below, "/etc/alternatives"):
    assert libc.umount2(target.encode(), 0) == 0
until(lambda: not before & prepared().keys())
print(len(run(show, **config).stdout.split()))
shutil.rmtree(place)
"""


def test_what_is_mounted_later_is_seen() -> None:
    """Below what is granted, and over one of the system's directories, whose view all runs share."""
    if not ROOT:
        pytest.skip("only root may mount")
    if not Path("/etc/alternatives").is_dir():
        pytest.skip("/etc/alternatives is not there")
    assert said_by(MOUNTED) == ["full", "mounted", "0", "1"]


LATE = """
import ctypes, threading
libc = ctypes.CDLL(None, use_errno=True)
assert libc.unshare(0x20000) == 0 and libc.mount(b"none", b"/", None, 0x4000 | 1 << 18, None) == 0
place = tempfile.mkdtemp(prefix="proc-sandbox-test-")
os.chmod(place, 0o755)
below = os.path.join(place, "below")
os.mkdir(below)
assert run(["true"], allowed_dirs=[place]).ok
one()
delay = ["strace", "-qq", "-o", "/dev/null", "-e", "trace=openat2", "-e", "inject=openat2:delay_exit=500000:when=1"]
tracer = subprocess.Popen([*delay, "-p", str(process.launcher().pid)])
until(lambda: status(process.launcher().pid)["TracerPid"] != ["0"])
other = threading.Thread(target=lambda: run(["true"], prepared=0, umask=0o70, allowed_dirs=[place]))
other.start()
time.sleep(0.2)
assert libc.mount(b"none", below.encode(), b"tmpfs", 0, None) == 0
pathlib.Path(below, "mounted").touch()
os.chmod(below, 0o755)
print(run(["ls", below], allowed_dirs=[place]).stdout.decode().strip())
other.join()
tracer.send_signal(signal.SIGINT)
tracer.wait()
assert libc.umount2(below.encode(), 0) == 0 or libc.umount2(below.encode(), 2) == 0
shutil.rmtree(place)
"""


def test_what_is_mounted_while_the_launcher_makes_another_run_is_seen() -> None:
    if not ROOT:
        pytest.skip("only root may mount")
    if not shutil.which("strace"):
        pytest.skip("needs strace")
    assert said_by(LATE) == ["mounted"]


def test_one_that_was_killed_harms_nobody() -> None:
    if not ROOT:
        pytest.skip("the process of a run has no user of ours to kill it")
    code = """
assert run(["true"], prepared=2).ok
both = until(lambda: len(prepared()) == 2 and prepared())
for pid in both:
    os.kill(pid, signal.SIGKILL)
until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in both))  # until then it can be told a command, and die of the signal
print(*[run(["echo", "still"], prepared=2).stdout.decode().strip() for _ in range(3)])
"""
    assert said_by(code) == ["still"] * 3


def test_a_launcher_that_ends_at_once_leaves_nothing_of_a_run_that_was_prepared() -> None:
    """Its reaper is told to end only a moment after the caller has been told."""
    code = """
pids = set()
for _ in range(5):
    assert run(["true"]).ok
    (pid, said), = one().items()
    pids |= {pid, int(said["PPid"][0])}
    later()
    assert run(["true"]).ok
    process.shutdown()
    print(any(os.path.exists(f"/proc/{pid}") for pid in pids))
"""
    assert said_by(code) == ["False"] * 5


def test_where_memory_is_sampled_too() -> None:
    """The filter forbids there to share memory with a child, from which the reaper is not excepted."""
    code = """
from dataclasses import replace
from proc_sandbox.backends import current
backend = current()
known = backend.known_for(ps.Config())
import warnings; warnings.simplefilter("ignore")
backend.known = known._replace(host=replace(known.host, cgroup=None), cgroups=True)
limits = {"memory_limit": "256M", "max_processes": 20}
first = run(["true"], **limits)
print(first.enforcement["memory_limit"].strength)
one(); later()
print(was_prepared(**limits))
one()
print(run([sys.executable, "-I", "-S", "-c", "x = bytearray(900 << 20); x[::4096] = x[::4096]"], **limits).reason.value)
one()
print(run(["true"], **limits).ok)
"""
    assert said_by(code) == ["sampled", "True", "memory", "True"]


def test_directory_and_environment_are_those_of_the_config() -> None:
    code = """
with tempfile.TemporaryDirectory(dir="/var/tmp") as place:
    config = {"working_dir": place, "env": {"EMPTY": "", "LONG": "x" * 50_000, "NAME": "value=1"}}
    assert run(["true"], **config).ok
    one(); later()
    said = run(["sh", "-c", "echo $PWD [$EMPTY] ${#LONG} $NAME; pwd; read line < /proc/self/stat; echo $line"], **config).stdout.decode().split()
    print(said[0] == place == said[4], *said[1:4])
    one(); later()
    print(was_prepared(**config))
"""
    assert said_by(code) == ["True", "[]", "50000", "value=1", "True"]


def test_they_end_with_their_caller() -> None:
    code = """
CALLER = f'''
import proc_sandbox as ps, time
from proc_sandbox.launcher import process
process.launcher_path = lambda: {process.launcher_path()!r}
ps.run(["true"], prepared=3)
print(process.launcher().pid, flush=True)
time.sleep(600)
'''
child = subprocess.Popen([sys.executable, "-c", CALLER], stdout=subprocess.PIPE, text=True)
launcher = int(child.stdout.readline())
def below():
    return [pid for pid in os.listdir("/proc") if pid.isdigit() and parent(pid) == launcher]
def parent(pid):
    with contextlib.suppress(OSError):
        return int(status(pid)["PPid"][0])
reapers = until(lambda: len(below()) == 3 and below())
child.kill()
child.wait()
until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in reapers))
print("gone")
"""
    assert said_by(code) == ["gone"]


def test_what_does_not_fit_has_one_made_for_it() -> None:
    """Long commands, passed descriptors, words that go by a file."""
    code = """
assert run(["true"]).ok
one()
print(len(run(["echo", "x" * 50000]).stdout), len(run(["echo", "x" * 100000]).stdout), len(prepared()))
print(*[run(["sh", "-c", "echo $#", "sh", *[""] * count]).stdout.decode() for count in (16300, 16400)])
one()
reader, writer = os.pipe()
for _ in range(2):
    assert run(["sh", "-c", f"echo hi >&{writer}"], pass_fds=[writer]).ok
print(os.read(reader, 100).decode().split())
"""
    assert said_by(code) == ["50001", "100001", "1", "16300", "16400", "['hi',", "'hi']"]


def test_a_run_by_hand_has_no_next_one_and_waits_for_nothing() -> None:
    code = """
import resource
words = ps.plan(["sleep", "1"], prepared=1, timeout=60).words()
assert subprocess.run([process.launcher_path(), "run", *words], capture_output=True).returncode == 0
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_utime + used.ru_stime < 0.5)
"""
    assert said_by(code) == ["True"]


def test_a_missing_program_is_told_as_ever() -> None:
    code = """
assert run(["true"]).ok
for _ in range(3):
    one()
    try:
        run(["./missing"])
    except FileNotFoundError as caught:
        print(caught.step)
one()
print(run(["echo", "x"]).stdout.decode())
"""
    assert said_by(code) == ["exec", "exec", "exec", "x"]


def test_a_sandboxes_files_stay_and_its_directory_goes() -> None:
    code = """
with ps.Sandbox(prepared=1, timeout=60) as box:
    for number in range(4):
        assert box.run(["sh", "-c", "echo x >> data"]).ok
        one()
    print(len((pathlib.Path(box.directory) / "data").read_text().split()))
    directory = box.directory
print(os.path.exists(directory))
"""
    assert said_by(code) == ["4", "False"]


def test_input_reaches_a_prepared_one_and_ends() -> None:
    code = """
assert run(["cat"], input=b"1").ok
for size in (0, 10, 300000):
    one()
    print(len(run(["cat"], input=b"y" * size).stdout))
"""
    assert said_by(code) == ["0", "10", "300000"]
