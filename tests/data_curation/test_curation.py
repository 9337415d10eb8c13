"""The guarantee of the four stages together: one digest, whatever the workers, the folder or the store."""

from pathlib import Path

from data_curation.artifact import Artifact
from data_curation.clean import CleanConfig, clean
from data_curation.decontaminate import DecontaminateConfig, decontaminate
from data_curation.dedup import DedupConfig, dedup
from data_curation.extract import ExtractConfig, extract
from data_curation.sources import warc
from data_curation.sources.listing import resolve
from data_curation.sources.source import Source
from tests.data_curation.places import rows, run
from tests.data_curation.prose import page, paragraphs
from tests.data_curation.test_decontaminate import dialogues


def road(source: Source, held_out: Artifact, home: str, scratch: Path, workers: int) -> dict[str, dict[str, str]]:
    """Run extract, clean, dedup and decontaminate; the digest of every part of each."""
    listed, _ = resolve(source, scratch / "sources")
    config = ExtractConfig(sources=[source], bytes_per_task=8_000)
    made = [run(extract, config, [listed], home=f"{home}/extract", scratch=scratch, workers=workers)[0]]
    made.append(run(clean, CleanConfig(), made[-1], home=f"{home}/clean", scratch=scratch, workers=workers)[0])
    made.append(run(dedup, DedupConfig(), made[-1], home=f"{home}/dedup", scratch=scratch, workers=workers)[0])
    last = run(
        decontaminate,
        DecontaminateConfig(),
        made[-1],
        held_out,
        home=f"{home}/decontaminate",
        scratch=scratch,
        workers=workers,
    )
    made.append(last[0])
    assert len(rows(made[-1])) == 40
    assert len(made[-1].part("documents").files) > 1
    return {one.name: {part: one.part(part).digest for part in one.parts} for one in made}


def test_one_digest_with_any_workers_anywhere(bucket: str, tmp_path: Path) -> None:
    """One worker on disk, three in another folder, and one on s3 give every part of every stage the same digest."""
    pages = [warc.Page(f"https://a.example/{number}", page(number % 40)) for number in range(60)]
    for start in range(0, 60, 15):
        warc.write(pages[start : start + 15], tmp_path / "pages" / str(start))
    source = Source(name="pages", kind="warc", path=str(tmp_path / "pages"))
    held_out = dialogues(tmp_path / "dia", [paragraphs(3)[2]], [])
    one = road(source, held_out, str(tmp_path / "one"), tmp_path / "scratch1", 1)
    assert road(source, held_out, str(tmp_path / "three"), tmp_path / "scratch3", 3) == one
    assert road(source, held_out, f"{bucket}/store", tmp_path / "scratch-s3", 1) == one
