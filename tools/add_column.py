"""Join a column from a CSV file to the rows of a folder of parquet files, such as the film of each IMDB review.

    python tools/add_column.py reviews/imdb imdb_films.csv film data/imdb

The CSV has the columns split, row (0 for the first row of that split) and the one that is joined. IMDB's own archive
(https://ai.stanford.edu/~amaas/data/sentiment/) names the page of each review's film in its urls_*.txt files.
"""
import argparse
from pathlib import Path
import pandas as pd


def add_column(rows: pd.DataFrame, table: pd.DataFrame, split: str, column: str) -> pd.DataFrame:
    "The rows with the column, as text; each row must be named exactly once"
    values = table[table["split"] == split].astype({"row": int}).set_index("row")[column].sort_index()
    if list(values.index) != list(range(len(rows))):
        raise SystemExit(f"the table names {len(values):,} rows of {split}, the data has {len(rows):,}: name each row once")
    return rows.assign(**{column: values.astype(str).to_numpy()})


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of parquet files, one per split")
    parser.add_argument("table", type=Path, help="CSV file with split, row and the column")
    parser.add_argument("column", help="name of the column")
    parser.add_argument("out", type=Path, help="folder to make")
    asked = parser.parse_args()
    table = pd.read_csv(asked.table, dtype=str)
    if missing := {"split", "row", asked.column} - set(table.columns):
        parser.error(f"{asked.table} lacks the columns {', '.join(sorted(missing))}")
    asked.out.mkdir(parents=True, exist_ok=True)
    for split in table["split"].unique():
        rows = pd.concat([pd.read_parquet(path) for path in sorted(asked.data.glob(f"{split}*.parquet"))], ignore_index=True)
        add_column(rows, table, split, asked.column).to_parquet(asked.out/f"{split}.parquet", index=False)


if __name__ == "__main__": main()
