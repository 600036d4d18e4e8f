#!/usr/bin/env bash
# Make an environment for each peer under bench/.peers; nothing if it is there already.
#
# DBOS on SQLite wants SQLite 3.42 or newer, except on Python 3.11, which it serves with older
# functions; so it gets a Python 3.11 if there is one.
set -euo pipefail
cd "$(dirname "$0")/.."

DBOS="dbos==3.4.0"
home=.peers/dbos

if [ "$(cat "$home/pinned" 2>/dev/null)" = "$DBOS" ]; then exit 0; fi
for python in python3.11 python3.12 python3.13 python3 ''; do
  "$python" -c 'import ensurepip, sqlite3, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break
done
if [ -z "$python" ]; then echo 'no Python 3.11 or newer for the peers' >&2; exit 1; fi
"$python" -m venv --clear "$home"
"$home/bin/python" -m pip install -qq --disable-pip-version-check "$DBOS"
echo "$DBOS" > "$home/pinned"
