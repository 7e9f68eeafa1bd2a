"""A diffusion model as a control problem: V = -log p, and the score as its control.

Three Gaussian modes under an Ornstein-Uhlenbeck process, so that p_t, the score and V
are known. The verification identity J(u) - V = 1/2 E int |u - u*|^2 is simulated for a
deliberately weak control; the grid's Fokker-Planck solution gives V without the closed
form; run as a script, a score network is trained and judged.
"""

import numpy as np

import hjbpde as hjb
import neural
import verification

problem = neural.reverse_diffusion()


def weak(x: np.ndarray, t: float) -> np.ndarray:
    """70 % of the optimal control."""
    return 0.7 * problem.control(x, t)


identity = neural.identity(problem, weak, paths=500, steps=100)

grid = hjb.Grid(hjb.Box([-6.0], [6.0]), (401,))
marginals = neural.fokker_planck(problem, grid, [0.1, 1.0], steps=200)
inner = np.abs(grid.nodes()[:, 0]) < 3.0
grid_error = max(
    float(
        np.abs(marginals.value(t) - problem.value(grid.nodes(), problem.horizon - t))[
            inner
        ].max()
    )
    for t in (0.1, 1.0)
)

if __name__ == "__main__":
    print("weak control:", identity)
    print(f"grid: largest error of V {grid_error:.1e} for |x| < 3")
    for dimension in (1, 2):
        posed = neural.reverse_diffusion(dimension=dimension)
        learned = neural.ScoreControl().solve(posed, progress=True)
        verdict = verification.cross_check(learned, posed, tolerance=2e-2)
        print(f"{dimension}-D", verdict)
        neural.diagnose(learned)
