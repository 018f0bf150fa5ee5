"""Distil a RecBole dataset, train on the summary, report: ``python run_farzi.py -m SASRec -d ml-100k``."""

import sys

from recbole_farzi.run import main

if __name__ == "__main__":
    sys.exit(main())
