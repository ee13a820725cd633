"""DeepLIFT: one secant from no concepts to all of them."""

from ierf.graph.influence.attributions.attribution import Attribution, Question
from ierf.graph.influence.attributions.secants import secant_slopes
from ierf.graph.influence.attributions.without_scale import check_scale
from ierf.graph.influence.quadrature import way_from_nothing
from ierf.graph.influence.reconstruction import Reconstruction


def deeplift(x: Reconstruction, question: Question) -> Attribution:
    """`u_pq ⟨m_p, v_q⟩` with DeepLIFT's multipliers m (Shrikumar et al., arXiv 1704.02685, rescale rule).

    The score has its own secant, so that attributions add up to `S(X̂) − S(0⁺)` where all between is affine or an
    activation function; max-pooling, norms and gates, which pass their gradient, make it DeepLIFT-like.

    Raises an `IerfError` for scores that do not depend on how much of the concepts is there (`check_scale`).
    """
    ends = question.ends(x)
    check_scale(x, question, ends)
    slopes = secant_slopes(x, question, way_from_nothing(1, x.atoms.dtype), list(range(len(ends[1]))))
    return Attribution.by_slopes(x, ends, slopes)
