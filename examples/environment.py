"""The environment: small and clean, what is named and nothing of the caller's."""

import os

import proc_sandbox as ps


def variables(result: ps.Result) -> dict[str, str]:
    """Return what env(1) printed, as a mapping."""
    lines = result.stdout.text().splitlines()
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def example() -> list[tuple[str, ps.Result, bool]]:
    """Return (what was tried, its result, whether that is what should happen)."""
    os.environ["EXAMPLE_SECRET"] = "not for the command"
    os.environ["EXAMPLE_WANTED"] = "for the command"
    try:
        default = ps.run(["env"])
        mapping = ps.run(["env"], env={"GREETING": "hello"})
        listed = ps.run(["env"], env=["GREETING=hello", "LANG=C"], pass_env=["EXAMPLE_WANTED"])
    finally:
        del os.environ["EXAMPLE_SECRET"], os.environ["EXAMPLE_WANTED"]
    seen = variables(listed)
    return [
        ("default: the caller's is not inherited", default, "EXAMPLE_SECRET" not in variables(default)),
        ("env={...}", mapping, variables(mapping).get("GREETING") == "hello"),
        (
            "env=[...], one variable passed on",
            listed,
            seen.get("LANG") == "C"
            and seen.get("EXAMPLE_WANTED") == "for the command"
            and "EXAMPLE_SECRET" not in seen,
        ),
    ]


if __name__ == "__main__":
    for title, result, as_expected in example():
        print(f"{title}: {as_expected=}")
        print(result.stdout.text())
