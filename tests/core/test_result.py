"""A result: on disk already, and the same wherever it is opened."""

import json

import pytest

import sebs_core as sebs


@pytest.fixture
def result(session, echo, world):
    world.numbers = {"memory_mb": 20, "zone": "z1", "share": 0.5}
    return session.run(echo, "test", load=sebs.Closed(repetitions=4))


def test_a_result_saved_and_loaded_is_the_same(result, tmp_path):
    copy = sebs.Result.load(result.save(tmp_path / "deep" / "copy"))
    assert copy.manifest == result.manifest
    assert copy.summary() == result.summary().model_copy(update={"run": str(tmp_path / "deep" / "copy")})
    for name in result.invocations.column_names:
        assert copy.invocations[name].to_pylist() == result.invocations[name].to_pylist(), name
    assert len(copy) == 4
    assert copy.body(0) == result.body(0)


def test_it_is_never_saved_over_something_else(result, tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(sebs.StorageError, match="exists already"):
        result.save(tmp_path / "there")


def test_it_is_the_same_in_a_program_without_the_plugin(result, run_python):
    done = run_python(
        """
        import sys, sebs_core as sebs
        result = sebs.Result.load(sys.argv[1])
        assert "double_platform" not in sys.modules and "pycurl" not in sys.modules
        assert type(result.manifest.function).__name__ == "Function"
        print(result.manifest.model_dump_json())
        print(result.summary().model_dump_json())
        print(result.invocations["client_us"].to_pylist())
        """,
        result.directory,
    )
    assert done.returncode == 0, done.stderr
    manifest, summary, client_us = done.stdout.splitlines()
    assert json.loads(manifest) == json.loads(result.manifest.model_dump_json())
    assert json.loads(manifest)["function"]["serial"] == 1
    assert json.loads(summary) == json.loads(result.summary().model_dump_json())
    assert json.loads(client_us) == result.invocations["client_us"].to_pylist()


def test_reading_changes_no_file(result):
    def contents():
        return {path: path.read_bytes() for path in result.directory.rglob("*") if path.is_file()}

    before = contents()
    again = sebs.Result.load(result.directory)
    _ = again.summary(), again.invocations, repr(again)
    assert contents() == before


def test_arrow_leaves_through_the_standard_door(result):
    from arro3.core import Table

    assert Table.from_arrow(result).num_rows == 4
    assert Table.from_arrow(result).column_names == result.invocations.column_names


def test_pandas_gets_flat_columns_with_nulls_kept(result):
    pytest.importorskip("pandas", reason="pandas is in the dependency group `notebooks`")
    frame = result.to_pandas()
    assert len(frame) == 4
    assert list(frame["index"]) == [0, 1, 2, 3]
    assert frame["provider.zone"].tolist() == ["z1"] * 4
    assert str(frame["client_us"].dtype) == "Int64"
    assert frame["provider.cost_usd"].isna().all()


def test_a_body_that_was_not_kept_is_none(result):
    assert result.body(0)["result"]["result"] == 1
    assert result.body(77) is None


def test_it_shows_what_it_is(result):
    assert "echo on double: 4 rows, complete" in repr(result)


def test_a_result_without_its_session_asks_the_platform_again(session, echo, plugins, monkeypatch):
    result = session.run(echo, "test", metrics="later")
    session.close()
    monkeypatch.setattr("sebs_core.session.installed", lambda: plugins)
    assert sebs.Result.load(result.directory).collect_metrics().missing == ()
    assert sebs.Result.load(result.directory).summary().provider_us is not None


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(sebs.StorageError, match="is no run directory"):
        sebs.Result.load(tmp_path)
