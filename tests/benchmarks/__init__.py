"""How fast Leveret is beside its peers, on one broker and one machine: `make bench`.

Each scenario is run in interleaved rounds (A B C, B C A, ...) and judged by medians, because a
machine's absolute figures say nothing about another machine; only the ratios are meant to last.
Nothing here is a test of correctness, but a run whose counts are not exact fails loudly.
"""
