"""Discovery under a real Prefect server, against a Keepa that fails on request."""

from pathlib import Path

from keeper.postgres.jobs import hold_job
from tests.services.installation import Installation

JOB = "discovery.discovery"
FILE = 'marketplace = "DE"\n[find]\nrank_from = 1\nmost = 50\n'


def find(installation: Installation, folder: Path, text: str = FILE) -> None:
    """A file of lists that finds something in the simulator."""
    (folder / "mine.toml").write_text(text, encoding="utf-8")
    installation.environment["KEEPER_DISCOVERY_FILES"] = str(folder)


def test_products_join_the_catalog_for_their_tokens(installation: Installation, tmp_path: Path) -> None:
    find(installation, tmp_path)

    end = installation.run(JOB)

    assert end.state == "Completed", end.message
    [(found,)] = installation.rows("SELECT count(DISTINCT asin) FROM current_prices")
    assert found > 20
    assert end.message.startswith(f"{found} products joined the catalog of {found}")
    assert installation.rows("SELECT operation FROM keepa_calls WHERE tokens_consumed > 0 ORDER BY called_at") == [("query",), ("product",)]
    assert installation.count("token_reservations") == 0

    again = installation.run(JOB)
    assert again.message.startswith("0 products joined")
    assert again.message.endswith("0 tokens")


def test_a_passing_failure_is_tried_again_and_a_lasting_one_told(installation: Installation, tmp_path: Path) -> None:
    find(installation, tmp_path)
    installation.tell_simulator("faults", kind="503", path="/query", next=1)
    assert installation.run(JOB).state == "Completed"

    find(installation, tmp_path, FILE.replace("[find]", "bestsellers = [77]\n[find]"))
    installation.tell_simulator("faults", kind="400", path="/bestsellers", share=1.0)
    installation.rows("UPDATE candidates SET fetched_at = NULL, asked_at = NULL RETURNING 1")
    end = installation.run(JOB)
    assert end.state == "Failed"
    assert "mine: bestsellers of 77: Keepa answered 400" in end.message
    assert installation.count("token_reservations") == 0


def test_one_discovers_at_a_time(installation: Installation) -> None:
    with hold_job(installation.engine, "discovery") as is_mine:
        assert is_mine
        end = installation.end_of(installation.start(JOB))
    assert end.state == "Cancelled"
