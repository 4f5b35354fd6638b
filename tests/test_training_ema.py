"""The mean of the weights: its formula, and the model that lends it its place."""

import pytest
import torch
from test_training_optim import LEFT_OUT, TAKEN, Toy
from torch.testing import assert_close

from tokenmill.training.ema import Ema


def weights_of(model):
    return {name: param.detach().clone() for name, param in model.named_parameters()}


def test_the_mean_keeps_its_share_of_every_step_that_was_taken():
    model = Toy()
    ema = Ema(model, 0.9)
    expected = {name: weight.double() for name, weight in weights_of(model).items()}
    for step in range(20):
        for param in model.parameters():
            param.data += torch.randn(param.shape, generator=torch.Generator().manual_seed(step))
        ema.update(LEFT_OUT if step % 5 == 3 else TAKEN)
        if step % 5 != 3:
            for name, weight in weights_of(model).items():
                expected[name] = 0.9 * expected[name] + 0.1 * weight.double()
    found = {name: mean.double() for name, mean in ema.state_dict().items()}
    assert_close(found, expected, rtol=0, atol=1e-5)


def test_the_model_has_the_means_inside_and_its_weights_again_behind():
    model = Toy()
    ema = Ema(model, 0.9)
    for mean in ema.state_dict().values():  # as a checkpoint is loaded
        mean.fill_(0.5)
    before, params = weights_of(model), list(model.parameters())
    with ema.in_model():
        assert all((weight == 0.5).all() for weight in weights_of(model).values())
    assert_close(weights_of(model), before, rtol=0, atol=0)
    with pytest.raises(KeyboardInterrupt), ema.in_model():
        raise KeyboardInterrupt
    assert_close(weights_of(model), before, rtol=0, atol=0)
    # The parameters themselves stay in the model: optimizers and compiled code hold on to them.
    assert all(old is new for old, new in zip(params, model.parameters(), strict=True))
