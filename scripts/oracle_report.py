"""Plays the oracle's scenarios against a broker and prints, per scenario, how many steps are answered as Apache Kafka answers them.

Usage: oracle_report.py --oracle DIR --bootstrap HOST:PORT [SCENARIO…]

Every step that differs must stand in tests/compat/FINDINGS.md, in the block that starts with ```differences, as one line
`scenario: step | reason`. Exit code 1 when a step differs that is not declared; what is declared and no longer differs is
printed, so that the list shrinks.
"""

import argparse
import json
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

FINDINGS = Path(__file__).resolve().parents[1] / "tests" / "compat" / "FINDINGS.md"
DIFFERENCES_SHOWN_MAX = 3
TEXT_CHARACTERS_MAX = 160


@dataclass
class Result:
    """One scenario: how many steps were compared, and what differs by the step's label."""

    scenario: str
    steps: int = 0
    differing: dict[str, list[str]] = field(default_factory=dict)


def declared_differences(text: str) -> dict[tuple[str, str], str]:
    """(scenario, step) -> reason, from every ```differences block of the findings."""
    declared = {}
    for block in re.findall(r"^```differences\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            if not line.strip():
                continue
            place, separator, reason = line.partition(" | ")
            scenario, colon, step = place.partition(": ")
            if not (separator and colon and reason.strip()):
                raise SystemExit(f"{FINDINGS.name}: not `scenario: step | reason`: {line}")
            declared[scenario.strip(), step.strip()] = reason.strip()
    return declared


def play(
    oracle: ModuleType, name: str, scenario: object, address: tuple[str, int], user: str | None, folder: str
) -> Result:
    """Plays one scenario and compares it with its recording."""
    played = {step["step"]: step for step in oracle.play(name, scenario, *address, user)}
    golden = json.loads((oracle.HERE / folder / "golden" / f"{name}.json").read_text())
    result = Result(name)
    for label, step in {step["step"]: step for step in golden}.items():
        if str(step["answer"]).startswith("no answer"):  # Kafka itself hangs here: any error is better
            continue
        result.steps += 1
        texts = [
            f"{path.lstrip('.')}: Kafka {json.dumps(want)[:TEXT_CHARACTERS_MAX]} · here {json.dumps(got)[:TEXT_CHARACTERS_MAX]}"
            for path, want, got in oracle.differences(step, played.get(label, {"step": "not reached"}))
        ]
        if texts:
            result.differing[label] = [f"{step['api']} v{step['version']} {text}" for text in texts]
    return result


def report(results: list[Result], declared: dict[tuple[str, str], str]) -> bool:
    """Prints the table; returns whether every difference is declared."""
    found = {(result.scenario, step) for result in results for step in result.differing}
    names = {result.scenario for result in results}
    width = max(len(name) for name in names)
    print(f"\n{'scenario':{width}}  steps  as Kafka  different  undeclared")
    for result in results:
        different = len(result.differing)
        undeclared = sum((result.scenario, step) not in declared for step in result.differing)
        counts = f"{result.steps:5}  {result.steps - different:8}  {different or '':9}  {undeclared or '':10}"
        print(f"{result.scenario:{width}}  {counts}".rstrip())
    total, different = sum(result.steps for result in results), len(found)
    print(f"\n{total - different} of {total} steps as Apache Kafka: {(total - different) / total:.1%}")
    for scenario, step in sorted(found - declared.keys()):
        print(f"not declared in {FINDINGS.name}: {scenario}: {step}")
    for scenario, step in sorted(key for key in declared.keys() - found if key[0] in names):
        print(f"declared, but as Kafka now (take it out of {FINDINGS.name}): {scenario}: {step}")
    return found <= declared.keys()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--oracle", type=Path, required=True, help="the folder with oracle.py and its recordings")
    parser.add_argument("--bootstrap", required=True, metavar="HOST:PORT")
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help="default: all")
    parser.add_argument("--user", metavar="NAME:PASSWORD", help="authenticate every connection so, by SASL PLAIN")
    parser.add_argument(
        "--folder", default="", help="a folder with scenarios and recordings of its own, within --oracle"
    )
    options = parser.parse_args()
    declared = declared_differences(FINDINGS.read_text())
    sys.path.insert(0, str(options.oracle))
    import oracle

    host, _, port = options.bootstrap.rpartition(":")
    chosen = oracle.scenarios(options.scenarios, options.oracle / options.folder if options.folder else None)
    results = []
    for name, scenario in chosen.items():
        result = play(oracle, name, scenario, (host, int(port)), options.user, options.folder)
        results.append(result)
        for step, texts in result.differing.items():
            mark = "declared" if (name, step) in declared else "DIFFERENT"
            for text in texts[:DIFFERENCES_SHOWN_MAX]:
                print(f"{mark} · {name} · {step} · {text}", flush=True)
    if not report(results, declared):
        sys.exit(1)


if __name__ == "__main__":
    main()
