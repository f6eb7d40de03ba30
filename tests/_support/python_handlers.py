"""What the Python workers of tests/python_worker_test.ts do."""

import os
import sys
import time

import cbor2

if "PING_SECONDS" in os.environ:
    sys.modules["distchan"].PING_SECONDS = float(os.environ["PING_SECONDS"])


def echo(item, _context):
    return item


def kind(item, _context):
    if item is cbor2.undefined:
        return "undefined"  # its class has another name in each cbor2
    return type(item).__name__


def square(n, _context):
    return n * n


def attempts(item, context):
    return [item, context.id, context.attempt, os.getpid()]


def fail(item, _context):
    try:
        int(item)
    except ValueError as error:
        raise RuntimeError(f"no number: {item}") from error
    return cbor2.undefined


def odd(item, _context):
    if item == "huge":
        return b"\0" * 10_000
    if item == "angry":
        raise ValueError("no! " * 2500)
    return print if item == "function" else item


def wait(path, context):
    """Says when it begins, and ends once a file is there."""
    print(f"begun {context.id}", file=sys.stderr, flush=True)
    while not os.path.exists(path):
        time.sleep(0.02)
    return path


def slow(seconds, context):
    """Says when it begins, and computes all the while."""
    print(f"begun {context.id}", file=sys.stderr, flush=True)
    end = time.monotonic() + seconds
    while time.monotonic() < end and not context.cancelled.is_set():
        pass
    if context.cancelled.is_set():
        print("cancelled", file=sys.stderr, flush=True)
    return seconds
