"""Sessions of the local platform in one program."""

import pytest

import sebs_core as sebs

ECHO = "import os\n\n\ndef handler(event):\n    return {'token': os.environ.get('TOKEN')}\n"


@pytest.fixture
def connect(tmp_path):
    open_sessions = []

    def connected(**more):
        session = sebs.connect("local", cache_dir=tmp_path / "cache", output_dir=tmp_path / "runs", **more)
        open_sessions.append(session)
        return session

    yield connected
    for session in open_sessions:
        session.close()


@pytest.fixture
def echo(tmp_path):
    folder = tmp_path / "900.echo"
    (folder / "python").mkdir(parents=True)
    (folder / "config.json").write_text('{"timeout": 10, "memory": 128, "languages": ["python"]}')
    (folder / "input.py").write_text("def generate_input(size):\n    return {}\n")
    (folder / "python" / "function.py").write_text(ECHO)
    return folder


def test_two_sessions_side_by_side_measure_their_own_gateways(connect, echo):
    one, two = connect(), connect()
    mine = one.deploy(one.package(echo))
    two.deploy(two.package(echo))
    assert one.invoke(mine, {}).error is None
    result = two.run(echo, "test", load=sebs.Closed(repetitions=3))
    assert result.manifest.metrics_missing == 0
    assert result.summary().cold_count == 1
    assert {trigger.url for trigger in [result.manifest.trigger]} != {one.trigger(mine, "http").url}


def test_a_secret_that_is_not_given_again_is_gone(connect, echo):
    session = connect()
    package = session.package(echo)
    function = session.deploy(package, secrets={"TOKEN": "planted-secret"})
    assert session.invoke(function, {}).output == {"token": "planted-secret"}
    function = session.deploy(package)
    assert session.invoke(function, {}).output == {"token": None}


def test_a_cold_start_is_told_also_through_an_older_record_of_the_function(connect, echo):
    session = connect(keep_alive_s=0)
    function = session.deploy(session.package(echo))
    session.run(echo, "test", load=sebs.Closed(repetitions=2), start="cold")
    one = session.invoke(function, {})
    assert (one.instance_sequence, one.cold) == (0, True)


def test_two_functions_of_one_name_do_not_run_each_others_code(connect):
    def first():
        def handler(event):
            return 1

        return handler

    def second():
        def handler(event):
            return 2

        return handler

    session = connect()
    functions = [session.deploy(session.package(sebs.Benchmark.from_function(made()))) for made in (first, second)]
    assert [session.invoke(function, {}).output for function in functions] == [1, 2]
