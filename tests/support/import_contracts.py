"""A contract for import-linter: which packages of others some of our modules may need."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from importlinter import Contract, ContractCheck, fields, output

if TYPE_CHECKING:
    from grimp import ImportGraph


class ExternalsContract(Contract):
    """The source modules reach, directly or through others of ours, only the allowed packages."""

    type_name = "externals"

    source_modules = fields.ListField(subfield=fields.ModuleField())
    allowed_packages = fields.SetField(subfield=fields.StringField())

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        """Look for a chain of imports to each package that is not allowed."""
        allowed = set(self.allowed_packages) | sys.stdlib_module_names
        ours = set(self.session_options["root_packages"])
        externals = {module for module in graph.modules if graph.is_module_squashed(module)}
        chains: list[str] = []
        for source in self.source_modules:
            name = source.name
            if name not in graph.modules:
                raise ValueError(f"Module '{name}' does not exist.")
            for external in sorted(externals):
                top = external.partition(".")[0]
                if top in allowed or top in ours:
                    continue
                chain = graph.find_shortest_chain(name, external, as_packages=True)
                if chain:
                    chains.append(" -> ".join(chain))
        return ContractCheck(kept=not chains, metadata={"chains": chains})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Print each chain that should not be."""
        for chain in check.metadata["chains"]:
            output.print_error(chain)
            output.new_line()
