"""The network and its neighbours: TCP, UDP, unix sockets by path and by abstract name, and the stranger families."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.fixtures import Programs
from support.processes import new_mark, witness
from support.programs import HANG, act, assert_escapes, assert_refused, inside, outside, python, text

import proc_sandbox as ps

NO_NETWORK = frozenset({errno.EPERM, errno.EACCES, errno.EAFNOSUPPORT})
NOBODY = NO_NETWORK | {errno.ECONNREFUSED, errno.ENETUNREACH, errno.EADDRNOTAVAIL}


def lan_address() -> str | None:
    """This host's address on its network; nothing is sent to find it out."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])
    return None


class Listener:
    """A server outside that counts who comes; datagrams are answered."""

    def __init__(self, family: int, kind: int, address: object) -> None:
        self.socket = socket.socket(family, kind)
        self.socket.bind(address)
        self.kind = kind
        self.visits = 0
        self.visited = threading.Condition()
        if kind != socket.SOCK_DGRAM:
            self.socket.listen(16)
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self) -> None:
        while True:
            try:
                if self.kind == socket.SOCK_DGRAM:
                    data, peer = self.socket.recvfrom(64)
                    if data == b"stop":
                        return
                    self.count()
                    if peer:
                        self.socket.sendto(b"pong", peer)
                else:
                    connection, _ = self.socket.accept()
                    self.count()
                    connection.close()
            except OSError:
                return

    def count(self) -> None:
        with self.visited:
            self.visits += 1
            self.visited.notify_all()

    def after(self, visits: int) -> int:
        """Wait until so many have been counted: a visitor may leave before it is."""
        with self.visited:
            assert self.visited.wait_for(lambda: self.visits >= visits, HANG), "nobody came"
            return self.visits

    def close(self) -> None:
        if self.kind == socket.SOCK_DGRAM:
            with socket.socket(self.socket.family, self.kind) as closer:
                closer.sendto(b"stop", self.socket.getsockname())
        else:
            self.socket.shutdown(socket.SHUT_RDWR)
        self.thread.join(HANG)
        self.socket.close()


@contextlib.contextmanager
def listening(family: int, kind: int, address: object) -> Iterator[Listener]:
    """A listener, closed at the end."""
    listener = Listener(family, kind, address)
    try:
        yield listener
    finally:
        listener.close()


INTERNET = [("tcp", "127.0.0.1"), ("tcp", "::1"), ("tcp", "LAN"), ("udp", "127.0.0.1"), ("udp", "::1"), ("udp", "LAN")]


@contextlib.contextmanager
def internet(name: str, host: str) -> Iterator[tuple[Listener, str, int]]:
    """Such a listener on a free port; skips where the host has no such address."""
    address = lan_address() if host == "LAN" else host
    family = socket.AF_INET6 if address and ":" in address else socket.AF_INET
    kind = socket.SOCK_STREAM if name == "tcp" else socket.SOCK_DGRAM
    if address is None:
        pytest.skip("this host has no network address")
    try:
        listener = Listener(family, kind, (address, 0))
    except OSError as error:
        pytest.skip(f"{address}: {error}")
    try:
        yield listener, address, listener.socket.getsockname()[1]
    finally:
        listener.close()


@pytest.mark.parametrize(("name", "host"), INTERNET)
def test_a_service_of_the_host(name: str, host: str) -> None:
    with internet(name, host) as (listener, address, port):
        assert_escapes(act(name, address, port))
        visits = listener.after(1)
        assert_refused(inside(act(name, address, port)), NO_NETWORK)
        assert listener.visits == visits


@pytest.mark.parametrize(("name", "host"), INTERNET[:1] + INTERNET[3:4])
def test_granted_it_is_reached(name: str, host: str) -> None:
    with internet(name, host) as (listener, address, port):
        result = inside(act(name, address, port), network_access=True)
        assert "ESCAPED" in text(result), result
        assert listener.after(1) == 1


@pytest.mark.parametrize(("name", "host"), INTERNET)
def test_loopback_is_not_the_hosts(name: str, host: str) -> None:
    with internet(name, host) as (listener, address, port):
        assert_escapes(act(name, address, port))
        visits = listener.after(1)
        assert_refused(inside(act(name, address, port), network_access="loopback"), NOBODY | {errno.ETIMEDOUT})
        assert listener.visits == visits


def test_loopback_is_the_commands_own() -> None:
    assert_escapes(act("own_loopback"))
    result = inside(act("own_loopback"), network_access="loopback")
    assert "ESCAPED" in text(result), result
    assert_refused(inside(act("own_loopback")), NO_NETWORK)


def test_two_loopbacks_are_two() -> None:
    """The same port in two runs at once, and neither reaches the other."""
    code = (
        "import os, socket, sys\n"
        "s = socket.create_server(('127.0.0.1', 4567))\n"
        "os.write(int(sys.argv[1]), b'r')\n"
        "s.settimeout(0.5)\n"
        "try: s.accept(); print('visited')\n"
        "except TimeoutError: sys.stdin.read(); print('alone')\n"
    )
    with witness() as pipe, ThreadPoolExecutor(2) as pool:
        gate_read, gate_write = os.pipe()
        options = {"network_access": "loopback", "pass_fds": [pipe.write_end], "stdin": gate_read}
        runs = [pool.submit(inside, python(code, str(pipe.write_end)), **options) for _ in range(2)]
        pipe.hear(b"rr")
        assert_refused(inside(act("tcp", "127.0.0.1", 4567), network_access="loopback"), NOBODY)
        os.close(gate_write)
        assert [text(run.result()) for run in runs] == ["alone\n"] * 2
        os.close(gate_read)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "0.0.0.0"])
def test_nothing_is_served_to_the_host(host: str) -> None:
    assert_escapes(act("listen", host)) if host != "::1" else None
    assert_refused(inside(act("listen", host)), NO_NETWORK)


UNIX = [
    ("unix_stream", socket.SOCK_STREAM),
    ("unix_datagram", socket.SOCK_DGRAM),
    ("unix_seqpacket", socket.SOCK_SEQPACKET),
]


@pytest.mark.parametrize(("name", "kind"), UNIX)
@pytest.mark.parametrize("access", [False, "loopback", True])
def test_an_abstract_socket_of_the_host(name: str, kind: int, access: bool | str) -> None:
    """They have no file, so no mount hides them."""
    mark = new_mark()
    with listening(socket.AF_UNIX, kind, f"\0{mark}") as listener:
        assert_escapes(act(name, f"@{mark}"))
        visits = listener.after(1)
        result = inside(act(name, f"@{mark}"), network_access=access)
        assert_refused(result, {errno.EPERM, errno.EACCES, errno.ECONNREFUSED})
        assert listener.visits == visits


@pytest.mark.parametrize(("name", "kind"), UNIX)
@pytest.mark.parametrize("grant", ["allowed_dirs", "read_only_dirs", "writable_dirs", "working_dir"])
def test_a_socket_in_a_granted_directory(short_path: Path, name: str, kind: int, grant: str) -> None:
    """docker.sock, D-Bus, an agent's socket: a read-only mount does not stop connect(2)."""
    path = short_path / "s"
    with listening(socket.AF_UNIX, kind, str(path)) as listener:
        path.chmod(0o777)
        assert_escapes(act(name, path))
        visits = listener.after(1)
        result = inside(act(name, path), **{grant: short_path if grant == "working_dir" else [short_path]})
        assert_refused(result, {errno.EPERM, errno.EACCES, errno.ECONNREFUSED})
        assert listener.visits == visits


@pytest.fixture
def short_path(tmp_path: Path) -> Path:
    """A directory whose name leaves room in the 108 bytes of a socket's address."""
    if len(str(tmp_path)) > 90:
        pytest.skip("the temporary directory's path is too long for a socket")
    return tmp_path


def test_sockets_of_the_hosts_services_are_not_there() -> None:
    code = "import os\nprint(*(p for p in ('/run/docker.sock', '/var/run/docker.sock', '/run/dbus/system_bus_socket', '/run/systemd/private', '/run/user') if os.path.exists(p)))"
    assert text(inside(python(code))).strip() == ""


def test_a_run_does_not_reach_another_by_an_abstract_name() -> None:
    mark = new_mark()
    code = (
        "import os, socket, sys\n"
        "s = socket.socket(socket.AF_UNIX)\n"
        "try: s.bind('\\0' + sys.argv[2]); s.listen()\n"
        "except OSError: print('cannot')\n"
        "os.write(int(sys.argv[1]), b'r')\n"
        "s.settimeout(0.0)\n"
        "sys.stdin.read()\n"
        "try: s.accept(); print('visited')\n"
        "except OSError: print('alone')\n"
    )
    with witness() as pipe, ThreadPoolExecutor(1) as pool:
        gate_read, gate_write = os.pipe()
        run = pool.submit(inside, python(code, str(pipe.write_end), mark), pass_fds=[pipe.write_end], stdin=gate_read)
        pipe.hear(b"r")
        assert_refused(inside(act("unix_stream", f"@{mark}")), {errno.EPERM, errno.EACCES, errno.ECONNREFUSED})
        os.close(gate_write)
        assert "visited" not in text(run.result())
        os.close(gate_read)


FAMILIES = {
    "netlink": (16, 3, 0),
    "netlink netfilter": (16, 3, 12),
    "packet": (17, 3, 0),
    "raw": (2, 3, 1),
    "raw6": (10, 3, 58),
    "ping": (2, 2, 1),
    "alg": (38, 5, 0),
    "vsock": (40, 1, 0),
    "bluetooth": (31, 3, 1),
    "can": (29, 3, 1),
    "tipc": (30, 1, 0),
    "rds": (21, 5, 0),
    "key": (15, 3, 2),
    "xdp": (44, 3, 0),
    "kcm": (41, 2, 0),
    "smc": (43, 1, 0),
    "qipcrtr": (42, 2, 0),
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("access", [False, "loopback"])
def test_no_other_family(programs: Programs, family: str, access: bool | str) -> None:
    command = [programs("kernel"), "socket", *map(str, FAMILIES[family])]
    if family == "netlink":
        assert_escapes(command)
    result = inside(command, network_access=access, allowed_dirs=[programs.directory])
    assert_refused(result, NO_NETWORK | {errno.EPROTONOSUPPORT})


@pytest.mark.parametrize("family", ["packet", "alg", "vsock", "raw", "netlink netfilter"])
def test_no_other_family_with_the_network_either(programs: Programs, family: str) -> None:
    command = [programs("kernel"), "socket", *map(str, FAMILIES[family])]
    result = inside(command, network_access=True, allowed_dirs=[programs.directory])
    assert_refused(result, NO_NETWORK | {errno.EPROTONOSUPPORT})


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_NETLINK, socket.AF_PACKET])
def test_no_pair_of_another_family(family: int) -> None:
    """The kernel has no such pairs today; the filter does not wait for it to get some."""
    code = (
        "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True); pair = (ctypes.c_int * 2)()\n"
        f"print(libc.socketpair({family}, 1, 0, pair), ctypes.get_errno())"
    )
    assert text(outside(python(code))) != f"-1 {errno.EAFNOSUPPORT}\n", "the control: the family is known"
    for access in (False, "loopback", True):
        assert text(inside(python(code), network_access=access)) == f"-1 {errno.EAFNOSUPPORT}\n"


def test_a_pair_of_sockets_works() -> None:
    """Not an escape: both ends are the command's own, and half of all programs need one."""
    assert "ESCAPED" in text(inside(act("local_pair")))


@pytest.mark.parametrize("table", ["tcp", "tcp6", "udp", "unix"])
def test_the_hosts_sockets_are_not_listed(table: str) -> None:
    mark = new_mark()
    with (
        listening(socket.AF_UNIX, socket.SOCK_STREAM, f"\0{mark}"),
        listening(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0)) as tcp,
        listening(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0)) as udp,
    ):
        words = {
            "unix": mark,
            "tcp": f":{tcp.socket.getsockname()[1]:04X}",
            "udp": f":{udp.socket.getsockname()[1]:04X}",
        }
        if table in words:
            assert words[table] in Path(f"/proc/net/{table}").read_text()
        listed = inside(["sh", "-c", f"cat /proc/net/{table} 2>/dev/null; true"])
        assert words.get(table, "no such word") not in text(listed)
        seen = [line.split() for line in text(listed).splitlines()[1:]]
        if table == "unix":  # the launcher's own, by which prepared sandboxes hear their commands: without a name, and nobody's else
            theirs = {line.split()[6] for line in Path("/proc/net/unix").read_text().splitlines()[1:]}
            seen = [line for line in seen if len(line) > 7 or line[6] in theirs]
        assert len(seen) <= (0 if table == "unix" else 1)


def test_network_access_is_reported() -> None:
    for access in (False, True, "loopback"):
        entry = inside(["true"], network_access=access).enforcement["network_access"]
        assert isinstance(entry, ps.Enforced), (access, entry)
