"""Tracing and taking down in a bucket: the same answers as on disk, and no object that holds the planted text."""

from pathlib import Path

import pytest

from data_curation.files import copy_file, listing
from tests.flows.crawls import PLANTED, holding, preset, url
from tests.flows.test_road import tokenmill


@pytest.mark.usefixtures("prefect_api")
def test_a_bucket_is_no_other_store(bucket: str, tmp_path: Path) -> None:
    """Trace a page and a model, take the page down, and search a copy of every object."""
    config, shared = preset(tmp_path, range(20)), ["--set", "pretrain.phases.0.tokens=5120", "--until", "pretrain"]
    code, run, said = tokenmill("run", config, "--store", bucket, *shared)
    assert code == 0, said
    code, answer, said = tokenmill("trace", run["run"], "--step", "2", "--store", bucket)
    assert code == 0, said
    one = answer["documents"][0]
    code, answer, said = tokenmill("trace", one["url"], "--store", bucket)
    assert code == 0, said
    assert answer["documents"][0]["id"] == one["id"] and 2 in answer["documents"][0]["models"][0]["phases"][0]["steps"]
    (tmp_path / "urls.txt").write_text(url(7))
    assert holding(copied(bucket, tmp_path / "before"), PLANTED)
    code, answer, said = tokenmill("takedown", tmp_path / "urls.txt", config, "--purge", "--store", bucket, *shared)
    assert code == 0, said
    # 9 has the planted paragraph as well, but is another page: nobody has asked for it.
    assert {one["url"] for one in answer["documents"]} == {url(7), url(8)}
    (tmp_path / "urls.txt").write_text(url(9))
    code, _, said = tokenmill("takedown", tmp_path / "urls.txt", config, "--purge", "--store", bucket, *shared)
    assert code == 0, said
    assert holding(copied(bucket, tmp_path / "after"), PLANTED) == []
    assert sorted(listing(f"{bucket}/blocked")) == ["00001.txt", "00002.txt"]


def copied(bucket: str, folder: Path) -> Path:
    """Every object as a file."""
    for path in listing(bucket):
        copy_file(f"{bucket}/{path}", str(folder / path))
    return folder
