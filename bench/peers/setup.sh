#!/usr/bin/env bash
# Make an environment for each peer under bench/.peers; nothing if it is there already.
#
# DBOS on SQLite wants SQLite 3.42 or newer, except on Python 3.11, which it serves with older
# functions; so peers get a Python 3.11 if there is one.
set -euo pipefail
cd "$(dirname "$0")/.."

make_peer() {  # its name, and what is installed
  local home=".peers/$1" python
  shift
  if [ "$(cat "$home/pinned" 2>/dev/null)" = "$*" ]; then return; fi
  for python in python3.11 python3.12 python3.13 python3 ''; do
    "$python" -c 'import ensurepip, sqlite3, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break
  done
  if [ -z "$python" ]; then echo 'no Python 3.11 or newer for the peers' >&2; exit 1; fi
  "$python" -m venv --clear "$home"
  "$home/bin/python" -m pip install -qq --disable-pip-version-check "$@"
  echo "$*" > "$home/pinned"
}

make_peer dbos 'dbos==3.4.0'
make_peer litestar-workflows 'litestar-workflows[db]==0.3.3' 'sqlalchemy==2.1.9' 'aiosqlite==0.22.1'
