import numpy as np
import pytest
import scipy.sparse
import torch
from sklearn.neural_network import MLPClassifier

from mialib.models import small
from mialib.models.small import CNN, MLP


def test_layers_are_views_of_the_flat_vector():
    model = MLP((4, 3, 2))
    flat = np.arange(small.n_parameters(model), dtype=np.float32)
    (w1, b1), (w2, b2) = small.layers(model, flat)
    assert [a.shape for a in (w1, b1, w2, b2)] == [(4, 3), (3,), (3, 2), (2,)]
    assert np.concatenate([w1.ravel(), b1, w2.ravel(), b2]).tolist() == flat.tolist()
    w2[0, 0] = -1
    assert -1 in flat


@pytest.mark.parametrize("activation", small.ACTIVATIONS)
def test_logits_are_those_of_torch(activation):
    model, rng = MLP((6, 5, 4, 3), activation), np.random.default_rng(0)
    flat, X = small.initial(model, rng), (rng.random((5000, 6)) < 0.5).astype(np.uint8)
    out = torch.from_numpy(X).float()
    for number, (weight, bias) in enumerate(small.layers(model, torch.from_numpy(flat))):
        out = getattr(torch, activation)(out) if number else out
        out = torch.nn.functional.linear(out, weight.T, bias)
    np.testing.assert_allclose(small.logits(model, flat, X), out, atol=1e-5)
    np.testing.assert_allclose(small.logits(model, flat, scipy.sparse.csr_array(X)), out, atol=1e-5)


def test_initial_parameters_fill_their_bounds():
    (weight, bias), *_ = small.layers(MLP((400, 50, 2)), small.initial(MLP((400, 50, 2)), np.random.default_rng(0)))
    assert 0.049 < np.abs(weight).max() <= 0.05 and 0.04 < np.abs(bias).max() <= 0.05
    assert abs(weight.mean()) < 1e-3


def test_the_glorot_start_is_that_of_scikit_learn():
    theirs = MLPClassifier((50,), solver="sgd", learning_rate_init=1e-12, random_state=0)  # no step to speak of
    theirs.partial_fit(np.zeros((20, 400)), range(20), classes=range(20))
    model = MLP((400, 50, 20), start="glorot")
    ours = small.layers(model, small.initial(model, np.random.default_rng(0)))
    for side in (0, 1):  # weights, biases
        for pair, drawn in zip(ours, (theirs.coefs_, theirs.intercepts_)[side], strict=True):
            assert pair[side].shape == drawn.shape
            assert np.abs(pair[side]).max() == pytest.approx(np.abs(drawn).max(), rel=0.2 if side else 0.02)
    assert np.abs(ours[0][0]).max() <= (6 / 450) ** 0.5 and np.abs(ours[1][0]).max() > 0.98 * (6 / 70) ** 0.5


def test_the_cnn_has_the_layers_it_says():
    model = CNN((3, 32, 32), 10)
    flat = np.arange(small.n_parameters(model), dtype=np.float32)
    layers = small.layers(model, flat)
    assert [weight.shape for weight, _ in layers] == [(32, 5, 5, 3), (32, 5, 5, 32), (800, 128), (128, 10)]
    assert np.concatenate([part.ravel() for layer in layers for part in layer]).tolist() == flat.tolist()
    assert small.logits(model, flat * 0, np.zeros((0, 3, 32, 32), np.uint8)).shape == (0, 10)
    (weight, bias), *_ = small.layers(model, small.initial(model, np.random.default_rng(0)))
    assert 0.11 < np.abs(weight).max() <= 75**-0.5 and 0.08 < np.abs(bias).max() <= 75**-0.5


def test_bad_architectures_are_refused():
    with pytest.raises(ValueError, match="at least inputs and classes"):
        MLP((3,))
    with pytest.raises(ValueError, match="valid: tanh, relu"):
        MLP((3, 2), "gelu")
    with pytest.raises(ValueError, match="unknown start 'he'; valid: torch, glorot"):
        MLP((3, 2), start="he")
    with pytest.raises(ValueError, match="images of 9x32 are too small for kernels of 5"):
        CNN((3, 9, 32), 10)
    with pytest.raises(ValueError, match="must all be positive"):
        CNN((3, 32, 32), 10, filters=(4, 0))
    with pytest.raises(ValueError, match="takes 3 features, the records have 4"):
        small.logits(MLP((3, 2)), np.zeros(8, np.float32), np.zeros((1, 4)))
