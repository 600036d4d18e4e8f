"""What may not be used in workflow code: tables of names, and the advice for each kind."""

from __future__ import annotations

ADVICE = {
    "clock": "reads the clock, which shows another time in a replay: use workflow.now()",
    "random": "is chance that a replay does not repeat: use workflow.random(), "
    "workflow.random_bytes() or workflow.uuid4()",
    "environment": "differs between machines and restarts: take it as input, or read it in an "
    "activity",
    "order": "is a set, and its order differs between processes: go through sorted(…) of it",
    "hash": "differs between processes: use hashlib, or an id of your own",
    "thread": "starts threads or processes, which a replay cannot order: use an activity",
    "sleep": "blocks the worker and is not durable: await workflow.sleep(…)",
    "io": "touches the world outside: do it in an activity",
    "global": "is changed, but all runs share it and no replay restores it: keep it in a local "
    "variable",
}
"""Code of a finding -> what stands after the name of what was found."""


def _words(text: str) -> list[str]:
    return text.split()


def _each(module: str, names: str) -> list[str]:
    return [f"{module}.{name}" for name in _words(names)]


_CLOCK = [
    *_each("datetime.datetime", "now utcnow today"),
    *_each("time", "time time_ns monotonic monotonic_ns perf_counter perf_counter_ns"),
    *_each("time", "process_time process_time_ns thread_time thread_time_ns"),
    "datetime.date.today",
    "arrow.now",
    "arrow.utcnow",
    "django.utils.timezone.now",
    "pendulum.now",
]
CLOCK_WITHOUT_ARGUMENTS = frozenset(_each("time", "ctime gmtime localtime"))
"""These read the clock only if they are given no time."""

_RANDOM = [*_each("uuid", "uuid1 uuid4 uuid6 uuid7"), "os.urandom", "os.getrandom"]
_ENVIRONMENT = _each("os", "environ environb getenv getenvb")
_HASH = _each("builtins", "hash id")
_THREAD = [
    *_each("threading", "Thread Timer"),
    *_each("concurrent.futures", "ThreadPoolExecutor ProcessPoolExecutor"),
    *_each("multiprocessing", "Process Pool Queue Manager"),
    *_each("multiprocessing.pool", "Pool ThreadPool"),
    *_each("_thread", "start_new_thread start_new start_joinable_thread"),
    "asyncio.to_thread",
    "os.fork",
]
_IO = [
    *_each("builtins", "open input"),
    *_each("io", "open open_code FileIO"),
    *_each("os", "access chdir chmod chown close fdopen getcwd getpid kill link listdir lstat"),
    *_each("os", "makedirs mkdir mkfifo open pipe popen posix_spawn read readlink remove"),
    *_each("os", "removedirs rename renames replace rmdir scandir stat statvfs symlink system"),
    *_each("os", "truncate unlink utime walk write execv execve execvp putenv unsetenv"),
    *_each("os.path", "exists getatime getctime getmtime getsize isdir isfile islink lexists"),
    *_each("pathlib.Path", "cwd home"),
    *_each("glob", "glob iglob"),
    *_each("socket", "socket create_connection create_server getaddrinfo gethostbyname"),
    *_each("socket", "gethostname getfqdn gethostbyaddr getnameinfo socketpair"),
    *_each("asyncio", "open_connection open_unix_connection start_server start_unix_server"),
    *_each("asyncio", "create_subprocess_exec create_subprocess_shell"),
    *_each("sqlite3", "connect"),
    *_each("urllib.request", "urlopen urlretrieve"),
    *_each("http.client", "HTTPConnection HTTPSConnection"),
    *_each("smtplib", "SMTP SMTP_SSL"),
    *_each("ftplib", "FTP FTP_TLS"),
    *_each("imaplib", "IMAP4 IMAP4_SSL"),
    *_each("requests", "get post put patch delete head options request Session session"),
    *_each("httpx", "get post put patch delete head options request stream Client AsyncClient"),
    *_each("aiohttp", "ClientSession request"),
    *_each("urllib3", "PoolManager request"),
    *_each("boto3", "client resource"),
    *_each("psycopg", "connect AsyncConnection.connect Connection.connect"),
    *_each("psycopg2", "connect"),
    *_each("asyncpg", "connect create_pool"),
    *_each("webbrowser", "open open_new open_new_tab"),
]
EXACT: dict[str, str] = {
    **dict.fromkeys(_CLOCK, "clock"),
    **dict.fromkeys(_RANDOM, "random"),
    **dict.fromkeys(_ENVIRONMENT, "environment"),
    **dict.fromkeys(_HASH, "hash"),
    **dict.fromkeys(_THREAD, "thread"),
    **dict.fromkeys(_IO, "io"),
    "time.sleep": "sleep",
}
"""Full name -> code."""

PREFIXES = {
    "numpy.random.": "random",
    "random.": "random",
    "secrets.": "random",
    "shutil.": "io",
    "subprocess.": "io",
    "tempfile.": "io",
    # What a session or client does that lives in the module.
    "aiohttp.client.ClientSession().": "io",
    "httpx.AsyncClient().": "io",
    "httpx.Client().": "io",
    "requests.sessions.Session().": "io",
    "sqlite3.Connection().": "io",
}
"""Beginning of a full name -> code."""

HARMLESS = frozenset({"secrets.compare_digest", "shutil.get_terminal_size"})
SEEDED = frozenset({"random.Random", "numpy.random.default_rng", "numpy.random.RandomState"})
"""Chance only if they are given no seed."""

ALIASES = {
    "_io": "io",
    "_socket": "socket",
    "pathlib._local": "pathlib",
    "posix": "os",
    "posixpath": "os.path",
}
"""Modules of C whose names stand for others."""

PATH_METHODS = frozenset(
    _words(
        "chmod exists glob group hardlink_to is_dir is_file is_symlink iterdir lstat mkdir open "
        "owner read_bytes read_text readlink rename replace resolve rglob rmdir samefile stat "
        "symlink_to touch unlink walk write_bytes write_text"
    )
)
"""Methods of ``pathlib.Path`` that ask or change the file system."""

MUTATORS = frozenset(
    _words(
        "add append appendleft clear difference_update discard extend extendleft insert "
        "intersection_update move_to_end pop popitem popleft remove reverse rotate setdefault sort "
        "subtract symmetric_difference_update update"
    )
)
"""Methods that change a list, dict, set, deque or counter."""

ORDER_FREE = frozenset(
    _each("builtins", "all any bool frozenset len max min set sorted sum")
    + _each("collections", "Counter")
    + _each("asyncio", "wait")
)
"""Functions whose answer does not depend on the order of what they are given."""

ORDERED = frozenset(_each("builtins", "enumerate filter iter list map next tuple zip"))
"""Functions that give what they are given in its order."""

SET_METHODS = frozenset(_words("copy difference intersection symmetric_difference union"))
"""Methods of a set that give a set."""


TASK_MAKERS = frozenset(_words("create_future create_task ensure_future spawn"))
"""Functions whose results, in workflow code, have an order of their own in a set."""


def rule_for(name: str) -> str | None:
    """Return the code of the rule against a full name, if there is one."""
    if name in HARMLESS:
        return None
    code = EXACT.get(name)
    if code is None:
        code = next((c for prefix, c in PREFIXES.items() if name.startswith(prefix)), None)
    return code
