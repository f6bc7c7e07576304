"""Any POSIX system: a warden, one for each caller, looks after the runs; a monitor in C is the parent of each command.

Here are the variables by which processes are found again.
"""

__all__ = ["MARK", "MONITOR"]

MARK = "PROC_SANDBOX_RUN"
"""By it descendants are found that have left parent, session and group."""
MONITOR = "PROC_SANDBOX_MONITOR"
"""By it a monitor is found whose warden has died: it is none of the run's processes."""
