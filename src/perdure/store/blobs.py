"""Where large history rows lie: the protocol of a blob store, and one in a folder.

A blob's name says nothing of what it holds: the database's own folder, and chance. A blob is
written once, never changed, and referred to by one row at most.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable
from urllib.parse import unquote, urlsplit

from perdure.errors import Invalid

_NAME = re.compile(r"[0-9a-z]{1,64}/[0-9a-f]{8,128}")


class Blob(NamedTuple):
    """A blob in a list. ``at``: when it was put, an aware datetime, by the blob store's clock."""

    name: str
    at: datetime


@runtime_checkable
class BlobStore(Protocol):
    """Keeps large payloads outside of the database.

    Names are text like ``"3f…/9b…"``: lower-case letters, digits and one ``/``. The methods are
    plain and are called in several threads; what they raise, but for ``KeyError``, is taken for a
    trouble that passes.
    """

    def put(self, name: str, data: bytes) -> None:
        """Write a blob; it is durable when this returns."""
        ...

    def get(self, name: str) -> bytes:
        """Return a blob.

        Raises:
            KeyError: there is none.
        """
        ...

    def delete(self, name: str) -> None:
        """Delete a blob; one that is not there is no error."""
        ...

    def list(self, after: str, limit: int) -> Sequence[Blob]:
        """Return up to ``limit`` blobs whose names come after ``after``, in the order of names."""
        ...


class FileBlobs:
    """Blobs in a folder, which all workers and clients must see under the path they give.

    A blob is written beside its place, made durable and then renamed, so that there is never half
    of one. ``path`` is made if it does not exist.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def __repr__(self) -> str:
        return f"FileBlobs({str(self.path)!r})"

    def put(self, name: str, data: bytes) -> None:
        """Write a blob: see :class:`BlobStore`."""
        place = self._place(name)
        if not place.parent.exists():
            _make(place.parent)
        near = place.with_name(f"{place.name}.{os.urandom(6).hex()}.tmp")
        try:
            with near.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            near.replace(place)
        except BaseException:
            near.unlink(missing_ok=True)
            raise
        sync_folder(place.parent)

    def get(self, name: str) -> bytes:
        """Return a blob: see :class:`BlobStore`."""
        try:
            return self._place(name).read_bytes()
        except FileNotFoundError as exc:
            if not self.path.exists():  # not mounted, say: that passes
                raise OSError(f"there is no folder {self.path}") from exc
            raise KeyError(name) from exc

    def delete(self, name: str) -> None:
        """Delete a blob: see :class:`BlobStore`."""
        self._place(name).unlink(missing_ok=True)

    def list(self, after: str, limit: int) -> Sequence[Blob]:
        """List blobs: see :class:`BlobStore`.

        What a process left behind that died while it wrote is listed too, to be deleted.
        """
        found: list[Blob] = []
        for name, place in self._all(after):
            try:
                at = datetime.fromtimestamp(place.stat().st_mtime, UTC)
            except FileNotFoundError:
                continue
            found.append(Blob(name, at))
            if len(found) == limit:
                break
        return found

    def _all(self, after: str) -> Iterator[tuple[str, Path]]:
        """Yield names in order; whole folders that come before ``after`` are passed over."""
        home, _, rest = after.partition("/")
        for folder in _sorted(self.path):
            if folder.name < home:
                continue
            for shard in _sorted(folder):
                if folder.name == home and shard.name < rest[:2]:
                    continue
                for place in _sorted(shard):
                    name = f"{folder.name}/{place.name}"
                    if name > after:
                        yield name, place

    def _place(self, name: str) -> Path:
        home, _, rest = name.partition("/")
        if not _NAME.fullmatch(name.removesuffix(".tmp").partition(".")[0]) or "/" in rest:
            raise Invalid(f"blob: {name!r} is not the name of a blob")
        return self.path / home / rest[:2] / rest


def open_blobs(url: str) -> BlobStore:
    """Return the blob store that a URL names: ``"file:///path"``.

    Raises:
        Invalid: it names none.
    """
    parts = urlsplit(url)
    if parts.scheme != "file" or parts.netloc or not parts.path.strip("/"):
        raise Invalid(
            f"blobs: {url!r} is not like 'file:///absolute/path'; other stores are given as "
            "objects with the methods of perdure.BlobStore"
        )
    return FileBlobs(unquote(parts.path))


def _sorted(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _make(folder: Path) -> None:
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for one in reversed(missing):
        sync_folder(one.parent)


def sync_folder(folder: Path) -> None:
    """See the names in a folder on the disk."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
