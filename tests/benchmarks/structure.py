"""Figures of the package's structure, a column for each checkout.

`python -m benchmarks.structure [CHECKOUT ...]` prints a Markdown table; by default of this one.
Another commit beside it: `git worktree add ../before COMMIT`.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from support.project import ROOT

# Run in a process of its own for each checkout: a package can be imported from one place only.
EDGES = """
import json, grimp
graph = grimp.build_graph("moderay", cache_dir=None)
print(json.dumps({m: sorted(graph.find_modules_directly_imported_by(m)) for m in graph.modules}))
"""


def figures(checkout: Path) -> dict[str, str]:
    """The figures of one checkout, by name."""
    package = checkout / "pipelines" / "moderay"
    sources = [file.read_text() for file in sorted(package.rglob("*.py"))]
    lines = [line for text in sources for line in text.split("\n")]
    lengths = sorted(length for text in sources for length in function_lengths(text))
    graph = imports(checkout)
    circles = [each for each in components(graph) if len(each) > 1]
    inside = sum(other in circle for circle in circles for m in circle for other in graph[m])
    return {
        "Python files at the top of the package": str(len(list(package.glob("*.py")))),
        "rooms": str(sum((folder / "__init__.py").exists() for folder in package.iterdir())),
        "floors (files in the longest chain of imports)": str(floors(graph)),
        "circles, and files in them": f"{len(circles)}, {sum(map(len, circles))}",
        "imports inside circles": str(inside),
        "lines with `dict[str, Any]`": str(sum("dict[str, Any]" in line for line in lines)),
        "lines over 100 columns": str(sum(len(line) > 100 for line in lines)),
        "statements of a function: median, p90, most": three(
            sorted(count for text in sources for count in function_statements(text))
        ),
        "lines of a function: median, p90, most": three(lengths),
        "lines of README.md": str(len((checkout / "README.md").read_text().splitlines())),
    }


def three(values: list[int]) -> str:
    """Median, 90th percentile and largest of sorted values."""
    return f"{statistics.median(values):g}, {values[int(0.9 * len(values))]}, {values[-1]}"


def functions(text: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def function_lengths(text: str) -> list[int]:
    """Lines of each function, its docstring included."""
    return [(node.end_lineno or node.lineno) - node.lineno + 1 for node in functions(text)]


def function_statements(text: str) -> list[int]:
    """Statements of each function, which no line length changes."""
    return [sum(isinstance(n, ast.stmt) for n in ast.walk(node)) - 1 for node in functions(text)]


def imports(checkout: Path) -> dict[str, list[str]]:
    """By module, the modules it imports, those for type checking and within functions included."""
    env = os.environ | {"PYTHONPATH": str(checkout / "pipelines")}
    command = [sys.executable, "-c", EDGES]
    graph: dict[str, list[str]] = json.loads(subprocess.check_output(command, env=env))
    return graph


def components(graph: dict[str, list[str]]) -> list[set[str]]:
    """Strongly connected components, those that are imported first (Tarjan's algorithm)."""
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    circles: list[set[str]] = []

    def visit(module: str) -> None:
        number[module] = lowest[module] = len(number)
        stack.append(module)
        for other in graph[module]:
            if other not in number:
                visit(other)
            if other in stack:
                lowest[module] = min(lowest[module], lowest[other])
        if lowest[module] == number[module]:
            at = stack.index(module)
            circles.append(set(stack[at:]))
            del stack[at:]

    for module in graph:
        if module not in number:
            visit(module)
    return circles


def floors(graph: dict[str, list[str]]) -> int:
    """Files in the longest chain of imports, a circle counting as one."""
    height: dict[str, int] = {}
    for component in components(graph):
        below = [height[n] for m in component for n in graph[m] if n not in component]
        height |= dict.fromkeys(component, 1 + max(below, default=0))
    return max(height.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkouts", nargs="*", type=Path, default=[ROOT])
    checkouts: list[Path] = parser.parse_args().checkouts
    columns = [figures(checkout) for checkout in checkouts]
    print("|", *(f"| {checkout.resolve().name}" for checkout in checkouts), "|")
    print("|---" * (len(columns) + 1) + "|")
    for name in columns[0]:
        print("|", name, *(f"| {column[name]}" for column in columns), "|")


if __name__ == "__main__":
    main()
