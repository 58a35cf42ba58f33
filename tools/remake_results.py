"""Make tables, pictures and reports under results/ again from their records; no training."""
from pathlib import Path

from sentiment_nbdev.comparison import read_records, write_results

for records in sorted(Path(__file__).resolve().parent.parent.glob("results/**/records/")): write_results(read_records(records.parent), records.parent)
