"""A command with a terminal of its own (pty=True), joined to its caller's: nothing is typed there, and it is as it was before."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import signal
import stat
from collections.abc import Iterator

import pytest
from support.fixtures import Programs
from support.programs import HANG, act, assert_refused, inside, outside, python, text
from support.terminals import TITLE, Terminal, caller_on, terminal

import proc_sandbox as ps

TIOCSTI, TIOCLINUX, TIOCSETD = 0x5412, 0x541C, 0x5423
TIOCCONS, TIOCVHANGUP, TIOCSLCKTRMIOS = 0x541D, 0x5437, 0x5457
TIOCPKT, TIOCSPTLCK, TIOCGPTPEER = 0x5420, 0x40045431, 0x5441

RUN = """
import sys
import proc_sandbox as ps
from proc_sandbox.backends.unix.relay import CallersTerminal
if sys.argv[1] == "unprotected":
    CallersTerminal.hush = lambda self, file: None
result = ps.run(sys.argv[2:], pty=True, stdin=ps.INHERIT, stdout=ps.INHERIT, timeout=%r)
"""


@pytest.fixture
def place() -> Iterator[Terminal]:
    with terminal() as made:
        yield made


# --- what a terminal answers is typed ---

ASK = r"printf '\033]2;rm -rf .\007\033[?1003h'; for n in 1 2 3 4 5 6 7 8; do printf '\033[21t\033[c\033[6n'; done; printf asked"
ENDINGS = {"exit": "", "crash": "; kill -SEGV $$", "timeout": "; sleep 1000", "terminated": "; sleep 1000"}


def test_answers_would_be_typed_into_the_callers_shell(place: Terminal) -> None:
    """The control: a terminal that comes to the questions when the run is over."""
    with caller_on(place, RUN % HANG, "unprotected", "sh", "-c", ASK) as process:
        assert process.wait(HANG) == 0
    typed = place.left()
    assert TITLE in typed
    assert b"\x1b[?62;22c" in typed


@pytest.mark.parametrize("ending", ENDINGS)
def test_no_answer_is_left_to_the_callers_shell(place: Terminal, ending: str) -> None:
    before = place.attributes()
    code = RUN % (0.5 if ending == "timeout" else HANG)
    with caller_on(place, code, "protected", "sh", "-c", ASK + ENDINGS[ending]) as process:
        if ending == "terminated":
            place.until(b"asked")
            process.send_signal(signal.SIGTERM)
        assert place.wait(process) == (-signal.SIGTERM if ending == "terminated" else 0)
    assert place.left() == b""
    assert place.attributes() == before


@pytest.mark.parametrize("streams", ["stdin=sys.stdin, stdout=sys.stdout", "stdout=2", "stdout=sys.stdout"])
def test_nor_where_its_streams_are_named_themselves(place: Terminal, streams: str) -> None:
    before = place.attributes()
    code = (RUN % HANG).replace("stdin=ps.INHERIT, stdout=ps.INHERIT", streams)
    with caller_on(place, code, "protected", "sh", "-c", ASK) as process:
        assert place.wait(process) == 0
    assert place.left() == b""
    assert place.attributes() == before


def test_what_would_be_reported_later_is_switched_off(place: Terminal) -> None:
    with caller_on(place, RUN % HANG, "protected", "printf", r"\033[?1003h\033[?1004h\033Pnever ended") as process:
        assert place.wait(process) == 0
    after = place.shown.partition(b"never ended")[2]
    assert after.startswith(b"\x18\x1b\\"), "what was begun is given up first"
    assert b"\x1b[?1003l" in after
    assert b"\x1b[?1004l" in after


def test_keys_are_not_left_locked_or_defined(place: Terminal) -> None:
    """KAM; a key that types a command (DECUDK); the kitty protocol, pushed more often than once; LNM; local echo."""
    sequences = r"\033[2h\033P1;1|34/726D202D7266202E0A\033\\\033[>1u\033[>1u\033[20h\033[12lover"
    with caller_on(place, RUN % HANG, "protected", "printf", sequences) as process:
        assert place.wait(process) == 0
    after = place.shown.partition(b"over")[2]
    for undone in (b"\x1b[2;20l", b"\x1bP0;1|\x1b\\", b"\x1b[<99u", b"\x1b[12h"):
        assert undone in after


def test_a_guess_is_not_taken_for_the_answer(place: Terminal) -> None:
    """Its own questions about places, answered at once, end nothing: those that count are not known before."""
    ask = "".join(rf"\033[{row};{column}H\033[6n" for row in range(2, 30) for column in range(1, 40))
    with caller_on(place, RUN % HANG, "protected", "sh", "-c", f"stty raw -echo; printf '{ask}'") as process:
        assert place.wait(process) == 0
    assert place.left() == b""


def test_a_terminal_that_never_answers_is_given_back(place: Terminal) -> None:
    before = place.attributes()
    place.answering = False
    with caller_on(place, RUN % HANG, "protected", "sh", "-c", ASK) as process:
        assert place.wait(process) == 0
    assert place.attributes() == before


def test_nobody_looks(place: Terminal) -> None:
    """The caller's terminal takes no more: limits hold all the same, and it is given back."""
    before = place.attributes()
    with caller_on(place, RUN % 0.5, "protected", "yes") as process:
        assert process.wait(HANG) == 0
    assert place.attributes() == before


def test_what_is_printed_asks_only_where_it_could(place: Terminal) -> None:
    """A terminal that answers nothing costs no time where it was asked nothing."""
    place.answering = False
    with caller_on(place, RUN % HANG, "protected", "echo", "plain") as process:
        assert place.wait(process) == 0
    assert place.shown == b"plain\r\n"


@pytest.mark.parametrize("kind", ["dumb", ""])
def test_a_dumb_terminal_is_asked_nothing(place: Terminal, kind: str) -> None:
    before = place.attributes()
    place.answering = False
    with caller_on(place, RUN % HANG, "protected", "printf", r"\033[1mbold", env={"TERM": kind}) as process:
        assert place.wait(process) == 0
    assert place.shown == b"\x1b[1mbold"
    assert place.attributes() == before


SEVERAL = """
import sys
import proc_sandbox as ps
for stdin in sys.argv[1:]:
    ps.run(["sh", "-c", r"printf '\\033[1mone'; read x"], pty=True, stdin=getattr(ps, stdin), stdout=ps.INHERIT, timeout=60)
    print("next", flush=True)
"""
OWN = rb"\x1b\[\d+;\d+H\x1b\[6n"
"""A question of ours."""


def test_a_mute_terminal_is_asked_once(place: Terminal) -> None:
    """By one process; and when it has answered after all, it is asked again. A key that sends the same does too."""
    place.answering = False
    with caller_on(place, SEVERAL, "DEVNULL", "DEVNULL", "INHERIT", "DEVNULL") as process:
        for asked, typed in ((4, b""), (0, b""), (4, b"\x1b[1;1R\r"), (0, b"")):
            place.until(b"one")
            begun = place.read
            place.type(typed)
            place.until(b"next\r\n")
            assert len(re.findall(OWN, place.shown[begun : place.read])) == asked
        assert place.wait(process) == 0


def test_who_has_answered_once_is_not_taken_for_mute(place: Terminal) -> None:
    """A command could make a terminal late, so that the next command's questions are answered to the shell."""
    with caller_on(place, SEVERAL, "DEVNULL", "DEVNULL", "DEVNULL") as process:
        for answers in (True, False, True):
            place.looked, place.answering = len(place.shown), answers
            place.until(b"one")
            begun = place.read
            place.until(b"next\r\n")
            assert len(re.findall(OWN, place.shown[begun : place.read])) == 4
        assert place.wait(process) == 0


# --- the caller's terminal itself ---


def device_of(place: Terminal) -> int:
    """The number as TIOCGDEV tells it: new_encode_dev() of the kernel, which is makedev(3) up to 255 terminals."""
    number = os.fstat(place.slave).st_rdev
    return os.major(number) << 8 | os.minor(number) & 0xFF | (os.minor(number) & ~0xFF) << 12


def test_the_callers_terminal_cannot_be_opened(place: Terminal) -> None:
    reach = act("reach_terminal", device_of(place))
    control = "import subprocess, sys; sys.exit(subprocess.run(sys.argv[2:]).returncode)"
    with caller_on(place, control, "", *reach) as process:
        place.until(b"TRIED\r\nESCAPED")
        assert place.wait(process) == 0
    with caller_on(place, RUN % HANG, "protected", *reach) as process:
        place.until(b"TRIED\r\nREFUSED %d" % errno.ENOENT)
        assert place.wait(process) == 0


def test_what_the_command_sets_stays_its_own(place: Terminal) -> None:
    """Modes, size, stopped output and another foreground: all of them on its own terminal."""
    before = place.attributes()
    code = """
import fcntl, os, signal, struct, termios, tty
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
mode = termios.tcgetattr(0)
mode[3] |= 0o200000  # EXTPROC
mode[6][termios.VEOF] = b"q"
termios.tcsetattr(0, termios.TCSANOW, mode)
fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 3, 5, 0, 0))
child = os.fork()
if not child:
    os.setpgid(0, 0)
    signal.pause()
while True:
    try:
        os.setpgid(child, child)
        os.tcsetpgrp(0, child)
        break
    except OSError:
        pass
fcntl.ioctl(0, termios.TIOCEXCL)
termios.tcflow(0, termios.TCIOFF)
print("set", flush=True)
termios.tcflow(0, termios.TCOOFF)
os._exit(4)
"""
    with caller_on(place, RUN % HANG + "print(result.exit_code, flush=True)", "protected", *python(code)) as process:
        place.until(rb"set\r\n.*4\r\n")
        assert place.wait(process) == 0
    assert place.attributes() == before
    assert os.get_terminal_size(place.slave) == (100, 30)


# --- its own terminal ---


@pytest.mark.parametrize("request_number", [TIOCSTI, TIOCLINUX, TIOCSETD, TIOCSTI + (1 << 32)], ids=hex)
def test_requests_that_are_refused_everywhere_are_on_ones_own_terminal_too(programs: Programs, request_number: int) -> None:
    result = inside([programs("kernel"), "ioctl", "0", str(request_number)], pty=True, allowed_dirs=[programs.directory])
    assert_refused(result, {errno.EPERM})


OF_THE_HOST = {"TIOCCONS": TIOCCONS, "TIOCVHANGUP": TIOCVHANGUP, "TIOCSLCKTRMIOS": TIOCSLCKTRMIOS}
"""For who has CAP_SYS_ADMIN: to have the console's output, to hang up, to lock modes."""
OF_THE_OTHER_END = {
    "TIOCPKT": (TIOCPKT, errno.ENOTTY),
    "TIOCSPTLCK": (TIOCSPTLCK, errno.ENOTTY),
    "TIOCGPTPEER": (TIOCGPTPEER, errno.EIO),  # ptm_open_peer() of the kernel
}
"""To be told of modes that are set, to lock the terminal, to open it without a name: ioctl_tty(2), and tty_ioctl of the kernel."""


def may_ask_the_host() -> bool:
    """Whether we have CAP_SYS_ADMIN (capabilities(7)), bit 21, where it counts."""
    with open("/proc/self/status", encoding="ascii") as file, open("/proc/self/uid_map", encoding="ascii") as users:
        held = next(int(line.split()[1], 16) for line in file if line.startswith("CapEff"))
        return bool(held >> 21 & 1) and users.read().split() == ["0", "0", "4294967295"]


@pytest.mark.parametrize("name", OF_THE_HOST)
def test_requests_of_the_host(programs: Programs, place: Terminal, name: str) -> None:
    kernel = [programs("kernel"), "ioctl", "0", str(OF_THE_HOST[name])]
    if may_ask_the_host() and name != "TIOCCONS":  # which would take the host's messages away
        assert text(outside(kernel, stdin=place.slave)).split() == ["TRIED", "ESCAPED"]
    assert_refused(inside(kernel, pty=True, allowed_dirs=[programs.directory]), {errno.EPERM})


@pytest.mark.parametrize("name", OF_THE_OTHER_END)
def test_requests_of_the_other_end(programs: Programs, place: Terminal, name: str) -> None:
    """Which is ours: its file is not among the command's, and at its own end the terminal knows nothing of them."""
    number, refusal = OF_THE_OTHER_END[name]
    kernel = [programs("kernel"), "ioctl", "0", str(number)]
    if name == "TIOCGPTPEER":  # it takes flags, no address
        os.close(fcntl.ioctl(place.master, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY))
    else:
        assert text(outside(kernel, stdin=place.master)).split() == ["TRIED", "ESCAPED"]
    assert_refused(inside(kernel, pty=True, allowed_dirs=[programs.directory]), {refusal})


def test_the_terminal_is_in_nobody_elses_reach() -> None:
    code = """
import os, signal
print(os.ttyname(0), os.fstat(0).st_uid == os.getuid(), oct(os.fstat(0).st_mode & 0o777), os.listdir('/dev/pts'), 'up', flush=True)
signal.pause()
"""
    heard = bytearray()
    with ps.Popen(python(code), pty=True, stdout=heard.extend) as process:
        assert process.held.advance(lambda: b"up" in heard)
        name, owned, mode, listed, _ = heard.decode().split()
        assert (owned, mode, listed) == ("True", "0o600", repr([name.rpartition("/")[2]]))
        status = os.stat(name)
        assert stat.S_IMODE(status.st_mode) == 0o600
        assert (status.st_uid == os.geteuid()) == (os.geteuid() != 0), "as root the run has a user of its own"


def test_others_runs_terminals_are_not_there() -> None:
    """Two at a time: each sees its own alone."""
    with ps.Popen(["sh", "-c", "echo up; sleep 1000"], pty=True, stdout=(heard := bytearray()).extend) as other:
        assert other.held.advance(lambda: b"up" in heard)
        result = inside(["sh", "-c", "ls /dev/pts | wc -l"], pty=True)
        assert text(result).split()[0] == "1"


def test_floods_fill_no_memory_of_the_callers() -> None:
    """What is typed for who does not read, and what is printed for who does not want it, fill no memory of the caller's."""
    result = inside(["sh", "-c", "stty raw -echo; yes | head -c 50000000"], pty=True, input=b"x" * 5_000_000, max_output="1K")
    assert (len(result.stdout), result.exit_code) == (1024, 0)


def test_nothing_of_the_callers_terminal_is_open(place: Terminal) -> None:
    """Nothing of the caller's terminal is open inside: three descriptors, all of them one terminal that is not it."""
    code = "import os; print({os.fstat(int(n)).st_rdev for n in os.listdir('/proc/self/fd') if os.path.exists(f'/proc/self/fd/{n}')})"
    with caller_on(place, RUN % HANG, "protected", *python(code)) as process:
        said = place.until(rb"\{([^}]*)\}")[1].decode()
        assert place.wait(process) == 0
    assert str(os.fstat(place.slave).st_rdev) not in said.split(", ")
