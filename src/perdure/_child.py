"""The entry of an engine's subprocesses: ``python -m perdure._child``, started by the pool only."""

from perdure.engine.processes.child import main

if __name__ == "__main__":
    main()
