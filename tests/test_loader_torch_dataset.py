"""PackedDataset gives a Loader's batches to torch's DataLoader, and goes on where it stopped."""

import json
import pickle
from itertools import islice

import pytest
from loader_runs import ROW_TOKENS, make_run
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

from tokenmill.errors import RecipeError, ResumeError
from tokenmill.loader import Batch, Loader
from tokenmill.loader.torch_dataset import PackedDataset

# torchdata calls what torch has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")

NUM_STEPS = 4
CUT = {"rank": 1, "world_size": 2, "micro_batch_rows": 1}  # 3 of a step's 5 rows, 3 micro-batches


def seen(batch):
    """What tells one batch from another."""
    tokens = batch.input_ids.tolist(), batch.masked_positions.tolist(), batch.targets.tolist()
    return batch.step, batch.micro_batch, *tokens


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def straight(run):
    """All batches of the phase, as the loader gives them."""
    with Loader(run, prefetch_bytes=0, **CUT) as loader:
        return [seen(batch) for step in range(NUM_STEPS) for batch in loader.batch_at(step)]


def torch_loader(dataset, num_workers, kind=DataLoader):
    return kind(dataset, batch_size=None, collate_fn=Batch.to_torch, num_workers=num_workers)


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_the_order_is_that_of_the_loader_with_any_number_of_workers(run, straight, num_workers):
    dataset = pickle.loads(pickle.dumps(PackedDataset(run, **CUT)))  # as spawned workers get it
    assert dataset.num_steps == NUM_STEPS
    loader = torch_loader(dataset, num_workers)
    assert [seen(batch) for batch in loader] == straight
    assert [seen(batch) for batch in islice(loader, 2)] == straight[:2]  # iterating begins anew


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_stateful_dataloader_goes_on_at_any_micro_batch(run, straight, num_workers):
    # With workers the last two steps are enough: 3 micro-batches by 2 workers come around in two.
    first = 0 if num_workers == 0 else 2
    dataset = PackedDataset(run, **CUT)
    dataset.load_state_dict(dataset.state_at(first))
    straight = straight[3 * first :]
    loader = torch_loader(dataset, num_workers, StatefulDataLoader)
    states = [loader.state_dict(), *(loader.state_dict() for _ in loader)]
    assert len(states) == len(straight) + 1
    for stop, state in enumerate(states):
        resumed = torch_loader(PackedDataset(run, **CUT), num_workers, StatefulDataLoader)
        resumed.load_state_dict(json.loads(json.dumps(state)))
        assert [seen(batch) for batch in resumed] == straight[stop:]


def test_whole_steps_go_on_with_other_ranks_and_workers_and_in_a_loader(run, straight):
    state = PackedDataset(run, world_size=5).state_at(2)
    with Loader(run, prefetch_bytes=0, **CUT) as loader:
        loader.load_state_dict(state)
        assert loader.state_dict() == state
    dataset = PackedDataset(run, **CUT)
    dataset.load_state_dict(state)
    assert [seen(batch) for batch in dataset] == straight[6:]


def test_an_endless_dataset_goes_on_in_the_order(run, straight):
    endless = PackedDataset(run, endless=True, **CUT)
    read = [seen(batch) for batch in islice(endless, 15)]
    assert read[:12] == straight
    with Loader(run, prefetch_bytes=0, **CUT) as loader:
        assert read[12:] == [seen(batch) for batch in loader.batch_at(NUM_STEPS)]


def test_a_batch_that_warms_up_has_more_micro_batches_later(tmp_path):
    warmup = {"start_tokens": ROW_TOKENS, "tokens": 6 * ROW_TOKENS}
    run = make_run(tmp_path, {"phase1": {"batch_warmup": warmup}})
    dataset = PackedDataset(run, micro_batch_rows=2)
    with Loader(run, micro_batch_rows=2, prefetch_bytes=0) as loader:
        steps = [loader.batch_at(step) for step in range(loader.num_steps)]
    assert [seen(batch) for batch in dataset] == [seen(batch) for step in steps for batch in step]
    with pytest.raises(RecipeError, match=r"micro_batch_rows: .* got 1 in the first and 3 in the"):
        _ = dataset.num_micro_batches
    assert PackedDataset(run).num_micro_batches == 1


def test_a_state_inside_a_step_is_refused_where_steps_are_cut_otherwise(run):
    begun = iter(PackedDataset(run, micro_batch_rows=1))
    next(begun)
    other = iter(PackedDataset(run, micro_batch_rows=2))
    with pytest.raises(
        ResumeError, match=r"'micro_batch_rows': 1.*'micro_batch_rows': 2.*state_at"
    ):
        other.load_state_dict(begun.state_dict())
    with pytest.raises(
        ResumeError, match=r"state of a Loader goes to PackedDataset.load_state_dict"
    ):
        other.load_state_dict(PackedDataset(run).state_at(1))
    with pytest.raises(ResumeError, match=r"no state of an iterator: micro_batch -1"):
        begun.load_state_dict({**begun.state_dict(), "micro_batch": -1})


def test_a_state_of_another_run_is_refused_where_it_is_loaded(run, tmp_path):
    changed = make_run(tmp_path, {"phase1": {"seed": 1}})
    begun = iter(PackedDataset(run))
    with pytest.raises(ResumeError, match=r"settings: .*seed 0, the run has seed 1"):
        PackedDataset(changed).load_state_dict(PackedDataset(run).state_at(1))
    with pytest.raises(ResumeError, match=r"settings: .*seed 0, the run has seed 1"):
        iter(PackedDataset(changed)).load_state_dict(begun.state_dict())
