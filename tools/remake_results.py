"""Make tables, pictures and reports under results/ again from their records; no training."""
from pathlib import Path

from sentiment_nbdev.comparison import read_records, write_results

for folder in sorted(Path(__file__).resolve().parent.parent.glob("results/*/")): write_results(read_records(folder), folder)
