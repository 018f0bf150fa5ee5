"""Train RecBole models on the hard files of a summary, in a process that never imports the plugin beyond its repairs.

    python plain_recbole.py DATA_PATH DATASET JOBS.json

``JOBS.json``: model name to ``{"files": [...], "options": {...}}``. Prints ``RESULT`` and, as JSON, what each
model scored on test or the line of its error, and the plugin's modules that were imported.
"""

import json
import math
import sys

from recbole_farzi import compat


def train(model, data_path, dataset, files, options):
    """What the model scores on the real test rows after an epoch on the hard events."""
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_model, get_trainer, init_seed

    config = Config(model, dataset, files, {**options, "data_path": data_path})
    init_seed(config["seed"], True)
    train_data, valid_data, test_data = data_preparation(config, create_dataset(config))
    trainer = get_trainer(config["MODEL_TYPE"], model)(config, get_model(model)(config, train_data.dataset))
    trainer.fit(train_data, valid_data, verbose=False, saved=False, show_progress=False)
    result = {name: float(value) for name, value in trainer.evaluate(test_data, load_best_model=False).items()}
    assert all(math.isfinite(value) for value in result.values()), result
    return {"rows": len(test_data.dataset), **result}


def main(data_path, dataset, jobs):
    compat.apply()  # repairs RecBole for today's NumPy, pandas and PyTorch; nothing else of the plugin is imported
    sys.argv = sys.argv[:1]  # RecBole's Config reads the command line
    found = {}
    for model, job in json.loads(open(jobs, encoding="utf-8").read()).items():
        try:
            found[model] = train(model, data_path, dataset, job["files"], job["options"])
        except Exception as error:  # any failure is what is asked about
            found[model] = f"{type(error).__name__}: {error}"
    modules = sorted(name for name in sys.modules if name.startswith("recbole_farzi"))
    print("RESULT" + json.dumps({"models": found, "plugin": modules}))


if __name__ == "__main__":
    main(*sys.argv[1:])
