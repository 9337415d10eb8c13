"""Credentials planted in environment, URLs and messages are found nowhere: store, logs, pages, Prefect's database."""

import traceback
from pathlib import Path

import pytest

from data_curation.settings import ConfigError, InputError, StageError, TransientError
from flows.config import load
from tasks.secrets import clean, cleaned
from tests.conftest import HOME
from tests.tasks.conftest import Road
from tests.tasks.toys import SortConfig

PLANTED = ("planted-in-environment-4711", "planted-in-a-url-4712")


def _holding(folder: Path) -> list[Path]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if any(secret.encode() in path.read_bytes() for secret in PLANTED)]


def test_a_secret_reaches_nothing_that_is_kept(
    road: Road, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    """A stage that prints and raises secrets: they are in no file of the store, no log, no page and no database."""
    monkeypatch.setenv("PLANTED_TOKEN", PLANTED[0])
    monkeypatch.setenv("PLANTED_URL", f"https://me:{PLANTED[1]}@127.0.0.1/x")
    road()
    with pytest.raises(InputError, match=r"sort: no access with \*\*\* to https://\*\*\*@127\.0\.0\.1/x"):
        road(sort_config=SortConfig(fail="secret", mended=str(tmp_path / "never")))
    with pytest.raises(TransientError):
        road(sort_config=SortConfig(fail="secret print", mended=str(tmp_path / "never")))
    from flows.server import flush

    flush()
    assert (HOME / "prefect.db").exists() and list((tmp_path / "store").rglob("log.txt"))
    assert _holding(HOME) == _holding(tmp_path / "store") == []
    said = capfd.readouterr()
    assert not any(secret in said.out + said.err for secret in PLANTED)


def test_errors_keep_their_kind_and_lose_their_secrets(monkeypatch: pytest.MonkeyPatch):
    """Also an error that only caused the one at hand is left out of what is printed."""
    monkeypatch.setenv("PLANTED_TOKEN", PLANTED[0])
    assert cleaned(InputError("nothing to hide")) is None
    for error, kind in (
        (InputError(PLANTED[0]), InputError),
        (TimeoutError(PLANTED[0]), TransientError),
        (ValueError(f"https://me:{PLANTED[1]}@host"), StageError),
    ):
        harmless = cleaned(error)
        assert type(harmless) is kind and not any(secret in str(harmless) for secret in PLANTED)
    outer = StageError("it failed")
    outer.__cause__ = ValueError(PLANTED[0])
    harmless = cleaned(outer)
    assert str(harmless) == "it failed" and PLANTED[0] not in "".join(traceback.format_exception(harmless))


def test_short_values_and_other_variables_are_left(monkeypatch: pytest.MonkeyPatch):
    """Words that happen to be the value of a variable stay in texts."""
    monkeypatch.setenv("SHORT_TOKEN", "dedup")
    monkeypatch.setenv("PLANTED_NAME", "decontaminate")
    assert clean("dedup, decontaminate") == "dedup, decontaminate"


@pytest.mark.parametrize("value", [f"s3://me:{PLANTED[1]}@bucket/x", PLANTED[0]])
def test_a_setting_with_a_secret_is_refused_without_repeating_it(value: str, monkeypatch: pytest.MonkeyPatch):
    """Settings are parameters of a flow and are kept: a credential in one ends the run before it begins."""
    monkeypatch.setenv("PLANTED_TOKEN", PLANTED[0])
    with pytest.raises(ConfigError, match=r"run\.store: a credential is in it") as caught:
        load("demo", [f"run.store={value}"])
    assert not any(secret in str(caught.value) for secret in PLANTED)
