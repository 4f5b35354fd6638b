"""Which weights are exported, and that the folder is whole or not there."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from exported_runs import YARN, trained, word_tokenizer
from safetensors.torch import load_file
from training_runs import make_training_run

from tokenmill.cli import main
from tokenmill.errors import FormatError, RecipeError, ResumeError, RunError
from tokenmill.shards.run import read_run, write_run
from tokenmill.training.export import export
from tokenmill.training.hf.model_card import describe_weights
from tokenmill.training.hf.read import read_hugging_face
from tokenmill.training.presets import PRESETS


def test_several_steps_are_averaged_in_float32(tmp_path):
    steps = (2, 3, 9)
    trained(tmp_path, "tiny", {}, steps=steps)
    files = [tmp_path / f"training/checkpoints/step-{step:07d}/model.safetensors" for step in steps]
    states = [load_file(file) for file in files]
    export(tmp_path / "training", tmp_path / "model", steps=[9, 2, 3, 3])
    _, mean = read_hugging_face(tmp_path / "model")
    for name, tensor in mean.items():
        assert tensor.dtype == torch.float32
        expected = np.mean([state[name].numpy().astype(np.float64) for state in states], axis=0)
        np.testing.assert_array_equal(tensor.numpy(), expected.astype(np.float32))

    export(tmp_path / "training", tmp_path / "model", steps=[3])  # in place of the older one
    _, single = read_hugging_face(tmp_path / "model")
    assert all(torch.equal(single[name], states[1][name]) for name in single)
    assert json.loads((tmp_path / "model/tokenmill.json").read_text())["steps"] == [3]
    assert "| weights | step 3 |" in (tmp_path / "model/README.md").read_text()


def test_the_exponential_mean_is_exported_where_it_is_asked_for(tmp_path):
    model = trained(tmp_path, "tiny", {}, ema_decay=0.9, steps=(2, 3))
    origin = export(tmp_path / "training", tmp_path / "model", ema=True)
    assert describe_weights(origin) == "exponential mean at step 3"
    _, mean = read_hugging_face(tmp_path / "model")
    assert all(torch.equal(mean[name], weight / 2) for name, weight in model.state_dict().items())
    origin = export(tmp_path / "training", tmp_path / "model", ema=True, steps=[3, 2])
    assert describe_weights(origin) == "mean of the exponential means at steps 2, 3"


def test_the_newest_checkpoint_is_passed_over_where_it_is_damaged(tmp_path):
    trained(tmp_path, "tiny", {}, steps=(2, 3))
    damaged = tmp_path / "training/checkpoints/step-0000003/model.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    said: list[str] = []
    origin = export(tmp_path / "training", tmp_path / "model", say=said.append)
    assert origin.steps == (2,)
    assert [str(damaged) in line for line in said] == [True]
    with pytest.raises(FormatError, match=r"step-0000003.* Leave its --step out"):
        export(tmp_path / "training", tmp_path / "other", steps=[2, 3])


def test_the_command_exports_what_the_loop_trained(tmp_path, capsys):
    run = make_training_run(tmp_path / "run", steps={"phase1": 2})
    word_tokenizer().save(run / "tokenizer")
    assert main(["train", str(run), "--device", "cpu"]) == 0
    assert main(["export", str(run / "training"), "--to", str(tmp_path / "model")]) == 0
    said = capsys.readouterr().out
    config, state = read_hugging_face(tmp_path / "model")
    assert config == replace(PRESETS["tiny"], vocab_size=100)
    assert f"neobert, {sum(map(torch.numel, state.values())):,} parameters, step 2\n" in said
    newest = tmp_path / "run/training/checkpoints/step-0000002/model.safetensors"
    weights = load_file(newest)
    assert all(torch.equal(state[name], weights[name]) for name in weights)
    assert "| preset | tiny, phase phase1 |" in (tmp_path / "model" / "README.md").read_text()

    on = make_training_run(
        tmp_path / "on",
        steps={"phase1": 1},
        training={"initial_weights": str(tmp_path / "model")},
        schedule={"learning_rate": 1e-30, "warmup_tokens": 0},  # a step that changes nothing
    )
    assert main(["train", str(on), "--device", "cpu"]) == 0
    begun = load_file(on / "training/checkpoints/step-0000001/model.safetensors")
    assert all(torch.equal(begun[name], weights[name]) for name in weights)


def test_what_does_not_belong_together_is_refused(tmp_path):
    stretched = {"phase2": {}, "phase8": YARN}
    trained(tmp_path, "tiny", {}, phase_rope=stretched, steps=(2, 8))
    with pytest.raises(RecipeError, match="phase phase2 has other positions"):
        export(tmp_path / "training", tmp_path / "model", steps=[2, 8])
    with pytest.raises(RecipeError, match="--step 3: no such checkpoint; there are 2, 8"):
        export(tmp_path / "training", tmp_path / "model", steps=[3])
    with pytest.raises(RecipeError, match="step 8 has no exponential means"):
        export(tmp_path / "training", tmp_path / "model", ema=True)
    info = read_run(tmp_path)
    write_run(tmp_path, replace(info, tokenizer=replace(info.tokenizer, sha256="0" * 64)))
    with pytest.raises(ResumeError, match="another tokenizer"):
        export(tmp_path / "training", tmp_path / "model")
    (tmp_path / "run.json").unlink()
    with pytest.raises(ResumeError, match="Give --run with the build"):
        export(tmp_path / "training", tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_run_with_other_rows_than_were_trained_on_is_said(tmp_path):
    trained(tmp_path / "run", "tiny", {})
    other = make_training_run(tmp_path / "other", steps={"phase4": 4}, held_out={"8-15": 1})
    word_tokenizer().save(other / "tokenizer")
    write_run(other, replace(read_run(other), tokenizer=word_tokenizer().special))
    for run, said in ((tmp_path / "run", []), (other, [True])):
        lines: list[str] = []
        export(tmp_path / "run" / "training", tmp_path / "model", run=run, say=lines.append)
        assert [f"{run}: has other rows than step 4" in line for line in lines] == said


def test_a_folder_is_whole_or_not_there_and_takes_no_other_s_place(tmp_path):
    trained(tmp_path / "run", "tiny", {})
    training, to = tmp_path / "run" / "training", tmp_path / "models" / "mine"
    to.mkdir(parents=True)
    export(training, to)  # an empty folder
    (to / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match=r"found notes\.txt\. Choose another --to"):
        export(training, to)
    (to / "notes.txt").unlink()
    (to / "tokenmill.json").rename(tmp_path / "origin")
    with pytest.raises(RunError, match="found a model of other origin"):
        export(training, to)
    (tmp_path / "origin").rename(to / "tokenmill.json")
    (tmp_path / "run/tokenizer/tokenizer.json").rename(tmp_path / "kept")
    before = sorted(path.name for path in to.iterdir())
    with pytest.raises(FormatError, match=r"tokenizer\.json: no such file"):
        export(training, to)
    assert sorted(path.name for path in to.iterdir()) == before
    assert [path.name for path in to.parent.iterdir()] == ["mine"]


def test_what_a_killed_export_left_is_removed_by_the_next(tmp_path):
    trained(tmp_path / "run", "tiny", {})
    training, to = tmp_path / "run" / "training", tmp_path / "models" / "mine"
    export(training, to)
    for left in ("mine.part", "mine.old.part"):
        (to.parent / left).mkdir()
        (to.parent / left / "config.json").touch()
    export(training, to)
    assert [path.name for path in to.parent.iterdir()] == ["mine"]
