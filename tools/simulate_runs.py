"""A study of many empty runs in a temporary folder: what planning, listing, the runner and the report take without any training.

Example: python tools/simulate_runs.py --arms 500 --rates 4 --seeds 4     (500 * 4 * 4 trials and 500 * 4 tests: 10,000 runs)
"""
import argparse, os, platform, random, tempfile, time
from dataclasses import replace
from pathlib import Path

from sentiment_nbdev.files import folder_lock
from sentiment_nbdev.records import public_settings, read_record, results_folder, write_record
from sentiment_nbdev.reports import write_report
from sentiment_nbdev.settings import Settings, quiet_libraries
from sentiment_nbdev.study import PLAN, Arm, Study, open_commands, open_runs, record_file, run_study, study_size, write_study


TEST_ROWS = 1000


def timed(what, work):
    "Do it, print the seconds (on the clock, and of the processor), give the result"
    start, used = time.perf_counter(), time.process_time()
    result = work()
    print(f"{what:44} {time.perf_counter() - start:9.2f} s {time.process_time() - used:9.2f} s of CPU", flush=True)
    return result


def many_arms(arms, rates, seeds):
    "A study whose arms differ in the scale of LoRA"
    tried = tuple(1e-4 * 2 ** i for i in range(rates))
    listed = tuple(Arm(f"alpha {n + 1}", "lora", dict(lora_alpha=n + 1), tried, against="alpha 1") for n in range(arms))
    return Study("simulated", listed, Settings(precision="fp32", n_test=TEST_ROWS), tuple(range(1, seeds + 1)))


def pretender(template, out):
    "Does runs in no time: a committed record under the name of the run, with test rows right or wrong by chance"
    chance = random.Random(0)
    def record_of(run):
        bits = "".join(chance.choices("01", (15, 85), k=TEST_ROWS)) if run.test else ""
        test = template.test | dict(n=TEST_ROWS, accuracy=bits.count("1") / TEST_ROWS) if run.test else {}
        rows = template.rows if run.test else {name: part for name, part in template.rows.items() if name != "test"}
        validation = template.validation | dict(accuracy=chance.random())
        return replace(template, settings=public_settings(run.settings), lr=run.settings.lr_lora, correct=bits, test=test, rows=rows,
                       validation=validation, calibration=template.calibration if run.test else None, by_length=[])
    def run_all(function, items):
        for run in items:
            with folder_lock(Path(out)/run.id): write_record(record_of(run), record_file(run, out))
            yield run, 0.0
    return run_all


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, usual in (("arms", 500), ("rates", 4), ("seeds", 4)): parser.add_argument(f"--{name}", type=int, default=usual)
    asked = parser.parse_args()
    quiet_libraries(terminal=False)
    template = next(record for path in sorted((results_folder()/"verdict"/"records").glob("lora-*-test-*.json"))
                    if (record := read_record(path)).correct)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)/"simulated"
        print(f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
        study = timed("make the plan", lambda: many_arms(asked.arms, asked.rates, asked.seeds))
        timed("check and write the plan", lambda: write_study(study, out))
        print(f"{study_size(study)} runs")
        timed("list the open runs, none done", lambda: open_runs(study, out))
        timed("print a command per open run", lambda: open_commands(study, out, ["study", "simulated", "--list"]))
        timed("the runner: locks, records, bookkeeping", lambda: run_study(study, out, run_all=pretender(template, out)))
        timed("list the open runs, all done", lambda: open_runs(study, out))
        timed("write the plan again", lambda: write_study(study, out))
        timed("report", lambda: write_report(out))
        records = [path.stat().st_size for path in (out/"records").iterdir()]
        locks, plan = len(list((out/".locks").iterdir())), (out/PLAN).stat().st_size
        print(f"{len(records)} records, {sum(records) / 2**20:.1f} MiB; {locks} lock files; plan {plan / 2**10:.0f} KiB")


if __name__ == "__main__": main()
