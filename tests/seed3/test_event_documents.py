"""The page of events has every name and every payload key."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from tests.seed3.test_events import KEYS

from perdure import Client, engine, named

PAGE = (Path(__file__).parents[2] / "docs" / "events.md").read_text()
ROW = re.compile(r"^\| `(workflow\.[\w.]+)` \|([^|]*)\|", re.MULTILINE)
TABLE = {name: set(re.findall(r"`(\w+)`", keys)) for name, keys in ROW.findall(PAGE)}


def test_the_table_has_the_payload_keys_that_are_told():
    for name, keys in KEYS.items():
        assert TABLE[name] - {"status"} == keys, name


def test_the_table_has_every_name_that_is_made():
    source = inspect.getsource(named)
    made = set(re.findall(r'(?:yield |_just\()"([a-z.]+)"', source))
    made |= set(re.findall(r'yield \(\s*"([a-z.]+)"', source))
    assert len(made) > 12
    assert {f"workflow.{name}" for name in made} <= set(TABLE)
    in_graphs = "".join(
        path.read_text() for path in (Path(named.__file__).parent / "graph").glob("*.py")
    )
    marks = set(re.findall(r'"(step\.[a-z]+)"', in_graphs)) | {"step.poll", "step.loop"}
    assert {f"workflow.{name}" for name in marks} <= set(TABLE)


def test_the_page_names_the_arguments_of_a_subscription():
    arguments = [*inspect.signature(Client.events).parameters][1:]
    said = PAGE.partition("`client.events(")[2].partition(")`")[0]
    assert [name for name in arguments if name not in said] == []


def test_the_page_has_what_only_engines_tell():
    told = "".join(path.read_text() for path in Path(inspect.getfile(engine)).parent.rglob("*.py"))
    names = {*re.findall(r"""\.tell\(f?"((?:log|workflow)[a-z.]*[a-z])""", told)}
    assert names >= {"log.workflow", "workflow.watchdog"}
    assert [name for name in names if f"`{name}" not in PAGE] == []
