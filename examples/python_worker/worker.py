"""A worker in Python, for any server of distchan.

    python3 examples/python_worker/worker.py
    python3 examples/python_worker/worker.py --port 5678 handlers.py:function

Without a handler it capitalizes: start it beside, or in place of, the worker of
examples/capitalizer. A function of a file of yours gets the item and a context
with `id`, `attempt` and `cancelled`; what it returns is the item's result, what
it raises the item's failure. SIGINT and SIGTERM finish the item that runs and
hand back the others. A secret is in the variable DISTCHAN_SECRET.
"""

import argparse
import importlib.util
import os
import pathlib
import signal
import sys

from distchan import HandshakeError, ConnectionLost, Worker


def capitalize(text, _context):
    return text.upper()


def load(name):
    """The function that `FILE.py:FUNCTION` names."""
    path, _, function = name.rpartition(":")
    spec = importlib.util.spec_from_file_location(pathlib.Path(path).stem, path)
    if spec is None or not path:
        raise argparse.ArgumentTypeError(f"not FILE.py:FUNCTION: {name}")
    if not os.path.isfile(path):
        raise argparse.ArgumentTypeError(f"there is no file {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    handler = getattr(module, function, None)
    if not callable(handler):
        raise argparse.ArgumentTypeError(f"{path} has no function {function}")
    return handler


def main():
    parser = argparse.ArgumentParser(description="A worker of distchan.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=5678)
    parser.add_argument("--name", default=f"python {os.getpid()}")
    parser.add_argument("--signature", default="distchan")
    parser.add_argument("--give-up", type=float, metavar="SECONDS",
                        help="end after so long without a server")
    parser.add_argument("handler", nargs="?", type=load, default=capitalize,
                        metavar="FILE.py:FUNCTION")
    args = parser.parse_args()

    worker = Worker(
        args.handler,
        hostname=args.host,
        port=args.port,
        name=args.name,
        signature=args.signature,
        secret=os.environ.get("DISTCHAN_SECRET") or None,
        give_up=args.give_up,
        on_event=lambda text: print(text, file=sys.stderr, flush=True),
    )

    def stop(_number, _frame):
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)  # the second one ends it
        worker.leave()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    try:
        worker.work()
    except (HandshakeError, ConnectionLost, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
