"""One act of an attack, by name: acts.py NAME ARGUMENT...

Prints TRIED, does it, then prints ESCAPED, or "REFUSED ERRNO" where the kernel said no.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import glob
import mmap
import os
import resource
import signal
import socket
import stat
import struct
import sys

LIBC = ctypes.CDLL(None, use_errno=True)
WAIT = 20.0  # seconds; guards against a peer that never answers


def checked(result: int) -> int:
    """Turn libc's -1 into the OSError that it stands for."""
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


# --- files ---


def read(path: str) -> None:
    with open(path, "rb") as file:
        file.read(1)


def write(path: str) -> None:
    with open(path, "r+b") as file:
        file.write(b"!")


def append(path: str) -> None:
    with open(path, "ab") as file:
        file.write(b"!")


def truncate(path: str) -> None:
    os.truncate(path, 0)


def create(path: str) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))


def unnamed(path: str) -> None:
    os.close(os.open(path, os.O_TMPFILE | os.O_WRONLY, 0o600))


def unlink(path: str) -> None:
    os.unlink(path)


def rename(source: str, target: str) -> None:
    os.rename(source, target)


def link(source: str, target: str) -> None:
    os.link(source, target)


def symlink(source: str, target: str) -> None:
    os.symlink(source, target)


def mkdir(path: str) -> None:
    os.mkdir(path)


def rmdir(path: str) -> None:
    os.rmdir(path)


def chmod(path: str) -> None:
    os.chmod(path, 0o777)


def chown(path: str) -> None:
    os.chown(path, 4242, 4242)


def utime(path: str) -> None:
    os.utime(path, (1, 1))


def setxattr(path: str) -> None:
    os.setxattr(path, "user.proc_sandbox", b"!")


def mknod(path: str) -> None:
    """A device of our own: the null device, so that success does no harm."""
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))


def listdir(path: str) -> None:
    os.listdir(path)


def walk_to(name: str) -> None:
    """Look for a file of that absolute name wherever a path, a descriptor or a process may lead."""
    roots = ["/", "/.."]
    roots += [f"/proc/{entry}/{way}" for entry in os.listdir("/proc") if entry.isdigit() for way in ("root", "cwd")]
    roots += [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
    for root in roots:
        for depth in range(6):
            if os.path.exists(root + "/.." * depth + name):
                return
    raise FileNotFoundError(2, "nowhere")


def write_mapped(path: str) -> None:
    """Write to a read-only file by a shared mapping."""
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 1) as memory:
        memory[0] = 33


def chroot_out(directory: str) -> None:
    """The classical way out of a chroot."""
    descriptor = os.open("/", os.O_RDONLY)
    os.chroot(directory)
    os.fchdir(descriptor)
    for _ in range(64):
        os.chdir("..")
    os.chroot(".")


def remount(path: str) -> None:
    """Make the mount at the path writable: MS_REMOUNT | MS_BIND."""
    checked(LIBC.mount(None, path.encode(), None, 32 | 4096, None))


def bind(source: str, target: str) -> None:
    checked(LIBC.mount(source.encode(), target.encode(), None, 4096, None))


def unmount(path: str) -> None:
    checked(LIBC.umount2(path.encode(), 2))


def mount_tmpfs(path: str) -> None:
    checked(LIBC.mount(b"tmpfs", path.encode(), b"tmpfs", 0, b"size=4k"))


def open_by_handle(path: str) -> None:
    """A file handle leads around every mount: CVE-2014-4715's kin, "shocker"."""
    handle = ctypes.create_string_buffer(struct.pack("Ii", 128, 0) + bytes(128))
    mount = ctypes.c_int()
    checked(LIBC.name_to_handle_at(-100, path.encode(), handle, ctypes.byref(mount), 0))
    descriptor = os.open(path, os.O_RDONLY)
    os.close(checked(LIBC.open_by_handle_at(descriptor, handle, os.O_RDONLY)))


def writable_places() -> None:
    """Anything writable that is not the command's own: neither private, nor below /proc, nor a plain device."""
    own = ("/proc", "/dev", "/tmp")
    for directory, names, files in os.walk("/"):
        names[:] = [name for name in names if os.path.join(directory, name) not in own]
        for name in [".", *files]:
            path = os.path.join(directory, name)
            if not os.path.islink(path) and os.access(path, os.W_OK):
                print(path)
                return
    raise PermissionError(13, "nothing")


def sysctls() -> None:
    """Open for writing whatever steers the kernel."""
    places = ["/proc/sysrq-trigger", "/proc/mtrr", "/proc/acpi", "/proc/scsi/scsi", "/proc/timer_list"]
    for directory, _, files in os.walk("/proc/sys"):
        places += [os.path.join(directory, name) for name in files]
    for path in places:
        try:
            os.close(os.open(path, os.O_WRONLY))
        except OSError:
            continue
        print(path)
        return
    raise PermissionError(13, "nothing")


def executables() -> None:
    """Open every running program for writing, this one's included (CVE-2019-5736)."""
    opened = 0
    error = 0
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                os.close(os.open(f"/proc/{entry}/exe", os.O_WRONLY))
                opened += 1
            except OSError as refusal:
                error = refusal.errno or 1
    if not opened:
        raise OSError(error, "no program could be opened for writing")


def nothing_found() -> OSError:
    return OSError(errno.ENODATA, "nothing")


def find_content(path: str) -> None:
    """Read a file that has something in it."""
    with open(path, "rb") as file:
        if not file.read():
            raise nothing_found()


def find_by_descriptor(path: str) -> None:
    """By a descriptor of the directory, and one that is only a place (O_PATH)."""
    found = b""
    directory = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY)
    place = os.open(os.path.basename(path), os.O_PATH | os.O_NOFOLLOW, dir_fd=directory)
    for way in (f"/proc/self/fd/{place}", f"/proc/self/fd/{directory}/{os.path.basename(path)}"):
        with open(way, "rb") as file:
            found += file.read()
    if not found:
        raise nothing_found()


def find_entry(path: str) -> None:
    if not os.listdir(path):
        raise nothing_found()


def find_anywhere(directory: str) -> None:
    """Any file with the secret in it: below the directory, however it is reached, and below /tmp and /dev."""
    mark = "the secret that nobody is to finD".lower().encode()  # this file itself does not hold it
    roots = [directory, f"/proc/self/root{directory}", "/proc/self/cwd/.", "/proc/1/cwd", "/tmp", "/dev"]
    for root in roots:
        for place, _, files in os.walk(root):
            for name in files:
                path = os.path.join(place, name)
                with contextlib.suppress(OSError):
                    if stat.S_ISREG(os.stat(path).st_mode) and mark in open(path, "rb").read():  # noqa: SIM115
                        return
    raise nothing_found()


def exchange(source: str, target: str) -> None:
    """renameat2(2) with RENAME_EXCHANGE."""
    checked(LIBC.renameat2(-100, source.encode(), -100, target.encode(), 2))


def in_directory(directory: str, name: str, *arguments: str) -> None:
    os.chdir(directory)
    globals()[name](*arguments)


# --- processes ---


def signal_process(pid: str, number: str) -> None:
    os.kill(int(pid), int(number))


def pidfd(pid: str) -> None:
    os.pidfd_open(int(pid))


def ptrace(pid: str) -> None:
    """PTRACE_SEIZE: attaches without stopping."""
    checked(LIBC.ptrace(0x4206, int(pid), None, None))


def peek(pid: str) -> None:
    """process_vm_readv of one byte; which address does not matter, access is checked first."""
    byte = ctypes.create_string_buffer(1)

    class Iovec(ctypes.Structure):
        _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))

    local = Iovec(ctypes.addressof(byte), 1)
    with open(f"/proc/{pid}/maps", encoding="ascii") as maps:
        remote = Iovec(int(maps.readline().split("-")[0], 16), 1)
    checked(LIBC.process_vm_readv(int(pid), ctypes.byref(local), 1, ctypes.byref(remote), 1, 0))


def proc_read(pid: str, name: str) -> None:
    path = f"/proc/{pid}/{name}"
    if name in {"root", "cwd", "exe"}:
        os.readlink(path)
    elif name in {"fd", "map_files", "task"}:
        os.listdir(path)
        if name == "map_files":
            os.readlink(f"{path}/{os.listdir(path)[0]}")
    elif name == "mem":
        os.close(os.open(path, os.O_RDWR))
    else:
        with open(path, "rb") as file:
            if not file.read(64):
                raise PermissionError(13, "empty")


def priority(pid: str) -> None:
    os.setpriority(os.PRIO_PROCESS, int(pid), 19)


def affinity(pid: str) -> None:
    os.sched_setaffinity(int(pid), os.sched_getaffinity(0))


def limit(pid: str) -> None:
    resource.prlimit(int(pid), resource.RLIMIT_CORE)


def real_time() -> None:
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))


def nicer() -> None:
    os.setpriority(os.PRIO_PROCESS, 0, -5)


def raise_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard - 1))
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, hard))
    except ValueError as error:  # what the module makes of EPERM
        raise PermissionError(errno.EPERM, "setrlimit") from error


def shun_oom() -> None:
    with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("-1000")


def become(uid: str) -> None:
    os.setresuid(int(uid), int(uid), int(uid))


def kill_all(rounds: str) -> None:
    """kill(-1) and kill(0) with signals that can and cannot be caught; survives only where nothing else dies."""
    for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    for _ in range(int(rounds)):
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
            with contextlib.suppress(ProcessLookupError):  # there may be nobody else
                os.kill(-1, number)
            os.kill(0, number)


# --- network ---


def tcp(host: str, port: str) -> None:
    socket.create_connection((host, int(port)), timeout=WAIT).close()


def udp(host: str, port: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as client:
        client.settimeout(WAIT)
        client.sendto(b"ping", (host, int(port)))
        client.recv(16)


def unix_stream(path: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(WAIT)
        client.connect(path.replace("@", "\0", 1) if path.startswith("@") else path)


def unix_datagram(path: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        client.settimeout(WAIT)
        client.sendto(b"ping", path.replace("@", "\0", 1) if path.startswith("@") else path)


def unix_seqpacket(path: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        client.settimeout(WAIT)
        client.connect(path.replace("@", "\0", 1) if path.startswith("@") else path)


def listen(host: str) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as server:
        server.bind((host, 0))
        server.listen()


def local_pair() -> None:
    """A socket pair and a server of the command's own: not an escape, programs need the pair."""
    left, right = socket.socketpair()
    left.sendall(b"x")
    right.recv(1)


def own_loopback() -> None:
    """A server and its client, both in here."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()[:2], timeout=WAIT) as client,
    ):
        connection, _ = server.accept()
        with connection:
            client.sendall(b"x")
            connection.recv(1)


# --- what lies outside of files ---


def sysv(key: str) -> None:
    """Attach a segment that somebody else made."""
    identifier = checked(LIBC.shmget(int(key), 0, 0))
    LIBC.shmat.restype = ctypes.c_void_p
    if LIBC.shmat(identifier, None, 0) == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), "shmat")


def sysv_queue(key: str) -> None:
    checked(LIBC.msgget(int(key), 0))


def sysv_semaphore(key: str) -> None:
    checked(LIBC.semget(int(key), 0, 0))


def posix_queue(name: str) -> None:
    os.close(checked(LIBC.mq_open(name.encode(), os.O_RDONLY)))


KEY_SPEC_USER_KEYRING = -4
KEY_SPEC_SESSION_KEYRING = -3
ADD_KEY = 248 if os.uname().machine == "x86_64" else 217
REQUEST_KEY = 249 if os.uname().machine == "x86_64" else 218
KEYCTL = 250 if os.uname().machine == "x86_64" else 219
KEYCTL_SEARCH = 10


def key_add(name: str, keyring: str) -> None:
    LIBC.syscall.restype = ctypes.c_long
    checked(LIBC.syscall(ADD_KEY, b"user", name.encode(), b"secret", ctypes.c_size_t(6), int(keyring)))


def key_search(name: str, keyring: str) -> None:
    LIBC.syscall.restype = ctypes.c_long
    checked(LIBC.syscall(KEYCTL, KEYCTL_SEARCH, int(keyring), b"user", name.encode(), 0))


def key_request(name: str) -> None:
    LIBC.syscall.restype = ctypes.c_long
    checked(LIBC.syscall(REQUEST_KEY, b"user", name.encode(), None, 0))


# --- terminals ---


def own_terminal() -> None:
    os.close(os.open("/dev/tty", os.O_RDWR))


def steal_terminal(descriptor: str) -> None:
    """TIOCSCTTY with force."""
    checked(LIBC.ioctl(int(descriptor), 0x540E, 1))


def reach_terminal(device: str) -> None:
    """Open the terminal with that device number (TIOCGDEV) by whatever name is in sight."""
    names = ["/dev/tty", "/dev/console", *glob.glob("/dev/pts/*"), *glob.glob("/proc/*/fd/*"), *glob.glob("/proc/*/root/dev/pts/*")]
    for name in names:
        try:
            descriptor = os.open(name, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        except OSError:
            continue
        number = ctypes.c_uint()
        found = LIBC.ioctl(descriptor, 0x80045432, ctypes.byref(number)) == 0 and number.value == int(device)
        os.close(descriptor)
        if found:
            return
    raise OSError(errno.ENOENT, "none of its names is here")


def main(name: str, *arguments: str) -> None:
    """Do the act, tell what came of it."""
    act = globals()[name]
    print("TRIED", flush=True)
    try:
        act(*arguments)
    except TimeoutError:
        print("REFUSED 110")
    except OSError as refusal:
        print(f"REFUSED {refusal.errno}")
    else:
        print("ESCAPED")


if __name__ == "__main__":
    main(*sys.argv[1:])
