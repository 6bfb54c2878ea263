"""The page of an experiment: one HTML file that needs no network.

command -> page (assembled from sections, charts, examples) -> markup. `experiment` finds what the folder holds.
"""
