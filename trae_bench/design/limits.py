"""How many pairs, and how many seconds, a run may take."""

from trae_bench.design.contrasts import is_fixed
from trae_bench.model.experiment import Limits
from trae_bench.model.run import Header


def limits_of(header: Header) -> Limits:
    """What a run was, or is, allowed."""
    return Limits(
        budget=header.budget,
        pairs=header.pairs,
        noise_pairs=header.noise_pairs,
        fixed=is_fixed(header.design),
        precision=header.precision,
    )
