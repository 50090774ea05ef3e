"""Cross-checks with Captum and Quantus, where they are installed: the same gradients and figures of the same network."""

from __future__ import annotations

import numpy as np
import pytest

import onnx_lrp
from onnx_lrp.evaluation.bench import make_bench
from onnx_lrp.evaluation.curves import Grid
from onnx_lrp.evaluation.erasing import Task, erase
from onnx_lrp.evaluation.methods import specs
from onnx_lrp.evaluation.probing import other_class, under_noise
from onnx_lrp.evaluation.samples import read_samples
from onnx_lrp.testing.build import Builder

torch = pytest.importorskip("torch")
# PyTorch's, Captum's and Quantus' own
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
LOAD = {"jit": "graph", "precision": "float64", "verify": "never"}


def recurrent():
    """(ONNX, x (B, T, I), the same in PyTorch): LSTM → tanh → two layers."""
    b = Builder(np.random.default_rng(7), 17)
    x = b.input("x", b.numbers(6, 5, 3), ["batch", "time", 3])
    turned = b.op("Transpose", x, perm=[1, 0, 2])
    of_x, of_h, bias = (
        np.random.default_rng(k).normal(size=s).astype(np.float32) for k, s in enumerate([(1, 16, 3), (1, 16, 4), (1, 32)])
    )
    head, offset = (np.random.default_rng(9 + k).normal(size=s).astype(np.float32) for k, s in enumerate([(4, 3), (3,)]))
    _, last = b.ops("LSTM", turned, b.const(of_x), b.const(of_h), b.const(bias), outputs=2, hidden_size=4)
    out = b.op("Gemm", b.op("Squeeze", last, b.ints(0)), b.const(head), b.const(offset))
    model, feeds = b.case(out)

    def gates(rows):
        """ONNX's i, o, f, c as PyTorch's i, f, c, o."""
        i, o, f, c = np.split(rows, 4)
        return torch.from_numpy(np.concatenate([i, f, c, o])).double()

    class Twin(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = torch.nn.LSTM(3, 4, batch_first=True).double()
            self.head = torch.nn.Linear(4, 3).double()

        def forward(self, x):
            return self.head(self.lstm(x)[0][:, -1])

    twin = Twin()
    state = {"lstm.weight_ih_l0": gates(of_x[0]), "lstm.weight_hh_l0": gates(of_h[0])}
    state |= {"lstm.bias_ih_l0": gates(bias[0, :16]), "lstm.bias_hh_l0": gates(bias[0, 16:])}
    state |= {"head.weight": torch.from_numpy(head.T.copy()).double(), "head.bias": torch.from_numpy(offset).double()}
    twin.load_state_dict(state)
    return model, feeds["x"], twin


def dense():
    """(ONNX, x (B, 8), the same in PyTorch, of (B, 1, 8), which Quantus takes for signals of one channel)."""
    b = Builder(np.random.default_rng(8), 17)
    x = b.rows(6, 8)
    first, second = (np.random.default_rng(k).normal(size=s).astype(np.float32) for k, s in enumerate([(8, 5), (5, 2)]))
    model, feeds = b.case(b.op("MatMul", b.op("Tanh", b.op("MatMul", x, b.const(first))), b.const(second)))

    class Twin(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first = torch.nn.Linear(8, 5, bias=False).double()
            self.second = torch.nn.Linear(5, 2, bias=False).double()

        def forward(self, x):
            return self.second(torch.tanh(self.first(x.reshape(len(x), 8).double())))

    twin = Twin()
    twin.load_state_dict(
        {"first.weight": torch.from_numpy(first.T.copy()).double(), "second.weight": torch.from_numpy(second.T.copy()).double()}
    )
    return model, feeds["x"], twin.eval()


def task_of(model, x, points):
    explainer = onnx_lrp.load(model, **LOAD)
    bench = make_bench(explainer, model, read_samples(explainer, x), replace="zero", step=None, options=LOAD)
    scores = bench.scores(range(len(bench)))
    return Task(bench, scores.argmax(1), scores, None, Grid(points))


# Captum


@pytest.mark.parametrize(
    ("method", "theirs", "options", "rtol"),
    [
        ("gradient", "Saliency", {"abs": False}, 1e-9),
        ("gradient_x_input", "InputXGradient", {}, 1e-9),
        ("integrated_gradients", "IntegratedGradients", {"n_steps": 50}, 1e-6),  # both by Gauss-Legendre
        ("occlusion", "Occlusion", {"sliding_window_shapes": (1, 3)}, 1e-6),
    ],
)
def test_the_same_relevances_as_captum(method, theirs, options, rtol):
    attr = pytest.importorskip("captum.attr")
    model, x, twin = recurrent()
    target = np.array([0, 1, 2, 0, 1, 2])
    found = onnx_lrp.load(model, **LOAD).explain(x, target, method=method)
    rows = torch.from_numpy(x).double().requires_grad_()
    expected = getattr(attr, theirs)(twin).attribute(rows, target=torch.from_numpy(target), **options).detach().numpy()
    if method == "occlusion":  # Captum gives every entry of the window the whole difference, in float32
        assert found.per_step() == pytest.approx(expected[:, :, 0], rel=rtol, abs=1e-12)
        return
    assert found.relevance["x"] == pytest.approx(expected, rel=rtol, abs=rtol * np.abs(expected).max())


# Quantus


def test_the_same_deletion_curve_as_quantus():
    quantus = pytest.importorskip("quantus")
    model, x, twin = dense()
    task = task_of(model, x, points=8)
    relevance = np.random.default_rng(0).normal(size=x.shape)
    ours = erase(task, list(relevance), parts=frozenset({"curves"}))
    flipping = quantus.PixelFlipping(
        features_in_step=1, perturb_baseline=0.0, abs=False, normalise=False, disable_warnings=True, display_progressbar=False
    )
    theirs = flipping(
        model=twin, x_batch=x[:, None], y_batch=task.targets, a_batch=relevance[:, None], softmax=False, channel_first=True
    )
    assert ours.curves["deletion"][:, 1:] == pytest.approx(np.asarray(theirs), abs=1e-6)
    assert ours.curves["deletion"][:, -1] == pytest.approx(0, abs=1e-9)


def test_the_same_correlation_with_another_class_as_quantus():
    quantus = pytest.importorskip("quantus")
    model, x, twin = dense()
    task = task_of(model, x, points=8)
    explainer = onnx_lrp.load(model, **LOAD)

    def explain(model, inputs, targets, **_):
        found = explainer.explain(np.asarray(inputs).reshape(-1, 8).astype(np.float32), np.asarray(targets))
        return found.relevance["x"][:, None]

    [spec] = specs("lrp")
    own = explain(None, x, task.targets)[:, 0]
    ours = other_class(task.bench, task, spec, range(len(x)), list(own), seed=0)
    logit = quantus.RandomLogit(
        num_classes=2,
        similarity_func=quantus.correlation_spearman,
        abs=False,
        normalise=False,
        seed=0,
        disable_warnings=True,
        display_progressbar=False,
    )
    theirs = logit(
        model=twin, x_batch=x[:, None], y_batch=task.targets, a_batch=own[:, None], explain_func=explain, channel_first=True
    )
    assert ours == pytest.approx(np.asarray(theirs), abs=1e-6)


def test_the_same_change_under_noise_as_quantus():
    quantus = pytest.importorskip("quantus")
    model, x, twin = dense()
    task = task_of(model, x, points=8)
    explainer = onnx_lrp.load(model, **LOAD)

    def explain(model, inputs, targets, **_):
        found = explainer.explain(np.asarray(inputs).reshape(-1, 8).astype(np.float32), np.asarray(targets))
        return found.relevance["x"][:, None]

    [spec] = specs("lrp")
    own = explain(None, x, task.targets)[:, 0]
    ours = under_noise(task.bench, task, spec, range(len(x)), list(own), noise=0.05, draws=3, seed=4)
    rng, spread = np.random.default_rng(4), float(x.ravel().std())
    drawn = iter([np.stack([rng.normal(0, 0.05 * spread, (1, 8))[0] for _ in x]) for _ in range(3)])

    def perturb(arr, **_):
        return (arr.reshape(-1, 8) + next(drawn)).astype(arr.dtype).reshape(arr.shape)

    most = quantus.MaxSensitivity(
        nr_samples=3,
        perturb_func=perturb,
        abs=False,
        normalise=False,
        disable_warnings=True,
        display_progressbar=False,
    )
    theirs = most(
        model=twin, x_batch=x[:, None], y_batch=task.targets, a_batch=own[:, None], explain_func=explain, channel_first=True
    )
    assert ours == pytest.approx(np.asarray(theirs), rel=1e-4)
    assert np.ptp(ours) > 1e-3
