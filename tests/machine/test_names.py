"""Names that become part of a path: plain ones pass, any that could lead elsewhere are refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from medseg_gan.errors import MedsegError
from medseg_gan.machine.names import check_name


@pytest.mark.parametrize(
    "name", ["patient-001-01", "generated-0003000000", "0003-1a2b3c4d", "classifier-00.pt", "a" * 64]
)
def test_plain_names_pass_as_they_are(name: str) -> None:
    assert check_name(name, Path("cases.json")) == name


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "a/b", "/x", "a\\b", "a..b", ".hidden", "-x", "a\n", "a\0", "é", "a" * 65, 3, None, ["a"]],
)
def test_what_could_lead_elsewhere_is_refused_in_one_line(name: object) -> None:
    with pytest.raises(MedsegError, match=r"cases\.json holds the name .* could lead out of its folder") as told:
        check_name(name, Path("cases.json"))
    assert "\n" not in str(told.value)
