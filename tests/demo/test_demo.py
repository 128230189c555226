"""The closing table of `make demo`."""

import json

import numpy as np
import pandas as pd

from demo.__main__ import summary
from slivit.config import Target
from slivit.data.named_sets import DATA_DIR
from slivit.metrics.evaluation import evaluate


def test_summary_compares_with_volume_on_the_same_nodules(tmp_path):
    table = pd.read_csv(DATA_DIR / "noduleshapes3d.csv").query("split == 'test'")
    rng = np.random.default_rng(0)
    truth = table["malignant"].to_numpy()
    pred = np.clip(truth * 0.5 + rng.uniform(0, 0.6, len(truth)), 0, 1)
    pd.DataFrame({"id": table["nodule"], "patient": table["patient"], "malignant": truth,
                  "malignant_pred": pred}).to_csv(tmp_path / "predictions.csv", index=False)
    metrics = {"split": "test"} | evaluate(truth[:, None].astype(float), pred[:, None],
                                           Target("binary", ("malignant",)), table["patient"])
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    text = summary(tmp_path, seconds=90)
    assert "395 test nodules of 159 patients" in text
    assert "(1.5 minutes)" in text
    ours, volume, difference = (float(line.split(name)[1].split()[0])
                                for name in ("SLIViT", "volume alone", "difference")
                                for line in text.splitlines() if name in line)
    assert ours == round(metrics["labels"]["malignant"]["roc_auc"], 3)
    assert 0.86 < volume < 0.89
    assert abs(ours - volume - difference) < 0.0016
