"""`tubelet serve`: the page in a browser, on your own machine or behind a proxy."""

from __future__ import annotations

import ipaddress
import os
import secrets
import socket
import sys
from collections.abc import Callable
from contextlib import closing
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import SplitResult, urlsplit

import typer

from tubelet.apps.console import say, show
from tubelet.apps.option_texts import DEVICE_HELP, MODEL_HELP
from tubelet.apps.options import Engine

if TYPE_CHECKING:
    import uvicorn

    from tubelet.apps.web.guard import Access
    from tubelet.apps.web.limits import Patience

TOKEN = "TUBELET_TOKEN"
SHORTEST_TOKEN = 16
MAX_CONNECTIONS = 400
BACKLOG = 128
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def serve(
    *,
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|PATH", help=f"{MODEL_HELP} Several can be given, to compare.", show_default="default"
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Where to listen; anything but this machine asks for a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any that is free.")] = 8000,
    data: Annotated[Path, typer.Option(metavar="DIR", help="Where videos, jobs and results are kept.")] = Path(
        "runs/web"
    ),
    public: Annotated[
        str | None, typer.Option(metavar="URL", help="The address behind a proxy, e.g. https://video.example.org.")
    ] = None,
    proxy: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Of that proxy, which is believed when it tells a browser's address.")
    ] = "127.0.0.1",
    users: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Users, each with a token and quotas; TOML, see --new-user.")
    ] = None,
    new_user: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Print a new token, and the lines for the file of users; no more."),
    ] = None,
    max_megabytes: Annotated[int, typer.Option(min=1, help="Of one upload.")] = 500,
    max_frames: Annotated[int, typer.Option(min=1, help="Of one video.")] = 9000,
    queue: Annotated[int, typer.Option(min=1, help="Videos that may wait.")] = 8,
    keep: Annotated[int, typer.Option(min=1, help="Videos that are kept; the oldest make place.")] = 50,
    each: Annotated[
        int, typer.Option(metavar="N", min=0, help="Requests of one address at the same time; 0 is no limit.")
    ] = 40,
    addresses: Annotated[
        Literal["public", "all", "none"],
        typer.Option(help="Which addresses of videos are fetched: of the public internet, all, or none."),
    ] = "public",
    rate: Annotated[
        float,
        typer.Option(metavar="N", min=0, help="Requests a second of one user, and of one address; 0 is no limit."),
    ] = 50,
    minutes: Annotated[int, typer.Option(min=0, help="Of one video's run; 0 is no limit.")] = 360,
    gigabytes: Annotated[
        int, typer.Option(min=0, help="Of memory, for the process that reads videos; 0 is as much as there is.")
    ] = 0,
    sandbox: Annotated[
        bool, typer.Option(help="Give the process that reads videos no network and its own folders alone.")
    ] = True,
    silence: Annotated[
        float, typer.Option(metavar="SECONDS", min=1, help="Without news of a job, until it is given up.")
    ] = 900,
    device: Annotated[str, typer.Option(help=DEVICE_HELP)] = "auto",
    engine: Engine = "auto",
) -> None:
    """Serve the page: drop a video, watch its objects, compare models, download results."""
    if new_user is not None:
        show_new_user(new_user)
        return
    require_web()
    from tubelet.apps.opening import load_model
    from tubelet.apps.web.jobs.queue import Jobs
    from tubelet.apps.web.jobs.room import room_for
    from tubelet.apps.web.jobs.store import Store
    from tubelet.apps.web.limits import Limits
    from tubelet.apps.web.sandbox import described
    from tubelet.apps.web.server import build

    limits = Limits(
        megabytes=max_megabytes,
        frames=max_frames,
        waiting=queue,
        kept=keep,
        requests_each=each,
        rate=rate,
        minutes=minutes,
        gigabytes=gigabytes,
        silence=silence,
    )
    access = choose_access(host, public, users)
    check_proxy(proxy)
    os.environ.pop(TOKEN, None)  # no other process needs it
    open_model = partial(load_model, device=device, engine=engine)
    with closing(listen(host, port)) as listener, closing(Store(data)) as store:
        models = list(dict.fromkeys(model or ["default"]))
        jobs = Jobs(store, limits, open_model, models, room_for(data, limits, models) if sandbox else None)
        with closing(jobs):
            say(f"loading the model; what reads videos sees {described() if sandbox else 'all that you see'}")
            jobs.open()
            announce(host, listener, access)
            app = build(jobs, access, addresses=addresses)
            run(app, listener, proxy=proxy if public else None, ending=jobs.end_streams)


def require_web() -> None:
    """Raise InputError, with what to install, if the extra `web` is missing."""
    from tubelet.core.errors import InputError

    missing = [name for name in ("fastapi", "uvicorn") if find_spec(name) is None]
    if missing:
        raise InputError(f"this needs {' and '.join(missing)}: install the extra, pip install 'tubelet[web]'")


def choose_access(host: str, public: str | None, users: Path | None = None) -> Access:
    """Choose who may use a server at `host`: everybody on this machine, whoever has the token, or the users of a file.

    The token is TUBELET_TOKEN of the environment, or a new random one. Raises InputError if it is too short, or the
    file of users is not one.
    """
    from tubelet.apps.web.guard import Access
    from tubelet.apps.web.users import read_users
    from tubelet.core.errors import InputError

    if public is not None:
        parts = _address(public)
        public = f"{parts.scheme}://{parts.netloc}"
    given = os.environ.get(TOKEN)
    wide = host not in LOOPBACK
    if users is not None:
        if given is not None:
            raise InputError(f"--users: each user has a token, so {TOKEN} has no meaning; unset it")
        return Access(users=read_users(users), wide=wide, public=public)
    if given is not None and len(given) < SHORTEST_TOKEN:
        raise InputError(f"{TOKEN}: expected at least {SHORTEST_TOKEN} characters, got {len(given)}")
    token = given or (secrets.token_urlsafe(24) if wide or public else None)
    return Access(token=token, wide=wide, public=public)


def show_new_user(name: str) -> None:
    """Print a new token, which is stored nowhere, and what to put in the file of users."""
    from tubelet.apps.web.users import check_name, hash_of, new_token

    check_name(name, "--new-user")
    token = new_token()
    show(f"# the token of {name}, which is shown this once: {token}")
    show(f'[{name}]\nsha256 = "{hash_of(token)}"\nmegabytes = 5000\nwaiting = 4\njobs_a_day = 200')


def _address(public: str) -> SplitResult:
    """Split a public address into its parts; raises InputError for anything else."""
    from tubelet.core.errors import InputError

    refusal = InputError(f"--public: expected an address such as https://video.example.org, got {public!r}")
    if not public.isprintable() or " " in public:  # urlsplit drops line feeds
        raise refusal
    try:
        parts = urlsplit(public)
    except ValueError:
        raise refusal from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/") or parts.query:
        raise refusal
    return parts


def check_proxy(proxy: str) -> None:
    """Raise InputError unless this is the address of one machine: whoever is believed can pretend to be anybody."""
    from tubelet.core.errors import InputError

    try:
        ipaddress.ip_address(proxy)
    except ValueError:
        raise InputError(f"--proxy: expected an address such as 127.0.0.1, got {proxy[:60]!r}") from None


def listen(host: str, port: int) -> socket.socket:
    """Open a listening socket; raises InputError if the port is taken or not allowed."""
    from tubelet.core.errors import InputError

    try:
        family, _, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, os.name == "posix")
        listener.bind(place)
        listener.listen(BACKLOG)  # early visitors wait until the server is up
    except UnicodeError:  # a name that the domain system does not take
        raise InputError(f"--host: expected an address or the name of a machine, got {host[:60]!r}") from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"cannot listen at {host}:{port} ({reason}); choose another with --host and --port") from None
    return listener


def address(host: str, listener: socket.socket, access: Access) -> str:
    """The address to open in a browser, with its token."""
    names = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}
    shown = names.get(host, f"[{host}]" if ":" in host else host)
    base = access.public or f"http://{shown}:{listener.getsockname()[1]}"
    return f"{base}/" + (f"?token={access.token}" if access.token else "")


def announce(host: str, listener: socket.socket, access: Access) -> None:
    """Print the address and flush, because a program or a log may read it through a pipe."""
    show(f"open {address(host, listener, access)}    (Ctrl-C ends it)")
    sys.stdout.flush()


def run(app: Any, listener: socket.socket, *, proxy: str | None, ending: Callable[[], None]) -> None:
    """Serve until Ctrl-C or SIGTERM. `ending` closes event streams that would block the exit."""
    configured(app, proxy=proxy, ending=ending).run(sockets=[listener])


def configured(
    app: Any,
    *,
    proxy: str | None = None,
    ending: Callable[[], None] = lambda: None,
    patience: Patience | None = None,
    connections: int = MAX_CONNECTIONS,
) -> uvicorn.Server:
    """Build a uvicorn server with our limits; `patience` is `limits.PATIENCE` by default.

    A connection from the address `proxy` is believed when it tells scheme and address of a browser, no other one is.
    """
    import uvicorn

    from tubelet.apps.web.connections import bounded
    from tubelet.apps.web.limits import PATIENCE

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            ending()
            await super().shutdown(sockets)

    settings = uvicorn.Config(
        app,
        http=bounded(patience or PATIENCE),
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=proxy is not None,
        forwarded_allow_ips=proxy or "",
        limit_concurrency=connections,
        timeout_keep_alive=10,
        timeout_graceful_shutdown=2,
        ws="none",
        lifespan="off",
    )
    return Server(settings)
