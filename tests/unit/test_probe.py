"""What keeps user namespaces from a user, and the command that opens them."""

from __future__ import annotations

import pytest

from proc_sandbox.backends.linux.probe import userns_remedy
from proc_sandbox.launcher.process import launcher_path


@pytest.mark.parametrize(
    ("switch", "value", "command"),
    [
        ("user/max_user_namespaces", "0", "sysctl -w user.max_user_namespaces=15000"),
        ("kernel/unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "apparmor_parser -r /etc/apparmor.d/proc-sandbox"),
    ],
)
def test_the_switch_that_is_off_is_named(switch: str, value: str, command: str) -> None:
    settings = {"user/max_user_namespaces": "15000", "kernel/unprivileged_userns_clone": "1", switch: value}
    assert command in userns_remedy(settings.get, False)


def test_the_profile_is_for_the_launcher_alone_and_can_be_pasted() -> None:
    remedy = userns_remedy({"kernel/apparmor_restrict_unprivileged_userns": "1"}.get, False)
    assert launcher_path() in remedy
    assert r"{\n  userns,\n}" in remedy


def test_in_a_container_its_flags_are_named() -> None:
    assert "docker run" in userns_remedy({}.get, True)
    assert "apparmor=unconfined" in userns_remedy({}.get, True, profile="docker-default (enforce)")
    assert "docker" not in userns_remedy({}.get, False)


def test_what_a_filter_refuses_no_switch_opens() -> None:
    assert "SystemCallFilter" in userns_remedy({"user/max_user_namespaces": "0"}.get, False, filtered=True)
