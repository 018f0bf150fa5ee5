"""What distillation does when its numbers go bad (infinite, or not a number).

The rule, in full:

1. An outer step whose inner training, outer loss or meta-gradient is not finite changes nothing: it is skipped and counted, and
   its inner trajectory is begun anew from another initialisation.
2. After ``PATIENCE`` such steps in a row something is reduced by half, and all trajectories are begun anew:
   the window W, if training went well and the meta-gradient alone was bad (long unrolls are chaotic: their gradients grow with
   the number of steps that are differentiated); the inner learning rate, if training itself went bad, or W is 1 already.
3. After ``HALVINGS`` reductions of the learning rate the run stops, with what was tried. The best summary until then is kept.

The inner learning rate belongs to the recipe that is shipped with a summary: students for validation, the recipe and all that
trains on the summary take the one that was in force when the summary was best.
"""

import dataclasses

from recbole_farzi.errors import DivergenceError

__all__ = ["Recovery"]

PATIENCE = 3
HALVINGS = 4


@dataclasses.dataclass
class Recovery:
    """The rule, and what it has come to so far.

    Attributes:
        learning_rate: the inner learning rate in force.
        window: the window in force, in inner steps.
        skipped: outer steps that were skipped.
        in_a_row: of them, the last ones without a good one between.
        halvings: reductions of the learning rate so far.
        reductions: what was reduced and when: ``[outer step, option, new value]`` each.
    """

    learning_rate: float
    window: int
    skipped: int = 0
    in_a_row: int = 0
    halvings: int = 0
    reductions: list = dataclasses.field(default_factory=list)

    def good(self):
        """An outer step went well."""
        self.in_a_row = 0

    def bad(self, step, what, training):
        """An outer step went bad.

        Args:
            step: its number, from 0 on.
            what: what was not finite, in words.
            training: whether the inner training or the outer loss was bad, not the meta-gradient alone.

        Returns:
            A line on what was reduced, or None if nothing was.

        Raises:
            DivergenceError: nothing more can be reduced.
        """
        self.skipped += 1
        self.in_a_row += 1
        if self.in_a_row % PATIENCE:
            return None
        if not training and self.window > 1:
            self.window = (self.window + 1) // 2
            option, value = "farzi_window", self.window
        elif self.halvings < HALVINGS:
            self.halvings += 1
            self.learning_rate /= 2
            option, value = "farzi_inner_learning_rate", self.learning_rate
        else:
            tried = ", ".join(f"{option} was reduced to {value:g} after step {at}" for at, option, value in self.reductions)
            raise DivergenceError(
                f"{self.in_a_row} outer steps in a row, up to step {step + 1}, had numbers that are not finite (the last: {what}), "
                f"though {tried}; give a larger farzi_inner_eps, or a smaller farzi_outer_learning_rate"
            )
        self.reductions.append([step + 1, option, value])
        return f"outer step {step + 1}: {what}, {self.in_a_row} times in a row; {option} is reduced to {value:g}"

    def state(self):
        """As plain values; ``Recovery(**state)`` is the same again."""
        return dataclasses.asdict(self)
