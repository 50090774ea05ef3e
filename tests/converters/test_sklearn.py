"""sklearn_to_onnx: dense scikit-learn models, their labels and probabilities, and windows of a series."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("skl2onnx")
pytest.importorskip("sklearn")
pytestmark = pytest.mark.filterwarnings("ignore")  # of fits that stop early

from sklearn.ensemble import RandomForestClassifier  # noqa: E402
from sklearn.linear_model import LogisticRegression  # noqa: E402
from sklearn.neural_network import MLPClassifier, MLPRegressor  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402

import onnx_lrp  # noqa: E402

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(80, 12)), RNG.integers(0, 3, 80)
NET = {"hidden_layer_sizes": (8,), "max_iter": 20, "random_state": 0}


@pytest.fixture(scope="module")
def script(converter):
    return converter("sklearn")


@pytest.mark.parametrize(
    ("model", "labels"),
    [
        (MLPClassifier(**NET), Y),
        (make_pipeline(StandardScaler(), MLPClassifier(**NET)), Y),
        (LogisticRegression(), np.array(["a", "b", "c"])[Y]),
        (LogisticRegression(), Y > 0),
    ],
)
def test_classifiers(script, model, labels):
    proto, lines, _ = script.to_onnx(model.fit(X, labels))
    assert len(lines) == 3
    assert all("= onnx-lrp" in line for line in lines[1:])
    assert "before output 'probabilities'" in str(onnx_lrp.load(proto).summary())


def test_regression(script):
    assert "= onnx-lrp" in script.to_onnx(MLPRegressor(**NET).fit(X, Y))[1][2]


def test_a_window_gets_its_axes_back(script):
    model = make_pipeline(StandardScaler(), MLPClassifier(**NET)).fit(X, Y)
    proto, _, specs = script.to_onnx(model, series=(4, 3))
    assert specs["x"][1] == ("B", 4, 3)
    rows = X[:2].astype(np.float32)
    windows = onnx_lrp.load(proto, jit="eager").explain(rows.reshape(2, 4, 3)).relevance["x"]
    flat = onnx_lrp.load(script.to_onnx(model)[0], jit="eager").explain(rows).relevance["x"]
    np.testing.assert_allclose(windows.reshape(2, 12), flat, rtol=1e-5, atol=1e-7)
    with pytest.raises(script.Refused, match="15 numbers a row, the model was fitted on 12"):
        script.to_onnx(model, series=(5, 3))


def test_what_onnx_lrp_does_not_read_is_said(script):
    lines = script.to_onnx(RandomForestClassifier(3, random_state=0).fit(X, Y))[1]
    assert "onnx-lrp can't explain it" in lines[1]
    assert "TreeEnsembleClassifier" in lines[1]


def test_refused(script, tmp_path, capsys):
    with pytest.raises(script.Refused, match="is not fitted"):
        script.to_onnx(MLPClassifier())
    joblib = pytest.importorskip("joblib")
    path = str(tmp_path / "model.joblib")
    joblib.dump(LogisticRegression().fit(X, Y), path)
    assert script.main([path]) == 1
    assert "--allow-pickle" in capsys.readouterr().err
    assert script.main([path, "--allow-pickle", "--out", str(tmp_path / "model.onnx")]) == 0
