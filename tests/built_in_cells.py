"""The built-in cells in the order of their declarations, so a new one is tested."""

from __future__ import annotations

from typing import cast

from harness.contract import ReferenceCell
from harness.declarations import CellDeclaration
from harness.loading import load_cell
from implementations import declarations
from tests.helpers import REGISTRY

CELLS = {
    declared.name: cast(ReferenceCell, load_cell(REGISTRY, declared.name))
    for declared in vars(declarations).values()
    if isinstance(declared, CellDeclaration)
}
