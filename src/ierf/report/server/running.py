"""Running the server until it is stopped."""

import gc
import socket
from contextlib import suppress

import uvicorn
from starlette.types import ASGIApp

from ierf.errors import IerfError


def listening(host: str, port: int) -> socket.socket:
    """A socket that is bound to an address; port 0 takes any free one.

    Raises `IerfError` where the port is taken or not allowed, and for an address that is not this machine's.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(128)
    except OSError as error:
        raise IerfError(
            f"cannot listen at port {port} of {host!r}: {error.strerror or error}; choose another --port or --host"
        ) from None
    return bound


def address(bound: socket.socket, host: str, token: str | None) -> str:
    """What to open in a browser; for a server that listens on all addresses, by this machine's name."""
    everywhere = host in ("0.0.0.0", "::")
    name = socket.gethostname() if everywhere else f"[{host}]" if ":" in host else host
    return f"http://{name}:{bound.getsockname()[1]}/" + (f"?token={token}" if token else "")


def server(app: ASGIApp) -> uvicorn.Server:
    """The HTTP server of an application, not yet running."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            lifespan="off",
            ws="none",
            timeout_graceful_shutdown=2,
        )
    )


def run(app: ASGIApp, bound: socket.socket) -> None:
    """Serve until the process is interrupted.

    What there is by then stays, so it is looked at no more when garbage is collected between two jobs.
    """
    gc.freeze()
    with bound, suppress(KeyboardInterrupt):
        server(app).run(sockets=[bound])
