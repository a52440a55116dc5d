"""Runs the campaign: ``make campaign`` (minutes) or ``make campaign HOURS=8``.

    python -m campaign [PART ...] [--hours H] [--seed S]    runs the parts, or these; records under output/campaign/
    python -m campaign --list                               what there is
    python -m campaign [PART ...] --keep                    takes their records into campaign/records/
    python -m campaign --table                              writes the table of docs/trust.md from campaign/records/

Exit status 1 when something was found or a part failed. Cases that broke something lie in output/campaign/cases/.
"""

from __future__ import annotations

import argparse
import os
import sys

from . import table
from .frame import CASES, broken, parts, run_part

MINUTES = 10  # for all parts together, without --hours


def main() -> int:
    known = parts()
    parser = argparse.ArgumentParser(prog="python -m campaign", description="Run the trust campaign.")
    parser.add_argument("part", nargs="*", help=f"of {', '.join(known)}; all of them otherwise")
    parser.add_argument("--hours", type=float, default=MINUTES / 60, help="for all chosen parts together")
    parser.add_argument("--seed", type=int, default=1, help="the cases follow from it")
    parser.add_argument("--packs", metavar="DIR", help="other packs, for the part neighbours")
    parser.add_argument("--list", action="store_true", help="list the parts")
    parser.add_argument("--keep", action="store_true", help="take the newest records into campaign/records/")
    parser.add_argument("--table", action="store_true", help="write the table of docs/trust.md")
    arguments = parser.parse_args()
    if arguments.packs:
        os.environ["CAMPAIGN_PACKS"] = arguments.packs
    unknown = sorted(set(arguments.part) - set(known))
    if unknown:
        parser.error(f"no part {', '.join(unknown)}; there are {', '.join(known)}")
    chosen = [known[name] for name in arguments.part or known]
    if arguments.list:
        for part in known.values():
            print(f"{part.name:<14}{part.what}")
        return 0
    if arguments.keep or arguments.table:
        if arguments.keep:
            print("kept:", ", ".join(table.keep([part.name for part in chosen])) or "no record in output/campaign/")
        if arguments.table:
            table.write(known)
        return 0

    seconds, shares = arguments.hours * 3600, sum(part.share for part in chosen)
    total = 0
    for part in chosen:
        budget = seconds * part.share / shares
        print(f"== {part.name}: {part.what} ({budget:.0f} s)", flush=True)
        record = run_part(part, budget, arguments.seed)
        total += broken(record)
        for row in record["rows"]:
            print(f"   {row['name']:<24}{row['tried']:>10,} tried {row['seconds']:>8.1f} s {len(row['found'])} found")
            for found in row["found"][:5]:
                print(f"      {found['sentence']} {found['case']}".rstrip())
        for sentence in filter(None, (record["missing"] and f"not run: {record['missing']}", record["failed"])):
            print(f"   {sentence}")
    print(f"campaign: {total} found" + (f"; cases in {CASES}" if total else ""))
    return int(total > 0)


if __name__ == "__main__":
    sys.exit(main())
