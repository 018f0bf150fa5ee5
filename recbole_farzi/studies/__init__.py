"""Studies: questions about the method, each answered on one's own dataset by one command.

``python run_farzi.py --study NAME -d DATASET [--jobs N] [--budget 30m]``, or :func:`run_study`. What a study is, is a property
file (:mod:`recbole_farzi.studies.definition`); which trial is next, Optuna's storage says
(:mod:`recbole_farzi.studies.board`); a trial is an ordinary distillation (:mod:`recbole_farzi.studies.trial`); what comes out is
read from files alone (:mod:`recbole_farzi.studies.results`, :mod:`recbole_farzi.studies.figure`).
"""

from recbole_farzi.studies.definition import load_study, study_names
from recbole_farzi.studies.runner import run_study

__all__ = ["load_study", "run_study", "study_names"]
