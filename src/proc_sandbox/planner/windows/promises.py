"""What the Windows backend does not promise, and where what it promises ends: data, which the tests go by and docs/systems.md shows."""

from collections.abc import Mapping

__all__ = ["DIFFERENCES", "WEAKER"]

DIFFERENCES: Mapping[str, str] = {
    "threads": "a job counts processes; threads are not limited",
    "file size": "Windows limits no file's size",
    "open files": "Windows limits no process's handles",
    "pass_fds": "a descriptor is a number of the C runtime's, not of the system's",
    "signals": "Windows has no signals: terminate() is kill(), send_signal() refuses any other",
    "pause": "Windows documents no way to stop a tree of processes: refused",
    "grace": "Windows has no SIGTERM: kill_grace has no effect",
}
"""What this backend does not promise at all: names of promises (tests/support/behaviours.py), and why. docs/systems.md shows it."""

WEAKER: Mapping[str, tuple[str, ...]] = {
    "timeout": (
        ("the deadline is held by the thread that called run(); should the caller die, the run ends with it (KILL_ON_JOB_CLOSE). While the "
        "caller is suspended as a whole nobody holds it"),
    ),
    "tree": (
        ("what Windows starts on the command's behalf (WMI, the task scheduler, COM servers) is the service's child, not the job's; an "
        "AppContainer may not ask most of them"),
        ("without AppContainers a command can have a process that it may open, another one of low integrity, be the parent of its child "
        "(PROC_THREAD_ATTRIBUTE_PARENT_PROCESS), which then is in that one's job and not in the run's"),
    ),
    "memory": (
        ("commit charge: what was promised to the processes, written to or not, and no page cache. An allocation beyond it fails, and the run "
        "is ended when Windows tells of it: Reason.MEMORY, also where the command made do without"),
    ),
    "cpu rate": ("a cap for each scheduling interval, in steps of a hundredth of a percent of all processors together",),
    "cpu time": ("looked at every 20 ms; behind it the job's own limit, which counts user mode only",),
    "processes": (
        ("one too many fails to start, as does every further one; processes_exceeded says so. The python.exe of a virtual environment is two; the "
        "console's own process (conhost.exe) may be one more"),
    ),
    "usage": (
        "peak memory is the job's peak of commit charge; how many processes there were at a time is not counted (peak_processes is None)",
    ),
    "crash": ("there are no signals: what another process ended has an exit code; the exit code is the exception's, unsigned (0xC0000005 is 3221225477); core_dumps=False: no dialog, no error reporting",),
    "live usage": ("memory is commit charge, tasks are processes; what goes to and from disks is not told",),
    "events": ("the command does not wait while nobody takes its events: up to max_output of each stream lies in memory",),
    "sinks": ("functions are called from a thread for each stream, both at once where they are given for both",),
    "arguments": ("a batch file (.bat, .cmd) is not run by itself, for no quoting is safe there: name cmd yourself",),
    "environment": (
        "names are the same in either case. The base is what Windows programs need: SYSTEMROOT, PATH, PATHEXT, TEMP, USERPROFILE and their like",
    ),
    "private directory": (
        "it lies among the caller's temporary files, on a disk, with no size of its own (tmp_size); TEMP and USERPROFILE are there too",
    ),
    "files": (
        ("by an access control entry for the run's AppContainer, which is added to what was granted and all below it when the run starts, and taken "
        "back at its end: a large directory takes time. Directories above a granted one cannot be listed. What Windows shows to every app can "
        "be read: programs that are installed for all users, and parts of the registry"),
        ("a file that an earlier run has made has the access control which that run gave it: one open to every app can be written to where its "
        "directory is granted for reading only, unless that lies in a writable one"),
        "without AppContainers, low integrity: nothing is written but what was granted, reading stays open. That is not called enforced",
    ),
    "network": (
        'no network at all, or the host\'s: "loopback" is refused. With network_access=True the host\'s own loopback stays closed',
    ),
    "others": (
        "without AppContainers processes of other runs can be reached, and a run can keep others from starting: a mutex has one name for all",
    ),
    "honesty": (
        "there is no filter of system calls: policies of the process narrow what it reaches of the kernel, and syscalls is called partial",
        "hostname, umask, tmp_size, read_bps and write_bps have no mechanism: a value other than the default is refused",
        "nice is a priority class: 0 normal, 1 to 9 below normal, 10 to 19 idle",
        "a job with UI restrictions has no others in it or around it: where the caller is in one, ipc is partial; inside none can be made",
    ),
}
"""What it promises, and where the promise ends. docs/systems.md shows it."""
