"""The closed loop over libcurl, against servers that do exactly what the test says."""

import contextlib
import gc
import itertools
import os
import signal
import socket
import statistics
import threading
import time

import pytest
from loopback_server import LoopbackServer, answer

import sebs_core as sebs
from sebs_core.engine import closed
from sebs_core.engine.closed import ClosedLoop
from sebs_core.exchange import Request

PAYLOAD = b'{"x": 1}'


class Kept:
    """A sink that keeps everything; due when told."""

    def __init__(self):
        self.exchanges, self.flushed = [], []
        self.due = False

    def add(self, exchange):
        self.exchanges.append(exchange)

    def abandon(self, sends):
        self.abandoned = sends

    def flush(self):
        self.flushed.append(len(self.exchanges))
        self.due = False


def plan(url, *, repetitions=1, concurrency=1, connections="reused", timeout_s=5, body=PAYLOAD, first_index=0, **request):
    made = Request(request.get("method", "POST"), url, request.get("headers", (("content-type", "application/json"),)), body)
    return sebs.Plan.model_construct(
        load=sebs.Closed(concurrency=concurrency, repetitions=repetitions),
        connections=connections,
        timeout_s=timeout_s,
        origin_ns=time.monotonic_ns(),
        first_index=first_index,
        payloads=(body,),
        requests=(made,),
    )


@pytest.fixture
def engine():
    made = ClosedLoop()
    yield made
    made.close()


@pytest.fixture
def serve():
    servers = []

    def start(respond, **more):
        servers.append(LoopbackServer(respond, **more))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def run(engine, made):
    sink = Kept()
    report = engine.run(made, sink)
    return sorted(sink.exchanges, key=lambda exchange: exchange.index), report


def one(engine, made):
    ((exchange,), _) = run(engine, made)
    return exchange


# --- counts and order -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("repetitions", "concurrency"), [(1, 1), (7, 1), (7, 3), (3, 8), (100, 8)])
def test_exactly_the_repetitions_are_sent_each_with_an_index_of_its_own(engine, serve, repetitions, concurrency):
    server = serve(lambda talk: answer())
    exchanges, report = run(engine, plan(server.url, repetitions=repetitions, concurrency=concurrency, first_index=40))
    assert [exchange.index for exchange in exchanges] == list(range(40, 40 + repetitions))
    assert len(server.requests) == repetitions == report.sent
    assert server.connections == min(concurrency, repetitions)
    assert {exchange.error for exchange in exchanges} == {None}


def test_the_request_arrives_as_it_was_planned(engine, serve):
    heads = []
    server = serve(lambda talk: heads.append(talk.head.lower()) or answer())
    one(engine, plan(server.url + "path?q=1", headers=(("X-Mine", "yes"), ("content-type", "text/x"))))
    assert server.requests == [PAYLOAD]
    assert heads[0].startswith(b"post /path?q=1 http/1.1")
    assert b"x-mine: yes" in heads[0]
    assert b"content-type: text/x" in heads[0]
    assert b"expect:" not in heads[0]


@pytest.mark.parametrize("body", [b"", b"x" * 3_000_000], ids=["empty", "3 MB"])
def test_bodies_of_any_size_are_sent_and_counted(engine, serve, body):
    server = serve(lambda talk: answer(str(len(talk.body)).encode()))
    exchange = one(engine, plan(server.url, body=body))
    assert exchange.error is None
    assert exchange.response.body == str(len(body)).encode()
    assert exchange.request_bytes == len(body)
    assert exchange.attempts == 1


def test_eight_clients_really_overlap(engine, serve):
    server = serve(lambda talk: time.sleep(0.03) or answer())
    begin = time.monotonic()
    run(engine, plan(server.url, repetitions=32, concurrency=8))
    assert server.most_at_once == 8
    assert time.monotonic() - begin < 32 * 0.03 / 2


def test_one_client_never_overlaps(engine, serve):
    server = serve(lambda talk: time.sleep(0.005) or answer())
    exchanges, _ = run(engine, plan(server.url, repetitions=10))
    assert server.most_at_once == 1
    for before, after in itertools.pairwise(exchanges):
        assert after.sent_ns >= before.finished_ns


# --- times ----------------------------------------------------------------------------------------------------------------


def test_the_client_time_brackets_a_known_delay(engine, serve):
    server = serve(lambda talk: time.sleep(0.05) or answer())
    exchanges, report = run(engine, plan(server.url, repetitions=8, concurrency=2))
    client_us = [(exchange.finished_ns - exchange.sent_ns) / 1000 for exchange in exchanges]
    assert min(client_us) >= 50_000
    assert statistics.median(client_us) < 80_000
    for exchange in exchanges:
        assert report.started_ns <= exchange.scheduled_ns <= exchange.sent_ns
        assert exchange.sent_ns <= exchange.connected_ns <= exchange.first_byte_ns <= exchange.finished_ns <= report.ended_ns
        assert exchange.first_byte_ns - exchange.sent_ns >= 50_000_000


def test_the_clock_of_the_rows_is_monotonic_time_since_the_plans_origin(engine, serve):
    server = serve(lambda talk: answer())
    made = plan(server.url)
    before = time.monotonic_ns() - made.origin_ns
    exchange = one(engine, made)
    assert before <= exchange.sent_ns <= exchange.finished_ns <= time.monotonic_ns() - made.origin_ns
    assert server.arrivals_ns[0] - made.origin_ns >= exchange.sent_ns


def test_the_first_byte_is_told_apart_from_the_last(engine, serve):
    def slowly(talk):
        whole = answer(b"x" * 10)
        talk.send(whole[:-5])
        time.sleep(0.06)
        talk.send(whole[-5:])

    exchange = one(engine, plan(serve(slowly).url))
    assert exchange.finished_ns - exchange.first_byte_ns >= 55_000_000
    assert exchange.first_byte_ns - exchange.sent_ns < 50_000_000


# --- connections ----------------------------------------------------------------------------------------------------------


def test_reused_connections_are_made_once_and_have_no_phases_later(engine, serve):
    server = serve(lambda talk: answer())
    exchanges, _ = run(engine, plan(server.url, repetitions=4))
    assert [exchange.connection for exchange in exchanges] == ["new", "reused", "reused", "reused"]
    assert server.connections == 1
    for exchange in exchanges[1:]:
        assert (exchange.dns_us, exchange.tcp_us, exchange.tls_us) == (0, 0, 0)
    first = exchanges[0]
    assert first.tcp_us > 0
    assert first.tls_us == 0
    assert first.dns_us + first.tcp_us + first.tls_us <= (first.connected_ns - first.sent_ns) / 1000


def test_fresh_connections_are_made_for_each_request(engine, serve):
    server = serve(lambda talk: answer())
    exchanges, _ = run(engine, plan(server.url, repetitions=4, connections="fresh"))
    assert [exchange.connection for exchange in exchanges] == ["new"] * 4
    assert server.connections == 4
    assert all(exchange.tcp_us > 0 for exchange in exchanges)


def test_the_next_load_of_a_session_reuses_the_connections_of_the_last_unless_it_wants_fresh_ones(engine, serve):
    server = serve(lambda talk: answer())
    for connections, expected in (("reused", "new"), ("reused", "reused"), ("fresh", "new")):
        assert one(engine, plan(server.url, connections=connections)).connection == expected
    assert server.connections == 2


def test_an_idle_connection_that_was_closed_is_replaced_and_the_request_is_sent_once(engine, serve):
    server = serve(lambda talk: talk.close() or answer())
    assert one(engine, plan(server.url)).error is None
    time.sleep(0.05)
    exchange = one(engine, plan(server.url))
    assert (exchange.error, exchange.connection) == (None, "new")
    assert len(server.requests) == 2


def test_a_request_that_libcurl_repeats_by_itself_is_shown_or_is_an_error_but_never_hidden(engine, serve):
    """The second request on a connection is read whole and the connection closed without an answer."""
    server = serve(lambda talk: talk.close() if talk.nth else answer())
    exchanges, _ = run(engine, plan(server.url, repetitions=2))
    assert exchanges[0].attempts == 1
    sends = len(server.requests) - 1
    assert exchanges[1].attempts == sends
    assert sends == 2 or exchanges[1].error == "reset"


def test_proxies_of_the_environment_do_not_stand_between_us_and_this_machine(serve, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    engine = ClosedLoop()
    try:
        assert one(engine, plan(serve(lambda talk: answer()).url)).error is None
    finally:
        engine.close()


@pytest.mark.parametrize("name", ["no_proxy", "NO_PROXY"])
def test_exceptions_from_the_proxy_are_respected(serve, monkeypatch, name):
    for other in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv(name, "127.0.0.2")
    engine = ClosedLoop()
    try:
        assert one(engine, plan(serve(lambda talk: answer(), host="127.0.0.2").url)).error is None
    finally:
        engine.close()


# --- answers --------------------------------------------------------------------------------------------------------------


def test_headers_have_lower_case_names_and_the_last_one_wins(engine, serve):
    server = serve(lambda talk: answer(b"{}", headers="X-Twice: 1\r\nx-twice: 2\r\nX-Colon: a:b \r\n"))
    headers = one(engine, plan(server.url)).response.headers
    assert headers["x-twice"] == "2"
    assert headers["x-colon"] == "a:b"


def test_a_chunked_body_is_put_together(engine, serve):
    def chunked(talk):
        talk.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        for part in (b"hello ", b"world"):
            time.sleep(0.01)
            talk.send(b"%x\r\n%s\r\n" % (len(part), part))
        talk.send(b"0\r\n\r\n")

    exchanges, _ = run(engine, plan(serve(chunked).url, repetitions=2))
    assert [exchange.response.body for exchange in exchanges] == [b"hello world"] * 2
    assert exchanges[1].connection == "reused"


def test_a_body_that_ends_with_the_connection_is_taken(engine, serve):
    server = serve(lambda talk: talk.close() or b"HTTP/1.1 200 OK\r\n\r\nuntil the end")
    assert one(engine, plan(server.url)).response.body == b"until the end"


@pytest.mark.parametrize("interim", ["100 Continue", "102 Processing", "103 Early Hints"])
def test_interim_answers_are_not_the_answer(engine, serve, interim):
    before = f"HTTP/1.1 {interim}\r\nx-interim: 1\r\n\r\n".encode()
    server = serve(lambda talk: before + answer(b"real", headers="x-real: 1\r\n"))
    response = one(engine, plan(server.url)).response
    assert (response.status, response.body) == (200, b"real")
    assert "x-real" in response.headers
    assert "x-interim" not in response.headers


@pytest.mark.parametrize("status", [201, 204, 302, 404, 413, 429, 500, 503, 504])
def test_any_status_is_an_answer_and_no_transport_error(engine, serve, status):
    body = b"" if status == 204 else b"said"
    server = serve(lambda talk: answer(body, status=f"{status} Whatever", headers="location: /elsewhere\r\n"))
    exchange = one(engine, plan(server.url))
    assert exchange.error is None
    assert (exchange.response.status, exchange.response.body) == (status, body)
    assert len(server.requests) == 1


# --- what goes wrong ------------------------------------------------------------------------------------------------------


def half_a_body(talk):
    talk.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
    talk.close()


def half_a_chunk(talk):
    talk.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nff\r\nhalf")
    talk.close()


def nothing(talk):
    talk.close()


def resets(talk):
    talk.reset()


def resets_in_the_middle(talk):
    talk.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
    time.sleep(0.05)
    talk.reset()


def no_http(talk):
    talk.send(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
    talk.close()


def wrong_length(talk):
    talk.send(b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n")
    talk.close()


@pytest.mark.parametrize(
    ("respond", "kind"),
    [
        (half_a_body, "reset"),
        (half_a_chunk, "reset"),
        (nothing, "reset"),
        (resets, "reset"),
        (resets_in_the_middle, "reset"),
        (no_http, "protocol"),
        (wrong_length, "protocol"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_what_is_no_whole_answer_is_an_error_of_its_kind_without_a_response(engine, serve, respond, kind):
    server = serve(respond)
    exchange = one(engine, plan(server.url))
    assert exchange.error == kind
    assert exchange.error_detail.startswith("libcurl ")
    assert exchange.response is None
    assert exchange.finished_ns is None
    assert len(server.requests) == exchange.attempts


def test_nobody_listening_is_a_connect_error_without_a_connection(engine, serve):
    server = serve(lambda talk: answer())
    server.close()
    exchange = one(engine, plan(server.url))
    assert exchange.error == "connect"
    assert exchange.connection is None
    assert exchange.connected_ns is None


def test_a_name_that_does_not_resolve_is_a_connect_error(engine):
    assert one(engine, plan("http://nowhere.invalid/")).error == "connect"


def test_https_to_who_speaks_none_is_a_tls_error(engine):
    def speak_http():
        connection, _ = listener.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(answer(status="400 Bad Request"))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=speak_http, daemon=True).start()
        assert one(engine, plan(f"https://127.0.0.1:{listener.getsockname()[1]}/", timeout_s=2)).error == "tls"


def test_a_server_that_is_too_slow_is_a_timeout_after_the_timeout(engine, serve):
    server = serve(lambda talk: time.sleep(1) or answer())
    begin = time.monotonic()
    exchange = one(engine, plan(server.url, timeout_s=0.1))
    assert exchange.error == "timeout"
    assert 0.09 < time.monotonic() - begin < 0.5
    assert exchange.connection == "new"
    assert exchange.finished_ns is None


def test_a_body_over_the_cap_is_too_large_and_is_not_held(engine, serve, monkeypatch):
    monkeypatch.setattr(closed, "MOST_BODY_BYTES", 10_000)
    server = serve(lambda talk: answer(b"x" * (10_000 + talk.nth)))
    exchanges, _ = run(engine, plan(server.url, repetitions=2))
    assert [exchange.error for exchange in exchanges] == [None, "too_large"]
    assert exchanges[1].response is None


def test_failures_do_not_stop_the_load_and_the_next_request_is_well(engine, serve):
    server = serve(lambda talk: half_a_body(talk) if len(server.requests) % 2 else answer(b"fine"))
    exchanges, report = run(engine, plan(server.url, repetitions=10, concurrency=2))
    assert len(exchanges) == report.sent == 10
    well = [exchange for exchange in exchanges if exchange.error is None]
    assert 0 < len(well) < 10
    assert {exchange.response.body for exchange in well} == {b"fine"}


def test_many_descriptors_in_the_process_change_no_time(engine, serve):
    """select() ends at descriptor 1,023; a notebook may hold more."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 1400:
        pytest.skip(f"this system allows {hard} descriptors only")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1400), hard))
    held = [os.dup(0) for _ in range(1100)]
    try:
        server = serve(lambda request: answer())
        exchanges, _ = run(engine, plan(server.url, repetitions=40, concurrency=8, connections="fresh"))
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    times = sorted(exchange.finished_ns - exchange.sent_ns for exchange in exchanges)
    assert len(times) == 40
    assert times[20] < 90_000_000, "a wait for the socket ran into its time limit"


def test_a_client_sends_again_at_once_also_when_rows_are_written_in_between(engine, serve):
    """The loop must not wait for sockets when nothing is under way."""
    from sebs_core.interrupts import Interrupts
    from sebs_core.rundir import RowSink

    class Writes(RowSink):
        def flush(self):
            self.kept = [*getattr(self, "kept", ()), *self._held]
            self._held = []
            self._last_flush = time.monotonic()

    def slowly(_talk):
        time.sleep(0.95)
        return answer()

    sink = Writes(
        None, None, function=None, trigger=None, workload_version="", check=None, keep_outputs=False, written=lambda: None,
        interrupts=Interrupts(),
    )  # fmt: skip
    engine.run(plan(serve(slowly).url, repetitions=3), sink)
    kept = sorted(sink.kept, key=lambda exchange: exchange.index)
    gaps_ms = [(later.sent_ns - one.finished_ns) / 1e6 for one, later in itertools.pairwise(kept)]
    assert max(gaps_ms) < 50, gaps_ms


# --- the sink -------------------------------------------------------------------------------------------------------------


def test_the_sink_is_flushed_only_when_nothing_is_in_flight_and_at_the_end(engine, serve):
    in_flight = []

    class Watching(Kept):
        def add(self, exchange):
            super().add(exchange)
            self.due = self.due or len(self.exchanges) % 6 == 5

        def flush(self):
            time.sleep(0.02)  # what is in flight has arrived by now
            in_flight.append(len(server.requests) - len(self.exchanges))
            super().flush()

    server = serve(lambda talk: time.sleep(0.01) or answer())
    sink = Watching()
    report = engine.run(plan(server.url, repetitions=20, concurrency=4), sink)
    assert len(sink.exchanges) == 20
    assert len(sink.flushed) >= 3
    assert sink.flushed[-1] == 20
    assert set(in_flight) == {0}
    ended = sorted(exchange.finished_ns for exchange in sink.exchanges)
    assert report.sent == 20
    assert ended[-1] <= report.ended_ns


def test_time_spent_flushing_is_not_counted_as_waiting(engine, serve):
    class Slow(Kept):
        def add(self, exchange):
            super().add(exchange)
            self.due = True

        def flush(self):
            time.sleep(0.05)
            super().flush()

    sink = Slow()
    engine.run(plan(serve(lambda talk: answer()).url, repetitions=3), sink)
    for exchange in sink.exchanges:
        assert exchange.sent_ns - exchange.scheduled_ns < 40_000_000


# --- interrupts -----------------------------------------------------------------------------------------------------------


def descriptors():
    gc.collect()
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


@contextlib.contextmanager
def interrupted_after(seconds):
    """KeyboardInterrupt in the main thread, as Ctrl-C raises it, after so many seconds; it must come out of the block."""

    def interrupt(_signal, _frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        with pytest.raises(KeyboardInterrupt):
            yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


needs_proc = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc to count descriptors")  # noqa: PTH112


@needs_proc
def test_ctrl_c_in_mid_load_keeps_what_was_answered_and_leaks_no_descriptor(serve):
    server = serve(lambda talk: time.sleep(0.02) or answer())
    before = descriptors()
    engine, sink = ClosedLoop(), Kept()
    begin = time.monotonic()
    with interrupted_after(0.15):
        engine.run(plan(server.url, repetitions=10_000, concurrency=4), sink)
    assert time.monotonic() - begin < 1
    assert 1 <= sink.abandoned <= 4
    assert 4 <= len(sink.exchanges) <= len(server.requests)
    assert {exchange.error for exchange in sink.exchanges} == {None}
    assert sink.flushed[-1] == len(sink.exchanges)
    engine.close()
    server.close()
    deadline = time.monotonic() + 2
    while descriptors() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert descriptors() <= before


def test_an_interrupt_out_of_the_sink_keeps_the_rows_and_the_engine_can_be_used_again(engine, serve):
    class Interrupting(Kept):
        def add(self, exchange):
            super().add(exchange)
            if len(self.exchanges) == 5:
                raise KeyboardInterrupt

    server = serve(lambda talk: answer())
    sink = Interrupting()
    with pytest.raises(KeyboardInterrupt):
        engine.run(plan(server.url, repetitions=100, concurrency=4), sink)
    assert sink.flushed == [5]
    exchanges, _ = run(engine, plan(server.url, repetitions=10, concurrency=4))
    assert len(exchanges) == 10
    assert {exchange.error for exchange in exchanges} == {None}


def test_ctrl_c_while_nothing_comes_back_ends_at_once(engine, serve):
    server = serve(lambda talk: time.sleep(3) or answer())
    begin = time.monotonic()
    with interrupted_after(0.1):
        engine.run(plan(server.url), Kept())
    assert time.monotonic() - begin < 1


def test_a_sink_that_says_stop_is_heard_while_nothing_comes_back(engine, serve):
    """So a session stops whatever the interpreter was doing when Ctrl-C came, also inside a callback of libcurl."""

    class Stopping(Kept):
        asked = 0

        @property
        def due(self):
            self.asked += 1
            if self.asked > 3:
                raise KeyboardInterrupt
            return False

        @due.setter
        def due(self, value):
            pass

    server = serve(lambda talk: time.sleep(3) or answer())
    sink = Stopping()
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        engine.run(plan(server.url), sink)
    assert time.monotonic() - begin < 1
    assert sink.abandoned == 1
    assert sink.flushed == [0]
