"""Installation of recbole-farzi. See the Makefile for a complete environment in one command."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
README = HERE / "README.md"
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "recbole_farzi" / "version.py").read_text(encoding="utf-8")).group(1)

# The property files stand at the top of the repository, where RecBole's users look for them, and are installed inside
# the package, as `recbole_farzi/properties`.
packages = find_packages(include=["recbole_farzi", "recbole_farzi.*"])
package_dir = {}
package_data = {}
if (HERE / "properties").is_dir():
    packages.append("recbole_farzi.properties")
    package_dir["recbole_farzi.properties"] = "properties"
    package_data["recbole_farzi.properties"] = ["*", "**/*"]

# RecBole 1.2 requires a Ray that has no build for Python 3.12 and newer, though only its `quick_start` uses it. There,
# RecBole itself is installed with `pip install --no-deps "recbole>=1.2.0,<1.3"`, and what it needs otherwise is this:
RECBOLE_NEEDS = [
    "colorama==0.4.4",
    "colorlog==4.7.2",
    "psutil>=5.9",
    "scikit-learn>=1.3",
    "tabulate>=0.8.10",
    "tensorboard>=2.5",
    "texttable>=0.9",
    "thop>=0.1.1.post2207130030",
]

setup(
    name="recbole-farzi",
    version=VERSION,
    description="Data distillation for sequential recommenders in RecBole (Farzi, arXiv 2310.09983)",
    long_description=README.read_text(encoding="utf-8") if README.is_file() else "",
    long_description_content_type="text/markdown",
    author="recbole-farzi contributors",
    license="MIT",
    license_files=["LICENSE"],
    python_requires=">=3.10,<3.14",
    packages=packages,
    package_dir=package_dir,
    package_data=package_data,
    install_requires=[
        "numpy>=1.26,<3",
        "pandas>=2.0,<4",
        "plotly>=5.0",
        "PyYAML>=6.0",
        "scipy>=1.11",
        "torch>=2.4,<2.16",
        "tqdm>=4.48.2",
        'recbole>=1.2.0,<1.3; python_version < "3.12"',
        # Ray 2.6.3 imports pkg_resources, which setuptools 81 no longer has.
        'setuptools<81; python_version < "3.12"',
        *(f'{need}; python_version >= "3.12"' for need in RECBOLE_NEEDS),
    ],
    extras_require={
        "test": ["hypothesis>=6.100", "optuna>=4.0", "pytest>=7.4", "pytest-xdist>=3.5"],
        # For run_farzi.py --study: the search and its storage, and what draws an SVG.
        "studies": ["optuna>=4.0", "matplotlib>=3.8"],
        # For the scripts in benchmarks/ that compare with peers (adjoint.py, shortcuts.py), and those that draw with Matplotlib.
        "benchmarks": ["higher>=0.2.1", "matplotlib>=3.8", "torchopt>=0.7.3"],
    },
    entry_points={"console_scripts": ["run-farzi = recbole_farzi.run:main"]},
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
