"""Any POSIX system: a warden, one for each caller, looks after the runs; a monitor in C is the parent of each command."""
