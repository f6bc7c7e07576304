"""A wall time limit: the run ends on time, with everything the command started."""

import proc_sandbox as ps

LOOP = "while :; do :; done"
DAEMON = "setsid sleep 60 & echo started; exit 0"


def example() -> list[tuple[str, ps.Result, bool]]:
    """Return (what was tried, its result, whether that is what should happen)."""
    endless = ps.run(["sh", "-c", LOOP], timeout=0.5)
    patient = ps.run(["sh", "-c", f"trap '' TERM; echo working; {LOOP}"], timeout="500ms")
    quick = ps.run(["sh", "-c", DAEMON], timeout=5)
    return [
        ("endless loop, timeout 0.5 s", endless, endless.timed_out),
        ("ignores SIGTERM, output kept", patient, patient.timed_out and "working" in patient.stdout.text()),
        ("leaves a daemon behind: not waited for", quick, quick.ok),
    ]


if __name__ == "__main__":
    for title, result, as_expected in example():
        print(f"{title}: {result.reason.value}, {result.execution_time:.2f} s, {as_expected=}")
