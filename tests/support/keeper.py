"""Stops a server and removes its folder when the process that opened its home is gone.

A script for ``tests.support.postgres``: ``keeper.py HOME FOLDER PG_CTL USER``. It returns once a
process in the background keeps the server; USER is empty where programs run as this process's user.

The home's owner holds a lock on the file ``life``. The system frees it with that process, killed
or not, and does not give it to the children: locks of ``lockf`` are a process's own. This is what
the keeper waits for. Until it is done it shares a lock on ``keepers``, for those who wait for it.
"""

import fcntl
import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path


def keep(home: Path, folder: Path, pg_ctl: str, user: str, ready: int) -> None:
    with (home / "keepers").open("rb") as keepers:
        fcntl.lockf(keepers, fcntl.LOCK_SH)
        os.write(ready, b".")
        os.close(ready)
        with (home / "life").open("r+b") as life:
            fcntl.lockf(life, fcntl.LOCK_EX)
        as_user = {}
        if user:
            as_user = {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}
        subprocess.run(
            [pg_ctl, "stop", "-D", folder / "data", "-m", "immediate", "-w", "-t", "20"],
            cwd=folder,
            check=False,  # it may not run
            **as_user,
        )
        shutil.rmtree(folder, ignore_errors=True)
        if not any(path.is_dir() for path in home.iterdir()):
            shutil.rmtree(home, ignore_errors=True)


def main(home: str, folder: str, pg_ctl: str, user: str) -> int:
    readable, writable = os.pipe()
    if os.fork():
        os.close(writable)
        return 0 if os.read(readable, 1) else 1
    os.setsid()  # a terminal's Ctrl-C is for the tests, which then end as they should
    os.close(readable)
    keep(Path(home), Path(folder), pg_ctl, user, writable)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
