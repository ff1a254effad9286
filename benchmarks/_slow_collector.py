"""An OTLP receiver over gRPC that takes everything and answers late: ``python -m benchmarks._slow_collector SECONDS``.

Its port is told on stdout.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from subprocess import PIPE, Popen
from typing import Any, Final

import grpc

from chandlery.core.processes import child_environment

#: A feed has one request under way.
_THREADS: Final = 4
#: Encoded, OTLP's answer of success without a word is no byte at all.
_TAKEN: Final = b""


class _Late(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpcio has no types
    """Every call, whatever its name."""

    def __init__(self, delay_s: float) -> None:
        self._delay_s = delay_s

    def service(self, _details: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(self._answer)

    def _answer(self, _request: bytes, _context: Any) -> bytes:
        time.sleep(self._delay_s)
        return _TAKEN


def serve(delay_s: float) -> None:
    """Be the receiver until killed."""
    server = grpc.server(ThreadPoolExecutor(_THREADS))
    server.add_generic_rpc_handlers((_Late(delay_s),))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    server.wait_for_termination()


@contextmanager
def slow_collector(delay_s: float) -> Iterator[str]:
    """One in a process of its own; its endpoint.

    Raises:
        ChildProcessError: it didn't start.
    """
    # By way of processes: it ends with whoever started it, killed or not.
    words = [sys.executable, "-m", "chandlery.core.processes", sys.executable, "-m", "benchmarks._slow_collector"]
    with Popen([*words, str(delay_s)], stdout=PIPE, text=True, env=child_environment()) as process:
        try:
            assert process.stdout is not None
            port = process.stdout.readline().strip()
            if not port:
                raise ChildProcessError("the collector told no port")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


if __name__ == "__main__":
    serve(float(sys.argv[1]))
