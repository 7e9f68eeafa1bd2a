"""The command line: output, files and exit status (kind: contract)."""

from __future__ import annotations

import builtins
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import hjbpde as hjb
from hjbpde.cli import learners, main

Text = pytest.CaptureFixture[str]


def test_list_names_every_problem(capsys: Text) -> None:
    assert main(["list"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in hjb.catalogue.names())


def test_solve_prints_and_writes(tmp_path: Path, capsys: Text) -> None:
    assert main(["solve", "lqr", "--shape", "51", "--out", str(tmp_path / "a")]) == 0
    assert "error bar" in capsys.readouterr().out
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == ["lqr.json", "lqr.npz", "lqr.png"]
    assert hjb.load(tmp_path / "a" / "lqr.npz").grid.shape == (51,)
    report = json.loads((tmp_path / "a" / "lqr.json").read_text(encoding="utf-8"))
    assert report["status"] in ("converged", "stagnated")


def test_solve_keeps_a_checkpoint(tmp_path: Path, capsys: Text) -> None:
    path = tmp_path / "file"
    call = ["solve", "european-call", "--checkpoint", str(path), "--shape", "33"]
    assert main(call) == 0
    first = path.read_bytes()
    assert main(call) == 0
    assert path.read_bytes() == first
    assert main([*call[:-1], "35"]) == 2
    assert "another grid" in capsys.readouterr().err
    assert main(["solve", "eikonal", "--checkpoint", str(path)]) == 2
    assert "belongs to another" in capsys.readouterr().err


def test_study_prints_orders_and_writes(tmp_path: Path, capsys: Text) -> None:
    arguments = ["study", "manufactured", "--nodes", "51", "101", "--out"]
    assert main([*arguments, str(tmp_path)]) == 0
    assert "order" in capsys.readouterr().out
    assert (tmp_path / "manufactured-study.png").exists()
    content = json.loads((tmp_path / "manufactured-study.json").read_text("utf-8"))
    assert content["shapes"] == [[51], [101]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["solve", "lqq"], "Did you mean 'lqr'"),
        (["study", "mertn"], "Did you mean 'merton'"),
        (["verify", "lqr", "manufacturd", "--out", "x"], "Did you mean 'manufactured'"),
        (["solve", "lqr", "--shape", "3", "4"], "shape (3, 4)"),
        (["solve", "lqr", "--shape", "1"], "at least 3"),
        (["study", "lqr", "--nodes", "51"], "at least two"),
        (["verify", "lqr", "--out", "x", "--tolerance", "-1"], "--tolerance"),
    ],
)
def test_bad_input_exits_2_with_the_reason_on_stderr(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Text,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert message in printed.err and not printed.out
    assert not list(tmp_path.iterdir())


def test_an_unusable_folder_exits_2_before_the_work(
    tmp_path: Path, capsys: Text
) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    assert main(["solve", "lqr", "--out", str(tmp_path / "file")]) == 2
    printed = capsys.readouterr()
    assert "--out" in printed.err and not printed.out


def test_verify_without_torch_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Text
) -> None:
    real = builtins.__import__

    def without_torch(name: str, *rest: Any, **options: Any) -> Any:
        if name.split(".")[0] in ("torch", "neural"):
            raise ImportError("No module named 'torch'", name="torch")
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without_torch)
    assert main(["verify", "lqr", "--out", str(tmp_path / "v")]) == 2
    assert "hjbpde[neural]" in capsys.readouterr().err
    assert not (tmp_path / "v").exists()


@pytest.mark.parametrize("argument", [[], ["nothing"], ["verify", "lqr"]])
def test_wrong_usage_exits_2(argument: list[str], capsys: Text) -> None:
    with pytest.raises(SystemExit) as caught:
        main(argument)
    assert caught.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_the_module_runs_from_any_folder(tmp_path: Path) -> None:
    root = Path(hjb.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-m", "hjbpde", "list"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(root), "PATH": "", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "lqr" in done.stdout and not done.stderr


def test_three_ways_to_learn_are_offered() -> None:
    pytest.importorskip("torch")
    three = ["least-squares", "monte-carlo", "residual"]
    assert list(learners("all")) == three
    assert list(learners("both")) == three[:2]
    assert list(learners("residual")) == ["residual"]


@pytest.mark.slow
def test_verify_learns_by_residuals(tmp_path: Path, capsys: Text) -> None:
    pytest.importorskip("torch")
    asked = ["verify", "lqr", "--evaluation", "residual", "--out", str(tmp_path)]
    assert main(asked) == 0
    assert (tmp_path / "lqr-residual.html").exists()
    assert "agree" in capsys.readouterr().out


def test_verify_writes_page_json_and_index(tmp_path: Path, capsys: Text) -> None:
    pytest.importorskip("torch")
    assert main(["verify", "lqr", "--out", str(tmp_path)]) == 0
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["index.html", "lqr-least-squares.html", "lqr-least-squares.json"]
    assert "agree" in capsys.readouterr().out
    content = json.loads((tmp_path / names[2]).read_text(encoding="utf-8"))
    assert content["status"] == "agree" and content["candidate_report"]["method"]
    assert 'href="lqr-least-squares.html"' in (tmp_path / names[0]).read_text("utf-8")


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("air3d", "adversary"),
        ("consumption-saving", "modes"),
        ("cash-management", "impulse"),
        ("bounded-follower", "average"),
    ],
)
def test_verify_refuses_other_kinds_before_the_work(
    name: str, field: str, tmp_path: Path, capsys: Text
) -> None:
    pytest.importorskip("torch")
    assert main(["verify", "lqr", name, "--out", str(tmp_path / "v")]) == 2
    printed = capsys.readouterr()
    assert f"verify {name}: no learner" in printed.err and repr(field) in printed.err
    assert f"hjbpde solve {name}" in printed.err
    assert not printed.out and not (tmp_path / "v").exists()


def test_verify_judges_a_problem_with_an_exit(tmp_path: Path, capsys: Text) -> None:
    pytest.importorskip("torch")
    assert main(["verify", "unit-ball", "--out", str(tmp_path)]) == 0
    content = json.loads((tmp_path / "unit-ball-least-squares.json").read_text("utf-8"))
    assert content["status"] == "agree" and content["regret"] >= 0


def test_verify_judges_a_problem_with_a_horizon(tmp_path: Path, capsys: Text) -> None:
    pytest.importorskip("torch")
    arguments = ["verify", "european-call", "--out", str(tmp_path)]
    status = main([*arguments, "--tolerance", "0.05"])
    content = json.loads(
        (tmp_path / "european-call-least-squares.json").read_text("utf-8")
    )
    assert status == (0 if content["status"] == "agree" else 1)
    assert [piece["time"] for piece in content["details"]["slices"]] == [
        0.0,
        0.25,
        0.5,
        0.75,
    ]


def test_verify_exits_1_when_nothing_can_be_confirmed(
    tmp_path: Path, capsys: Text
) -> None:
    pytest.importorskip("torch")
    arguments = ["verify", "manufactured", "--out", str(tmp_path), "--budget", "0"]
    assert main([*arguments, "--tolerance", "1e-9"]) == 1
    assert "inconclusive" in capsys.readouterr().out


@pytest.mark.slow
def test_the_demo_writes_every_report(
    tmp_path: Path, capsys: Text, monkeypatch: Any
) -> None:
    """With Monte Carlo cut short: nothing is asked of its values."""
    pytest.importorskip("torch")
    short = {"paths": 128, "hidden": (16, 16), "value_steps": 30, "max_policies": 3}
    monkeypatch.setattr("neural.evaluation.monte_carlo.PLAIN", short)
    assert main(["demo", "--out", str(tmp_path)]) == 0
    stems = [
        f"{n}-{m}" for n in ("lqr", "merton") for m in ("least-squares", "monte-carlo")
    ]
    for stem in stems:
        content = json.loads((tmp_path / f"{stem}.json").read_text(encoding="utf-8"))
        assert content["status"] in ("agree", "differ", "inconclusive")
        assert (tmp_path / f"{stem}.html").stat().st_size > 100_000
    # Least squares is right on both; Monte Carlo may honestly differ.
    index = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert all(f'href="{stem}.html"' in index for stem in stems)
