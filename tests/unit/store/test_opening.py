"""What is opened, with which settings, and what is refused."""

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from tests.contract.store_contract import World, request

from perdure.errors import Invalid, SchemaMismatch, Unavailable, UsageError
from perdure.store.opening import open_store, parse_url, public


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("app.db", "not a URL"),
        ("sqlite://", "names a host"),
        ("sqlite:///", "memory://"),
        ("sqlite:///:memory:", "memory://"),
        ("sqlite://host/a.db", "names a host"),
        ("sqlite:///a.db?mode=ro", "options"),
        ("memory://name", "has no name"),
        ("mysql://x", "mysql:// is unknown"),
    ],
)
def test_a_url_that_names_no_store_is_refused(url: str, says: str):
    with pytest.raises(Invalid, match=says):
        open_store(url)


def test_paths_are_relative_or_absolute_and_links_lead_to_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link.db").symlink_to(tmp_path / "real.db")
    expected = str((tmp_path / "real.db").resolve())
    assert parse_url("sqlite:///real.db") == expected
    assert parse_url(f"sqlite:///{tmp_path}/real.db") == expected
    assert parse_url("sqlite:///link.db") == expected


@pytest.mark.parametrize(
    "options", [{"synchronous": "NORMAL"}, {"synchronous": "off"}, {"journal_mode": "DELETE"}]
)
def test_settings_that_lose_acknowledged_work_are_refused_unless_asked_for(
    tmp_path: Path, options: dict[str, str]
):
    url = f"sqlite:///{tmp_path}/a.db"
    with pytest.raises(UsageError, match="allow_data_loss"):
        open_store(url, options=options)
    assert not (tmp_path / "a.db").exists()
    store = open_store(url, options=options, allow_data_loss=True)
    assert World(store).start().created
    store.close()


@pytest.mark.parametrize("options", [{"synchronous": "maybe"}, {"cache": 1}])
def test_options_that_do_not_exist_are_refused(options: dict[str, str]):
    with pytest.raises(UsageError, match="options"):
        open_store("memory://", options=options, allow_data_loss=True)


def test_every_connection_is_durable_and_never_checkpoints_by_itself(tmp_path: Path):
    store = open_store(f"sqlite:///{tmp_path}/a.db", options={"synchronous": "full"})

    def pragma(name: str) -> object:
        return store.database.execute(f"PRAGMA {name}").fetchone()[0]

    assert pragma("journal_mode") == "wal"
    assert pragma("synchronous") == 2
    assert pragma("wal_autocheckpoint") == 0
    assert (pragma("cache_size"), pragma("mmap_size")) == (-49152, 0)
    reader = store.reader()
    assert reader.database.execute("PRAGMA query_only").fetchone()[0] == 1
    assert reader.database.execute("PRAGMA wal_autocheckpoint").fetchone()[0] == 0
    reader.close()
    store.close()


@pytest.mark.parametrize(
    ("level", "number"), [("OFF", 0), ("NORMAL", 1), ("FULL", 2), ("EXTRA", 3)]
)
def test_the_level_of_durability_is_set_and_not_left_to_how_sqlite_was_built(
    tmp_path: Path, level: str, number: int
):
    store = open_store(
        f"sqlite:///{tmp_path}/a.db", options={"synchronous": level}, allow_data_loss=True
    )
    assert store.database.execute("PRAGMA synchronous").fetchone()[0] == number
    store.close()


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path):
    path = tmp_path / "notes.txt"
    path.write_text("not a database, " * 100)
    for readonly in (False, True):
        with pytest.raises(Invalid, match="not a SQLite database"):
            open_store(f"sqlite:///{path}", readonly=readonly)
    assert path.read_text() == "not a database, " * 100


def test_a_folder_and_a_missing_folder_are_told_apart(tmp_path: Path):
    with pytest.raises(Invalid, match="is a folder"):
        open_store(f"sqlite:///{tmp_path}")
    with pytest.raises(Invalid, match="does not exist"):
        open_store(f"sqlite:///{tmp_path}/missing/a.db")


def test_reading_never_creates_a_file_and_never_writes(tmp_path: Path):
    path = tmp_path / "a.db"
    with pytest.raises(Invalid, match="there is no database"):
        open_store(f"sqlite:///{path}", readonly=True)
    assert list(tmp_path.iterdir()) == []
    writer = open_store(f"sqlite:///{path}")
    run = World(writer).start()
    reader = open_store(f"sqlite:///{path}", readonly=True)
    reader.migrate(1)
    assert reader.rows([run.run])[0].run_id == run.run_id
    with pytest.raises(Unavailable, match="readonly"):
        reader.start([request("new")], 1)
    reader.tidy(idle=True)
    reader.close()
    writer.close()


def test_each_memory_store_is_a_database_of_its_own():
    one, two = open_store("memory://"), open_store("memory://")
    World(one).start()
    assert World(two).store.find("order-1") is None
    one.close()
    two.close()


def test_a_closed_store_says_so_and_may_be_closed_again(tmp_path: Path):
    store = open_store(f"sqlite:///{tmp_path}/a.db")
    store.migrate(1)
    store.close()
    store.close()
    with pytest.raises(UsageError, match="was closed"):
        store.find("x")
    with pytest.raises(UsageError, match="was closed"):
        store.post([], 1)


def test_a_database_without_tables_asks_to_be_migrated(tmp_path: Path):
    store = open_store(f"sqlite:///{tmp_path}/a.db")
    with pytest.raises(SchemaMismatch, match="a worker makes them"):
        store.find("x")
    store.close()


_LOOKS = """
import os, sys
from perdure.errors import Unavailable
from perdure.store.opening import open_store
import perdure.store.sqlite.store
if os.getuid() == 0:
    os.setgid(65534), os.setuid(65534)
try:
    open_store(sys.argv[1], readonly=True)
except Unavailable as exc:
    print(exc)
"""


def test_a_folder_that_cannot_be_written_is_named_with_the_way_out():
    # Not in tmp_path, where only its owner may look: root may write everywhere, so another looks.
    with TemporaryDirectory(prefix="perdure-") as folder:
        url = f"sqlite:///{folder}/a.db"
        store = open_store(url)
        store.migrate(1)
        store.close()
        Path(folder).chmod(0o555)
        said = subprocess.run(
            [sys.executable, "-c", _LOOKS, url], capture_output=True, text=True, check=False
        )
        Path(folder).chmod(0o755)
    assert "must be writable, also to look only" in said.stdout, said
    assert folder in said.stdout


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://app:s3cr3t@h:5432/db?schema=a", "postgresql://app@h:5432/db?schema=a"),
        ("postgresql://app:p@ss@h/db", "postgresql://app@h/db"),
        ("postgresql://app@h/db", "postgresql://app@h/db"),
        ("sqlite:///a.db", "sqlite:///a.db"),
    ],
)
def test_a_password_is_never_shown(url: str, shown: str):
    assert public(url) == shown


def test_a_password_in_a_url_that_is_no_store_is_not_repeated():
    with pytest.raises(Invalid) as caught:
        open_store("mysql://app:s3cr3t@h/db")
    assert "s3cr3t" not in str(caught.value)
    assert "mysql://app@h/db" in str(caught.value)
