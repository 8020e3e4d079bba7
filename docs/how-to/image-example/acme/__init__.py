"""The jobs of the invoicing team."""
