"""A worker of distchan in Python: Python 3.9 or later and cbor2.

Written from PROTOCOL.md alone, whose sections are cited below. It works in
mode 1 with a concurrency of 1, knows the codec `cbor`, secrets, and no
transforms:

    from distchan import work

    work(lambda item, context: item.upper(), port=5678)

The handler runs in the calling thread; another one reads what the server sends
and answers its PINGs, so that a handler that computes for minutes is no lost
worker.
"""

import hashlib
import hmac
import os
import queue
import random
import select
import socket
import struct
import sys
import threading
import time

import cbor2

# 4. Frame types
HELLO, WELCOME, REJECT, CHALLENGE, PROOF = 1, 2, 3, 4, 5
ITEM, RESULT, ERROR, DONE = 8, 9, 10, 12
CREDIT, CANCEL, LEAVE, END = 14, 15, 16, 17
PING, PONG, GOODBYE = 20, 21, 22

VERSION = 1
MODE_WORK = 1
WINDOW = 4096
NAMED_AT_ONCE = 64  # deliveries in a LEAVE
CALL = 1  # the kind of items that always want a result (5. Items)
NORMAL = 0  # the code of a GOODBYE in order (7.)
PROTOCOL = 2
REJECT_NAMES = {1: "signature", 2: "version", 3: "codec", 4: "transforms",
                5: "auth", 6: "full", 7: "timeout", 8: "protocol"}
NEVER_HEALS = {"signature", "version", "codec", "transforms"}

MAX_FRAME_BYTES = 4 * 1024 * 1024
HANDSHAKE_BYTES = 4096
IS_WINDOWS = sys.platform == "win32"
HANDSHAKE_SECONDS = 5
PING_SECONDS = 10
DROP_SECONDS = 120
MIN_DELAY, MAX_DELAY = 0.1, 10

# Turns of the main thread that are no delivery's number.
_AT_END, _AT_GOODBYE = object(), object()

# The same for every connection of this process (3. HELLO)
INSTANCE = os.urandom(16)


class HandshakeError(Exception):
    """The ends don't belong together; `code` says why."""

    def __init__(self, code, reason):
        super().__init__(f"{code}: {reason}")
        self.code = code


class ConnectionLost(Exception):
    """The connection ended without a goodbye: what it held goes to others."""


class Violation(ConnectionLost):
    """The server broke the protocol."""


class Context:
    """What a handler may know of its item beside the item."""

    def __init__(self, item_id, attempt):
        self.id = item_id  # the same at every attempt
        self.attempt = attempt  # from 1 on
        self.cancelled = threading.Event()  # set: nobody waits for it any more


class _Delivery:
    def __init__(self, number, kind, payload, context):
        self.number = number
        self.kind = kind
        self.payload = payload
        self.context = context


# 2. Frames


def encode_frame(*fields):
    """A frame: the length of the body, then the body, a CBOR sequence."""
    body = b"".join(map(cbor2.dumps, fields))
    return struct.pack(">I", len(body)) + body


def decode_body(body):
    """The fields of a frame, its type first."""
    # A sequence becomes an array of indefinite length, to have it read in one.
    try:
        fields = cbor2.loads(b"\x9f" + body + b"\xff")
    except Exception as error:  # cbor2 throws many kinds
        raise Violation(f"a frame that isn't CBOR: {error}") from error
    if not fields or type(fields[0]) is not int:
        raise Violation("a frame without a type")
    return fields


class _Socket:
    """Frames over one TCP connection; any thread may write."""

    def __init__(self, hostname, port):
        self._socket = socket.create_connection((hostname, port),
                                                HANDSHAKE_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._lock = threading.Lock()
        self._buffer = bytearray()
        self._said_at = time.monotonic()

    def start(self):
        """The handshake is over: waits are bounded by `read()` from now on."""
        self._socket.settimeout(None)
        # 6.: output that can't be written for so long ends the connection.
        limit = (struct.pack("L", DROP_SECONDS * 1000) if IS_WINDOWS
                 else struct.pack("ll", DROP_SECONDS, 0))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)

    def write(self, frame):
        try:
            with self._lock:
                self._said_at = time.monotonic()
                self._socket.sendall(frame)
        except OSError as error:
            raise ConnectionLost(f"couldn't write: {error}") from error

    def read(self, max_bytes, on_silence=None):
        """The body of the next frame."""
        length = struct.unpack(">I", self._take(4, on_silence))[0]
        if not 1 <= length <= max_bytes:  # R1, R2
            raise Violation(f"a frame of {length} bytes, the limit is {max_bytes}")
        return self._take(length, on_silence)

    def close(self):
        try:
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes whoever reads
        except OSError:
            pass  # the server was faster
        self._socket.close()

    def _take(self, count, on_silence):
        while len(self._buffer) < count:
            try:
                if on_silence:
                    self._wait(on_silence)
                data = self._socket.recv(65536)
            except (OSError, ValueError) as error:  # ValueError: closed here
                raise ConnectionLost(f"couldn't read: {error}") from error
            if not data:
                raise ConnectionLost("the stream ended without a goodbye")
            self._buffer += data
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    def _wait(self, on_silence):
        deadline = time.monotonic() + DROP_SECONDS
        while not select.select([self._socket], [], [], PING_SECONDS)[0]:
            if time.monotonic() > deadline:
                raise ConnectionLost(f"silent for {DROP_SECONDS} s")
            on_silence()
        # What the server asks may be behind a long frame that is still coming.
        is_silent = time.monotonic() - self._said_at >= PING_SECONDS
        if is_silent and not self._lock.locked():
            on_silence()


# 3. The handshake


def _proof(secret, role, bodies):
    mac = hmac.new(secret, b"distchan " + role + b"\0", hashlib.sha256)
    for body in bodies:
        mac.update(struct.pack(">I", len(body)) + body)
    return mac.digest()


def _shake_hands(sock, signature, secret, name):
    """Introduces both ends to each other; returns the map of WELCOME."""
    said = []  # the body of every frame so far, for the proofs

    def write(*fields):
        frame = encode_frame(*fields)
        said.append(frame[4:])
        sock.write(frame)

    def read(expected):
        body = sock.read(HANDSHAKE_BYTES)
        fields = decode_body(body)
        if fields[0] == REJECT:
            code = REJECT_NAMES.get(fields[1], "protocol")
            raise HandshakeError(code, fields[2])
        if fields[0] != expected:
            if {fields[0], expected} == {WELCOME, CHALLENGE}:
                raise HandshakeError("auth", "only one end has a secret")
            raise Violation(f"frame {fields[0]} where {expected} belongs")
        said.append(body)
        return fields[1:]

    hello = {
        "signature": signature,
        "codec": "cbor",
        "transforms": [],
        "maxFrameBytes": MAX_FRAME_BYTES,
        "nonce": os.urandom(16),
        "instance": INSTANCE,
        "auth": secret is not None,
    }
    if name:
        hello["name"] = _cut(name, 200)  # 10.
    write(HELLO, "distchan", VERSION, hello)
    if secret is None:
        version, welcome = read(WELCOME)
    else:
        (nonce,) = read(CHALLENGE)
        write(PROOF, _proof(secret, b"client", said))
        version, welcome = read(WELCOME)
        expected = _proof(secret, b"server", said)
        (proof,) = read(PROOF)
        if welcome["nonce"] != nonce or not hmac.compare_digest(proof, expected):
            raise HandshakeError("auth", "the server's proof is wrong")
    if version != VERSION:
        raise HandshakeError("version", f"the server speaks version {version}")
    for key, ours in ("signature", signature), ("codec", "cbor"), ("transforms", []):
        if welcome[key] != ours:  # R11
            raise HandshakeError(key, f"{welcome[key]!r} there, {ours!r} here")
    return welcome


# 5. Work


class _Connection:
    """One connection, from the handshake to the goodbye."""

    def __init__(self, hostname, port, signature, secret, name):
        self._sock = _Socket(hostname, port)
        try:
            welcome = _shake_hands(self._sock, signature, secret, name)
        except BaseException:
            self._sock.close()
            raise
        self._sock.start()
        self._max_bytes = welcome["maxFrameBytes"]
        # Undefined counts as left out (3.), and only false as false.
        self._wants_results = welcome.get("results", True) is not False
        # Deliveries not begun. Whoever pops one, in whichever thread, is the
        # one to answer for it (R17); pop() is atomic.
        self._waiting = {}
        self._running = None
        self._next = 0  # the number of the next delivery
        self._turns = queue.SimpleQueue()  # numbers, the above, what went wrong
        self._leaving = False
        self._said_goodbye = False
        self._ended = False  # END has come
        self._is_done = False  # and the last GOODBYE, in order

    def work(self, handler):
        """Works until the end, or until `leave()`."""
        reader = threading.Thread(target=self._read_all, daemon=True)
        reader.start()
        try:
            self._write(CREDIT, MODE_WORK, 1, WINDOW, 1)
            while (turn := self._turn()) is not _AT_END:
                if isinstance(turn, Exception):
                    raise turn
                delivery = self._waiting.pop(turn, None)
                if delivery:
                    self._running = delivery
                    self._execute(handler, delivery)
                    self._running = None
            self._said_goodbye = True
            self._write(GOODBYE, NORMAL, "")
            while (turn := self._turn()) is not _AT_GOODBYE:
                if isinstance(turn, Exception):
                    raise turn
        except Violation as error:
            try:
                self._write(GOODBYE, PROTOCOL, str(error)[:200])
            except ConnectionLost:
                pass
            raise
        except ConnectionLost:
            # 7.: the server didn't wait for the item that ran here until now.
            if not self._is_done:
                raise
        finally:
            self._sock.close()
            reader.join()

    def _turn(self):
        # Windows lets Ctrl-C through only between waits.
        while True:
            try:
                return self._turns.get(timeout=1 if IS_WINDOWS else None)
            except queue.Empty:
                pass

    def leave(self):
        """Hands back what has not begun, and ends once nothing runs."""
        self._leaving = True
        try:
            self._hand_back()
        except ConnectionLost:
            pass  # the reader sees it too
        self._turns.put(_AT_END)

    def _hand_back(self):
        numbers = [n for n in list(self._waiting) if self._waiting.pop(n, None)]
        # At least one, and each fits into the smallest frame there may be (R2).
        for at in range(0, len(numbers) or 1, NAMED_AT_ONCE):
            self._write(LEAVE, *numbers[at:at + NAMED_AT_ONCE])

    def _execute(self, handler, delivery):
        try:
            result = handler(cbor2.loads(delivery.payload), delivery.context)
            if delivery.kind != CALL and not self._wants_results:
                self._write(DONE, delivery.number)
                return
            payload = cbor2.dumps(result, datetime_as_timestamp=True)
            frame = encode_frame(RESULT, delivery.number, payload)
            limit = self._max_bytes
            if len(frame) - 4 > limit:
                raise ValueError(f"the result has {len(payload)} bytes, "
                                 f"a frame at most {limit}")
        except ConnectionLost:
            raise
        except Exception as error:  # whatever a handler throws is its item's
            self._fail(delivery.number, error)
        else:
            self._sock.write(frame)

    def _fail(self, number, error):
        name, message, cause = _describe(error)
        frame = encode_frame(ERROR, number, name, message, cause, None)
        if len(frame) - 4 > self._max_bytes:
            frame = encode_frame(ERROR, number, _cut(name, 50),
                                 _cut(message, 200), None, None)
        self._sock.write(frame)

    def _write(self, *fields):
        self._sock.write(encode_frame(*fields))

    def _read_all(self):
        try:
            while True:
                body = self._sock.read(MAX_FRAME_BYTES, self._ask)
                if self._take(*decode_body(body)):
                    return
        except ConnectionLost as error:
            self._turns.put(error)
        except (TypeError, ValueError) as error:  # R6: other fields
            self._turns.put(Violation(f"a frame with wrong fields: {error}"))

    def _ask(self):
        self._write(PING, 1)  # 6.: nothing came, or was said, for a while

    def _take(self, kind, *fields):
        """Does what a frame says; true if it is the last one."""
        if kind == ITEM:
            self._take_items(*fields)
        elif kind == CANCEL:
            self._cancel(fields)
        elif kind == PING:
            self._write(PONG, *fields)
        elif kind == END:
            self._ended = True
            self._turns.put(_AT_END)
        elif kind == GOODBYE:
            code, reason = fields
            # 7.: a suspect's comes right after END; all items are settled.
            if code == NORMAL and (self._said_goodbye or self._ended):
                self._is_done = True
                self._turns.put(_AT_GOODBYE)
            else:
                self._turns.put(ConnectionLost(f"goodbye {code}: {reason}"))
            return True
        elif kind not in (CREDIT, PONG):  # CREDIT: no VALUE is sent from here
            raise Violation(f"frame {kind} (R5)")
        return False

    def _take_items(self, attempt, kind, first, *items):
        if first != self._next:
            raise Violation(f"delivery {first}, expected {self._next} (R22)")
        for item_id, payload in zip(items[::2], items[1::2]):
            number = self._next
            self._next += 1
            context = Context(item_id, attempt)
            self._waiting[number] = _Delivery(number, kind, payload, context)
            self._turns.put(number)
        if self._leaving:
            self._hand_back()

    def _cancel(self, numbers):
        for number in numbers:
            if self._waiting.pop(number, None):
                self._write(ERROR, number, "AbortError", "cancelled", None, None)
            else:
                running = self._running
                if running and running.number == number:
                    running.context.cancelled.set()


def _describe(error, depth=0):
    """[name, message, cause] of an exception."""
    cause = error.__cause__
    if cause is None and not error.__suppress_context__:
        cause = error.__context__
    return [
        _cut(type(error).__name__, 200),
        _cut(str(error), 10_000),
        None if cause is None or depth == 8 else _describe(cause, depth + 1),
    ]


def _cut(text, units):
    """At most so many UTF-16 units, and valid."""
    data = text.encode("utf-16-le", "replace")[:2 * units]
    return data.decode("utf-16-le", "ignore")


class Worker:
    """Works for a server, and connects again when the connection is lost."""

    def __init__(self, handler, *, port, hostname="127.0.0.1",
                 signature="distchan", secret=None, name=None, give_up=None,
                 on_event=lambda text: None):
        """`secret` is text or bytes; `give_up` seconds without a server."""
        self._handler = handler
        if isinstance(secret, str):
            secret = secret.encode()
        self._terms = (hostname, port, signature, secret, name)
        self._give_up = give_up
        self._on_event = on_event
        self._connection = None
        self._left = threading.Event()

    def work(self):
        """Returns at the server's end, or after `leave()`.

        Raises `HandshakeError` if the ends don't belong together, and
        `ConnectionLost` or `OSError` when it gives up.
        """
        delay, since, auth_failures = MIN_DELAY, time.monotonic(), 0
        while not self._left.is_set():
            try:
                self._connection = _Connection(*self._terms)
                delay, auth_failures = MIN_DELAY, 0
                self._on_event("connected")
                if self._left.is_set():  # while it connected
                    self._connection.leave()
                try:
                    return self._connection.work(self._handler)
                finally:
                    self._connection = None
                    since = time.monotonic()
            except HandshakeError as error:
                auth_failures += error.code == "auth"
                if error.code in NEVER_HEALS or auth_failures == 2:
                    raise
                problem = error
            except (ConnectionLost, OSError) as error:
                problem = error
            if self._give_up is not None:
                if time.monotonic() - since >= self._give_up:
                    raise problem
            self._on_event(f"lost: {problem}")
            self._left.wait(delay * random.uniform(0.5, 1))
            delay = min(2 * delay, MAX_DELAY)

    def leave(self):
        """Finishes what runs, hands back the rest; safe in a signal handler."""
        threading.Thread(target=self._leave).start()

    def _leave(self):
        self._left.set()
        connection = self._connection
        if connection:
            connection.leave()


def work(handler, **options):
    """Calls `handler(item, context)` for every item; see `Worker`."""
    Worker(handler, **options).work()
