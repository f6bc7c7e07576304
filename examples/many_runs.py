"""Many runs side by side: cases with run_many(), and futures of an executor, which can be cancelled."""

import concurrent.futures

import proc_sandbox as ps

LIMITS = ps.Config(timeout=60, max_processes=16)
SUM = ["awk", "{ print $1 + $2 }"]
CASES = {"1 2\n": "3\n", "-5 5\n": "0\n", "2 2\n": "4\n"}


def example() -> list[tuple[str, ps.Result[str], bool]]:
    """Return (what was tried, its result, whether that is what should happen)."""
    jobs = [ps.Job(SUM, input=case) for case in CASES]
    jobs.append(ps.Job(["sleep", "60"], timeout=0.2))  # a Job has limits of its own
    *answers, late = ps.run_many(jobs, config=LIMITS, text=True, progress=False)

    with ps.SandboxExecutor(LIMITS, max_workers=4) as pool:
        endless = pool.submit(["sleep", "60"], text=True)
        futures = [pool.submit(["expr", "length", word], text=True) for word in ("a", "bb", "ccc")]
        lengths = [future.result() for future in futures]
        endless.cancel()  # it may be running: its tree is killed
        concurrent.futures.wait([endless])  # and nothing of it is left

    return [
        ("run_many(): a case each, in order", answers[0], [each.stdout for each in answers] == list(CASES.values())),
        ("one job is late, the others are not", late, late.timed_out and all(each.ok for each in answers)),
        ("futures", lengths[2], [each.stdout for each in lengths] == ["1\n", "2\n", "3\n"]),
        ("a future that runs is cancelled", lengths[0], endless.cancelled()),
    ]


if __name__ == "__main__":
    for title, result, as_expected in example():
        print(f"{title}: {result.reason.value}, {as_expected=}")
